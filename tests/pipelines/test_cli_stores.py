"""The commands that look after stores: info, check, repair, as a user types them."""

import json

import pytest
from click.testing import CliRunner

from featcache import FeatureStore
from pipelines.cli import main
from tests.helpers.stores import manifest, write_all, write_store


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def stores(tmp_path):
    return write_all(tmp_path, states={2: "failed", 3: "absent"})


@pytest.fixture
def hog(stores):
    return stores / "toy" / "hog.zarr"


def test_info_tells_what_a_store_is(hog):
    result = run("info", hog)
    assert result.exit_code == 0
    for line in (
        "36 of manifest toy: 34 done, 1 failed, 1 absent",
        "3 per clip",
        "(8,) float32 per window, 96 B per clip",
        "none; licence: not recorded",
        FeatureStore.open(hog).recipe_sha256,
        FeatureStore.open(hog).fingerprint,
        "failed: day_chop_train2: moov atom not found",
        "absent: day_chop_train3: no sound",
    ):
        assert line in result.stdout
    assert "and 2 more; --failures 2 shows all" in run("info", hog, "--failures", 0).stdout


def test_info_as_json(hog):
    info = json.loads(run("info", "--json", hog).stdout)
    assert info["states"] == {"not tried": 0, "done": 34, "failed": 1, "absent": 1}
    assert info["recipe"] == FeatureStore.open(hog).recipe
    assert info["bytes"] == sum(file.stat().st_size for file in hog.rglob("*") if file.is_file())
    assert info["failures"][0] == {
        "clip_id": "day_chop_train2",
        "state": "failed",
        "reason": "moov atom not found",
    }


def test_info_of_an_unfinished_store(tmp_path):
    write_store(tmp_path, manifest(), "hog", stop_after=5)
    result = run("info", tmp_path / "hog.zarr")
    assert "is unfinished: 36 clips were not tried" in result.stderr


def test_check_then_repair_then_extract_again(stores, hog):
    shard = hog / FeatureStore.open(hog).layout.files(0)["features"]
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    assert run("check", "--fast", hog).stdout.splitlines()[0].endswith("failed: moov atom not found")
    result = run("check", stores)
    assert result.exit_code == 1
    assert "block 0 (rows 0-35): features damaged; `featcache repair` makes its clips pending again" in result.stdout
    assert run("repair", hog).stdout == f"{hog}: block 0 (rows 0-35): features damaged: its clips are pending again\n"
    assert "36 of 36 clips are not extracted yet; run `featcache extract` again" in run("check", hog).stdout
    write_store(hog.parent, manifest(), "hog")
    assert run("check", hog).stdout == f"{hog}: in order\n"
    assert run("repair", hog).stdout == f"{hog}: in order, nothing to do\n"


@pytest.mark.parametrize("command", ["info", "repair"])
def test_no_store_there(tmp_path, command):
    for path in (tmp_path / "none.zarr", tmp_path):
        result = run(command, path)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / f".{tmp_path.name}.lock").exists()


def test_a_recipe_that_is_damaged_is_not_made_up(hog):
    before = {path: path.read_bytes() for path in hog.rglob("*") if path.is_file()}
    text = (hog / "zarr.json").read_text()
    (hog / "zarr.json").write_text(text.replace("rgb", "rgg"))
    result = run("repair", hog)
    assert result.exit_code == 1
    assert "zarr.json is damaged and cannot be recomputed; restore it from a copy of the store" in result.stderr
    (hog / "zarr.json").write_text(text)
    assert {path: path.read_bytes() for path in hog.rglob("*") if path.is_file()} == before
