import dataclasses
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import Clip, Manifest, files
from featcache.errors import ManifestError

HEADER = "clip_id,domain,split,source\n"


def read(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    return Manifest.read(path)


def test_cells_stay_text(tmp_path):
    manifest = read(tmp_path, "clip_id,domain,split,source,label\n007,01,train,a.mp4,NA\n8e1,01,test,b.mp4,None\n")
    assert [clip.clip_id for clip in manifest] == ["007", "8e1"]
    assert manifest.classes == {"label": ("NA", "None")}
    assert manifest.domains == ("01",)


def test_nul_is_refused_in_names(tmp_path):
    for line in ("a\0,d,train,v", "a,d\0,train,v", "a,d,train,v\0"):
        with pytest.raises(ManifestError, match="line 2: .*NUL"):
            read(tmp_path, f"{HEADER}{line}\n")
    with pytest.raises(ManifestError, match="line 2: .*NUL"):
        Manifest("m", (Clip("a\0", "d", "train", "v"),)).write(tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    assert read(tmp_path, f"{HEADER},caption".replace("\n", "") + "\na,d,train,v,cut\0s\n").clips[0].caption == "cut\0s"


def test_bounds_keep_their_unit(tmp_path):
    frames = read(tmp_path, "clip_id,domain,split,source,start_frame,stop_frame\na,d,train,v,10,20\nb,d,train,v,,5\n")
    assert [(c.start, c.stop, c.unit) for c in frames] == [(10, 20, "frames"), (None, 5, "frames")]
    seconds = read(tmp_path, "clip_id,domain,split,source,start_seconds,stop_seconds\na,d,train,v,0.5,2.25\n")
    assert [(c.start, c.stop, c.unit) for c in seconds] == [(0.5, 2.25, "seconds")]


def test_tasks(tmp_path):
    manifest = read(
        tmp_path, "clip_id,domain,split,source,label:verb,label:noun\na,d,train,v,cut,\nb,d,test,v,pour,tea\n"
    )
    assert manifest.clips[0].labels == {"verb": "cut"}
    assert manifest.classes == {"noun": ("tea",), "verb": ("cut", "pour")}


def test_class_order_does_not_depend_on_rows_or_selection():
    clips = [Clip(str(i), "ab"[i % 2], "train", "v", labels={"label": name}) for i, name in enumerate("zxy")]
    forward, backward = Manifest("m", tuple(clips)), Manifest("m", tuple(clips[::-1]))
    assert forward.classes == backward.classes == {"label": ("x", "y", "z")}


def test_rows_select_in_order():
    clips = tuple(Clip(str(i), "ab"[i % 2], ("train", "test")[i // 3], "v") for i in range(6))
    manifest = Manifest("m", clips)
    assert manifest.rows(domain="a") == [0, 2, 4]
    assert manifest.rows(domain=("a", "b"), split="test") == [3, 4, 5]
    assert [clip.clip_id for clip in manifest.select(domain="b", split="train")] == ["1"]
    with pytest.raises(ManifestError, match="no domain 'c'.*a, b"):
        manifest.rows(domain="c")
    with pytest.raises(ManifestError, match="no split 'dev'"):
        manifest.rows(split="dev")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "no clips"),
        ("clip_id,domain,split\na,d,train\n", "line 1: column 'source' is missing"),
        (HEADER.replace("source", "source,colour") + "a,d,train,v,red\n", "line 1: unknown column 'colour'"),
        (HEADER.replace("source", "source,label:") + "a,d,train,v,x\n", "line 1: unknown column 'label:'"),
        (HEADER.replace("source", "source,source") + "a,d,train,v,v\n", "column 'source' .*twice"),
        (HEADER.replace("source", "source,label,label:verb") + "a,d,train,v,x,y\n", "either `label` or"),
        (HEADER.replace("source", "source,start_frame,stop_seconds") + "a,d,train,v,1,2\n", "use one unit"),
        (HEADER.replace(",", ";") + "a;d;train;v\n", "line 1: cells are separated by ';'; separate them by commas"),
        (HEADER + "a,d,train,v\na,d,test,w\n", "line 3: clip_id 'a' .*line 2; .*unique"),
        (HEADER + ",d,train,v\n", "line 2: clip_id is empty"),
        (HEADER + "a,d,dev,v\n", "line 2: split 'dev' .* train, val, test"),
        (HEADER.replace("source", "source,") + "a,d,train,v,\n", "line 1: the last cell is empty; remove the comma"),
        (HEADER + "a,d,train,v,\n", "line 2: 5 cells for 4 columns; the last cell is empty; remove the comma"),
        (HEADER.replace("source", "source,fps") + 'a,d,train,v,"12,5"\n', "line 2: .*decimal comma; write '12.5'"),
        (HEADER + "a,d,train\n", "line 2: 3 cells for 4 columns"),
        (HEADER + 'a,d,train,"v\n', "not CSV"),
        (
            HEADER.replace("source", "source,start_seconds,stop_seconds") + "a,d,train,v,3,2\n",
            "stop_seconds 2 is not after",
        ),
        (HEADER.replace("source", "source,start_seconds,stop_seconds") + "a,d,train,v,3,3\n", "half-open"),
        (
            HEADER.replace("source", "source,start_seconds,stop_seconds") + "a,d,train,v,,0\n",
            "stop_seconds 0 is not after",
        ),
        (
            HEADER.replace("source", "source,start_seconds") + "a,d,train,v,soon\n",
            "start_seconds 'soon' is not a number",
        ),
        (HEADER.replace("source", "source,start_seconds") + "a,d,train,v,-1\n", "start_seconds '-1' is not a number"),
        (HEADER.replace("source", "source,stop_frame") + "a,d,train,v,1_0\n", "stop_frame '1_0' is not a number"),
        (HEADER.replace("source", "source,stop_frame") + "a,d,train,v,٥\n", "stop_frame '٥' is not a number"),
        (HEADER.replace("source", "source,stop_seconds") + "a,d,train,v,nan\n", "stop_seconds 'nan' is not a number"),
        (HEADER.replace("source", "source,start_frame") + "a,d,train,v,1.5\n", "not a whole frame"),
        (HEADER.replace("source", "source,fps") + "a,d,train,v,0\n", "fps is 0"),
    ],
)
def test_bad_manifests_name_place_and_value(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message) as error:
        read(tmp_path, text)
    assert str(tmp_path / "m.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(ManifestError, match="no manifest .*none.csv"):
        Manifest.read(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="manifest scan"):
        Manifest.read(tmp_path)
    with pytest.raises(ManifestError, match="cannot be read: Not a directory"):
        Manifest.read(__file__ + "/m.csv")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "a,k\xfcche,train,v\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="not UTF-8"):
        Manifest.read(tmp_path / "latin.csv")


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip)
bound = st.none() | st.floats(0, 1e6)


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(
            Clip,
            clip_id=text,
            domain=text,
            split=st.sampled_from(["train", "val", "test"]),
            source=text.filter(lambda s: "/" not in s),
            start=bound,
            stop=bound,
            labels=st.dictionaries(st.sampled_from(["verb", "noun"]), text),
            caption=st.just("") | text,
            fps=st.none() | st.floats(1, 200),
            of=st.just("") | text,
        ).filter(lambda clip: clip.stop is None or clip.stop > (clip.start or 0)),
        min_size=1,
        max_size=5,
        unique_by=lambda clip: clip.clip_id,
    )
)
def test_write_then_read_is_the_identity(tmp_path_factory, clips):
    path = tmp_path_factory.mktemp("roundtrip") / "m.csv"
    manifest = Manifest("m", tuple(clips), path.parent)
    manifest.write(path)
    assert Manifest.read(path).clips == manifest.clips


@pytest.mark.parametrize("odd", ["\r", "a\rb", "a\r\nb", "a\nb", 'a"b', "a,b", " a ", "\ufeffa"])
def test_odd_characters_survive(tmp_path, odd):
    clip = Clip("a" + odd, "d" + odd, "train", "v" + odd, labels={"label": "x" + odd})
    Manifest("m", (clip,), tmp_path).write(tmp_path / "m.csv")
    assert Manifest.read(tmp_path / "m.csv").clips == (clip,)


def test_spreadsheets_may_end_lines_in_their_way(tmp_path):
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbf" + HEADER.encode().replace(b"\n", b"\r\n") + b"a,d,train,v\r\n")
    assert Manifest.read(tmp_path / "m.csv").clips == (Clip("a", "d", "train", "v"),)


ONE = Manifest("m", (Clip("a", "d", "train", "/v"),))
TWO = Manifest("m", (Clip("b", "d", "train", "/v"),))


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    ONE.write(tmp_path / "m.csv")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(OSError, match="No space"):
            TWO.write(tmp_path / "m.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]
    assert Manifest.read(tmp_path / "m.csv").clips == ONE.clips


def test_the_file_is_on_the_disk_before_it_gets_its_name_and_the_name_is_too(tmp_path, monkeypatch):
    """A file under its name whose content a power cut may still lose would be the worst of both."""
    done = []
    fsync, rename = os.fsync, os.replace
    kind = {True: "sync folder", False: "sync file"}
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(kind[os.path.isdir(f"/dev/fd/{fd}")]), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("rename"), rename(old, new)))
    files.write_file(tmp_path / "f", b"content")
    assert done == ["sync file", "rename", "sync folder"]
    assert (tmp_path / "f").read_bytes() == b"content"
    ONE.write(tmp_path / "m.csv")
    assert done[3:] == done[:3]


def test_a_manifest_that_cannot_be_written(tmp_path):
    with pytest.raises(ManifestError, match=f"{tmp_path} is a folder; name a file .*m.csv"):
        ONE.write(tmp_path)
    odd = Manifest("m", (dataclasses.replace(ONE.clips[0], source=os.fsdecode(b"k\xfcche.mp4")),), tmp_path)
    with pytest.raises(ManifestError, match=r"k\\udcfcche.mp4' is not UTF-8; rename"):
        odd.write(tmp_path / "m.csv")
    assert list(tmp_path.iterdir()) == []


def test_the_copy_beside_stores_is_called_after_its_folder(tmp_path, monkeypatch):
    copy = tmp_path / "stores" / "mine" / "manifest.csv"
    ONE.write(copy)
    assert Manifest.read(copy).name == "manifest"
    (copy.parent / "hog.zarr").mkdir()
    assert Manifest.read(copy).name == "mine"
    monkeypatch.chdir(copy.parent)
    assert Manifest.read("manifest.csv").name == "mine"


def test_relocated_sources_still_lead_to_the_files(tmp_path):
    manifest = Manifest("m", (Clip("a", "d", "train", "videos/a.mp4"), Clip("b", "d", "train", "/far/b.mp4")), tmp_path)
    manifest.write(tmp_path / "stores" / "m" / "manifest.csv")
    moved = Manifest.read(tmp_path / "stores" / "m" / "manifest.csv")
    assert moved.path(moved.clips[0]).resolve() == (tmp_path / "videos" / "a.mp4").resolve()
    assert moved.clips[1].source == "/far/b.mp4"
    assert moved.sha256 == manifest.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"clip_id": "b"},
        {"domain": "e"},
        {"split": "test"},
        {"source": "w"},
        {"start": 1.0},
        {"stop": 9.0},
        {"unit": "frames"},
        {"labels": {"label": "y"}},
        {"caption": "c"},
        {"fps": 25.0},
        {"of": "c"},
    ],
)
def test_sha256_sees_every_field(change):
    clip = Clip("a", "d", "train", "v", start=0.0, stop=2.0, labels={"label": "x"})
    assert Manifest("m", (clip,)).sha256 != Manifest("m", (dataclasses.replace(clip, **change),)).sha256


def test_the_repr_of_a_manifest_without_domains():
    assert repr(Manifest("bare", ())).splitlines()[0].endswith("no domains")
    assert not any(line.endswith((" ", "domains ")) for line in repr(Manifest("bare", ())).splitlines())
