"""Fixtures shared by all tests."""

import gc
import os
from collections.abc import Generator, Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes: tensors are small here, and threads would wait

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector away from the modules and the thousands of tests: they stay until the end."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


@pytest.fixture(scope="session", autouse=True)
def no_syncs() -> Iterator[None]:
    """Do not wait for the disk: a process that is killed loses nothing that it has written, and no test cuts the power.

    Tests of what is synced, and when, record the calls.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def ordinary_priority() -> Iterator[None]:
    """Undo SCHED_FIFO, which SVT-AV1 gives to the thread that encodes when root runs it: all else would starve."""
    yield
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real recordings, annotations and features; never part of the repository."""
    folder = Path(os.environ.get("FEATCACHE_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FEATCACHE_REALDATA to run this test")
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """A folder with kitchens.csv and its 8 rendered clips, 4 of each kitchen. Copy what you break.

    The first worker of pytest-xdist that needs the clips renders them, and the others wait for it.
    """
    from featcache.builders import kitchens

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "videos"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        kitchens.build(folder, every=26, workers=1)  # renders what is not there yet
    return folder
