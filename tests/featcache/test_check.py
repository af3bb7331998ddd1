"""`check` names every problem in a sentence that leads to the clip, and finds what `extract` would trip over."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from featcache import Clip, Manifest, media
from featcache.checking import parts, problems
from featcache.errors import ManifestError
from featcache.importing import import_features
from tests.helpers.media import write_sound, write_video
from tests.helpers.stores import write_all


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """v.mp4: 50 pictures in 2 s; frames: 10 images; tone.wav: 1 s."""
    folder = tmp_path_factory.mktemp("sources")
    write_video(folder / "v.mp4")
    write_sound(folder / "tone.wav", np.zeros(8000), 8000)
    (folder / "frames").mkdir()
    for number in range(10):
        cv2.imwrite(str(folder / "frames" / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    return folder


def check(folder, *clips):
    """The problems of a manifest of these clips, which lies in the folder."""
    path = folder / "m.csv"
    Manifest("m", tuple(Clip(f"c{n}", "d", "train", **cells) for n, cells in enumerate(clips)), folder).write(path)
    return problems(path)


def test_what_is_right_is_not_mentioned(sources):
    assert check(
        sources,
        {"source": "v.mp4"},
        {"source": "v.mp4", "start": 0.5, "stop": 2.05},  # annotated seconds are rounded
        {"source": "tone.wav"},
        {"source": "frames", "fps": 10.0, "stop": 1.0},
    ) == []  # fmt: skip
    assert check(sources, {"source": "v.mp4", "start": 10, "stop": 50, "unit": "frames"}) == []


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            {"source": "v.mp4", "stop": 9999.0},
            r"c0': stop_seconds 9999 .* end of .*v.mp4.* at 2$",
        ),
        ({"source": "v.mp4", "start": 1.0, "stop": 51.0, "unit": "frames"}, "stop_frame 51 .* end of .* at 50$"),
        ({"source": "v.mp4", "start": 90.0}, "v.mp4 lasts 2.00 s .* starts at 90 seconds"),
        ({"source": "v.mp4", "start": 50.0, "unit": "frames"}, "starts at 50 frames"),
        ({"source": "v.mp4", "fps": 25.0}, "fps 25 is ignored: .* folders of frames.*; leave the cell empty"),
        ({"source": "tone.wav", "stop": 5.0, "unit": "frames"}, "no pictures, so bounds cannot be in frames"),
        ({"source": "frames"}, "add an fps column"),
        ({"source": "gone.mp4"}, "gone.mp4 does not exist"),
    ],
)
def test_clips_that_do_not_fit_their_source(sources, cells, message):
    with pytest.raises(AssertionError, match=message):
        assert "\n".join(check(sources, cells)) == ""


def test_a_folder_of_frames_has_another_length_at_another_rate(sources):
    slow, fast = ({"source": "frames", "fps": fps, "start": 3.0} for fps in (2.0, 25.0))
    assert check(sources, slow) == []
    (problem,) = check(sources, slow, fast)
    assert "c1" in problem
    (problem,) = check(sources, fast, slow)
    assert "c0" in problem


def test_a_decoder_that_breaks_is_a_problem_of_that_clip_only(sources, monkeypatch):
    def probe(path, fps, real=media.probe):
        if path.name == "v.mp4":
            raise IndexError("tuple index out of range")
        return real(path, fps)

    monkeypatch.setattr(media, "probe", probe)
    (problem,) = check(sources, {"source": "v.mp4"}, {"source": "tone.wav"})
    assert problem.startswith("clip 'c0': ")
    assert "v.mp4: unexpected IndexError: tuple index out of range" in problem


def labelled(folder, *rows):
    """The problems of a manifest with these (domain, split, label) rows, all of tone.wav."""
    clips = (
        Clip(f"c{n}", domain, split, "tone.wav", labels={"label": label})
        for n, (domain, split, label) in enumerate(rows)
    )
    Manifest("m", tuple(clips), folder).write(folder / "labels.csv")
    return problems(folder / "labels.csv")


def test_names_spelled_in_two_ways(sources):
    found = labelled(
        sources, ("a", "train", "cut"), ("A ", "train", "cut "), ("a", "train", "Cut"), ("b", "train", "mix")
    )
    assert len(found) == 2
    assert re.match("domain: 'A ', 'a' differ only by case, .*; spell them alike", found[0])
    assert re.match("label kind 'label': 'Cut', 'cut', 'cut ' differ only by case, .*; spell them alike", found[1])


@pytest.mark.parametrize(
    "other",
    [
        "cut\u00a0café",
        "cut cafe\u0301",
        "\u200bcut café",
        "cut  café",
        "cut ca\u00adfé",
        "cut café\ufeff",
        "cut café\ufe0f",
    ],
    ids=ascii,
)
def test_names_that_look_alike_on_paper(sources, other):
    """They are printed so that the difference shows."""
    found = labelled(sources, ("a", "train", "cut café"), ("a", "test", other), ("a", "train", other))
    assert len(found) == 1
    assert "label kind 'label': " in found[0]
    assert "'cut café'" in found[0]
    assert (ascii(other) if other != "cut  café" else repr(other)) in found[0]


@pytest.mark.parametrize("name", [" ", "\u200b", "\u3164"], ids=ascii)
def test_names_that_print_nothing(sources, name):
    found = labelled(sources, ("a", "train", "cut"), ("a", "train", name))
    assert len(found) == 1
    assert re.match("label kind 'label': .* prints nothing; leave the cell empty", found[0])


@pytest.mark.parametrize(
    ("stored", "written", "words"),
    [
        ("cafe\u0301.mp4", "caf\u00e9.mp4", ["'cafe\\\\u0301.mp4' does", "NFC"]),
        ("caf\u00e9.mp4", "cafe\u0301.mp4", ["'caf\u00e9.mp4' does", "NFC"]),
        ("Day/A.MP4", "day/a.mp4", ["'Day/A.MP4' does", "case"]),
        ("day/a.mp4", "day\\a.mp4", ["'day/a.mp4' does", "write / instead of backslashes"]),
        ("cafe\u0301/a.mp4", "caf\u00e9\\a.mp4", ["'cafe\\\\u0301/a.mp4' does", "write /", "NFC"]),
        ("a.mp4", "C:\\videos\\a.mp4", ["does not exist; write / instead of backslashes"]),
        ("a.mp4", "b.mp4", ["does not exist; relative sources start at the manifest's folder"]),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("ending", ["mp4", "npy"])
def test_a_source_that_is_spelled_otherwise_on_the_disk_is_shown(tmp_path, monkeypatch, stored, written, words, ending):
    monkeypatch.chdir(tmp_path)

    def renamed(text):
        return text.replace("mp4", ending).replace("MP4", ending.upper())

    stored, written, *words = map(renamed, (stored, written, *words))
    (tmp_path / stored).parent.mkdir(exist_ok=True)
    (tmp_path / stored).touch()
    (tmp_path / "m.csv").write_text(f"clip_id,domain,split,source\na,d,train,{written}\n", encoding="utf-8")
    (found,) = problems(Path("m.csv"))
    for word in words:
        assert word.replace("\\\\", "\\") in found.replace("start in", "start at")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp4", "npy"])
def test_many_problems_of_a_kind_are_a_few_and_their_number(tmp_path, monkeypatch, ending):
    names = [f"clip{n}.{ending}" for n in range(5000)]
    found = check(tmp_path, *({"source": name} for name in names))
    assert len(found) == 11
    assert all(f"{name} does not exist" in problem for name, problem in zip(names[:10], found, strict=False))
    assert "4,990 more" in found[-1]
    monkeypatch.chdir(tmp_path)
    assert len(problems(Path("m.csv"))) == 11
    (tmp_path / "clip7.mp4").write_text("no film")
    (tmp_path / "clip8000.npy").touch()
    kinds = check(tmp_path, {"source": "clip7.mp4"}, *({"source": name} for name in names if "7" not in name))
    assert len(kinds) == 12
    assert sum("does not exist" in problem for problem in kinds) == 11  # the clips that are listed, and the last one


def test_many_failed_clips_of_a_store_are_a_few_and_their_number(tmp_path):
    rows = {f"c{n}": np.full((1, 4), np.nan if n < 30 else 1.0) for n in range(31)}
    np.savez(tmp_path / "f.npz", x=np.concatenate(list(rows.values())), ids=list(rows))
    manifest = Manifest("m", tuple(Clip(clip_id, "d", "train", f"{clip_id}.mp4") for clip_id in rows))
    (report,) = import_features([tmp_path / "f.npz"], "npz", manifest, tmp_path / "s")
    found = problems(report.path)
    assert len(found) == 11
    assert "20 more" in found[-1]


def test_classes_that_only_the_test_split_has(sources):
    rows = [
        ("a", "train", "cut"),
        ("a", "test", "cut"),
        ("a", "test", "pour"),
        ("b", "train", "pour"),
        ("b", "train", "cut"),
    ]
    (problem,) = labelled(sources, *rows)
    assert re.search("domain 'a': label pour .*only.* test split", problem)
    assert labelled(sources, *rows[1:]) == []  # a domain that is only tested on lacks nothing


def test_a_folder_of_stores_stands_for_everything_in_it(tmp_path):
    folder = write_all(tmp_path / "stores")
    inside = [folder / "toy" / name for name in ("hof.zarr", "hog.zarr", "manifest.csv")]
    assert parts(folder) == parts(folder / "toy") == inside
    for path in (*inside, tmp_path / "none"):
        assert parts(path) == [path]
    assert problems(inside[0]) == []
    assert all("does not exist" in problem for problem in problems(inside[2]))
    shutil.rmtree(inside[1])
    inside[1].mkdir()
    assert "no feature store" in problems(inside[1])[0]


def test_a_folder_without_stores(tmp_path):
    (tmp_path / "a.csv").write_text("clip_id,domain,split,source\n")
    with pytest.raises(ManifestError, match=f"{tmp_path} holds no stores; name a manifest"):
        parts(tmp_path)


def test_of_joints_and_numbers_only_the_file_is_looked_for(tmp_path):
    """Their contents depend on the extractor."""
    np.save(tmp_path / "here.npy", np.zeros(3))
    manifest = tmp_path / "m.csv"
    manifest.write_text("clip_id,domain,split,source\na,d,train,here.npy\nb,d,train,gone.skeleton\n")
    (problem,) = problems(manifest)
    assert "clip 'b'" in problem
    assert "gone.skeleton does not exist" in problem
