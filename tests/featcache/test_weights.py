"""Weights: what a download survives, what is compared with what, and that a checkpoint is read without running it."""

import hashlib
import io
import json
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import OrderedDict
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from featcache import weights
from featcache.errors import WeightsError
from featcache.files import locked
from featcache.weights import CATALOGUE, Weights, digest, download, fetch, find, read, verify
from featcache.wording import size
from pipelines.cli.weights import weights as command
from tests.conftest import ROOT
from tests.helpers.hostile import EVIL, RUNS, torch_file, trap

assert trap  # a fixture

DATA = np.random.default_rng(0).bytes(3_000_001)
SIZE = len(DATA)
SHA = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; remembers every request and how many bytes of content went out."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/w.pth": DATA}
        self.ranges = self.length = True
        self.etag = '"1"'
        self.kind = "application/octet-stream"
        self.cuts = []  # after how many bytes the next connections end
        self.asked, self.sent = [], 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        data = server.files.get(self.path)
        if isinstance(data, str):
            self.send_response(302)
            self.send_header("Location", data)
            self.end_headers()
            return
        if data is None:
            self.send_error(404)
            return
        start, wanted = 0, self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, server.etag)
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.kind)
        if server.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:][: server.cuts.pop(0) if server.cuts else None]
        self.wfile.write(body)
        server.sent += len(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("FEATCACHE_MIRROR", "FEATCACHE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEATCACHE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def toy(server, monkeypatch):
    """Puts an entry into the catalogue, and gives its name."""

    def put(*paths, sha256=SHA, size=SIZE, name="toy"):
        urls = tuple(path if ":" in path else server.url + path for path in paths or ("/w.pth",))
        monkeypatch.setitem(CATALOGUE, name, Weights(name, "net", urls, "MIT", size, sha256))
        return name

    return put


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


# --- the catalogue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
def test_entries_are_complete(name, folder):
    known = CATALOGUE[name]
    assert known.name == name
    assert known.licence
    assert weights.place(known).parent == folder
    assert known.urls or "https://" in known.note
    for url in known.urls:
        download.check_scheme(url)
    assert known.sha256 is None or set(known.sha256) <= set("0123456789abcdef")
    assert known.sha256 is None or len(known.sha256) in (8, 9, 64)


def test_a_hash_prefix_is_the_one_in_the_file_name():
    prefixed = [known for known in CATALOGUE.values() if known.sha256 and len(known.sha256) < 64]
    assert len(prefixed) == 8
    assert all(known.urls[0].endswith(f"-{known.sha256}.pth") for known in prefixed)


def test_importing_the_catalogue_is_cheap():
    code = "import sys, featcache.weights; print(*({'torch', 'zarr', 'pandas'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.strip() == ""


def test_the_folder_without_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("FEATCACHE_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.folder() == tmp_path / ".cache" / "featcache" / "weights"


# --- fetching --------------------------------------------------------------------------------------------------------


def test_fetch(toy, server, folder):
    seen = []
    path = fetch(toy(), lambda done, total: seen.append((done, total)))
    assert path == folder / "toy.pth" == find("toy")
    assert path.read_bytes() == DATA
    assert names(folder) == ["toy.pth", "toy.pth.json"]
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    fetch("toy")
    assert len(server.asked) == 1  # what is here is not asked for again


def test_a_connection_that_breaks_goes_on_where_it_broke(toy, server):
    server.cuts = [1_000_000, 500_000, 1]
    assert fetch(toy()).read_bytes() == DATA
    assert server.asked == [("/w.pth", None), *(("/w.pth", f"bytes={n}-") for n in (1_000_000, 1_500_000, 1_500_001))]
    assert server.sent == len(DATA)


def test_another_process_goes_on_after_an_interruption(toy, server, folder):
    def die(done, _):
        if done > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(toy(), die)
    assert not (folder / "toy.pth").exists()
    kept = (folder / "toy.pth.partial").stat().st_size
    assert kept > 1_000_000
    assert weights.state(CATALOGUE["toy"]) == f"partly here, {size(kept)}"
    assert fetch("toy").read_bytes() == DATA
    assert server.asked[-1] == ("/w.pth", f"bytes={kept}-")
    assert names(folder) == ["toy.pth", "toy.pth.json"]


def test_a_file_that_was_complete_and_not_named_is_not_fetched_again(toy, server, folder):
    def die(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(toy(), die)
    server.sent = 0
    assert fetch("toy").read_bytes() == DATA
    assert server.sent == 0


@pytest.mark.parametrize("etag", ['"2"', ""])
def test_a_beginning_of_another_version_is_not_continued(toy, server, etag):
    """Nothing is published of this file, so only the server's validator can tell."""
    server.cuts = [1_000_000, 0, 0, 0]
    if not etag:
        server.etag = ""
    with pytest.raises(WeightsError, match="1000000 bytes are kept|the connection ended early"):
        fetch(toy(sha256=None, size=None))
    server.etag, server.cuts = etag, []
    server.files["/w.pth"] = DATA[::-1]
    assert fetch("toy").read_bytes() == DATA[::-1]


def test_a_server_without_range(toy, server):
    server.ranges, server.cuts = False, [2_000_000]
    assert fetch(toy()).read_bytes() == DATA
    assert server.sent == len(DATA) + 2_000_000


def test_a_server_that_never_sends_more(toy, server, folder):
    server.ranges, server.cuts = False, [1000] * 20
    with pytest.raises(WeightsError, match=r"/w.pth: the connection ended early; .*1000 bytes are kept"):
        fetch(toy())
    assert len(server.asked) == 1 + download.ATTEMPTS


def test_a_server_that_does_not_say_the_length(toy, server):
    server.length = False
    assert fetch(toy(size=None, sha256=None)).read_bytes() == DATA


def test_nobody_answers(toy, server):
    with pytest.raises(WeightsError, match=r"http://127.0.0.1:9/x: .*refused; check the network"):
        fetch(toy("http://127.0.0.1:9/x"))


def test_a_server_that_stalls(toy, server, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda _: release.wait(5))
    with pytest.raises(WeightsError, match="timed out"):
        fetch(toy(), timeout=0.05)
    release.set()


@pytest.mark.parametrize("sha256", ["0" * 64, "0" * 8])
def test_a_wrong_hash_is_refused_and_removed(toy, folder, sha256):
    with pytest.raises(WeightsError, match=f"/w.pth: its SHA-256 is {SHA}, .*not {sha256}, .*published"):
        fetch(toy(sha256=sha256))
    assert names(folder) == []


def test_a_hash_prefix_is_enough(toy):
    fetch(toy(sha256=SHA[:8]))
    assert verify("toy") == weights.Verified(SHA, "published")


def test_a_damaged_beginning_is_noticed_and_removed(toy, server, folder):
    server.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(WeightsError, match="1000000 bytes are kept"):
        fetch(toy())
    partial = folder / "toy.pth.partial"
    partial.write_bytes(b"x" + partial.read_bytes()[1:])
    with pytest.raises(WeightsError, match="published"):
        fetch("toy")
    assert fetch("toy").read_bytes() == DATA


def test_a_wrong_size_is_refused_before_anything_is_fetched(toy, server, folder):
    with pytest.raises(WeightsError, match=f"{len(DATA)} bytes .*17.*FEATCACHE_MIRROR"):
        fetch(toy(size=17))
    assert names(folder) == []


def test_a_web_page_is_not_a_file(toy, server, folder):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match="a web page instead of a file; .*by hand"):
        fetch(toy())
    assert names(folder) == []


def test_the_next_url(toy, server):
    assert fetch(toy("/gone", "/w.pth")).read_bytes() == DATA
    assert [path for path, _ in server.asked] == ["/gone", "/w.pth"]


def test_every_url_fails(toy, server, folder):
    with pytest.raises(WeightsError) as error:
        fetch(toy("/gone", "/too"))
    for part in ("/gone: HTTP 404 Not Found", "/too: HTTP 404", "FEATCACHE_MIRROR", str(folder / "toy.pth")):
        assert part in str(error.value)


def test_redirects(toy, server, tmp_path):
    server.files["/a"] = "/w.pth"
    assert fetch(toy("/a")).read_bytes() == DATA
    for k, target in enumerate((f"file://{tmp_path}/secret", "ftp://127.0.0.1/x")):
        server.files["/a"] = target
        with pytest.raises(WeightsError, match="is not allowed|not safe"):
            fetch(toy("/a", name=f"toy{k}"))
    request = Request("https://example.org/a")
    with pytest.raises(WeightsError, match="https://example.org/a .*http://example.org/b, which is not safe"):
        download._Redirects().redirect_request(request, io.BytesIO(), 302, "Found", Message(), "http://example.org/b")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/w.pth", "data:,abc", "C:w.pth"])
def test_other_schemes(toy, url):
    with pytest.raises(WeightsError, match=f"'{url}' cannot be fetched; write .*https://"):
        fetch(toy(url))


def test_a_file_url(toy, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(DATA)
    assert fetch(toy(source.as_uri())).read_bytes() == DATA
    with pytest.raises(WeightsError, match="No such file"):
        fetch(toy((tmp_path / "none").as_uri(), name="other"))


@pytest.mark.parametrize("slash", ["", "/"])
def test_mirror(toy, server, monkeypatch, slash):
    server.files["/m/example.org/a/w.pth"] = DATA
    monkeypatch.setenv("FEATCACHE_MIRROR", f"{server.url}/m{slash}")
    assert fetch(toy("https://example.org/a/w.pth")).read_bytes() == DATA
    assert len(server.asked) == 1
    monkeypatch.setenv("FEATCACHE_MIRROR", "example.org")
    with pytest.raises(WeightsError, match="'example.org' cannot be fetched; write .*https://"):
        fetch(toy(name="other"))


def test_offline(toy, server, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("FEATCACHE_OFFLINE", "1")
    with pytest.raises(WeightsError) as error:
        fetch(toy())
    assert f"save it as {folder / 'toy.pth'}" in str(error.value)
    assert not server.asked
    source = tmp_path / server.url.removeprefix("http://") / "w.pth"
    source.parent.mkdir()
    source.write_bytes(DATA)
    monkeypatch.setenv("FEATCACHE_MIRROR", tmp_path.as_uri())  # a folder is no network
    assert fetch("toy").read_bytes() == DATA
    monkeypatch.delenv("FEATCACHE_MIRROR")
    assert fetch("toy") == folder / "toy.pth"  # what is here needs none
    monkeypatch.setenv("FEATCACHE_OFFLINE", "0")
    assert fetch(toy(name="other")).read_bytes() == DATA


def test_two_fetches_at_once(toy, server):
    name = toy()
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(name))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 3
    assert {path.read_bytes() for path in paths} == {DATA}
    assert server.sent == len(DATA)


@pytest.mark.slow
def test_a_second_process_waits(toy, server, folder):
    name = toy()
    code = (
        "from featcache import weights; from featcache.weights import *;"
        f"CATALOGUE['toy'] = Weights('toy', 'net', ('{server.url}/w.pth',), 'MIT'); print(fetch('toy'))"
    )
    folder.mkdir()
    with locked(folder / ".toy.pth.lock"):
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1.0)
        assert not server.asked
    assert other.communicate(timeout=20)[0].strip() == str(folder / name) + ".pth"
    assert server.sent == len(DATA)


def test_what_only_a_person_can_fetch(folder):
    with pytest.raises(WeightsError) as error:
        fetch("tbn-epic-100")
    for part in ("https://github.com/ekazakos/temporal-binding-network", str(folder / "tbn-epic-100.pth")):
        assert part in str(error.value)
    assert not folder.exists()


# --- finding and verifying -------------------------------------------------------------------------------------------


def test_find_a_users_own_file(tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"x")
    assert find(tmp_path / "mine.pth") == find(str(tmp_path / "mine.pth")) == tmp_path / "mine.pth"


@pytest.mark.parametrize(
    ("name", "fetched"), [("i3d-rgb", "i3d-rgb"), ("i3d_rgb", "i3d-rgb"), ("/no/such.pth", "NAME"), ("tbn-epic-55", "")]
)
def test_what_to_do_about_missing_weights(name, fetched):
    with pytest.raises(WeightsError) as error:
        find(name)
    wanted = f"`featcache weights fetch {fetched}`" if fetched else "https://github.com/ekazakos"
    for part in (name, wanted, "--weights EXTRACTOR=FILE", "--weights untrained"):
        assert part in str(error.value)


def test_unknown_names():
    with pytest.raises(WeightsError, match="did you mean 'resnext101-32x8d'. there are: "):
        fetch("resnext101-32x8")
    with pytest.raises(WeightsError, match="no weights 'nothing like it' in the catalogue; there are: i3d-rgb"):
        verify("nothing like it")


def test_verify_notices_a_changed_file(toy):
    path = fetch(toy())
    assert verify("toy") == weights.Verified(SHA, "published")
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    with pytest.raises(WeightsError, match=f"not {SHA}, .*published.*; remove the file and fetch it again"):
        verify("toy")
    path.write_bytes(DATA[:-1])
    with pytest.raises(WeightsError, match=f"it has {len(DATA) - 1} bytes.*published.* {len(DATA)}"):
        verify("toy")


def test_what_nobody_publishes_is_recorded(toy, server, folder):
    path = fetch(toy(sha256=None, size=None))
    assert json.loads((folder / "toy.pth.json").read_text()) == {"sha256": SHA, "from": f"{server.url}/w.pth"}
    assert verify("toy") == weights.Verified(SHA, "recorded")
    path.write_bytes(b"other")
    with pytest.raises(WeightsError, match="recorded at its arrival"):
        verify("toy")
    path.unlink()
    server.files["/w.pth"] = b"other"
    with pytest.raises(WeightsError, match=f"recorded at its arrival; .*remove {folder / 'toy.pth.json'}"):
        fetch("toy")
    (folder / "toy.pth.json").write_text("{")
    with pytest.raises(WeightsError, match="toy.pth.json.* JSON .*; remove it"):
        fetch("toy")
    (folder / "toy.pth.json").unlink()
    assert fetch("toy").read_bytes() == b"other"


def test_a_file_put_there_by_hand_is_recorded_at_first_sight(folder):
    folder.mkdir()
    (folder / "tbn-epic-55.pth").write_bytes(DATA)
    assert fetch("tbn-epic-55") == folder / "tbn-epic-55.pth"
    assert verify("tbn-epic-55") == weights.Verified(SHA, "nothing")
    assert verify("tbn-epic-55") == weights.Verified(SHA, "recorded")


def test_a_file_is_read_once_for_its_digest(tmp_path, monkeypatch):
    path = tmp_path / "w"
    path.write_bytes(DATA)
    reads = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: (reads.append(1), real(*a))[1])
    assert digest(path) == digest(path) == SHA
    assert len(reads) == 1
    path.write_bytes(DATA[1:])
    assert digest(path) == hashlib.sha256(DATA[1:]).hexdigest()


# --- reading ---------------------------------------------------------------------------------------------------------

STATE = OrderedDict(
    [
        ("conv.weight", torch.arange(24.0).reshape(2, 3, 4)),
        ("bn.running_mean", torch.tensor([0.5, -1.0])),
        ("bn.num_batches_tracked", torch.tensor(7)),
        ("half", torch.ones(3, dtype=torch.bfloat16)),
    ]
)
EXTRAS = {
    "epoch": 80,
    "arch": "BNInception",
    "best_prec1": np.float64(25.38),
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "history": np.arange(3.0),
    "none": None,
}


def same(found, expected=STATE):
    assert list(found) == list(expected)
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def write(tmp_path, data, name="w.pth"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "net"])
def test_torch_files(tmp_path, old, wrap):
    value = {**EXTRAS, wrap: STATE} if wrap else STATE
    same(read(write(tmp_path, torch_file(value, old))))


def test_wrapped_twice_and_parameters(tmp_path):
    module = torch.nn.BatchNorm1d(2)
    parameters = {"weight": module.weight, "bias": module.bias}
    found = read(write(tmp_path, torch_file({"model": {"state_dict": parameters}})))
    assert list(found) == ["weight", "bias"]
    assert not found["weight"].requires_grad


def python2_file(state, extras):
    """What torch 0.2 wrote under Python 2: byte strings, the old rebuild function, storages on a GPU."""
    out = io.BytesIO()

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode("latin-1")

    def number(value):
        return b"J" + struct.pack("<i", value)

    def shape(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(value, out, 2)
    out.write(b"\x80\x02}(")
    for key, value in extras.items():
        out.write(text(key) + (text(value) if isinstance(value, str) else b"G" + struct.pack(">d", value)))
    out.write(text("state_dict") + b"ccollections\nOrderedDict\n]\x85R(")
    for k, (name, tensor) in enumerate(state.items()):
        storage = text("storage") + b"ctorch\nFloatStorage\n" + text(str(k)) + text("cuda:0") + number(tensor.numel())
        out.write(text(name) + b"ctorch._utils\n_rebuild_tensor\n((" + storage + b"NtQ" + number(0))
        out.write(shape(tensor.shape) + shape(tensor.stride()) + b"tR")
    out.write(b"uu.")
    out.write(b"\x80\x02](" + b"".join(text(str(k)) for k in range(len(state))) + b"e.")
    for tensor in state.values():
        out.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
    return out.getvalue()


def test_a_file_of_python_2(tmp_path):
    state = {"module.features.norm.1.weight": torch.arange(6.0).reshape(2, 3), "module.\xe9": torch.ones(4)}
    same(read(write(tmp_path, python2_file(state, {"arch": "dens\xe9net161", "best_prec1": 56.1}))), state)


def safetensors(state, **changes):
    types = {"float32": "F32", "int64": "I64", "bfloat16": "BF16"}
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in state.items():
        raw = bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())
        kind = types[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        } | changes
        body += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_safetensors(tmp_path, name):
    state = {**STATE, "empty": torch.ones(0, 3)}
    same(read(write(tmp_path, safetensors(state), name)), state)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2, 2]},
        {"shape": [-1, -24]},
        {"dtype": "F4"},
        {"dtype": ["F32"]},
        {"data_offsets": [0, 10**9], "shape": [25 * 10**7]},
        {"data_offsets": [-96, 0]},
        {"data_offsets": "ab"},
        {"shape": None},
    ],
)
def test_damaged_safetensors(tmp_path, changes):
    data = safetensors({"conv.weight": STATE["conv.weight"]}, **changes)
    with pytest.raises(WeightsError, match="not a safetensors file, or it is truncated"):
        read(write(tmp_path, data, "w.safetensors"))


@pytest.mark.parametrize("data", [safetensors(STATE)[:-1], safetensors(STATE)[:50], b"1234", b"\xff" * 8 + b"{}"])
def test_truncated_safetensors(tmp_path, data):
    with pytest.raises(WeightsError, match="not a safetensors file, or it is truncated"):
        read(write(tmp_path, data, "w.safetensors"))


def test_a_few_bytes_do_not_stand_for_many(tmp_path):
    one = {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}
    header = json.dumps({f"t{k}": one for k in range(100)}).encode()
    with pytest.raises(WeightsError, match="lacks some of its bytes"):
        read(write(tmp_path, struct.pack("<Q", len(header)) + header + bytes(4000), "w.safetensors"))
    with pytest.raises(WeightsError, match=r"claims a shape \(100000000,\)"):
        read(write(tmp_path, torch_file({"a": torch.zeros(1).expand(10**8)})))
    plain = zipfile.ZipFile(io.BytesIO(torch_file({"a": torch.zeros(10**6)})))
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(WeightsError, match="compressed archive"):
        read(tmp_path / "bomb.pth")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(tmp_path / "w.npz", a=np.arange(6, dtype="f4").reshape(2, 3), b=np.zeros(1000), c=np.array([True]))
    found = read(tmp_path / "w.npz")
    assert torch.equal(found["a"], torch.arange(6.0).reshape(2, 3))
    assert found["b"].dtype == torch.float64
    np.savez(tmp_path / "w.npz", a=np.array(["x", None], object))
    with pytest.raises(WeightsError, match="cannot be read as arrays of numbers"):
        read(tmp_path / "w.npz")


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", EVIL)
def test_a_hostile_pickle_is_refused(trap, tmp_path, kind, old, wrap):
    value = EVIL[kind]()
    data = torch_file({"state_dict": STATE, "epoch": value} if wrap else value, old)
    with pytest.raises(WeightsError) as error:
        read(write(tmp_path, data))
    assert "nothing was run" in str(error.value)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("kind", RUNS)
def test_the_trap_works(tmp_path, monkeypatch, kind):
    """Without the safety, the same files do harm."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, torch_file(EVIL[kind]()))
    torch.load(path, weights_only=False)
    assert (tmp_path / "trap").exists()


def test_a_hostile_plain_pickle_and_tar(trap, tmp_path):
    data = pickle.dumps(EVIL["os.system"]())
    with pytest.raises(WeightsError, match="w.pth: it "):
        read(write(tmp_path, data))
    with tarfile.open(tmp_path / "tar.pth", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(WeightsError, match="it is a tar archive"):
        read(tmp_path / "tar.pth")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_torch_files(tmp_path, old, share):
    data = torch_file(STATE, old)
    with pytest.raises(WeightsError, match="truncated"):
        read(write(tmp_path, data[: int(share * len(data))]))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "an empty state dict"),
        ({"state_dict": {}}, "an empty state dict"),
        ([torch.ones(1)], "holds a list, not a state dict"),
        (torch.ones(1), "holds a Tensor"),
        ({"a": torch.ones(1), "b": 3}, "'b' is a int, not a tensor"),
        ({"a": np.ones(3)}, "'a' is a NumPy value"),
        ({"model": {"a": torch.ones(1), "b": "x"}}, "'b' is a str"),
        ({"a": {"b": torch.ones(1)}}, "'a' is a dict"),
        ({1: torch.ones(1)}, "'1' is a Tensor, not a tensor with a name"),
        ({"a": torch.ones(3).to_sparse()}, "'a' is not a dense tensor"),
        ({"a": torch.ones(3, device="meta")}, "'a' is not a dense tensor"),
    ],
)
def test_checkpoints_without_a_state_dict(tmp_path, value, reason):
    with pytest.raises(WeightsError, match=reason):
        read(write(tmp_path, torch_file(value)))


def test_a_dict_in_itself(tmp_path):
    value = {"a": 1}
    value["model"] = value
    with pytest.raises(WeightsError, match="'a' is a int"):
        read(write(tmp_path, torch_file(value)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>", "like a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"PK\x03\x04 and no more", "truncated or damaged"),
        (b"just text", "none of .*torch.save, safetensors and .npz"),
        (b"\x80\x02}.", "truncated or damaged, or not a checkpoint"),
    ],
)
def test_other_files(tmp_path, data, reason):
    with pytest.raises(WeightsError, match=reason):
        read(write(tmp_path, data))


def test_no_file(tmp_path):
    with pytest.raises(WeightsError, match="no file"):
        read(tmp_path / "none")
    with pytest.raises(WeightsError, match="is not a file"):
        read(tmp_path)


# --- the commands ----------------------------------------------------------------------------------------------------


def test_list_command(toy):
    toy()
    toy(name="mystery", size=None)
    fetch("toy")
    said = run("list")
    assert said.exit_code == 0
    lines = {line.split()[0]: line.split(None, 1)[1] for line in said.stdout.splitlines()}
    assert set(lines) == {"NAME", *CATALOGUE}
    assert lines["toy"].split() == ["net", "MIT", "3.0", "MB", "here"]
    assert lines["mystery"].split() == ["net", "MIT", "unknown", "not", "here"]
    assert "CC BY-NC-SA 4.0" in lines["tbn-epic-55"]
    assert lines["tbn-epic-55"].endswith("to be fetched by hand")
    assert "i3d-rgb: DeepMind" in said.stderr


def test_fetch_command(toy, folder):
    toy(), toy(name="other", sha256=None)
    said = run("fetch", "toy", "other")
    assert said.exit_code == 0
    assert said.stdout.split() == [str(folder / "toy.pth"), str(folder / "other.pth")]
    assert f"toy: verified against the published sha256 {SHA}; licence: MIT" in said.stderr
    assert "other: verified against the recorded sha256" in said.stderr


def test_fetch_command_checks_names_first(toy, server):
    toy()
    said = run("fetch", "toy", "toyy")
    assert said.exit_code == 1
    assert said.stderr.startswith("Error: no weights 'toyy' in the catalogue; did you mean 'toy'")
    assert not server.asked


def test_verify_command(toy, folder):
    assert run("verify").stdout == ""
    toy(), toy(name="other", sha256=None)
    run("fetch", "toy", "other")
    said = run("verify")
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        f"toy: verified against the published sha256 {SHA}",
        f"other: verified against the recorded sha256 {SHA}",
    ]
    (folder / "other.pth").write_bytes(b"x")
    said = run("verify")
    assert said.exit_code == 1
    assert "toy: verified" in said.stdout
    assert re.search("other.pth: .*1 bytes.* 3000001.*; remove the file and fetch", said.stdout)


@pytest.mark.parametrize("words", [[], ["list"], ["fetch"], ["verify"]])
def test_every_help_has_an_example(words):
    assert "Example:" in run(*words, "--help").stdout
