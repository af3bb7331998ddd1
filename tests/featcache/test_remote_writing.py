"""Stores that are written below URLs: the remote store equals one that is written to a folder, whatever happens."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
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
from featcache.store import digests, provenance, pushing
from featcache.store.places import local
from featcache.store.pushing import working
from featcache.store.reader import open_unchecked
from pipelines.cli import main
from pipelines.extraction.shards import Shard
from tests.conftest import ROOT
from tests.featcache.test_remote import files, server, service  # noqa: F401 (fixtures)
from tests.helpers.remote_writer import MANIFEST, RECIPE, ROWS, write
from tests.helpers.stores import small_blocks
from tests.pipelines.test_shards import sources

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
    with working(URL, "toy", ["hog"], options.get("clips", MANIFEST)) as folder:
        return write(folder, **options)


def pusher_of(store, listing):
    """The pusher of toy/hog.zarr, which this process has become the owner of."""
    held = owner.Owner(Bucket(URL), "toy/hog.zarr", "token")
    held.take()
    held.abandon()  # it shows no signs of life
    return pushing._Pusher(Bucket(URL), store, "toy/hog.zarr", listing, held, lambda: False)


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


def test_readers_see_whole_blocks_only(server, plain, tmp_path):  # noqa: F811
    """Just before each `state` is written, all other files of its block are there, and are those of the block."""
    expected, seen = files(plain / "toy" / "hog.zarr"), []

    def look(request):
        name = request.path.partition("hog.zarr/")[2].partition("?")[0]
        if request.method == "PUT" and name.startswith("state/c/"):
            block, copy = int(name.rpartition("/")[2]), tmp_path / f"at{request.number}"
            for other, data in (objects() | {name: expected[name]}).items():
                (copy / other).parent.mkdir(parents=True, exist_ok=True)
                (copy / other).write_bytes(data)
            try:
                seen.append((block, digests.damaged(copy, block, open_unchecked(copy).layout)))
            except Exception as error:
                seen.append((block, repr(error)))
        return ""

    server.fault = look
    extract()
    assert sorted(seen) == [(block, "") for block in range(6)]


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


def overtaken(monkeypatch, tmp_path):
    """Extract ten rows on this machine, then five more on another one."""
    extract(stop_after=10)
    mine = os.environ["FEATCACHE_STORES"]
    another_machine(monkeypatch, tmp_path)
    extract(stop_after=5)
    monkeypatch.setenv("FEATCACHE_STORES", mine)


def test_a_stale_work_folder_is_fetched_again(server, plain, monkeypatch, tmp_path):  # noqa: F811
    overtaken(monkeypatch, tmp_path)
    assert extract() == 22 - 12
    equal(plain)


def test_a_stale_work_folder_stays_stale_if_it_is_killed_first(server, plain, monkeypatch, tmp_path):  # noqa: F811
    overtaken(monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pushing, "remove_folder", lambda _: signal.default_int_handler(2, None))
        with pytest.raises(KeyboardInterrupt):
            extract()
    assert extract() == 22 - 12
    equal(plain)


def test_parts_that_are_killed_are_resumed_by_other_machines(server, monkeypatch, tmp_path):  # noqa: F811
    """At random moments; a file is replaced in between, and its row has old features until it is renewed."""
    manifest, chance = sources(tmp_path / "media"), random.Random(1)
    manifest.write(tmp_path / "media" / "m.csv")
    faulty(server)
    code = (
        "import sys, time, featcache\n"
        "from featcache.store import _format, pushing\n"
        "_format.Layout.block_rows, _format.Layout.chunk_rows, pushing.PAUSE = 4, 1, 0.02\n"
        "wait = lambda done, total: time.sleep(0.05)\n"
        "featcache.extract(sys.argv[1], 'vector', sys.argv[2], workers=1, shards=sys.argv[3], progress=wait)\n"
    )
    for number in range(2):
        for attempt in range(2):
            another_machine(monkeypatch, tmp_path, f"machine{number}{attempt}")
            monkeypatch.setattr(owner, "STALE", -1.0)
            command = [sys.executable, "-c", code, str(tmp_path / "media" / "m.csv"), URL, f"{number}/2"]
            before = len(server.requests)
            with subprocess.Popen(command, cwd=ROOT, env=dict(os.environ)) as process:
                while not [r for r in server.requests[before:] if "/state/c/" in r.path] and process.poll() is None:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0.0, 0.3))
                process.send_signal(signal.SIGKILL)
            np.save(tmp_path / "media" / "5.npy", np.zeros(3))
        another_machine(monkeypatch, tmp_path, f"machine{number}")
        featcache.extract(manifest, "vector", URL, workers=1, shards=f"{number}/2")
    server.clear()
    featcache.merge(manifest, "vector", URL)
    featcache.extract(manifest, "vector", URL, workers=1, renew=True)
    featcache.extract(manifest, "vector", tmp_path / "plain", workers=1)
    store = tmp_path / "plain" / "m" / "vector.zarr"
    assert objects(f"{URL}/m/vector.zarr") == files(store)
    true = provenance.Record(store).files()
    assert {row for row, described in record().items() if described not in ("", true[row])} == set()
    assert sorted(record()) == sorted(true)


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
    with working(URL, "toy", ["hog"], MANIFEST) as folder:
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
    with working(URL, "toy", ["hog"], MANIFEST) as folder:
        write(folder, stop_after=5)
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            extract()
        another_machine(monkeypatch, tmp_path)
        with pytest.raises(StoreError, match=rf"{STORE} is being written by process {os.getpid()} on "):
            extract()
    assert extract() == 22 - 4


def test_a_writer_that_is_quiet_is_taken_over_and_says_so(server, monkeypatch, tmp_path):  # noqa: F811
    first = working(URL, "toy", ["hog"], MANIFEST)
    mine = first.__enter__()
    write(mine, stop_after=5)
    while not [request for request in server.requests if "hog.zarr/state/c/0" in request.path]:
        time.sleep(0.01)
    time.sleep(0.1)  # until it is answered
    another_machine(monkeypatch, tmp_path)
    monkeypatch.setattr(owner, "STALE", -1.0)  # as if it had shown no sign of life
    assert extract() == 22 - 4
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
    pusher = pusher_of(folder / "toy" / "hog.zarr", {})
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


def record():
    """Row -> description, of the record below the URL."""
    return provenance.parsed(bytes(Bucket(URL).get("m/.vector.zarr.files")), "record")


def test_replaced_files_are_named_on_another_machine(server, monkeypatch, tmp_path):  # noqa: F811
    manifest = sources(tmp_path / "media")
    featcache.extract(manifest, "vector", URL, workers=1)
    expected = record()
    assert sorted(expected) == list(range(len(manifest)))
    assert all(expected.values())
    np.save(tmp_path / "media" / "5.npy", np.zeros(3))
    another_machine(monkeypatch, tmp_path)
    (note,) = (note for note in featcache.extract(manifest, "vector", URL, workers=1).notes if "--renew" in note)
    assert "1 clip " in note
    assert "'c5'" in note
    (problem,) = (problem for problems in featcache.check(URL).values() for problem in problems)
    assert "'c5'" in problem
    another_machine(monkeypatch, tmp_path, "third")
    done = featcache.extract(manifest, "vector", URL, workers=1, renew=True)
    assert done.clips == 1
    assert {row for row, described in record().items() if described != expected[row]} == {5}
    another_machine(monkeypatch, tmp_path, "fourth")
    done = featcache.extract(manifest, "vector", URL, workers=1)
    assert not [note for note in done.notes if "--renew" in note]
    assert not done.stores["vector"].features[5].any()
    assert not any(featcache.check(URL).values())


def test_the_record_does_not_belong_to_a_store(server, tmp_path):  # noqa: F811
    featcache.extract(sources(tmp_path / "media"), "vector", URL, workers=1)
    before = featcache.info(f"{URL}/m/vector.zarr")
    local(URL)
    Bucket(URL).put("m/.vector.zarr.files", b"\n0")
    server.clear()
    local(URL)
    assert server.counted() == 2
    assert featcache.info(f"{URL}/m/vector.zarr")["fingerprint"] == before["fingerprint"]
    Bucket(URL).put("m/.vector.zarr.files", b"\nthis is no record")
    local(URL)
    (problem,) = (problem for problems in featcache.check(URL).values() for problem in problems)
    assert "this is no record" in problem
    with pytest.raises(StoreError, match=r"\.vector\.zarr\.files is damaged.*this is no record"):
        featcache.extract(sources(tmp_path / "media"), "vector", URL, workers=1)


def test_rows_whose_files_were_not_recorded_are_of_unknown_files(server, monkeypatch, tmp_path):  # noqa: F811
    """As after a kill between the push of a block and that of the record."""
    manifest = sources(tmp_path / "media")
    featcache.extract(manifest, "vector", URL, workers=1)
    some = {row: described for row, described in record().items() if row not in (3, 4)}
    Bucket(URL).put("m/.vector.zarr.files", provenance.content(some))
    another_machine(monkeypatch, tmp_path)
    (note,) = (note for note in featcache.extract(manifest, "vector", URL, workers=1).notes if "--renew" in note)
    assert re.search(r"2 clips .*'c3'.*'c4'", note)
    assert featcache.extract(manifest, "vector", URL, workers=1, renew=True).clips == 2


def test_a_block_that_is_written_again_keeps_its_lines_until_it_is_pushed(server, tmp_path):  # noqa: F811
    extract(stop_after=9)
    (folder,) = (cache.home() / "work").glob("*/stores")
    store = folder / "toy" / "hog.zarr"
    old, new = (dict.fromkeys(range(9), f"{size} 1 a") for size in (1, 2))
    provenance.Record(store).append(*(f"{row} {text}" for row, text in old.items()))
    pusher = pusher_of(store, Bucket(URL).listing())
    pusher.begin(True)
    pusher.push(last=True)
    pushed = provenance.parsed(bytes(Bucket(URL).get("toy/.hog.zarr.files")), "record")
    assert pushed == {row: old[row] for row in range(8)}
    (store / "journal" / "0.log").touch()
    provenance.Record(store).append(*(f"{row} {text}" for row, text in new.items()))
    pusher.push(last=True)
    pushed = provenance.parsed(bytes(Bucket(URL).get("toy/.hog.zarr.files")), "record")
    assert pushed == {row: (new if row >= 4 else old)[row] for row in range(8)}


def test_parts_of_machines_without_a_common_disk_make_the_store_of_one_process(
    server,  # noqa: F811
    monkeypatch,
    tmp_path,
):
    manifest = sources(tmp_path / "media", broken=(3, 17))
    for number in (2, 0, 3, 1):
        another_machine(monkeypatch, tmp_path, f"machine{number}")
        featcache.extract(manifest, "vector", URL, workers=1, shards=f"{number}/4")
    another_machine(monkeypatch, tmp_path, "head")
    done = featcache.merge(manifest, (), URL)
    assert done.clips == len(manifest)
    featcache.extract(manifest, "vector", tmp_path / "plain", workers=1)
    store = tmp_path / "plain" / "m" / "vector.zarr"
    assert objects(f"{URL}/m/vector.zarr") == files(store)
    assert record() == {
        row: described for row, described in provenance.Record(store).files().items() if row not in (3, 17)
    } | {3: "", 17: ""}


def test_appended_clips_are_extracted_by_parts_and_merged(server, monkeypatch, tmp_path):  # noqa: F811
    first, manifest = sources(tmp_path / "media", range(9)), sources(tmp_path / "media")
    featcache.extract(first, "vector", URL, workers=1)
    computed = 0
    for number in range(2):
        another_machine(monkeypatch, tmp_path, f"machine{number}")
        computed += featcache.extract(manifest, "vector", URL, workers=1, shards=f"{number}/2").clips
    assert computed == len(manifest) - len(first)
    assert featcache.merge(manifest, "vector", URL).clips == computed
    featcache.extract(manifest, "vector", tmp_path / "plain", workers=1)
    assert objects(f"{URL}/m/vector.zarr") == files(tmp_path / "plain" / "m" / "vector.zarr")
    assert featcache.merge(manifest, "vector", URL).clips == 0


def test_a_part_that_needs_float32_is_seen_by_the_others(server, monkeypatch, tmp_path):  # noqa: F811
    manifest = sources(tmp_path / "media", values={0: 1e6, 1: 1e6, 2: 1e6, 3: 1e6})
    wide = {number for number in range(4) if any(Shard(number, 4).has(f"c{i}") for i in range(1, 4))}
    order = [*sorted(set(range(4)) - wide), *sorted(wide)]
    for number in order:
        another_machine(monkeypatch, tmp_path, f"machine{number}")
        featcache.extract(manifest, "vector", URL, workers=1, shards=f"{number}/4")
    with pytest.raises(StoreError, match=r"float32.*--shards"):
        featcache.merge(manifest, "vector", URL)
    for number in order:
        another_machine(monkeypatch, tmp_path, f"machine{number}")
        featcache.extract(manifest, "vector", URL, workers=1, shards=f"{number}/4")
    featcache.merge(manifest, "vector", URL)
    featcache.extract(manifest, "vector", tmp_path / "plain", workers=1)
    assert objects(f"{URL}/m/vector.zarr") == files(tmp_path / "plain" / "m" / "vector.zarr")


def test_missing_parts_of_a_url_are_named(server, videos, tmp_path):  # noqa: F811
    words = [str(videos / "kitchens.csv"), "hog", "--stores", URL]
    done = CliRunner().invoke(main, ["merge", *words])
    assert done.exit_code == 1
    assert re.search(rf"{URL}/kitchens has no parts.*--shards", done.output)
    done = CliRunner().invoke(main, ["extract", *words, "--shards", "0/3", "--workers", "1", "--quiet"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["merge", *words])
    assert done.exit_code == 1
    assert re.search(rf"{URL}/kitchens/.shards lacks 2 of 3 parts of hog.*1/3, 2/3", done.output)


class Other:
    """Another machine: its commands have another cache, another work folder and, in `owner.STALE`, no patience."""

    def __init__(self, monkeypatch, tmp_path):
        self.patch, self.place, self.mine = monkeypatch, tmp_path, os.environ["FEATCACHE_STORES"]

    def __enter__(self):
        another_machine(self.patch, self.place)

    def __exit__(self, *_):
        self.patch.setenv("FEATCACHE_STORES", self.mine)


def test_a_store_is_listed_after_it_is_owned(server, plain, monkeypatch, tmp_path):  # noqa: F811
    """Another machine writes the whole store just before this one becomes the owner."""
    take = owner.Owner.take

    def late(own):
        monkeypatch.setattr(owner.Owner, "take", take)
        with Other(monkeypatch, tmp_path):
            assert extract() == 22
        return take(own)

    monkeypatch.setattr(owner.Owner, "take", late)
    with pytest.raises(StoreError, match="another recipe"):
        extract(recipe=RECIPE | {"version": 2}, rows=ROWS * 3)
    equal(plain)


def test_a_manifest_below_a_url_does_not_shrink(server, monkeypatch, tmp_path):  # noqa: F811
    first = replace(MANIFEST, clips=MANIFEST.clips[:6])
    extract(clips=first)
    with Other(monkeypatch, tmp_path), working(URL, "toy", ["logmel"], MANIFEST) as folder:
        MANIFEST.write(folder / "toy" / "manifest.csv")
    before = bytes(Bucket(URL).get("toy/manifest.csv"))
    with pytest.raises(StoreError, match=rf"{URL}/toy/manifest.csv has 22 clips.*6 clips.*'toy'"):
        extract(clips=first)
    assert bytes(Bucket(URL).get("toy/manifest.csv")) == before


@pytest.mark.parametrize(("theirs", "error"), [(22, ""), (25, r"manifest.csv has 25 clips.*22 clips")])
def test_a_manifest_is_replaced_only_if_it_is_unchanged(server, theirs, error):  # noqa: F811
    """Another machine writes its manifest, of as many clips, after this one has looked."""
    more = (featcache.Clip(f"{i:03}", "d", "train", f"{i}.mp4") for i in range(22, 30))
    other = replace(MANIFEST, clips=(*MANIFEST.clips, *more)[:theirs]).content("/elsewhere")

    def command():
        with working(URL, "toy", ["hog"], MANIFEST) as folder:
            Bucket(URL).put("toy/manifest.csv", other)
            write(folder)

    if error:
        with pytest.raises(StoreError, match=error):
            command()
        assert bytes(Bucket(URL).get("toy/manifest.csv")) == other
    else:
        command()


@pytest.mark.parametrize("during", ["push", "fetch"])
def test_a_writer_shows_signs_of_life_during_every_request(server, monkeypatch, tmp_path, during):  # noqa: F811
    """No other machine takes a store over while one request takes longer than it waits."""
    if during == "fetch":
        extract(stop_after=10)
    monkeypatch.setattr(owner, "BEAT", 0.05)
    beats, method, slow = [], {"push": "PUT", "fetch": "GET"}[during], threading.Event()

    def fault(request):
        if request.method == method and "/features/c/0" in request.path and not slow.is_set():
            slow.set()
            before = len(beats)
            deadline = time.monotonic() + 20
            while len(beats) < before + 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            beats.append("during" if len(beats) >= before + 5 else "none")
        if request.method == "PUT" and request.path.endswith("writer.json"):
            beats.append("beat")
        return ""

    server.fault = fault
    with Other(monkeypatch, tmp_path):
        extract()
    assert "during" in beats
    assert beats[-1] == "beat"


@pytest.mark.parametrize("part", ["features/c/1/", "state/c/1"])
def test_a_store_that_is_taken_over_during_a_push_is_an_error(server, monkeypatch, tmp_path, part):  # noqa: F811
    """The other machine finishes the store meanwhile; what it has written stays."""
    taken = threading.Event()

    def fault(request):
        if request.method == "PUT" and part in request.path and not taken.is_set():
            taken.set()
            token = owner.Owner(Bucket(URL), "toy/hog.zarr", "another")
            patch.setattr(owner, "STALE", -1.0)
            token.take()
            token.abandon()
        return ""

    server.fault = fault
    with monkeypatch.context() as patch, pytest.raises(StoreError, match="another process has just become the writer"):
        extract()
    assert taken.is_set()
    there = {name for name in objects() if name.startswith("state/c/")}
    assert there <= {"state/c/0", "state/c/1"}
    assert (part in there) == part.startswith("state")
    assert b'"another"' in bytes(Bucket(URL).get("toy/.hog.zarr.writer.json"))


def test_the_command_fails_if_the_store_was_taken_over(server, videos, monkeypatch):  # noqa: F811
    """Even if nothing is left to push."""
    words = ["extract", str(videos / "kitchens.csv"), "hog", "--workers", "1", "--quiet", "--stores", URL]
    assert CliRunner().invoke(main, words).exit_code == 0

    def fault(request):
        if request.method == "PUT" and request.path.endswith("writer.json") and not taken:
            taken.append(request)
            return ""
        if request.method == "PUT" and request.path.endswith("writer.json") and len(taken) == 1:
            taken.append(request)
            Bucket(URL).put("kitchens/.hog.zarr.writer.json", other)
        return ""

    other = bytes(Bucket(URL).get("kitchens/.hog.zarr.writer.json")).replace(b'"token": "', b'"token": "another')
    taken = []
    server.fault = fault
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert re.search(f"{URL}/kitchens/hog.zarr: another process has just become the writer", done.output)


def test_rows_that_another_machine_has_overtaken_are_kept(server, monkeypatch, tmp_path):  # noqa: F811
    extract(stop_after=1)
    fault = "<Error><Code>AccessDenied</Code></Error>"
    server.fault = lambda request: fault if "/features/c/" in request.path and request.method == "PUT" else ""
    with warnings.catch_warnings(action="ignore"), pytest.raises(StoreError, match="AccessDenied"):
        extract()
    server.clear()
    with Other(monkeypatch, tmp_path):
        assert extract(stop_after=2) == 2
    with pytest.warns(UserWarning, match=rf"{STORE} was .* (\d+) such rows is kept in ") as caught:
        extract()
    (kept,) = (cache.home() / "work").glob("*/overtaken/toy/hog.1.zarr")
    assert str(kept) in str(caught[0].message)
    store = featcache.FeatureStore.open(kept)
    assert f" {store.counts()['done']} such rows" in str(caught[0].message)
    assert np.allclose(store.read([10])[0], ROWS[10], atol=1e-2)
    with warnings.catch_warnings(action="error"):
        with Other(monkeypatch, tmp_path):
            extract()
        extract()


def test_rows_that_the_other_machine_has_too_are_not_kept(server, monkeypatch, tmp_path):  # noqa: F811
    extract(stop_after=10)
    with Other(monkeypatch, tmp_path):
        extract()
    with warnings.catch_warnings(action="error"):
        assert extract() == 0
    assert not list((cache.home() / "work").glob("*/overtaken/*/*"))


def test_failed_pushes_are_repeated_while_rows_are_computed(server, plain):  # noqa: F811
    failed = []

    def fault(request):
        if request.method == "PUT" and "/features/c/1" in request.path and len(failed) < 3:
            failed.append(request)
            return "<Error><Code>AccessDenied</Code></Error>"
        return ""

    server.fault = fault
    states = {f"state/c/{block}" for block in range(6)}

    def command():
        with working(URL, "toy", ["hog"], MANIFEST) as folder:
            write(folder)
            deadline = time.monotonic() + 60
            while not states <= {*Bucket(STORE).listing()} and time.monotonic() < deadline:
                time.sleep(0.05)
            return {*Bucket(STORE).listing()}

    with pytest.warns(UserWarning, match="AccessDenied.*extraction continues") as caught:
        pushed = command()
    assert states <= pushed
    assert len(failed) == 3
    assert len([warning for warning in caught if "AccessDenied" in str(warning.message)]) == 1
    equal(plain)


def test_a_sign_of_life_that_fails_although_it_was_stored_loses_nothing(server):  # noqa: F811
    held = owner.Owner(Bucket(URL), "toy/hog.zarr", "token")
    held.take()
    bucket = Bucket(URL)
    data, version, _ = bucket.read("toy/.hog.zarr.writer.json")
    assert bucket.swap("toy/.hog.zarr.writer.json", data.replace(b'"time": ', b'"time": 1'), version)
    held.confirm()
    held.release()


def test_an_interrupted_thread_writes_nothing_after_the_release(server):  # noqa: F811
    waiting, written = threading.Event(), []

    def fault(request):
        if request.method == "PUT" and "/features/c/1" in request.path:
            waiting.set()
            time.sleep(0.5)
        if request.method == "PUT":
            written.append(request.path)
        return ""

    server.fault = fault

    def interrupted():
        with working(URL, "toy", ["hog"], MANIFEST) as folder:
            write(folder, stop_after=12)
            assert waiting.wait(20)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("push", "owner of toy"))]
    assert b'"free": true' in bytes(Bucket(URL).get("toy/.hog.zarr.writer.json"))
    assert written[-1].endswith("writer.json")
    assert not [path for path in written if "state/c/1" in path]


def test_the_clock_of_the_machine_does_not_matter(server, monkeypatch, tmp_path):  # noqa: F811
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=11)

    monkeypatch.setattr(owner, "datetime", Clock)
    with working(URL, "toy", ["hog"], MANIFEST) as folder:
        write(folder, stop_after=5)
        with Other(monkeypatch, tmp_path), pytest.raises(StoreError, match="is being written by process"):
            extract()
    assert not [name for name in Bucket(URL).listing() if "writer.json." in name]


def test_a_store_that_is_quiet_by_the_clock_of_the_service_is_taken_over(server, monkeypatch, tmp_path):  # noqa: F811
    read = Bucket.read

    def older(bucket, name):
        data, version, when = read(bucket, name)
        return data, version, when - timedelta(minutes=11) if name.endswith("writer.json") else when

    first = working(URL, "toy", ["hog"], MANIFEST)
    first.__enter__()
    monkeypatch.setattr(Bucket, "read", older)
    with Other(monkeypatch, tmp_path):
        assert extract() == 22
    with pytest.raises(StoreError, match="just become the writer"):
        first.__exit__(None, None, None)


def test_processes_of_a_machine_have_one_token(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: pushing._token(tmp_path), range(8)))) == 1


def test_a_writer_that_was_suspended_asks_before_each_request(server, monkeypatch):  # noqa: F811
    """It is taken over while it pushes the files of a block, which it does not finish."""
    extract(stop_after=9)
    (folder,) = (cache.home() / "work").glob("*/stores")
    write(folder)
    Bucket(URL).delete("toy/.hog.zarr.writer.json")
    pusher = pusher_of(folder / "toy" / "hog.zarr", {})
    monkeypatch.setattr(pushing, "AT_ONCE", 1)
    monkeypatch.setattr(owner, "BEAT", -1.0)  # no sign of life is new enough
    after = []

    def fault(request):
        if after and "/hog.zarr/" in request.path and request.method in ("PUT", "DELETE"):
            after.append(request)
        if request.method == "PUT" and "/features/c/0" in request.path:
            name, ours, theirs = "toy/.hog.zarr.writer.json", b'"token": "token"', b'"token": "another"'
            Bucket(URL).put(name, bytes(Bucket(URL).get(name)).replace(ours, theirs))
            after.append(request)
        return ""

    server.fault = fault
    with pytest.raises(StoreError, match="just become the writer"):
        pusher.push()
    assert len(after) == 1
