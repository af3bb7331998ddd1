"""Names of users that become folders, and paths in sentences that are kept."""

import sys
import unicodedata
from pathlib import Path

import pytest

from featcache import Clip, Manifest
from featcache.errors import FeatcacheError, ManifestError
from featcache.naming import folder_name, renamed
from featcache.wording import visible

BAD = [
    "",
    " ",
    ".",
    "..",
    ".csv",
    ".hidden",
    "a/b",
    "../a",
    "/",
    "a\x00",
    "a\nb",
    "\x7f",
    "a\u2028",
    "caf\udce9",
    "\u200b",
    "\u3164",
    "\u202egnp",
    "a\u200bb",
    "\u00e9" * 101,
]
GOOD = ["m", "P01 (day 2)", "caf\u00e9", "\u53a8\u623f", "a.b", "a..b", "-x", "con", "a\\b", "x" * 200]


def test_all_characters_that_are_not_seen_are_escaped():
    for code in range(sys.maxunicode + 1):
        c = chr(code)
        hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        assert visible(c) == (repr(c)[1:-1] if hidden else c), hex(code)
    assert visible("a\u200e\u200f\u061cb") == r"a\u200e\u200f\u061cb"
    assert visible("a\n\u200eé", keep="\n") == "a\n\\u200eé"


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_names_that_are_no_folders(name):
    with pytest.raises(FeatcacheError, match=r"the name of store .*; rename it"):
        folder_name(name, "store", "rename it")


@pytest.mark.parametrize("name", GOOD, ids=ascii)
def test_names_that_are_folders(name, tmp_path):
    (tmp_path / folder_name(name, "store", "rename it")).mkdir()


@pytest.mark.parametrize("file", ["...csv", "..csv", ".csv", ".a.csv", "a\nb.csv"])
def test_a_manifest_does_not_write_outside_of_its_stores(tmp_path, file):
    """The folder of its stores is named after the file, whose name without .csv may be `..`."""
    (tmp_path / file).write_text("clip_id,domain,split,source\na,d,train,a.mp4\n")
    with pytest.raises(ManifestError, match=r"the name of manifest .*; give its file another name"):
        Manifest.read(tmp_path / file)
    with pytest.raises(ManifestError, match="'m/n' has a /"):
        Manifest("m/n", (Clip("a", "d", "train", "a.mp4"),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v/a.mp4 is empty", "a.mp4 is empty"),
        ("[Errno 2] no file: '{here}/v/a.mp4'; copy it", "[Errno 2] no file: 'a.mp4'; copy it"),
        ("PosixPath('{here}/v/b c.png') and v/d/e.npy", "PosixPath('b c.png') and d/e.npy"),
        ("{here}/v/a.mp4x, w/v/a.mp4, {here}x/v/a.mp4", "a.mp4x, w/v/a.mp4, {here}x/v/a.mp4"),
        ("{real}/a.mp4 is a link", "a.mp4 is a link"),
        ("cannot read <_io.BytesIO object at 0x7f12ab>", "cannot read <_io.BytesIO object>"),
        ("<function read at 0x7f12ab> failed", "<function read> failed"),
        ("bad marker at 0x1f40 in v/a.mp4", "bad marker at 0x1f40 in a.mp4"),
        ("[mov @ 0x55d0c0] moov atom not found", "[mov] moov atom not found"),
        ("frame 3 of av/a.mp4 in v", "frame 3 of av/a.mp4 in v"),
    ],
)
def test_paths_in_sentences(tmp_path, monkeypatch, text, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "v").symlink_to("disk")
    places = {"here": tmp_path, "real": tmp_path / "disk"}
    names = {Path("v/a.mp4"): "a.mp4", Path("v"): ""}
    assert renamed(text.format(**places), names) == expected.format(**places)


def test_a_sentence_without_paths_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root in (Path("."), Path(""), Path("/")):
        assert renamed("either / or ./x; I/O error", {root / "a": "a", root: ""}) == "either / or ./x; I/O error"
