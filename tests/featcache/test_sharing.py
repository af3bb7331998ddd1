"""`push` and `pull`: stores arrive byte for byte, interrupted work continues, and the card has the facts of the stores.

The Hugging Face Hub is a stand-in on loopback (tests/helpers/hub.py), S3 is moto's server.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

import featcache
import pipelines
from featcache import sums
from featcache.errors import ArgumentsError, ConfigError, StoreError
from featcache.files import file_sha256
from featcache.manifest import Clip, Manifest
from featcache.remote import hub as hubs
from featcache.remote.bucket import Bucket
from featcache.remote.opening import opened
from featcache.sharing import licences
from featcache.sharing.content import portable
from featcache.store import StoreWriter
from featcache.store.places import local
from pipelines.cli import main
from tests.conftest import ROOT
from tests.helpers import hub as stand_in
from tests.helpers import objects
from tests.helpers.processes import command, wait_for
from tests.helpers.stores import manifest, run, small_blocks, write_all, write_store

REPO = "me/features"
HUB, S3 = f"hf://datasets/{REPO}", "s3://bucket/shared"
STATES = {1: "failed", 2: "absent"}


@pytest.fixture(scope="module")
def service():
    with stand_in.serving() as server:
        yield server


@pytest.fixture
def server(service, monkeypatch, tmp_path):
    """The stand-in without datasets, in the environment, and an empty cache."""
    service.environment(monkeypatch)
    monkeypatch.setenv("FEATCACHE_STORES", str(tmp_path / "cache"))
    service.repos.clear()
    service.large.clear()
    service.clear()
    return service


@pytest.fixture(scope="module")
def s3_service():
    with objects.serving("bucket") as server:
        yield server


@pytest.fixture
def s3(s3_service, monkeypatch, tmp_path):
    """moto's server without objects, in the environment, and an empty cache."""
    return objects.emptied(s3_service, monkeypatch, tmp_path)


@pytest.fixture
def stores(tmp_path):
    """STORES with a manifest and two stores of several blocks."""
    with small_blocks():
        yield write_all(tmp_path / "stores")


@pytest.fixture
def plain(tmp_path):
    """The same with blocks of any size, which processes read that have no patch."""
    return write_all(tmp_path / "stores")


def files(folder):
    """Name -> content of the files that belong to stores; without journals, locks and cards."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.is_file() and "journal" not in inner.parts and path.name != "README.md" and path.name[0] != ".":
            found[str(inner)] = path.read_bytes()
    return found


def of_stores(folder):
    return {name: data for name, data in files(folder).items() if ".zarr/" in name}


def card_of(folder, *texts):
    """The rows of all tables of a card that have these cells."""
    lines = re.sub(r"\\(.)", r"\1", (folder / "README.md").read_text()).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if set(texts) <= set(row)]


def pushed(stores, place, **options):
    return featcache.push(stores, place, **{"licence": "CC-BY-NC-4.0", **options})


# ------------------------------------------------------------------------------------------------------- what is shared


def test_stores_return_byte_for_byte_through_a_folder(stores, tmp_path):
    outcome = pushed(stores, tmp_path / "shared")
    shared = files(tmp_path / "shared") | {"README.md": (tmp_path / "shared" / "README.md").read_bytes()}
    assert (outcome.files, outcome.uploaded, outcome.bytes) == (
        len(shared),
        len(shared),
        sum(map(len, shared.values())),
    )
    listed = sums.parse(shared.pop(sums.NAME))
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in shared.items()}
    pulled = featcache.pull(tmp_path / "shared", tmp_path / "back")
    assert files(tmp_path / "back").keys() == files(stores).keys()
    assert of_stores(tmp_path / "back") == of_stores(stores)
    assert [featcache.check(path) for path in pulled.stores] == [{path: []} for path in pulled.stores]
    assert Manifest.read(tmp_path / "back" / "toy" / "manifest.csv").sha256 == manifest().sha256
    assert not (tmp_path / "back" / ".pull").exists()


def test_nothing_is_written_or_fetched_twice(stores, tmp_path):
    pushed(stores, tmp_path / "shared")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")}
    assert pushed(stores, tmp_path / "shared").uploaded == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")} == before
    assert featcache.pull(tmp_path / "shared", tmp_path / "back").fetched == sum(
        "hog.zarr/" in name or "hof.zarr/" in name for name in files(tmp_path / "shared")
    )
    assert featcache.pull(tmp_path / "shared", tmp_path / "back").fetched == 0
    assert pushed(tmp_path / "back", tmp_path / "again").uploaded == len(files(tmp_path / "again")) + 1
    assert files(tmp_path / "again") == files(tmp_path / "shared")


def test_the_card_and_the_description_have_the_facts_of_the_stores(tmp_path):
    clips = manifest()
    write_all(tmp_path / "stores", states=STATES, weights="untrained:0", facts={"licence": "CC BY 4.0"})
    pushed(tmp_path / "stores", tmp_path / "shared")
    text = (tmp_path / "shared" / "README.md").read_text()
    front = text.split("---\n")[1].splitlines()
    assert "license: cc-by-nc-4.0" in front
    assert {"- featcache", "- features"} < set(front)
    facts = featcache.info(tmp_path / "stores" / "toy" / "hog.zarr")
    counts = [str(facts["states"][state]) for state in ("done", "failed", "absent", "not tried")]
    assert card_of(tmp_path / "shared", "toy/hog.zarr", "(8,) float32")[0][-4:] == counts
    assert ["toy/hog.zarr", clips.clips[1].clip_id, "failed", "moov atom not found"] in card_of(tmp_path / "shared")
    assert card_of(tmp_path / "shared", facts["recipe_sha256"])
    assert card_of(tmp_path / "shared", facts["fingerprint"])
    assert ["weights", "toy/hog.zarr", "CC BY 4.0"] in card_of(tmp_path / "shared")
    assert ["clips", "toy", "CC-BY-NC-4.0"] in card_of(tmp_path / "shared")
    assert ["day", "12", "0", "6"] in card_of(tmp_path / "shared")
    assert re.search(r"UNTRAINED WEIGHTS.*toy/hof.zarr, toy/hog.zarr", text)
    described = json.loads((tmp_path / "shared" / "croissant.json").read_text())
    assert (described["@type"], described["conformsTo"]) == ("sc:Dataset", "http://mlcommons.org/croissant/1.0")
    assert described["license"] == "https://spdx.org/licenses/CC-BY-NC-4.0.html"
    objects = {file["@id"]: file for file in described["distribution"]}
    assert set(objects) == {*files(tmp_path / "shared"), "README.md"} - {"croissant.json", sums.NAME}
    for name, file in objects.items():
        path = tmp_path / "shared" / name
        assert (file["sha256"], file["contentSize"]) == (file_sha256(path), f"{path.stat().st_size} B")
    (records,) = described["recordSet"]
    with (tmp_path / "shared" / "toy" / "manifest.csv").open() as file:
        assert [field["source"]["extract"]["column"] for field in records["field"]] == next(csv.reader(file))


def test_labels_in_features_and_labels_seen_are_warnings(tmp_path):
    clips = manifest()
    clips.write(tmp_path / "stores" / "toy" / "manifest.csv")
    write_store(tmp_path / "stores" / "toy", clips, "net", facts={"trained_on": "Kinetics-400 (labels)"})
    write_one_hot(tmp_path / "stores" / "toy" / "answers.zarr", clips)
    pushed(tmp_path / "stores", tmp_path / "shared")
    text = (tmp_path / "shared" / "README.md").read_text()
    assert re.search(r"LABELS IN FEATURES.*toy/answers\.zarr.*one-hot", text)
    assert re.search(r"LABELS SEEN: toy/net\.zarr.*Kinetics-400", text)
    assert "LABELS SEEN: toy/answers" not in text


def writing(path, clips, size=1):
    """A writer of a store of one window."""
    recipe = {"extractor": path.stem, "version": 1, "modality": "rgb", "weights_sha256": "none", "dtype": "float32"}
    return StoreWriter.open(path, clips, recipe, row_shape=(size,), windows=1, facts={})


def write_one_hot(path, clips):
    """A store whose features are the label."""
    names = clips.classes["label"]
    with writing(path, clips, size=len(names)) as writer:
        for row, clip in enumerate(clips):
            hot = np.eye(len(names), dtype=np.float32)[[names.index(clip.labels["label"])]]
            writer.done(row, hot, np.zeros(1), np.ones(1))


def test_without_a_licence_nothing_is_pushed(stores, tmp_path):
    with pytest.raises(StoreError, match=r"no licence.*toy.*no card.*--licence CC-BY-NC-4\.0"):
        featcache.push(stores, tmp_path / "shared")
    (tmp_path / "card.md").write_text("# Toy\n\n| licence | none is stated |\n")
    with pytest.raises(StoreError, match=r"toy.*card, 'none is stated'.*--licence"):
        featcache.push(stores, tmp_path / "shared", card=tmp_path / "card.md")
    assert not (tmp_path / "shared").exists()
    (tmp_path / "card.md").write_text("---\nlicence: CC BY 4.0\n---\n# Toy\n\nTwelve clips of a toy.\n")
    featcache.push(stores, tmp_path / "shared", card=tmp_path / "card.md")
    text = (tmp_path / "shared" / "README.md").read_text()
    assert "license: cc-by-4.0\n" in text
    assert "Twelve clips of a toy." in text
    assert text.count("\n---\n") == 1


@pytest.mark.parametrize(
    ("card", "text", "identifier"),
    [
        ("| licence | CC BY-NC 4.0 |", "CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("license: apache-2.0", "apache-2.0", "apache-2.0"),
        ("| licence | generated by the code: MIT |", "generated by the code: MIT", ""),
        ("license:\n- mit", "", ""),
        ("The licence: unknown to us.", "", ""),
        ("no line", "", ""),
    ],
)
def test_licences_of_cards(card, text, identifier):
    assert licences.stated(card) == text
    assert licences.known(text) == identifier


def test_every_card_of_a_benchmark_has_a_licence_line():
    for path in (ROOT / "data_manifests").glob("*.md"):
        assert licences.LINE.search(path.read_text()), path


def test_no_folder_of_this_machine_is_pushed(tmp_path):
    media = tmp_path / "home" / "somebody" / "videos"
    clips = Manifest(
        "toy", tuple(Clip(c.clip_id, c.domain, c.split, str(media / c.source), labels=c.labels) for c in manifest())
    )
    write_all(tmp_path / "stores", clips)
    (tmp_path / "stores" / "toy" / ".hog.zarr.files").write_text("\n0 12 13 14")
    pushed(tmp_path / "stores", tmp_path / "shared")
    shared = {**files(tmp_path / "shared"), "README.md": (tmp_path / "shared" / "README.md").read_bytes()}
    assert not [name for name, data in shared.items() if b"somebody" in data or str(tmp_path).encode() in data]
    assert not list((tmp_path / "shared").rglob(".*"))
    assert Manifest.read(tmp_path / "shared" / "toy" / "manifest.csv").clips[0].source == manifest().clips[0].source
    with writing(tmp_path / "stores" / "toy" / "odd.zarr", clips) as writer:
        writer.failed(0, f"no frames in {media}/a.mp4")
        for row in range(1, len(clips)):
            writer.absent(row, "no sound")
    words = r"odd\.zarr names a folder of this machine: /\S+a\.mp4.*relative sources into \S+videos,.*--retry-failed"
    with pytest.raises(StoreError, match=words):
        pushed(tmp_path / "stores", tmp_path / "shared")


def test_sources_keep_the_folders_below_the_one_that_they_share(tmp_path):
    def sources(*given, root=tmp_path):
        clips = tuple(Clip(str(number), "d", "train", source) for number, source in enumerate(given))
        return [clip.source for clip in portable(Manifest("m", clips, root))]

    assert sources("../v/a/x.mp4", "../v/b/x.mp4", "") == ["a/x.mp4", "b/x.mp4", ""]
    assert sources("x.mp4", "x.mp4") == ["x.mp4", "x.mp4"]
    assert sources("/one/x.mp4", "/two/deep/y.mp4") == ["x.mp4", "y.mp4"]
    assert sources("", "") == ["", ""]


def test_stores_that_are_written_or_damaged_are_refused_before_anything_is_pushed(stores, tmp_path):
    folder = stores / "toy"
    write_store(folder, manifest(), "open", stop_after=5)
    clips = manifest()
    with writing(folder / "other.zarr", clips), pytest.raises(StoreError, match=r"other\.zarr.*by another process"):
        pushed(stores, tmp_path / "shared")
    shutil.rmtree(folder / "other.zarr")
    assert pushed(stores, tmp_path / "unfinished").files
    (row,) = card_of(tmp_path / "unfinished", "toy/open.zarr", "(5,) float32")
    assert (row[-4], row[-1]) == ("4", str(len(clips) - 4))  # whole blocks; journals are not pushed
    assert not [name for name in files(tmp_path / "unfinished") if "journal" in name]
    shard = folder / "hog.zarr" / "features" / "c" / "1" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"hog\.zarr.*block 1"):
        pushed(stores, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


@pytest.mark.slow
def test_other_stores_at_the_destination_are_left_alone(stores, tmp_path):
    with pytest.raises(StoreError, match=r"hof\.zarr.*not an archive.*another destination"):
        pushed(stores, stores)
    pushed(stores, tmp_path / "shared")
    shutil.rmtree(stores / "toy" / "hof.zarr")
    with pytest.raises(StoreError, match=r"toy/hof\.zarr.*not among the pushed"):
        pushed(stores, tmp_path / "shared")
    featcache.pull(tmp_path / "shared", tmp_path / "back")
    shutil.rmtree(tmp_path / "back" / "toy" / "hog.zarr")
    write_store(tmp_path / "back" / "toy", manifest(), "hog", seed=1)
    with pytest.raises(StoreError, match=r"hog\.zarr exists and differs.*another folder"):
        featcache.pull(tmp_path / "shared", tmp_path / "back")


@pytest.mark.slow
def test_a_changed_store_is_pushed_again_without_what_is_left_of_the_old_one(stores, tmp_path):
    pushed(stores, tmp_path / "shared")
    shutil.rmtree(stores / "toy" / "hog.zarr")
    write_store(stores / "toy", manifest(), "hog", seed=1, stop_after=8)
    assert pushed(stores, tmp_path / "shared").uploaded
    featcache.pull(tmp_path / "shared", tmp_path / "back")
    assert of_stores(tmp_path / "back") == of_stores(stores)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy/hog.zarr/features/c/1/0/0", "toy/manifest.csv", "toy/hog.zarr/archive.json"])
def test_a_damaged_file_is_named_and_no_store_appears(stores, tmp_path, name):
    pushed(stores, tmp_path / "shared")
    data = bytearray((tmp_path / "shared" / name).read_bytes())
    data[5] ^= 1
    (tmp_path / "shared" / name).write_bytes(data)
    with pytest.raises(StoreError, match=rf"{name} does not match SHA256SUMS"):
        featcache.pull(tmp_path / "shared", tmp_path / "back")
    if "hog" in name:
        assert not (tmp_path / "back" / "toy" / "hog.zarr").exists()


def test_a_push_that_has_not_ended_is_recognised(stores, tmp_path):
    pushed(stores, tmp_path / "shared")
    (tmp_path / "shared" / sums.NAME).rename(tmp_path / "later")
    with pytest.raises(StoreError, match=r"no SHA256SUMS.*push"):
        featcache.pull(tmp_path / "shared", tmp_path / "back")
    (tmp_path / "later").rename(tmp_path / "shared" / sums.NAME)
    (tmp_path / "shared" / "toy" / "hof.zarr" / "rows.csv").unlink()
    with pytest.raises(StoreError, match=r"toy/hof\.zarr/rows\.csv is missing"):
        featcache.pull(tmp_path / "shared", tmp_path / "back")
    assert pushed(stores, tmp_path / "shared").uploaded == 3  # the file, and the two lists of digests that name it
    assert of_stores(featcache.pull(tmp_path / "shared", tmp_path / "back").folder) == of_stores(stores)


@pytest.mark.parametrize("name", ["../evil.zarr/zarr.json", "toy/../../x.zarr/y", "/toy/x.zarr/y", ".ssh/x.zarr/y"])
def test_names_cannot_leave_the_folder(tmp_path, name):
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / sums.NAME).write_bytes(sums.text({name: digest}))
    place = opened(tmp_path / "shared")
    listing = place.listing() | {name: place.listing()[sums.NAME]}
    place.listing = lambda: listing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featcache.sharing.pull.opened_place", lambda _: place)
        with pytest.raises(StoreError, match="no name of a file"):
            featcache.pull(tmp_path / "shared", tmp_path / "back")
    assert not (tmp_path / "evil.zarr").exists()


# ------------------------------------------------------------------------------------------------------ hub and S3


def test_a_dataset_of_the_hub_is_pushed_and_pulled(server, stores, tmp_path):
    outcome = pushed(stores, HUB)
    assert server.repos[REPO].commits[-1][1]["README.md"]
    uploads = server.counted("^PUT")
    server.clear()
    assert (pushed(stores, HUB).uploaded, server.counted("^PUT|^POST")) == (0, 0)
    assert uploads == len(server.large)
    shared = server.files(REPO)
    assert outcome.files == len(shared) - 1  # .gitattributes
    server.clear()
    featcache.pull(HUB, tmp_path / "back")
    assert of_stores(tmp_path / "back") == of_stores(stores)
    assert server.counted("/resolve/") == outcome.files - 1  # croissant.json is not needed
    assert server.counted("/api/") == 1
    server.clear()
    assert featcache.pull(HUB, tmp_path / "back").fetched == 0
    assert [server.counted(), server.counted("/resolve/.*/SHA256SUMS")] == [2, 1]
    pushed(stores, tmp_path / "shared")
    here = files(tmp_path / "shared")
    assert {n: d for n, d in shared.items() if ".zarr/" in n} == {n: d for n, d in here.items() if ".zarr/" in n}


@pytest.mark.slow
def test_a_head_is_trained_on_a_dataset_of_the_hub_as_on_a_folder(server, stores, tmp_path, monkeypatch):
    pushed(stores, HUB)
    words = ["--seeds", "0", "--shift", "day:night", "--set", "steps=2", "--workers", "1", "--quiet"]
    for place, runs in ((HUB, "far"), (stores / "toy", "near")):
        done = CliRunner().invoke(main, ["train-head", str(place), *words, "--runs", str(tmp_path / runs)])
        assert done.exit_code == 0, done.output
    far, near = (
        {path.parent.name: path.read_bytes() for path in (tmp_path / runs).glob("*/outputs.npz")}
        for runs in ("far", "near")
    )
    assert far == near
    assert far
    server.clear()
    copy = local(HUB)
    assert [request.method for request in server.requests] == ["GET"]
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    server.clear()
    assert local(HUB) == copy
    assert not server.requests
    with pytest.raises(StoreError, match=r"FEATCACHE_OFFLINE"):
        featcache.pull(HUB, tmp_path / "back")


@pytest.mark.slow
def test_a_large_dataset_is_listed_by_pages(server, stores, monkeypatch, tmp_path):
    pushed(stores, HUB)
    server.clear()
    monkeypatch.setattr(hubs, "MANY", 10)
    assert len(opened(HUB).listing()) == len(server.files(REPO))
    assert server.counted("/tree/") > len(server.files(REPO)) // stand_in.PAGE
    assert of_stores(featcache.pull(HUB, tmp_path / "back").folder) == of_stores(stores)


@pytest.mark.slow
def test_a_revision_and_a_path_of_a_dataset(server, stores, tmp_path):
    place = f"{HUB}@main/v1/all"
    pushed(stores, place)
    old = server.repos[REPO].commits[-1][0]
    write_store(stores / "toy", manifest(), "extra")
    pushed(stores, place)
    assert all(name.startswith("v1/all/") for name in server.files(REPO) if name != ".gitattributes")
    assert (featcache.pull(f"{HUB}@{old}/v1/all", tmp_path / "old").folder / "toy" / "hog.zarr").exists()
    assert not (tmp_path / "old" / "toy" / "extra.zarr").exists()
    assert of_stores(featcache.pull(place, tmp_path / "new").folder) == of_stores(stores)


@pytest.mark.slow
def test_archives_are_packed_to_the_hub_and_unpacked_from_it(server, stores, tmp_path):
    featcache.pack(stores / "toy" / "hog.zarr", f"{HUB}/hog.zarr")
    featcache.unpack(f"{HUB}/hog.zarr", tmp_path / "hog.zarr")
    assert files(tmp_path / "hog.zarr") == files(stores / "toy" / "hog.zarr")
    assert featcache.info(f"{HUB}/hog.zarr")["rows"] == len(manifest())


@pytest.mark.slow
def test_stores_return_byte_for_byte_through_s3(s3, stores, tmp_path):
    outcome = pushed(stores, S3)
    assert s3.counted("PUT") == outcome.files
    s3.clear()
    assert (pushed(stores, S3).uploaded, s3.counted("PUT")) == (0, 0)
    s3.clear()
    s3.fault = lambda request: "503" if request.number % 5 == 0 else ""
    assert of_stores(featcache.pull(S3, tmp_path / "back").folder) == of_stores(stores)
    pipelines.train([run()], S3, tmp_path / "far", workers=1)
    pipelines.train([run()], stores, tmp_path / "near", workers=1)
    (far,), (near,) = (list((tmp_path / name).glob("*/outputs.npz")) for name in ("far", "near"))
    assert far.read_bytes() == near.read_bytes()


def killed(words, server, nth, pattern):
    """Kill a command when its nth request of a pattern arrives, before it is answered."""
    matching, process = [], []

    def kill(request):
        if process and re.search(pattern, f"{request.method} {request.path}"):
            matching.append(request)
            if len(matching) == nth:
                os.kill(process[0].pid, signal.SIGKILL)
                process[0].wait()
                return "drop" if isinstance(server, stand_in.Hub) else "503"
        return ""

    server.fault = kill
    process.append(command(*words, env={**os.environ, "PYTHONPATH": str(ROOT)}))
    wait_for(lambda: process[0].poll() is not None, 60)
    assert process[0].returncode == -signal.SIGKILL, process[0].communicate()[1]
    process[0].communicate()


@pytest.mark.slow
@pytest.mark.parametrize("nth", [2, 8])
def test_a_killed_push_to_the_hub_uploads_nothing_twice(server, plain, nth):
    stores = plain
    words = ["push", stores, HUB, "--licence", "MIT", "--quiet"]
    killed(words, server, nth, "^PUT")
    server.fault = lambda request: ""
    assert sums.NAME not in server.files(REPO)
    arrived = server.counted("^PUT")
    pushed(stores, HUB, licence="MIT")
    assert server.counted("^PUT") <= len(server.large) + 5  # those in flight when the client died, five at a time
    assert server.counted("^PUT") > arrived
    for path in {request.path for request in server.requests if request.method == "PUT"}:
        assert sum(request.path == path for request in server.requests) <= 2
    assert sums.parse(server.files(REPO)[sums.NAME])


@pytest.mark.slow
def test_a_killed_push_to_s3_uploads_no_whole_file_twice(s3, plain, tmp_path):
    stores = plain
    killed(["push", stores, S3, "--licence", "MIT", "--quiet"], s3, 30, "^PUT")
    s3.fault = lambda request: ""
    before = set(Bucket(S3).listing())
    s3.clear()
    outcome = pushed(stores, S3, licence="MIT")
    assert before.isdisjoint(
        request.path.partition("/shared/")[2] for request in s3.requests if request.method == "PUT"
    )
    assert outcome.uploaded == outcome.files - len(before)
    assert of_stores(featcache.pull(S3, tmp_path / "back").folder) == of_stores(stores)


@pytest.mark.slow
@pytest.mark.parametrize("nth", [8, 25])
def test_a_killed_pull_fetches_no_whole_file_twice(server, plain, tmp_path, nth):
    stores = plain
    pushed(stores, HUB)
    server.clear()
    killed(["pull", HUB, tmp_path / "back", "--quiet"], server, nth, "/resolve/.*zarr/")
    server.fault = lambda request: ""
    back = tmp_path / "back"
    arrived = [path for path in (back / ".pull").rglob("*") if path.is_file() and path.name[0] != "."]
    whole = list(back.glob("toy/*.zarr"))
    assert len(whole) == (nth > 20)
    server.clear()
    outcome = featcache.pull(HUB, back)
    fetched = {request.path.partition("/resolve/")[2].partition("/")[2] for request in server.requests}
    assert fetched.isdisjoint(str(path.relative_to(back / ".pull")) for path in arrived)
    assert not [name for name in fetched for path in whole if name.startswith(f"toy/{path.name}/")]
    assert outcome.fetched < sum(".zarr/" in name for name in server.files(REPO))
    assert of_stores(back) == of_stores(stores)


@pytest.mark.slow
def test_content_that_changes_on_its_way_is_refused(server, stores, tmp_path):
    pushed(stores, HUB)
    server.fault = lambda request: "damage" if "rows.csv" in request.path else ""
    for read in (lambda: featcache.pull(HUB, tmp_path / "back"), lambda: local(HUB)):
        with pytest.raises(StoreError, match=r"rows\.csv does not match its digest"):
            read()


@pytest.mark.slow
def test_a_busy_hub_is_asked_again(server, stores, tmp_path):
    pushed(stores, HUB)
    seen = set()

    def busy(request):
        first = "/resolve/" in request.path and "hog" in request.path and not seen
        return seen.add(request.path) or 503 if first else ""

    server.fault = busy
    assert of_stores(featcache.pull(HUB, tmp_path / "back").folder) == of_stores(stores)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", r"no dataset 'me/features'.*the token sees no private"),
        ("missing, no token", r"me/features: access is refused.*does not exist.*HF_TOKEN"),
        ("private, no token", r"me/features: access is refused.*private.*HF_TOKEN"),
        ("gated", r"gated.*terms at http://127"),
        ("revision", r"no revision 'v9'.*@"),
        ("refused", r"cannot be reached.*HF_ENDPOINT"),
        ("silent", r"cannot be reached.*HF_ENDPOINT"),
        ("broken", r"cannot be read"),
        ("form", r"hf://datasets/OWNER/NAME"),
    ],
)
def test_wrong_settings_are_one_sentence_within_ten_seconds(server, stores, monkeypatch, case, words):
    from huggingface_hub import constants

    if "missing" not in case:
        pushed(stores, HUB)
    repo = server.repos.get(REPO)
    if "no token" in case:
        monkeypatch.delenv("HF_TOKEN")
    if repo:
        repo.private, repo.gated = "private" in case, case == "gated"
    if case == "broken":
        server.fault = lambda request: 500
    url = {"revision": f"{HUB}@v9", "form": "hf://models/me"}.get(case, HUB)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if case in ("refused", "silent"):
            port = silent.getsockname()[1] if case == "silent" else 9
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        done = CliRunner().invoke(main, ["check", url])
        assert time.monotonic() - began < 10
    assert done.exit_code, done.output
    lines = done.output.strip().splitlines()
    assert re.search(words, lines[-1]), lines
    assert case == "form" or len(lines) == 1


@pytest.mark.slow
def test_pushing_without_a_token_and_extracting_to_the_hub_are_one_sentence(server, stores, tmp_path, monkeypatch):
    manifest().write(tmp_path / "toy.csv")
    with pytest.raises(ArgumentsError, match=r"hf://.*featcache push"):
        featcache.extract(tmp_path / "toy.csv", "hog", HUB)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(StoreError, match=r"me/features.*HF_TOKEN"):
        pushed(stores, HUB)
    server.commit(REPO, {".gitattributes": (b"", False)})
    with pytest.raises(StoreError, match=r"access is refused.*HF_TOKEN"):
        pushed(stores, HUB)


def test_without_huggingface_hub_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"hf://datasets/me/features.*featcache\[hub\]"):
        featcache.pull(HUB, tmp_path / "back")


@pytest.mark.slow
def test_sharing_between_folders_imports_no_client(plain, tmp_path):
    code = (
        "import sys; from pipelines.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print({'obstore', 'huggingface_hub', 'ray'} & set(sys.modules), file=sys.stderr)"
    )
    shared, back = tmp_path / "shared", tmp_path / "back"
    for words in (["push", plain, shared, "--licence", "MIT", "--quiet"], ["pull", shared, back, "--quiet"]):
        done = subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
        assert done.stderr.strip().endswith("set()"), done.stderr


# ------------------------------------------------------------------------------------------------- what is at the place


def rewritten(stores, seed):
    """Other content of the same store names."""
    shutil.rmtree(stores / "toy")
    return write_all(stores, seed=seed)


@pytest.mark.parametrize("name", ["toy/hog.zarr/features/c/0/0/0", "toy/hog.zarr/rows.csv"])
def test_a_damaged_file_at_the_place_is_written_again(stores, tmp_path, name):
    shared = tmp_path / "shared"
    pushed(stores, shared)
    for change in (lambda data: data[: len(data) // 2], lambda data: bytes([data[0] ^ 1]) + data[1:]):
        before = files(shared)
        (shared / name).write_bytes(change(before[name]))
        assert pushed(stores, shared).uploaded == 3  # the file, and the two lists of digests that name it
        assert files(shared) == before


@pytest.mark.slow
def test_an_object_of_another_size_is_written_again(s3, server, stores):
    for place in (S3, HUB):
        pushed(stores, place)
        objects_there = opened(place)
        name = "toy/hog.zarr/features/c/0/0/0"
        data = bytes(objects_there.get(name))
        objects_there.put(name, data[:-9])
        objects_there.commit("damage")
        assert pushed(stores, place).uploaded
        assert bytes(opened(place).get(name)) == data


class _KilledError(BaseException):
    """The end of a process, as far as the files are concerned."""


def ended(place, monkeypatch, stores, after):
    """Push until some files have been written, and end there."""
    put, written = type(opened(place)).put, []

    def limited(self, name, data):
        if len(written) == after:
            raise _KilledError
        written.append(name)
        put(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(type(opened(place)), "put", limited)
        with pytest.raises(_KilledError):
            pushed(stores, place)


@pytest.mark.parametrize("after", [1, 3])
def test_a_push_of_other_content_that_was_killed_leaves_no_checksums_that_are_wrong(
    stores, tmp_path, monkeypatch, after
):
    shared, first = tmp_path / "shared", tmp_path / "first"
    shutil.copytree(stores, first)
    pushed(first, shared)
    before = files(shared)
    ended(shared, monkeypatch, rewritten(stores, seed=1), after)
    assert sums.NAME not in files(shared)
    for folder in shared.glob("toy/*.zarr"):
        listed = sums.parse((folder / sums.NAME).read_bytes()) if (folder / sums.NAME).exists() else {}
        assert all(file_sha256(folder / name) == digest for name, digest in listed.items())
    pushed(first, shared)
    assert files(shared) == before
    assert of_stores(featcache.pull(shared, tmp_path / "back").folder) == of_stores(first)


@pytest.mark.slow
@pytest.mark.parametrize("place", [S3, HUB])
def test_another_push_that_was_killed_is_undone_by_pushing_again(s3, server, stores, tmp_path, monkeypatch, place):
    first = tmp_path / "first"
    shutil.copytree(stores, first)
    pushed(first, place)
    ended(place, monkeypatch, rewritten(stores, seed=1), 20)
    assert sums.NAME not in opened(place).listing()
    pushed(first, place)
    assert of_stores(featcache.pull(place, tmp_path / "back").folder) == of_stores(first)


@pytest.mark.slow
def test_a_push_that_was_killed_at_its_last_files_resumes(stores, tmp_path, monkeypatch):
    pushed(stores, tmp_path / "whole")
    for left in (1, 2, 3):  # SHA256SUMS, croissant.json, README.md
        place = tmp_path / f"left{left}"
        ended(place, monkeypatch, stores, len(files(tmp_path / "whole")) + 1 - left)
        assert pushed(stores, place).uploaded == left
        assert files(place) == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "# My thesis\n\nIt uses featcache.\n"),
        (sums.NAME, f"{'0' * 64}  README.md\n"),
        ("croissant.json", "{}"),
        ("toy/manifest.csv", "clip_id,domain,split,source\na,d,train,\n"),
        ("toy/hog.zarr/.zgroup.txt", "{}"),
        ("toy/hog.zarr/notes.txt", "mine"),
    ],
)
def test_files_that_no_push_has_written_are_never_replaced(stores, tmp_path, name, content):
    place = tmp_path / "project"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_text(content)
    if "/." in name:  # names with a dot are nothing that a push looks at
        pushed(stores, place)
    else:
        with pytest.raises(StoreError, match=rf"project has .*{re.escape(name.removesuffix('/notes.txt'))}.*name an"):
            pushed(stores, place)
        assert [path.name for path in place.rglob("*") if path.is_file()] == [(place / name).name]
    assert (place / name).read_text() == content


def test_the_folder_of_a_manifest_is_no_destination(stores, tmp_path):
    before = {path: path.read_bytes() for path in stores.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=r"toy has the store hof\.zarr.*one manifest"):
        pushed(stores, stores / "toy")
    assert {path: path.read_bytes() for path in stores.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "reason",
    [
        "../Private_Smith/v/b.mp4 cannot be decoded",
        "no such file: file:///smith/x.mp4",
        "ffmpeg:/smith/x.mp4 is odd",
        "~/videos/x.mp4 is odd",
        "~smith/x.mp4 is odd",
        "/x.mp4 is odd",
        "'/a b/c.mp4' is odd",
        r"C:\Users\smith\x.mp4 is odd",
        r"\\server\smith\x.mp4 is odd",
        "Private_Smith/v/day/chop0.mp4 is odd",
        "below v/day/chop0.mp4",
        "Private_Smith/v has no sound",
        "v/other.wav has no sound",
    ],
)
def test_a_reason_that_names_a_folder_outside_the_shared_ones_is_refused(tmp_path, reason):
    media = tmp_path / "Private_Smith" / "v"
    clips = Manifest(
        "toy", tuple(Clip(str(n), "d", "train", str(media / s)) for n, s in enumerate(("day/chop0.mp4", "x")))
    )
    clips.write(tmp_path / "stores" / "toy" / "manifest.csv")
    with writing(tmp_path / "stores" / "toy" / "odd.zarr", clips) as writer:
        writer.failed(0, reason)
        writer.absent(1, "no sound")
    with pytest.raises(StoreError, match=r"odd\.zarr names a folder of this machine.*clip '0'.*Private_Smith/v"):
        pushed(tmp_path / "stores", tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_reasons_without_folders_of_this_machine_are_pushed(tmp_path):
    media = tmp_path / "frames" / "day"
    reasons = [
        "day/chop0.mp4 cannot be decoded (Invalid data); replace or re-encode it",
        "day/chop1.mp4: 12.5 frames/s, 1/3 of (a+b)/2/3, and/or ~5/10 ...",
        "x.mp4: see https://example.org/a/b.html and hf://datasets/me/x/y.bin",
    ]
    names = ("day/chop0.mp4", "day/chop1.mp4", "x.mp4")
    clips = Manifest("toy", tuple(Clip(name, "d", "train", str(media / name)) for name in names))
    clips.write(tmp_path / "stores" / "toy" / "manifest.csv")
    with writing(tmp_path / "stores" / "toy" / "odd.zarr", clips) as writer:
        for row, reason in enumerate(reasons):
            writer.failed(row, reason)
    assert pushed(tmp_path / "stores", tmp_path / "shared").files
    assert all(reason in str(files(tmp_path / "shared")) for reason in reasons)


@pytest.mark.slow
def test_the_way_out_of_private_reasons_works(tmp_path):
    media, lists = tmp_path / "Private_Smith", tmp_path / "lists"
    for folder, prefix in ((lists, "../Private_Smith/"), (media, "")):
        folder.mkdir()
        rows = [f"{name},d,train,{prefix}{name}.mp4" for name in "ab"]
        (folder / "mine.csv").write_text("\n".join(["clip_id,domain,split,source", *rows, ""]))
    (media / "a.mp4").write_bytes(b"broken")
    featcache.extract(lists / "mine.csv", "hog", tmp_path / "stores")
    with pytest.raises(
        StoreError, match=r"\.\./Private_Smith/a\.mp4 \(clip 'a'\).*into \S+/Private_Smith,.*--retry-failed"
    ):
        pushed(tmp_path / "stores", tmp_path / "shared")
    featcache.extract(media / "mine.csv", "hog", tmp_path / "stores", retry_failed=True)
    assert pushed(tmp_path / "stores", tmp_path / "shared").files
    assert "Private_Smith" not in str(files(tmp_path / "shared")) + (tmp_path / "shared" / "README.md").read_text()


def test_a_dataset_that_is_made_is_private_and_the_note_says_how_to_publish_it(server, plain):
    words = ["push", str(plain), HUB, "--licence", "MIT"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert server.repos[REPO].private
    page = f"{server.url}/datasets/{REPO}/settings"
    assert re.search(rf"private.*public at {page}", done.output)
    server.repos[REPO].private = False
    assert page not in CliRunner().invoke(main, words).output
    assert not server.repos[REPO].private


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (f"{HUB}@v9", r"no dataset 'me/features'.*without @v9"),
        (f"{HUB}/a/../b", r"'\.\.'; write the URL"),
        (f"{HUB}/.git/x", r"cannot be read or written"),
        (f"https://huggingface.co/datasets/{REPO}/tree/main", rf"address of a page; write {HUB}, or"),
        ("http://example.org/features", r"address of a page; write hf://datasets/OWNER/NAME"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_sentence_and_no_dataset(server, plain, place, words):
    done = CliRunner().invoke(main, ["push", str(plain), place, "--licence", "MIT"])
    assert done.exit_code
    assert "Traceback" not in done.output
    assert re.search(words, done.output.splitlines()[-1]), done.output
    assert ".git" in place or REPO not in server.repos


@pytest.mark.parametrize("path", ["/x", "./x", "x/..", "a/../b"])
def test_a_path_of_a_dataset_has_only_names(path):
    with pytest.raises(ArgumentsError, match=r"names no dataset"):
        hubs.Hub(f"{HUB}/{path}")


def test_a_dataset_card_that_does_not_exist_names_the_option(stores, tmp_path):
    with pytest.raises(ArgumentsError, match=r"nofile\.md does not exist.*--card"):
        pushed(stores, tmp_path / "shared", card=tmp_path / "nofile.md")
