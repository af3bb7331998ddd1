"""Stores in object storage, against moto's S3 server on loopback: they equal local ones, faults and all."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import featcache
import pipelines
from featcache.errors import ArgumentsError, ConfigError, StoreError
from featcache.remote import cache, urls
from featcache.remote.bucket import Bucket, reason
from featcache.remote.urls import url_of
from featcache.store import archive
from featcache.store.places import local
from pipelines.cli import main
from tests.conftest import ROOT
from tests.helpers.media import write_sound
from tests.helpers.objects import emptied, serving
from tests.helpers.stores import manifest, run, small_blocks, write_all, write_store

URL = "s3://bucket/all/stores"


@pytest.fixture(scope="module")
def service():
    with serving("bucket") as server:
        yield server


@pytest.fixture
def server(service, monkeypatch, tmp_path):
    """The server without objects, in the environment, and an empty cache."""
    return emptied(service, monkeypatch, tmp_path)


def files(folder):
    """Name -> content of the files that belong to stores."""
    names = {}
    for place, _, inside in os.walk(folder, followlinks=True):
        for name in inside:
            path = Path(place, name)
            inner = str(path.relative_to(folder))
            if not name.startswith(".") and "/journal/" not in f"/{inner}":
                names[inner] = path.read_bytes()
    return names


def upload(folder, url=URL):
    """Put every file of a folder, as `aws s3 sync` does."""
    place = Bucket(url)
    for name, data in files(folder).items():
        place.put(name, data)


@pytest.fixture
def stores(tmp_path):
    """STORES with a manifest and two stores of several blocks."""
    with small_blocks():
        yield write_all(tmp_path / "stores")


@pytest.fixture
def remote(server, stores):
    """The same stores below URL."""
    upload(stores)
    server.clear()
    return stores


def test_urls_are_recognised_as_text_and_as_paths():
    assert url_of("s3://bucket/a/") == url_of(Path("s3://bucket/a")) == "s3://bucket/a"
    assert [url_of(text) for text in ("s3", "a/s3://b", "stores", "./a:/b", "/a:/b", "")] == [""] * 6
    assert (url_of("gs://b"), url_of("az://b/c@d")) == ("gs://b", "az://b/c@d")
    assert [url_of(f"hf://datasets/o/n{end}") for end in ("@main/p/", "@refs%2Fpr%2F1")] == [
        "hf://datasets/o/n@main/p",
        "hf://datasets/o/n@refs%2Fpr%2F1",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s3://", "no bucket.*s3://BUCKET/PATH"),
        ("s3:///x", "no bucket.*s3://BUCKET/PATH"),
        ("hf://", "hf://datasets/OWNER/NAME"),
        ("S3://bucket/x", "S3://bucket/x.*write s3://"),
        ("gcs://bucket/x", "gcs://bucket/x.*gs://.*whole path"),
        ("http://host/x", "http://host/x.*s3://"),
        ("s3://bucket/x?versionId=3", r"s3://bucket/x .*\?"),
        ("s3://bucket/x#part", "s3://bucket/x .*#"),
        ("s3://bucket/one/x/..", r"s3://bucket/one/x/\.\. .*'\.\.'"),
        ("s3://bucket/one/%2e%2E/x", "s3://bucket/one/%2e%2E/x .*'..'"),
        ("hf://datasets/o/n/../x", "hf://datasets/o/n/../x .*'..'"),
        ("gs://bucket/./x", "'.'"),
        ("s3://bucket/a//b", "s3://bucket/a//b .*''"),
    ],
)
def test_nearly_right_urls_are_errors_and_no_folders(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentsError, match=words):
        url_of(text)
    if not text.startswith(("s3:///", "gs", "s3://bucket/a//")):  # pathlib folds these into right URLs
        with pytest.raises(ArgumentsError):
            url_of(Path(text))
    for command in (["extract", "videos.csv", "hog", "--stores", text], ["pack", ".", text], ["unpack", text, "x"]):
        if (command[0], text[:5]) in (("unpack", "gcs:/"), ("unpack", "http:")):  # fsspec reads them
            continue
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2, (command, done.output)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["s3://KEY:SECRET@bucket/x", "s3://KEY:SEC/SECRET@bucket/x", "gs://SECRET@bucket"])
def test_credentials_in_a_url_are_refused_and_not_printed(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["check", text], ["extract", "videos.csv", "hog", "--stores", text], ["unpack", text, "x"]):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2
        assert "AWS_ACCESS_KEY_ID" in done.output or "GOOGLE_SERVICE_ACCOUNT" in done.output
        assert "SEC" not in done.output.replace("AWS_SECRET_ACCESS_KEY", "")
    assert not list(tmp_path.iterdir())


def test_a_remote_store_is_fetched_once_and_equals_the_local_one(server, remote, monkeypatch):
    server.fault = lambda request: "503" if request.number % 3 == 0 else ""
    assert files(local(URL)) == files(remote)
    server.clear()
    shutil.rmtree(cache.home())
    assert files(local(URL)) == files(remote)
    assert server.counted() <= len(files(remote)) + 3
    server.clear()
    assert files(local(Path(URL))) == files(remote)
    assert server.counted() == 1
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    assert files(local(URL)) == files(remote)
    assert server.counted() == 1
    with pytest.raises(StoreError, match=r"FEATCACHE_OFFLINE.*s3://bucket/other"):
        local("s3://bucket/other")


@pytest.mark.slow
def test_only_what_is_needed_is_fetched(server, remote):
    local(URL, {"toy/manifest.csv", "toy/hog.zarr"})
    assert not [request for request in server.requests if "hof.zarr/" in request.path]
    first = server.counted()
    assert files(local(URL)) == files(remote)
    assert not [request for request in server.requests[first:] if "hog.zarr/" in request.path]


@pytest.mark.slow
def test_a_change_of_one_store_fetches_that_store(server, remote):
    local(URL)
    write_store(remote / "toy", manifest(), "extra")
    upload(remote / "toy" / "extra.zarr", f"{URL}/toy/extra.zarr")
    server.clear()
    assert files(local(URL)) == files(remote)
    assert server.counted() == 1 + len(files(remote / "toy" / "extra.zarr"))


@pytest.mark.slow
def test_stores_that_are_deleted_from_the_cache_are_fetched_again(server, remote, monkeypatch):
    local(URL)
    folders = [path for path in cache.home().iterdir() if (path / "zarr.json").exists()]
    for folder in folders:
        os.utime(folder, (0, 0))
    local(URL, {"toy/hog.zarr"})
    (unused,) = (folder for folder in folders if not folder.stat().st_mtime)
    shutil.rmtree(unused)
    server.clear()
    assert files(local(URL)) == files(remote)
    assert server.counted() == 1 + len(files(remote / "toy" / "hof.zarr"))
    with monkeypatch.context() as patch:
        patch.setenv("FEATCACHE_OFFLINE", "1")
        shutil.rmtree(folders[0])
        with pytest.raises(StoreError, match="FEATCACHE_OFFLINE.*not in the cache"):
            local(URL)


@pytest.mark.slow
def test_fetching_shows_its_progress(server, remote, monkeypatch):
    seen = []

    @contextlib.contextmanager
    def opens(title, unit):
        yield lambda done, total: seen.append((title, done, total))

    monkeypatch.setattr(urls, "_bars", [])
    urls.show_fetching(opens)
    Bucket(URL).put("toy/manifest.csv", bytes(3_000_000))
    local(URL)
    assert {title for title, *_ in seen} == {
        f"fetch {URL}/toy/{name}" for name in ("hof.zarr", "hog.zarr", "manifest.csv")
    }
    assert seen[-1] == (f"fetch {URL}/toy/manifest.csv", 3, 3)


@pytest.mark.slow
def test_journals_and_other_objects_are_left_alone(server, remote):
    place = Bucket(URL)
    for name in ("toy/hog.zarr/journal/0.log", "toy/videos/a.mp4", ".hidden/manifest.csv", "deep/toy/hog.zarr/x"):
        place.put(name, b"x")
    assert files(local(URL)) == files(remote)
    place.put("toy/manifest.csv", b"y")
    assert (local(URL) / "toy" / "manifest.csv").read_bytes() == b"y"


@pytest.mark.slow
def test_commands_read_urls_as_they_read_folders(server, remote, tmp_path):
    outcomes = pipelines.train([run()], URL, tmp_path / "runs", workers=1)
    pipelines.train([run()], remote, tmp_path / "local", workers=1)
    assert [outcome.status for outcome in outcomes] == ["trained"]
    pipelines.evaluate([run()], URL, tmp_path / "runs", workers=1)
    pipelines.evaluate([run()], remote, tmp_path / "local", workers=1)
    (one,), (other,) = (list((tmp_path / name).glob("*/outputs.npz")) for name in ("runs", "local"))
    assert one.parent.name == other.parent.name
    assert one.read_bytes() == other.read_bytes()
    words = ["train-head", f"{URL}/toy", "--seeds", "0", "--shift", "day:night", "--runs", str(tmp_path / "more")]
    done = CliRunner().invoke(main, [*words, "--set", "steps=2", "--workers", "1", "--quiet"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["check", f"{URL}/toy/hog.zarr"])
    assert (done.exit_code, done.stdout) == (0, f"{URL}/toy/hog.zarr: in order\n")
    done = CliRunner().invoke(main, ["train-head", f"{URL}/toy", "--feeds", "hug", "--runs", str(tmp_path / "none")])
    assert done.exit_code
    assert str(cache.home()) not in done.output
    done = CliRunner().invoke(main, ["info", f"{URL}/toy/hog.zarr", "--json"])
    facts = json.loads(done.stdout)
    assert (facts["store"], facts["states"]["done"]) == (f"{URL}/toy/hog.zarr", len(manifest()))
    assert facts["fingerprint"] == featcache.info(remote / "toy" / "hog.zarr")["fingerprint"]
    predicted = pipelines.predict(one.parent, f"{URL}/toy", split="test", domain="night")
    assert len(predicted.frame()) == 6


@pytest.mark.slow
def test_tables_make_no_request(server, remote, tmp_path):
    pipelines.train([run()], remote, tmp_path / "runs", workers=1)
    pipelines.evaluate([run()], remote, tmp_path / "runs", workers=1)
    assert "source-only" in str(pipelines.table([run()], URL, tmp_path / "runs"))
    assert not server.counted()


@pytest.mark.slow
def test_archives_are_packed_to_urls_and_unpacked_from_them(server, stores, tmp_path):
    store, url = stores / "toy" / "hog.zarr", "s3://bucket/archives/hog.zarr"
    archive.pack(store, tmp_path / "here.zarr")
    assert archive.pack(store, url) == sum(map(len, files(tmp_path / "here.zarr").values()))
    assert {name: bytes(Bucket(url).get(name)) for name in Bucket(url).listing()} == files(tmp_path / "here.zarr")
    server.clear()
    archive.unpack(url, tmp_path / "again.zarr")
    assert files(tmp_path / "again.zarr") == files(store)
    assert server.counted() == len(files(tmp_path / "here.zarr"))
    assert CliRunner().invoke(main, ["check", url]).exit_code == 0
    assert featcache.info(url)["fingerprint"] == featcache.info(store)["fingerprint"]
    with pytest.raises(StoreError, match="has objects"):
        archive.pack(store, url)
    for words in (["pack", url, "x"], ["unpack", url, "s3://bucket/x"], ["repair", url], ["import", "store", "a", url]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code, words
        assert "URL" in done.output


@pytest.mark.slow
def test_a_pack_that_was_killed_is_resumed_and_other_objects_are_left_alone(server, stores, tmp_path):
    store, url = stores / "toy" / "hog.zarr", "s3://bucket/archives/hog.zarr"
    archive.pack(store, tmp_path / "here.zarr")
    whole, place = files(tmp_path / "here.zarr"), Bucket(url)
    kept = [name for name in sorted(whole) if name != "SHA256SUMS"][:4]
    assert "archive.json" in kept
    for name in kept:
        place.put(name, whole[name])
    place.put("journal/9.log", b"of an older attempt")
    server.clear()
    archive.pack(store, url)
    assert {name: bytes(place.get(name)) for name in place.listing()} == whole
    assert server.counted("PUT") == len(whole) - len(kept)
    for other in ("notes.txt", "kitchens/hog.zarr/zarr.json", "README.md"):
        place.delete(*place.listing())
        place.put("archive.json", b"x")
        place.put(other, b"x")
        with pytest.raises(StoreError, match="has objects"):
            archive.pack(store, url)
        assert set(place.listing()) == {"archive.json", other}


@pytest.mark.slow
def test_a_pack_that_fails_leaves_nothing(server, stores):
    server.fault = lambda request: "<Error><Code>AccessDenied</Code></Error>" if "archive.json" in request.path else ""
    with pytest.raises(StoreError, match=r"archive\.json.*AccessDenied"):
        archive.pack(stores / "toy" / "hog.zarr", "s3://bucket/archives/hog.zarr")
    server.clear()
    assert not Bucket("s3://bucket/archives").listing()


def silent_place():
    """A server that accepts connections and never answers, as a firewall's or a wrong metadata address."""
    silent = socket.create_server(("127.0.0.1", 0))
    return silent, f"http://127.0.0.1:{silent.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "changes", "words"),
    [
        ("s3://bucket/none", {}, "no stores at s3://bucket/none"),
        ("s3://nobucket/x", {}, "no bucket 'nobucket'.*AWS_ENDPOINT_URL"),
        (URL, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        (URL, {"AWS_ENDPOINT_URL": "silent"}, "cannot be reached"),
        (URL, {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no credentials.*AWS_ACCESS_KEY_ID"),
        (URL, {"AWS_SECRET_ACCESS_KEY": None}, "no credentials.*AWS_SECRET_ACCESS_KEY"),
        ("az://bucket/x", {}, "no credentials.*AZURE_STORAGE_ACCOUNT_NAME"),
    ],
    ids=["no stores", "no bucket", "refused", "silent", "no credentials", "half of them", "azure"],
)
def test_wrong_settings_are_one_sentence_within_ten_seconds(server, monkeypatch, url, changes, words):
    silent, address = silent_place()
    with silent:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", address)  # where a machine of Amazon answers
        for name, value in changes.items():
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, address if value == "silent" else value)
        began = time.monotonic()
        done = CliRunner().invoke(main, ["check", url])
        assert time.monotonic() - began < 10
    assert done.exit_code == 1
    lines = done.output.strip().splitlines()
    assert len(lines) == 1, done.output
    assert re.search(words, lines[0]), lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The region 'us-east-1' is wrong; expecting "
            "'eu-west-1'</Message></Error>",
            "us-east-1 is not the region of bucket 'bucket'; set AWS_REGION=eu-west-1",
        ),
        ("<Error><Code>PermanentRedirect</Code></Error>", "us-east-1 is not the region.*AWS_REGION"),
        ("<Error><Code>InvalidAccessKeyId</Code></Error>", "access is refused .InvalidAccessKeyId.*AWS_ACCESS_KEY_ID"),
        ("<Error><Code>Odd</Code></Error>", "cannot be read or written: Odd"),
    ],
    ids=["region", "redirect", "key", "other"],
)
def test_answers_of_a_service_are_one_sentence(server, body, words):
    server.fault = lambda request: f"<?xml version='1.0'?>{body}"
    with pytest.raises(StoreError, match=rf"^{URL}.*{words}") as raised:
        local(URL)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_service_that_stays_busy_is_one_sentence(server):
    server.fault = lambda request: "503"
    began = time.monotonic()
    with pytest.raises(StoreError, match="SlowDown"):
        local(URL)
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_an_object_that_changes_while_it_is_read_is_named(server, remote):
    changed = []

    def change(request):
        if request.method == "GET" and "hog.zarr/rows.csv" in request.path and not changed:
            changed.append(request)
            Bucket(URL).put("toy/hog.zarr/rows.csv", b"other")
        return ""

    server.fault = change
    with pytest.raises(StoreError, match=r"toy/hog\.zarr/rows\.csv changed while it was read"):
        local(URL)
    assert len(list(cache.home().glob("[0-9a-f]*/rows.csv"))) == 1  # that of the other store


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.csv", "features/c/0/0/0", "digest/c/0/0", "state/c/1"])
def test_a_damaged_object_is_named_and_not_kept(server, remote, name):
    place = Bucket(f"{URL}/toy/hog.zarr")
    data = bytearray(place.get(name))
    data[0] ^= 1
    place.put(name, data)
    with pytest.raises(StoreError, match=rf"{URL}/toy/hog\.zarr is damaged: .*{name.split('/')[0]}"):
        local(f"{URL}/toy/hog.zarr")
    assert not list(cache.home().glob("[0-9a-f]*/zarr.json"))


@pytest.mark.slow
def test_after_a_boot_the_cache_is_verified_and_mended(server, remote, monkeypatch, tmp_path):
    copy = local(URL)
    (tmp_path / "boot").write_text("another boot")
    monkeypatch.setattr(cache, "BOOT", tmp_path / "boot")
    server.clear()
    assert files(local(URL)) == files(remote)
    assert server.counted() == 1
    (tmp_path / "boot").write_text("the next boot")
    (copy / "toy" / "hog.zarr" / "features" / "c" / "1" / "0" / "0").write_bytes(b"")  # as a power cut may leave it
    (copy / "toy" / "manifest.csv").write_bytes(b"")
    assert files(local(URL)) == files(remote)
    assert server.counted() == 1 + 1 + len(files(remote / "toy" / "hog.zarr")) + 1
    (tmp_path / "boot").write_text("a boot without network")
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    assert files(local(URL)) == files(remote)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["../manifest.csv", "toy/../../evil/manifest.csv", "x.zarr/../../evil", "x.zarr//evil", "./manifest.csv"]
)
def test_names_cannot_leave_the_cache(server, remote, tmp_path, name):
    """By a real listing: the client leaves out nothing, and a name that is no path in a folder is an error."""
    place_object(server, f"all/stores/{name}", b"x")
    before = {path for path in tmp_path.rglob("*") if cache.home() not in path.parents}
    try:
        with pytest.raises(StoreError, match=rf"^{URL} has an object '.*{re.escape(name)}', .*remove it"):
            local(URL)
    finally:
        place_object(server, f"all/stores/{name}", method="DELETE")
    assert {path for path in tmp_path.rglob("*") if cache.home() not in path.parents} <= {*before, cache.home()}
    assert not list(cache.home().rglob("evil"))


def place_object(server, name, data=b"", method="PUT"):
    """Put or delete an object by a plain request, because the client refuses odd names."""
    headers = {"Authorization": "AWS key:unchecked"}
    request = urllib.request.Request(f"{server.url}/bucket/{name}", data, headers, method=method)
    urllib.request.urlopen(request).close()


@pytest.mark.slow
def test_two_urls_never_share_a_folder_of_the_cache(server, stores):
    """A link of the cache that leads elsewhere, as `..` in a URL has once made it, is replaced."""
    upload(stores)
    upload(stores / "toy" / "hof.zarr", "s3://bucket/other/hog.zarr")
    right, wrong = local(f"{URL}/toy/hog.zarr"), local("s3://bucket/other/hog.zarr")
    right.unlink()
    right.symlink_to(wrong.resolve())
    assert files(local(f"{URL}/toy/hog.zarr")) == files(stores / "toy" / "hog.zarr")


@pytest.mark.slow
def test_markers_of_folders_are_left_out(server, remote):
    markers = ["", "toy/", "toy/hog.zarr/", "toy/hog.zarr/features/", "toy/hog.zarr/features/c/"]
    try:
        for name in markers:
            place_object(server, f"all/stores/{name}")
        assert b"all/stores/toy/<" in urllib.request.urlopen(f"{server.url}/bucket").read()
        assert files(local(URL)) == files(remote)
        assert files(local(f"{URL}/toy/hog.zarr")) == files(remote / "toy" / "hog.zarr")
    finally:
        for name in markers:
            place_object(server, f"all/stores/{name}", method="DELETE")


@pytest.mark.slow
def test_an_object_that_is_also_a_folder_is_named(server, remote):
    Bucket(URL).put("toy/hog.zarr/features/c", b"x")
    with pytest.raises(StoreError, match=rf"^{URL}/toy/hog\.zarr/features/c is an object, .*remove"):
        local(URL)


@pytest.mark.slow
def test_an_experiment_at_a_url_fetches_only_what_its_runs_read(server, remote, tmp_path):
    def fetched(store):
        return [each for each in server.requests if f"{store}.zarr/features/c/" in each.path]

    words = ["--feeds", "hog", "--method", "dann", "--seeds", "0", "--shift", "day:night", "--set", "steps=2"]
    words += ["--runs", str(tmp_path / "runs")]
    near = [*words[:-1], str(tmp_path / "near")]
    tried = ["--workers", "1", "--quiet"]
    for place, its_words in ((f"{URL}/toy", words), (str(remote / "toy"), near)):
        done = CliRunner().invoke(main, ["train-head", place, *its_words, *tried])
        assert done.exit_code == 0, done.output
    assert fetched("hog")
    assert not fetched("hof")
    ids = [sorted(path.name for path in (tmp_path / name).glob("*/config.json")) for name in ("runs", "near")]
    assert ids[0] == ids[1]
    assert ids[0]
    shutil.rmtree(cache.home())
    assert CliRunner().invoke(main, ["evaluate", str(remote / "toy"), *words]).exit_code == 0
    server.clear()
    done = CliRunner().invoke(main, ["table", f"{URL}/toy", *words])
    assert done.exit_code == 0, done.output
    assert not fetched("h")
    experiment = pipelines.experiment(f"{URL}/toy", feeds="hog", shift="day:night", seeds=0)
    assert pipelines.train(experiment, runs=tmp_path / "runs", set="steps=2", workers=1)
    assert fetched("hog")
    assert not fetched("hof")


@pytest.mark.slow
def test_a_store_that_is_being_written_is_not_called_damaged(server, remote, monkeypatch):
    """Clips are appended while the store is read: what was fetched are older and newer objects."""
    place, changed = Bucket(f"{URL}/toy/hog.zarr"), []
    data = bytes(place.get("SHA256SUMS"))
    place.put("SHA256SUMS", data.replace(b"a", b"b"))

    def change(request):
        if "hog.zarr/state/c/" in request.path and request.method == "GET" and not changed:
            changed.append(request)
            place.put("state/c/99", b"new")
        return ""

    server.fault = change
    with pytest.raises(StoreError, match=rf"^{URL}/toy/hog\.zarr is being written; run the same command again"):
        local(URL)
    with pytest.raises(StoreError, match=rf"^{URL}/toy/hog\.zarr is damaged"):
        local(URL)
    assert not list(cache.home().glob("[0-9a-f]*/state/c/99"))


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_an_endpoint_needs_a_scheme(server, remote, variable, monkeypatch):
    address = server.url.removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(variable, address)
    for odd in (address, "http://", f"http://name:secret@{address}", "http://a host"):
        monkeypatch.setenv(variable, odd)
        with pytest.raises(ConfigError, match=rf"^{variable} is .*http://HOST:PORT") as raised:
            local(URL)
        assert "secret" not in str(raised.value)
    if variable != "AWS_ENDPOINT_URL_S3":
        monkeypatch.setenv(variable, server.url)
        assert files(local(URL)) == files(remote)


@pytest.mark.slow
def test_a_panic_of_the_client_is_one_sentence(server, monkeypatch):
    panic = type("PanicException", (BaseException,), {})

    def fail(*_, **__):
        raise panic("request valid")

    place = Bucket(URL)
    monkeypatch.setattr(place, "_client", SimpleNamespace(list=fail, exceptions=place._client.exceptions))
    with pytest.raises(StoreError, match=rf"^{URL} cannot be read or written: request valid"):
        place.listing()


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_to(server, remote, monkeypatch, tmp_path):
    """A verified folder is used as it is, after a boot, too; what is not there names FEATCACHE_STORES."""
    copy = local(URL)
    (tmp_path / "boot").write_text("another boot")
    monkeypatch.setattr(cache, "BOOT", tmp_path / "boot")

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for name in ("locked", "making_folder", "write_file"):
        monkeypatch.setattr(cache, name, refuse)
    for name in ("write_text", "symlink_to"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(Path, "mkdir", lambda path, *_, **__: path.exists() or refuse(path))
    seen = []
    monkeypatch.setattr("featcache.store.places.damage", lambda *words: seen.append(words) or [])
    assert local(URL) == copy
    assert local(URL) == copy
    assert len(seen) == 2  # two stores, verified once in this process
    Bucket(URL).put("toy/manifest.csv", bytes(remote.joinpath("toy", "manifest.csv").read_bytes() + b"\n"))
    with pytest.raises(StoreError, match=rf"^{URL} cannot be fetched .*FEATCACHE_STORES"):
        local(URL)


@pytest.mark.slow
def test_machines_that_share_a_cache_verify_it_once_each(server, remote, monkeypatch, tmp_path):
    seen, boot = [], tmp_path / "boot"
    local(URL)
    monkeypatch.setattr(cache, "BOOT", boot)
    monkeypatch.setattr("featcache.store.places.damage", lambda *words: seen.append(words) or [])
    for _ in range(2):
        for node in ("one", "other"):
            cache._verified.clear()  # another process
            boot.write_text(node)
            local(URL)
    assert len(seen) == 2 * 2


@pytest.mark.slow
def test_what_killed_fetches_have_left_is_removed(server, remote):
    left = cache.home() / f".{'a' * 64}.123-0a.partial"
    left.joinpath("a" * 64).mkdir(parents=True)
    (left / "lock").touch()
    local(URL)
    assert not left.exists()


@pytest.mark.slow
def test_extract_prints_urls(server, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_sound(videos / "a.wav", np.sin(np.arange(16_000)).astype(np.float32), 16_000)
    (videos / "toy.csv").write_text("clip_id,source,split,domain\na,a.wav,train,day\n")
    words = ["extract", str(videos / "toy.csv"), "logmel", "--stores", URL]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{URL}/toy/logmel.zarr\t1 done\n"
    done = CliRunner().invoke(main, [*words, "--shards", "0/1"])
    assert done.stdout == f"{URL}/toy/.shards/0-of-1/logmel.zarr\t1 done\n"
    done = CliRunner().invoke(main, ["merge", str(videos / "toy.csv"), "--stores", URL])
    assert done.stdout == f"{URL}/toy/logmel.zarr\t1 done\n"


@pytest.mark.slow
def test_a_full_disk_of_the_cache_is_one_sentence(server, remote, monkeypatch):
    usage = shutil.disk_usage(remote)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=5000))
    with pytest.raises(StoreError, match=r"5\.0 kB free.*FEATCACHE_STORES"):
        local(URL)
    monkeypatch.setattr(cache, "_check_room", lambda *_: None)

    def full(path, mode="r", *rest, **options):
        if "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *rest, **options)

    opened = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match=r"5\.0 kB free.*FEATCACHE_STORES"):
        local(URL)


def test_without_obstore_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"s3://bucket.*featcache\[s3\]"):
        local(URL)


def test_urls_and_services_in_messages():
    assert "GOOGLE_SERVICE_ACCOUNT" in reason("gs://b/x", "GET http://metadata/computeMetadata/v1")
    assert "check the network;" not in reason("gs://b/x", "error sending request")


@pytest.mark.slow
def test_commands_without_urls_do_not_import_obstore(tmp_path):
    stores = write_all(tmp_path / "stores")
    code = (
        "import sys; from pipelines.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print({'obstore', 'huggingface_hub', 'ray'} & set(sys.modules), file=sys.stderr)"
    )
    words = ["train-head", str(stores / "toy"), "--seeds", "0", "--set", "steps=2", "--runs", str(tmp_path / "runs")]
    words += ["--workers", "1", "--quiet", "--shift", "day:night", "--only", "source-only"]
    for command in (["--help"], words):
        done = subprocess.run([sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.stderr.strip().endswith("set()"), done.stderr
