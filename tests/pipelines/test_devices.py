"""Several devices of a machine: a process each, and the stores of one process."""

import os
import signal

import numpy as np
import pytest

import featcache
from featcache import Clip, Manifest
from featcache.errors import ArgumentsError, FeatcacheError
from tests.helpers.folders import content
from tests.helpers.processes import children

EXTRACTOR = """
import os
import time
import numpy as np
from dataclasses import dataclass
from pathlib import Path
from featcache.extractors import Extractor, Numbers

@dataclass(frozen=True)
class Params:
    folder: str = ""  #: notes which device has computed in which process

class Where(Extractor):
    name, modality, row_shape, window, batch = "where", "x", (3,), Numbers("", ""), 2
    device = "none"

    def ready(self, runtime):
        self.device = runtime.device
        return self

    @property
    def facts(self):
        return super().facts | {"device": self.device.partition(":")[0]}

    def prepare(self, window):
        return window[0]

    def __call__(self, windows):
        folder = Path(self.params.folder)
        (folder / f"{self.device} {os.getpid()}").touch()
        until = time.monotonic() + 30  # else one process might do it all before the other has started
        while (folder.parent / "both").exists() and len({n.name[:6] for n in folder.iterdir()}) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        return windows.astype(np.float32)

EXTRACTOR = Where
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The manifest `m` of 40 clips, one of them broken, and the extractor `where` as a plug-in."""
    (tmp_path / "plugins" / "extractors").mkdir(parents=True)
    (tmp_path / "plugins" / "extractors" / "where.py").write_text(EXTRACTOR)
    (tmp_path / "used").mkdir()
    monkeypatch.setenv("FEATCACHE_PLUGINS", str(tmp_path / "plugins"))
    for i in range(40):
        if i != 7:
            np.save(tmp_path / f"{i}.npy", np.arange(i, i + 3.0) * (1e5 if i == 30 else 1))
    return Manifest("m", tuple(Clip(f"c{i}", "d", "train", f"{i}.npy") for i in range(40)), tmp_path)


def extract(files, device, stores, **options):
    settings = {"where.folder": str(files.root / "used")}
    outcome = featcache.extract(files, "where", files.root / stores, device=device, set=settings, workers=2, **options)
    return outcome, content(files.root / stores)


def test_each_device_has_a_process_and_the_stores_are_those_of_one(files):
    """Also with a clip that fails, and with a value for which the store is made again in float32."""
    _, one = extract(files, "cuda:0", "one")
    (files.root / "both").touch()
    outcome, two = extract(files, "cuda:0,cuda:1", "two")
    assert two == one
    assert outcome.stores["where"].counts()["failed"] == 1
    assert outcome.stores["where"].layout.dtype == "float32"
    used = [note.name.split() for note in (files.root / "used").iterdir()]
    ours = str(os.getpid())
    assert {device for device, pid in used if pid != ours} == {"cuda:0", "cuda:1"}
    assert {device for device, pid in used if pid == ours} == {"cuda:0"}
    assert not children(os.getpid())


def test_devices_of_two_kinds_are_refused(files):
    with pytest.raises(FeatcacheError, match=r"where on cpu has .*'cpu'.*'cuda'.*of one kind"):
        extract(files, "cuda:0,cpu", "s")


@pytest.mark.slow
def test_a_device_whose_process_is_killed_is_one_sentence_and_the_same_command_goes_on(files):
    def kill(done, total):
        if done == 3:
            os.kill(children(os.getpid())[0], signal.SIGKILL)

    with pytest.raises(FeatcacheError, match=r"killed by SIGKILL.*same command again"):
        extract(files, "cuda:0,cuda:1", "s", progress=kill)
    assert extract(files, "cuda:0,cuda:1", "s")[1] == extract(files, "cuda:0", "one")[1]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("foo", "no device 'foo'.*cpu, cuda"),
        ("cuda:0,", "no device ''.*cuda:0,cuda:1"),
        ("", "no device ''"),
        ("cuda:0, cuda:1", "no device ' cuda:1'"),
        ("cuda:x", "no device 'cuda:x'"),
        ("cpu,cpu", "cpu comes twice"),
        ("cuda:1,cuda:0,cuda:1", "cuda:1 comes twice"),
        ("cuda,cuda:0", "cuda:0 comes twice"),
    ],
)
def test_names_of_devices_are_checked_first(files, device, words):
    with pytest.raises(ArgumentsError, match=f"--device {device}: {words}"):
        extract(files, device, "s")
    assert not (files.root / "s").exists()
