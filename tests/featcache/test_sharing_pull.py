"""`pull` trusts neither the source nor the folder; the card and croissant.json of a push say only what is known."""

import hashlib
import json
import shutil

import pytest
from click.testing import CliRunner

import featcache
from featcache import sums
from featcache.errors import ArgumentsError, StoreError
from featcache.manifest import Clip, Manifest
from featcache.sharing import card, licences
from featcache.sharing import pull as pulling
from featcache.sharing.content import Part
from pipelines.cli import main
from tests.helpers.stores import manifest, small_blocks, write_all


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A shared folder of two stores of several blocks."""
    folder = tmp_path_factory.mktemp("sharing")
    with small_blocks():
        featcache.push(write_all(folder / "stores"), folder / "shared", licence="MIT")
    return folder / "shared"


@pytest.fixture
def shared(pushed, tmp_path):
    """A copy of the shared folder."""
    with small_blocks():
        yield shutil.copytree(pushed, tmp_path / "shared")


def damage(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def listing(shared, **files):
    """Write files of a shared folder, and list them in its SHA256SUMS."""
    listed = sums.parse((shared / sums.NAME).read_bytes())
    for name, data in files.items():
        (shared / name).parent.mkdir(parents=True, exist_ok=True)
        (shared / name).write_bytes(data)
        listed[name] = hashlib.sha256(data).hexdigest()
    (shared / sums.NAME).write_bytes(sums.text(dict(sorted(listed.items()))))


def pull_fails(shared, folder, match, error=StoreError):
    """A pull that fails, and writes no file."""
    with pytest.raises(error, match=match):
        featcache.pull(shared, folder)
    assert not [path for path in folder.rglob("*") if path.is_file() and path.name != "..pull.lock"]


# ------------------------------------------------------------------------------------------------- hostile sources


@pytest.mark.parametrize("name", ["hog.zarr/manifest.csv", "hog.zarr/x.zarr/zarr.json", "toy/hog.zarr/a\x1b[2Jb"])
def test_names_that_are_not_those_of_a_push_are_refused(shared, tmp_path, name):
    listing(shared, **{name: b"x"})
    pull_fails(shared, tmp_path / "back", "no name of a file")


@pytest.mark.parametrize("name", ["other/manifest.csv", "other/hog.zarr/zarr.json"])
def test_a_manifest_has_stores_and_a_store_a_manifest(shared, tmp_path, name):
    listing(shared, **{name: b"x"})
    pull_fails(shared, tmp_path / "back", r"'other'.*push again")


@pytest.mark.parametrize("name", ["toy/hog.zarr/rows.csv", sums.NAME])
def test_a_file_that_memory_cannot_hold_is_not_fetched(shared, tmp_path, monkeypatch, name):
    largest = max(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    monkeypatch.setattr(pulling, "LARGEST", largest)
    featcache.pull(shared, tmp_path / "whole")
    with (shared / name).open("ab") as file:
        file.write(bytes(largest))
    pull_fails(shared, tmp_path / "back", rf"{name} has .* and no file that .*push")


def test_a_full_disk_is_named_before_anything_is_fetched(shared, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    pull_fails(shared, tmp_path / "back", r"back.*1\.0 kB free; make room")
    monkeypatch.undo()
    featcache.pull(shared, tmp_path / "back")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
    assert featcache.pull(shared, tmp_path / "back").fetched == 0


# --------------------------------------------------------------------------------------------------- the own folder


def test_a_damaged_store_is_not_taken_for_the_shared_one(shared, tmp_path):
    featcache.pull(shared, tmp_path / "back")
    store = tmp_path / "back" / "toy" / "hog.zarr"
    damage(store / "features" / "c" / "1" / "0" / "0")
    with pytest.raises(StoreError, match=r"hog\.zarr: block 1.*featcache repair.*fetch.*remove"):
        featcache.pull(shared, tmp_path / "back")
    shutil.rmtree(store)
    assert featcache.pull(shared, tmp_path / "back").fetched
    assert featcache.check(store) == {store: []}


def test_a_card_of_the_user_stays(shared, tmp_path):
    own = tmp_path / "back" / "toy" / "README.md"
    own.parent.mkdir(parents=True)
    own.write_text("my notes\n")
    for _ in range(2):
        featcache.pull(shared, tmp_path / "back")
        cards = {path.name: path.read_bytes() for path in own.parent.glob("*.md")}
        assert cards.pop("README.md") == b"my notes\n"
        assert list(cards.values()) == [(shared / "README.md").read_bytes()]


# ----------------------------------------------------------------------------------------------------------- errors


def test_the_manifest_of_the_user_can_be_replaced_alone(shared, tmp_path):
    featcache.pull(shared, tmp_path / "back")
    own = tmp_path / "back" / "toy" / "manifest.csv"
    own.write_bytes(own.read_bytes().replace(b"stir", b"mix "))
    with pytest.raises(StoreError, match=r"manifest\.csv exists and differs.*remove this file"):
        featcache.pull(shared, tmp_path / "back")
    own.unlink()
    assert featcache.pull(shared, tmp_path / "back").fetched == 0
    assert own.read_bytes() == (shared / "toy" / "manifest.csv").read_bytes()


def test_places_that_cannot_be_pulled_are_named_with_a_fix(shared, tmp_path, monkeypatch):
    back = tmp_path / "back"
    pull_fails(tmp_path / "nosuch", back, r"nosuch does not exist.*featcache push")
    pull_fails(shared / "toy", back, rf"toy is the folder of one manifest.*: {shared}$")
    monkeypatch.chdir(shared)
    pull_fails("toy", back, rf"pull the shared folder that it is in: {shared}$")
    for page in ("datasets/me/x", "datasets/me/x/tree/main/v1", "datasets/me/x/"):
        pull_fails(f"https://huggingface.co/{page}", back, r"write hf://datasets/me/x$", ArgumentsError)
    done = CliRunner().invoke(main, ["pull", "https://huggingface.co/datasets/me/x", str(back)])
    assert done.exit_code
    assert "hf://datasets/me/x" in done.output
