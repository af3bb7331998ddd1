import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache import Clip, Manifest
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
        (HEADER.replace("source", "source,source") + "a,d,train,v,v\n", "stands twice"),
        (HEADER.replace("source", "source,label,label:verb") + "a,d,train,v,x,y\n", "either `label` or"),
        (HEADER.replace("source", "source,start_frame,stop_seconds") + "a,d,train,v,1,2\n", "use one unit"),
        (HEADER + "a,d,train,v\na,d,test,w\n", "line 3: clip_id 'a' stands on line 2 already"),
        (HEADER + ",d,train,v\n", "line 2: clip_id is empty"),
        (HEADER + "a,d,dev,v\n", "line 2: split 'dev' is none of train, val, test"),
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
    with pytest.raises(ManifestError, match="no such file"):
        Manifest.read(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="manifest scan"):
        Manifest.read(tmp_path)
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "a,k\xfcche,train,v\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="not UTF-8"):
        Manifest.read(tmp_path / "latin.csv")


text = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1).filter(str.strip)
bound = st.none() | st.floats(0, 1e6)


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
    ],
)
def test_sha256_sees_every_field(change):
    clip = Clip("a", "d", "train", "v", start=0.0, stop=2.0, labels={"label": "x"})
    assert Manifest("m", (clip,)).sha256 != Manifest("m", (dataclasses.replace(clip, **change),)).sha256
