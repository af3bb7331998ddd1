"""The stream that was taken of several is recorded in the store, through kills, appending, packing and importing."""

import os
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner

from featcache import Clip, FeatureStore, Manifest
from featcache.importing import import_features
from featcache.store import _block, _lease, info
from featcache.store.archive import pack, unpack
from featcache.store.check import problems
from featcache.windows import Plan
from pipelines.cli import main
from pipelines.extraction.extract import extract
from tests.helpers.media import Watcher, numbered, write_video

NOTE = "the source has video streams 0, 1; 0 is taken, the first one"


@dataclass(frozen=True)
class Params:
    """None."""


class Viewer(Watcher):
    name = "viewer"

    def __init__(self):
        super().__init__()
        self.params = Params()

    def __call__(self, windows):
        return windows.astype(np.float32)


def two_films(path):
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
            stream.disposition = 0
        for stream in streams:
            for number in range(10):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
            container.mux(stream.encode())


@pytest.fixture
def clips(tmp_path):
    two_films(tmp_path / "two.mkv")
    write_video(tmp_path / "one.mp4", frames=10)
    sources = ("one.mp4", "two.mkv", "two.mkv", "none.mp4")
    return [Clip(f"c{k}", "d", "train", source) for k, source in enumerate(sources)]


def extracted(clips, folder, **options):
    manifest = Manifest("m", tuple(clips), folder)
    return extract(manifest, [Viewer()], folder / "stores", plan=Plan("segments", 2), **options)


def test_which_stream_was_taken_stays_with_its_rows(clips, tmp_path):
    outcome = extracted(clips, tmp_path)
    store = outcome.stores["viewer"]
    assert any(NOTE in note for note in outcome.notes)
    assert {row: note.split(";")[0] for row, note in store.notes.items()} == dict.fromkeys((1, 2), NOTE.split(";")[0])
    assert list(store.failures) == [3]
    assert store.frame()["reason"].tolist()[:3] == ["", "", ""]
    facts = info.info(store.path)
    assert facts["notes"] == {store.notes[1]: ["c1", "c2"]}
    printed = CliRunner().invoke(main, ["info", str(store.path)]).output
    assert f"note: {store.notes[1]}: 'c1', 'c2'" in printed
    grown = extracted([*clips, Clip("c4", "d", "train", "one.mp4")], tmp_path).stores["viewer"]
    assert (grown.notes, list(grown.failures)) == (store.notes, [3])
    assert [line.split()[1] for line in problems(grown.path)] == ["'c3'"]
    pack(grown.path, tmp_path / "a.zarr")
    unpack(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert FeatureStore.open(tmp_path / "a.zarr").notes == FeatureStore.open(tmp_path / "b.zarr").notes == store.notes
    manifest = Manifest("m", tuple(clips[:3]), tmp_path)
    (report,) = import_features([grown.path], "store", manifest, tmp_path / "imported")
    assert FeatureStore.open(report.path).notes == store.notes


def test_a_store_of_plain_sources_has_no_file_of_notes(clips, tmp_path):
    store = extracted(clips[:1], tmp_path).stores["viewer"]
    assert not (store.path / "failures").exists()
    assert (store.notes, "notes" in info.info(store.path)) == ({}, False)


def test_notes_survive_in_the_journal(clips, tmp_path):
    """A row that is recorded again keeps only the note of its last record."""
    store = extracted(clips, tmp_path).stores["viewer"]
    rows = np.zeros((1, store.layout.row_bytes), np.uint8)
    times = _block.times_bytes([np.zeros(2)], [np.zeros(2)])
    block = _block.Block(store.path, 0, store.layout, _lease.lease(store.path / "journal" / "0.log"))
    block.add_done([0], times, rows, [b"a"])
    block.add_done([1], times, rows, [b""])
    block.sync()
    log = _block.read_log(store.path, 0, store.layout)
    assert log.notes == {0: b"a", 1: b"", 2: store.notes[2].encode(), 3: b""}
    assert (set(log.entries), log.size) == ({0, 1, 2, 3}, Path(block._log.name).stat().st_size)
    block.commit(store)
    again = FeatureStore.open(store.path)
    assert (again.notes, list(again.failures)) == ({0: "a", 2: store.notes[2]}, [3])
    assert not os.listdir(store.path / "journal")
