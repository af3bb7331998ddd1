"""Stores that are written below URLs: the remote store equals one that is written to a folder, whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import featcache
import pipelines
from featcache.errors import BusyError, ConfigError, StoreError
from featcache.remote import cache, owner
from featcache.remote.bucket import Bucket
from featcache.store import pushing
from featcache.store.places import local
from featcache.store.pushing import working
from pipelines.cli import main
from tests.conftest import ROOT
from tests.featcache.test_remote import files, server, service  # noqa: F401 (fixtures)
from tests.helpers.remote_writer import MANIFEST, RECIPE, ROWS, write
from tests.helpers.stores import small_blocks

pytestmark = pytest.mark.slow
URL = "s3://bucket/stores"
STORE = f"{URL}/toy/hog.zarr"


@pytest.fixture(autouse=True)
def quick(server, monkeypatch):  # noqa: F811
    """Blocks of four rows, which are pushed at once."""
    monkeypatch.setattr(pushing, "PAUSE", 0.02)
    with small_blocks():
        yield


@pytest.fixture
def plain(tmp_path):
    """The same store in a folder."""
    write(tmp_path / "plain")
    return tmp_path / "plain"


def objects(url=STORE):
    """Name -> content of all objects below a URL, except those that name owners."""
    bucket = Bucket(url)
    return {name: bytes(bucket.get(name)) for name in bucket.listing() if not name.endswith(".writer.json")}


def extract(**options):
    with working(URL, "toy", ["hog"]) as folder:
        return write(folder, **options)


def equal(plain):
    """The remote store is that of the folder: its objects, the fetched copy, and what plain zarr reads from it."""
    expected = files(plain / "toy" / "hog.zarr")
    assert objects() == expected
    copy = local(STORE)
    assert files(copy) == expected
    assert (zarr.open(copy)["features"][:] == zarr.open(plain / "toy" / "hog.zarr")["features"][:]).all()


def another_machine(monkeypatch, tmp_path, name="other"):
    """Give the next commands another cache and work folder."""
    monkeypatch.setenv("FEATCACHE_STORES", str(tmp_path / name))


def test_a_remote_store_equals_the_local_one(server, plain):  # noqa: F811
    assert extract() == 22
    equal(plain)
    pushed = featcache.Manifest.read(local(f"{URL}/toy") / "manifest.csv")
    assert [pushed.path(clip) for clip in pushed] == [MANIFEST.path(clip).absolute() for clip in MANIFEST]
    server.clear()
    assert extract() == 0
    assert not [request for request in server.requests if request.method == "PUT" and "/hog.zarr/" in request.path]


def test_plain_zarr_opens_the_remote_store(server, plain):  # noqa: F811
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    extract()
    group = zarr.open_group(ObjectStore(from_url(STORE, client_options={"allow_http": True})), mode="r")
    assert (group["features"][:] == zarr.open(plain / "toy" / "hog.zarr")["features"][:]).all()


def test_readers_see_whole_blocks_only(server):  # noqa: F811
    seen = []

    def look(request):
        if request.method == "PUT" and "state/c/" in request.path:
            names = {r.path.partition("hog.zarr/")[2] for r in server.requests if r.method == "PUT"}
            block = request.path.rpartition("/")[2]
            assert {f"digest/c/{block}/0", f"length/c/{block}", "SHA256SUMS"} <= names
            seen.append(block)
        return ""

    server.fault = look
    extract()
    assert sorted(seen) == list("012345")


def faulty(server):  # noqa: F811
    """Refuse every third request, and lose the first answer to each conditional write; return those writes."""
    lost = set()

    def fault(request):
        if request.number % 3 == 0:
            return "503"
        conditional = "/state/c/" in request.path or "writer.json" in request.path
        if request.method == "PUT" and conditional and request.path not in lost:
            lost.add(request.path)
            return "lost"
        return ""

    server.fault = fault
    return lost


def test_busy_services_and_lost_answers_change_nothing(server, plain):  # noqa: F811
    lost = faulty(server)
    extract()
    assert len(lost) >= 6
    server.clear()
    equal(plain)


def test_a_killed_writer_resumes(server, plain):  # noqa: F811
    chance = random.Random(0)
    faulty(server)
    for _ in range(4):
        command = [sys.executable, "-m", "tests.helpers.remote_writer", URL, "0.05"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
            while not [r for r in server.requests if "hog.zarr/SHA256SUMS" in r.path] and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.6))
            process.send_signal(signal.SIGKILL)
            process.wait()
    extract()
    server.clear()
    equal(plain)


def test_a_lost_machine_loses_the_rows_after_its_last_whole_block(server, plain, monkeypatch, tmp_path):  # noqa: F811
    extract(stop_after=10)
    another_machine(monkeypatch, tmp_path)
    assert extract() == 22 - 8
    equal(plain)


def test_a_stale_work_folder_is_fetched_again(server, plain, monkeypatch, tmp_path):  # noqa: F811
    extract(stop_after=10)
    mine = os.environ["FEATCACHE_STORES"]
    another_machine(monkeypatch, tmp_path)
    extract(stop_after=5)
    monkeypatch.setenv("FEATCACHE_STORES", mine)
    assert extract() == 22 - 12
    equal(plain)


def test_failed_rows_that_are_mended_and_clips_that_are_appended(server, tmp_path):  # noqa: F811
    first = replace(MANIFEST, clips=MANIFEST.clips[:6])
    for place in (tmp_path / "plain", None):
        for options in ({"clips": first}, {"clips": first, "retry": True}, {"retry": True}):
            if place:
                write(place, **options)
            else:
                extract(**options)
    assert "failures/0.jsonl" not in objects()
    equal(tmp_path / "plain")


def test_a_store_that_is_made_again_replaces_the_remote_one(server, tmp_path):  # noqa: F811
    """As `extract` does when a row is beyond float16."""
    wide = RECIPE | {"dtype": "float32"}
    extract(stop_after=6)
    with working(URL, "toy", ["hog"]) as folder:
        featcache.store.writer.set_aside(folder / "toy" / "hog.zarr", "float16")
        write(folder, recipe=wide, rows=ROWS * 1e6)
    write(tmp_path / "plain", recipe=wide, rows=ROWS * 1e6)
    equal(tmp_path / "plain")


def test_another_recipe_is_refused(server, plain, monkeypatch, tmp_path):  # noqa: F811
    extract()
    another_machine(monkeypatch, tmp_path)
    with pytest.raises(StoreError, match="another recipe"):
        extract(recipe=RECIPE | {"version": 2})
    equal(plain)


def test_one_process_writes_at_a_time(server, monkeypatch, tmp_path):  # noqa: F811
    with working(URL, "toy", ["hog"]) as folder:
        write(folder, stop_after=5)
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            extract()
        another_machine(monkeypatch, tmp_path)
        with pytest.raises(StoreError, match=rf"{STORE} is being written by process {os.getpid()} on "):
            extract()
    assert extract() == 22 - 4


def test_a_writer_that_is_quiet_is_taken_over_and_says_so(server, monkeypatch, tmp_path):  # noqa: F811
    first = working(URL, "toy", ["hog"])
    mine = first.__enter__()
    write(mine, stop_after=5)
    while not [request for request in server.requests if "hog.zarr/state/c/0" in request.path]:
        time.sleep(0.01)
    time.sleep(0.1)  # until it is answered
    another_machine(monkeypatch, tmp_path)
    monkeypatch.setattr(owner, "STALE", -1.0)  # as if it had shown no sign of life
    assert extract() == 22 - 4
    monkeypatch.setattr(owner, "REFRESH", -1.0)
    with pytest.raises(StoreError, match=rf"another process has just become the writer.*kept in {mine}"):
        first.__exit__(None, None, None)


def test_a_push_that_fails_keeps_the_rows(server, plain):  # noqa: F811
    server.fault = lambda request: "<Error><Code>AccessDenied</Code></Error>" if "/features/c/1" in request.path else ""
    with pytest.raises(StoreError, match=r"AccessDenied.*the rows are kept in "):
        extract()
    server.clear()
    assert extract() == 0
    equal(plain)


def test_a_block_of_other_content_is_refused(server):  # noqa: F811
    extract(stop_after=9)
    Bucket(STORE).put("state/c/3", b"other")
    (folder,) = (cache.home() / "work").glob("*/stores")
    write(folder)
    pusher = pushing._Pusher(Bucket(URL), folder / "toy" / "hog.zarr", "toy/hog.zarr", {})
    with pytest.raises(StoreError, match="block 3 was written by another process"):
        pusher.push()


def test_the_command(server, videos, tmp_path):  # noqa: F811
    words = ["extract", str(videos / "kitchens.csv"), "hog", "--workers", "1", "--quiet", "--stores"]
    done = CliRunner().invoke(main, [*words, URL])
    assert done.exit_code == 0, done.output
    assert URL in done.stderr
    assert CliRunner().invoke(main, [*words, str(tmp_path / "plain")]).exit_code == 0
    assert objects(f"{URL}/kitchens/hog.zarr") == files(tmp_path / "plain" / "kitchens" / "hog.zarr")
    with pytest.raises(ConfigError, match=f"{URL} is a URL"):
        featcache.import_features("store", tmp_path / "plain" / "kitchens" / "hog.zarr", videos / "kitchens.csv", URL)
    with pytest.raises(ConfigError, match=f"{URL} is a URL"):
        pipelines.predict([], videos / "kitchens.csv", stores=URL)


def test_the_work_folder_has_the_journal(server):  # noqa: F811
    extract(stop_after=6)
    assert list((cache.home() / "work").rglob("journal/1.log"))
    assert not [name for name in objects() if "journal" in name]
    assert np.isin(featcache.FeatureStore.open(Path(local(STORE))).state[4:], 0).all()
