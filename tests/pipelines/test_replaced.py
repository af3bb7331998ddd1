"""Files that are replaced after features were made of them: `extract` and `check` name them, `renew` reads them."""

import errno
import os

import numpy as np
import pytest

from featcache import Clip, FeatureStore, Manifest, checking
from featcache.errors import StoreError
from featcache.media import Piece
from featcache.store import StoreWriter, provenance
from featcache.store.content import same_content
from featcache.windows import Plan
from pipelines.extraction import engine
from pipelines.extraction import extract as recipe
from tests.pipelines.test_extract import Count, Motion, Params


@pytest.fixture
def media(monkeypatch):
    """A stand-in for decoding; `read` notes the clips, and `meanwhile` runs when a clip is read."""

    class Media:
        read: list = []  # noqa: RUF012
        meanwhile: dict = {}  # noqa: RUF012

    def windows_of(path, clip, plan, extractors):
        Media.read.append(clip.clip_id)
        value = float((path / "0.png" if path.is_dir() else path).read_text())
        for extractor in extractors:
            for k in range(2):
                yield Piece(extractor.name, k, 2, np.array([value, k]), k, k + 1)
        Media.meanwhile.pop(clip.clip_id, lambda: None)()

    Media.read, Media.meanwhile = [], {}
    monkeypatch.setattr(engine, "windows_of", windows_of)
    return Media


@pytest.fixture
def films(tmp_path):
    for k in range(4):
        write(tmp_path / f"{k}.mp4", k)
    return Manifest("m", tuple(Clip(str(k), "d", "train", str(tmp_path / f"{k}.mp4")) for k in range(4)))


def write(path, value, *, old=False):
    """Put another file in the place of one; old: moved there with times of long ago."""
    path.with_name("other").write_text(str(value))
    if old:
        os.utime(path.with_name("other"), (1e9, 1e9))
    os.replace(path.with_name("other"), path)


def extract(manifest, stores, extractors=(Count,), **options):
    made = [extractor(Params()) for extractor in extractors]
    return recipe.extract(manifest, made, stores, plan=Plan("segments", 2), workers=1, **options)


def values(stores, name="count"):
    return FeatureStore.open(stores / "m" / f"{name}.zarr").features[:, 0, 0].tolist()


def named(outcome):
    """Extractor -> the note on files that were replaced."""
    return {note.split(":")[0]: note for note in outcome.notes if "--renew" in note}


def stop():
    raise RuntimeError("stopped")


def test_a_file_that_is_replaced_is_named_until_it_is_read_again(films, media, tmp_path):
    assert not extract(films, tmp_path).notes
    write(tmp_path / "1.mp4", 7)
    for _ in range(2):
        assert "1 clip " in named(extract(films, tmp_path))["count"]
        problems = checking.problems(tmp_path / "m" / "count.zarr")
        assert len(problems) == 1
        assert "'1'" in problems[0]
    media.read.clear()
    assert not extract(films, tmp_path, renew=True).notes
    assert media.read == ["1"]
    assert values(tmp_path) == [0, 7, 2, 3]
    assert not extract(films, tmp_path, renew=True).notes
    assert media.read == ["1"]
    assert not checking.problems(tmp_path / "m" / "count.zarr")


def test_files_that_are_replaced_after_an_interruption(films, media, tmp_path):
    """Whichever features are kept by then."""
    media.meanwhile["3"] = stop
    with pytest.raises(RuntimeError, match="stopped"):
        extract(films, tmp_path)
    write(tmp_path / "0.mp4", 7)
    media.read.clear()
    outcome = extract(films, tmp_path)
    assert "'0'" in named(outcome)["count"] or media.read[0] == "0"
    extract(films, tmp_path, renew=True)
    assert values(tmp_path) == [7, 1, 2, 3]


def test_files_that_are_replaced_while_they_are_read(films, media, tmp_path):
    media.meanwhile["1"] = lambda: write(tmp_path / "1.mp4", 7)
    extract(films, tmp_path)
    assert values(tmp_path) == [0, 1, 2, 3]
    assert "'1'" in named(extract(films, tmp_path))["count"]
    extract(films, tmp_path, renew=True)
    assert values(tmp_path) == [0, 7, 2, 3]


@pytest.mark.parametrize("kept", [False, True])
def test_an_interruption_while_files_are_read_again(kept, films, media, tmp_path, monkeypatch):
    """Before or after the new row is kept; the rows that are done are not read again."""
    extract(films, tmp_path)
    for k in (0, 2):
        write(tmp_path / f"{k}.mp4", 7)
    write_rows = recipe.RecordingWriter.done_many

    def done_many(self, rows, *rest):
        if 2 in rows and kept:
            self.writer.done_many(rows, *rest)
        if 2 in rows:
            stop()
        write_rows(self, rows, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(recipe.RecordingWriter, "done_many", done_many)
        with pytest.raises(RuntimeError, match="stopped"):
            extract(films, tmp_path, renew=True)
    assert "'2'" in named(extract(films, tmp_path))["count"]
    media.read.clear()
    extract(films, tmp_path, renew=True)
    assert media.read == ["2"]
    assert values(tmp_path) == [7, 1, 7, 3]


def test_two_extractions_at_once(films, media, tmp_path):
    """The second one begins and ends while the first one reads."""
    media.meanwhile["0"] = lambda: extract(films, tmp_path, [Motion])
    extract(films, tmp_path)
    write(tmp_path / "2.mp4", 7)
    assert named(extract(films, tmp_path, [Count, Motion])).keys() == {"count", "motion"}
    extract(films, tmp_path, [Count, Motion], renew=True)
    assert values(tmp_path) == values(tmp_path, "motion") == [0, 1, 7, 3]


@pytest.mark.parametrize("old", [False, True])
def test_stores_of_earlier_versions(old, films, media, tmp_path):
    """A newer file is not taken for that of the features, nor a file that was moved there, also not later."""
    extract(films, tmp_path)
    (tmp_path / "m" / ".count.zarr.files").unlink()
    assert not provenance.replaced(tmp_path / "m" / "count.zarr", films, provenance.Files())
    write(tmp_path / "1.mp4", 7, old=old)
    assert not checking.problems(tmp_path / "m" / "count.zarr")  # nothing proves it
    for _ in range(2):
        assert "'1'" in named(extract(films, tmp_path))["count"]
    for path in (tmp_path / "m" / "count.zarr").rglob("*"):
        os.utime(path)  # as a commit of the block does
    write(tmp_path / "2.mp4", 7, old=old)
    assert "'1', '2'" in named(extract(films, tmp_path))["count"]
    extract(films, tmp_path, renew=True)
    assert values(tmp_path) == [0, 7, 7, 3]


def test_an_interrupted_store_of_an_earlier_version(films, media, tmp_path):
    """Its rows are in a journal, and committed by the next extraction, after the file was replaced."""
    media.meanwhile["3"] = stop
    with pytest.raises(RuntimeError, match="stopped"):
        extract(films, tmp_path)
    (tmp_path / "m" / ".count.zarr.files").unlink()
    write(tmp_path / "0.mp4", 7)
    extract(films, tmp_path)
    extract(films, tmp_path, renew=True)
    assert values(tmp_path) == [7, 1, 2, 3]


def test_rows_that_are_written_together_have_their_files_recorded(films, tmp_path):
    """With one file that was replaced after its row was claimed, and only when the rows are kept."""
    made = {"extractor": "count", "modality": "x", "weights_sha256": "none", "dtype": "float32"}
    path, files, times = tmp_path / "m" / "count.zarr", provenance.Files(), np.zeros((2, 4, 1))
    with StoreWriter.open(path, films, made, row_shape=(2,), windows=1, facts={}) as writer:
        recording = provenance.RecordingWriter(writer, films, files)
        assert [recording.claim(row) for row in range(4)] == [True] * 4
        assert provenance.Record(path).files() == dict.fromkeys(range(4), "")
        write(tmp_path / "2.mp4", 77)
        with pytest.raises(StoreError, match="row 1 has values that are not finite"):
            recording.done_many(range(2), np.array([[[0, 0]], [[0, np.inf]]]), *times[:, :2])
        assert provenance.Record(path).files() == dict.fromkeys(range(4), "")
        recording.done_many(range(4), np.zeros((4, 1, 2)), *times, ["", "a note", "", ""])
    recorded = {row: line.split() for row, line in provenance.Record(path).files().items()}
    assert {row: len(line) for row, line in recorded.items()} == {0: 3, 1: 3, 2: 2, 3: 3}
    for row in (0, 1, 3):
        assert recorded[row][2] == provenance.digest_of(tmp_path / f"{row}.mp4")
    assert provenance.replaced(path, films, provenance.Files()).keys() == {2}
    assert FeatureStore.open(path).notes == {1: "a note"}


def test_the_record_of_a_full_disk_is_named(films, tmp_path, monkeypatch):
    """A part of the lines may be written; the rest follows when the disk takes it."""
    record, write_all, taken = provenance.Record(tmp_path / "count.zarr"), os.write, []

    def nearly_full(file, text):
        taken.append(len(text))
        return write_all(file, text[:3])

    monkeypatch.setattr(provenance.os, "write", nearly_full)
    record.append("10 5 6 ab", "11")
    assert len(taken) > 1
    assert record.files() == {10: "5 6 ab", 11: ""}

    def full(file, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(provenance.os, "write", full)
    with pytest.raises(OSError, match=r"count\.zarr\.files"):
        record.append("12")


def test_copies_are_compared_once(films, media, tmp_path, monkeypatch):
    extract(films, tmp_path)
    write(tmp_path / "1.mp4", 1)
    assert not extract(films, tmp_path).notes
    monkeypatch.setattr(provenance, "digest_of", stop)
    assert not extract(films, tmp_path).notes


def test_folders_of_frames(media, tmp_path, monkeypatch):
    """A frame that is replaced is noticed; if nothing is to be done, frames are not read, and listed once."""
    (tmp_path / "frames").mkdir()
    for k in range(40):
        (tmp_path / "frames" / f"{k}.png").write_text(str(k))
    clips = [Clip(str(k), "d", "train", str(tmp_path / "frames"), k, k + 1, fps=1.0) for k in range(3)]
    films, states = Manifest("m", tuple(clips)), []
    extract(films, tmp_path)
    state_of = provenance.state_of
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "digest_of", stop)
        patch.setattr(provenance, "state_of", lambda path: states.append(path.name) or state_of(path))
        assert not extract(films, tmp_path).notes
    assert states.count("frames") == 1
    (tmp_path / "frames" / "Thumbs.db").write_text("")
    assert not extract(films, tmp_path).notes
    write(tmp_path / "frames" / "0.png", 7)
    assert "3 clips" in named(extract(films, tmp_path))["count"]
    extract(films, tmp_path, renew=True)
    assert values(tmp_path) == [7, 7, 7]


def test_a_record_that_is_cut_off_proves_nothing(films, media, tmp_path):
    """Wherever it is cut off; one that is damaged is an error that names it."""
    extract(films, tmp_path)
    path, store = tmp_path / "m" / ".count.zarr.files", tmp_path / "m" / "count.zarr"
    whole = path.read_bytes()
    write(tmp_path / "3.mp4", 7)
    line = whole.rfind(b"\n3 ")
    for end in range(line, line + 12):
        path.write_bytes(whole[:end])
        assert 3 in provenance.replaced(store, films, provenance.Files())
        provenance.Record(store).append("0")
        assert 0 in provenance.replaced(store, films, provenance.Files())
    path.write_text("[]")
    with pytest.raises(StoreError, match=r"count\.zarr\.files.*remove it"):
        extract(films, tmp_path)


def test_folders_are_compared_by_their_frames(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(20):
            (tmp_path / name / f"{k}.jpg").write_text(f"frame {k}")
    assert same_content(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "7.jpg").write_text("longer frame")
    assert not same_content(tmp_path / "a", tmp_path / "b")
