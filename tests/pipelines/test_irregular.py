"""Pipes, devices and folders where a file is read: each reader refuses them at once, with the file's name."""

import pytest

from featcache import Manifest, bridges, table_files, weights
from featcache.bridges import read_ids
from featcache.builders import _annotations, _captions
from featcache.errors import FeatcacheError
from featcache.files import regular
from featcache.manifest import Clip
from featcache.media import images, numbers, probe, skeleton
from pipelines.experiments._files import import_file
from tests.helpers import fuzz
from tests.helpers.fuzz import IRREGULAR as KINDS

CLIP = Clip("a", "d", "train", "a")
READERS = {
    "manifest.csv": Manifest.read,
    "a.mp4": probe,
    "a.wav": probe,
    "a.png": probe,
    "frame.png": images.read,
    **{f"a{ending}": lambda path: numbers.read(path, CLIP) for ending in (".npy", ".npz", ".h5", ".csv")},
    **{f"b{ending}": lambda path: skeleton.read(path, CLIP) for ending in (".npy", ".json", ".skeleton", ".txt")},
    "w.pth": weights.read,
    "w.safetensors": weights.read,
    "ids.txt": read_ids,
    "entries.json": lambda path: _captions.entries(path, "x", []),
    "lines.jsonl": lambda path: list(_captions.lines(path, [])),
    "table.csv": lambda path: _annotations.table(path, []),
    "words.txt": lambda path: _annotations.words(path, 1),
    "arrays.npz": lambda path: _annotations.npz_arrays(path, []),
    "experiment.py": import_file,
    **{f"labels{ending}": table_files.read for ending in table_files.READERS},
    **{f"bridge {name}": lambda path, name=name: bridges.load(name).read(path, ["a"]) for name in bridges.names()},
}


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_what_is_no_file(name, kind, tmp_path):
    path = tmp_path / name
    KINDS[kind](path)
    with fuzz.limited(), pytest.raises(FeatcacheError, match=name.split()[-1]):
        READERS[name](path)


@pytest.mark.parametrize(("kind", "word"), [("pipe", "pipe"), ("device", "device"), ("socket", "socket")])
def test_the_kind_is_named(kind, word, tmp_path):
    KINDS[kind](tmp_path / "x")
    with pytest.raises(FeatcacheError, match=f"x is a .*{word}"):
        regular(tmp_path / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FeatcacheError, match="folder is a folder"):
        regular(tmp_path / "folder")
    assert regular(tmp_path / "folder", or_folder=True) == tmp_path / "folder"
    assert regular(tmp_path / "none") == tmp_path / "none"
