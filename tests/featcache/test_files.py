"""A file is there whole or not at all, and what stood there stays until then."""

import contextlib
import errno
import fcntl
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from featcache import files
from featcache.errors import BusyError, FeatcacheError, FormatError
from featcache.files import claim_of, claimed, locked, making_folder, replacing, sync_folder, write_file
from featcache.store import _lease
from pipelines.evaluation import results
from tests.conftest import ROOT


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_in_the_making_has_another_name(tmp_path, shared):
    """It is in a folder of the process's own where another one may write the same file."""
    path = tmp_path / "new" / "f"
    with replacing(path, shared=shared) as scratch:
        scratch.write_bytes(b"content")
        (beside,) = path.parent.iterdir()
        assert beside == (scratch.parent if shared else scratch)
        assert (str(os.getpid()) in beside.name) == shared
    assert [file.name for file in path.parent.iterdir()] == ["f"]
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("begun", [True, False])
def test_what_fails_leaves_what_was_there(tmp_path, error, begun):
    path = tmp_path / "f"
    write_file(path, b"old")

    def write(scratch):
        if begun:
            scratch.write_bytes(b"ne")
        raise error

    with pytest.raises(type(error)), replacing(path) as scratch:
        write(scratch)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f": b"old"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    write_file(tmp_path / "f", b"old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "f"):
        pass
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(FormatError, match="is a folder; name a file"):
        write_file(tmp_path, b"content")
    assert list(tmp_path.iterdir()) == []
    assert not list(tmp_path.parent.glob(".*.partial"))


@pytest.mark.parametrize("shared", [True, False])
def test_leftovers_of_a_kill_are_written_over(tmp_path, shared):
    (tmp_path / ".f.partial").write_bytes(b"a longer one that a kill has left behind")
    write_file(tmp_path / "f", b"new", shared=shared)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f": b"new"}


def leave(path, *parts):
    """What a process that was killed while it wrote `path` has left."""
    with contextlib.suppress(KeyboardInterrupt), files._scratch(path) as own:
        for part in parts:
            (own / part).parent.mkdir(parents=True, exist_ok=True)
            (own / part).write_bytes(b"half")
        shutil.copytree(own, path.with_name(f".{path.name}.7-0a.partial"))
        raise KeyboardInterrupt
    return path.with_name(f".{path.name}.7-0a.partial")


def test_what_is_nobodys_is_removed_by_the_next_write(tmp_path):
    path = tmp_path / "o.bin"
    leave(path, "o.bin")
    leave(path.with_name("o.bin.csv"), "o.bin.csv")  # of another file
    (tmp_path / ".o.bin.14700.partial").write_bytes(b"half")  # of a former version
    (tmp_path / ".o.bin.8-0b.partial").mkdir()  # killed before it had the lock
    (tmp_path / ".o.bin.8-x.partial").mkdir()  # somebody else's name
    write_file(path, b"new", shared=True)
    assert sorted(os.listdir(tmp_path)) == [".o.bin.8-x.partial", ".o.bin.csv.7-0a.partial", "o.bin"]


def test_what_belongs_to_a_living_process_stays(tmp_path):
    """A lock is a sign that works across containers, where two processes may have one number."""
    path = tmp_path / "f"
    with replacing(path) as first:
        first.write_bytes(b"first")
        with replacing(path) as second:
            second.write_bytes(b"second")
            assert first.exists()
            assert first != second
        assert path.read_bytes() == b"second"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f": b"first"}


def test_a_folder_that_is_replaced_exists_all_the_time(tmp_path, monkeypatch):
    folder, moved = tmp_path / "run", []
    (tmp_path / "other").mkdir()
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    if not files._exchange(folder, tmp_path / "other"):
        pytest.skip("this file system cannot exchange folders")
    assert files._exchange(folder, tmp_path / "other")
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda one, other: (moved.append(one), rename(one, other)))
    with making_folder(folder, replace=True) as scratch:
        scratch.mkdir()
        (scratch / "a").write_bytes(b"new")
    assert (folder / "a").read_bytes() == b"new"
    assert folder not in moved
    assert sorted(os.listdir(tmp_path)) == ["other", "run"]


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    left = leave(tmp_path / "f", "f")
    monkeypatch.setattr(fcntl, "flock", lambda *_: refuse(errno.ENOLCK)(0))
    write_file(tmp_path / "f", b"new", shared=True)
    assert sorted(tmp_path.iterdir()) == [left, tmp_path / "f"]


@pytest.mark.parametrize("exchange", [True, False])
def test_two_processes_make_one_folder(tmp_path, monkeypatch, exchange):
    """Each has a scratch folder of its own, and the last one wins."""
    folder = tmp_path / "run"
    if not exchange:  # as on systems that cannot exchange folders
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    for first_replaces in (False, True):
        with making_folder(folder, replace=True) as first:
            first.mkdir()
            (first / "a").write_bytes(b"first")
            with making_folder(folder, replace=first_replaces) as second:
                second.mkdir()
                (second / "b").write_bytes(b"second")
            assert os.listdir(folder) == ["b"]
        assert os.listdir(folder) == ["a"]
        assert os.listdir(tmp_path) == ["run"]
        shutil.rmtree(folder)


def test_a_folder_with_files_is_replaced_only_where_that_is_meant(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a").touch()
    with pytest.raises(OSError, match="not empty"), making_folder(folder) as scratch:
        scratch.mkdir()
    assert os.listdir(folder) == ["a"]
    assert os.listdir(tmp_path) == ["run"]


def test_a_folder_that_was_being_replaced_comes_back(tmp_path):
    folder = tmp_path / "run"
    leave(folder, "run/new", f"{files.OLD}/old")
    files.remove_abandoned(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"old": b"half"}
    assert os.listdir(tmp_path) == ["run"]
    leave(folder, "run/new", f"{files.OLD}/old")  # and killed after the new one was in its place
    files.remove_abandoned(folder)
    assert os.listdir(tmp_path) == ["run"]
    files.remove_folder(folder)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("moment", ["after the old one is moved away", "before the new one is in its place"])
def test_a_folder_whose_replacement_is_interrupted_stays(tmp_path, monkeypatch, moment, error):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "precious").touch()
    rename, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if moment.startswith("before") and len(calls) == 3:
            raise error
        rename(source, target)
        if moment.startswith("after") and len(calls) == 2:
            raise error

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)  # as on systems that cannot exchange folders
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(type(error)), making_folder(folder, replace=True) as scratch:
        (scratch / "new").mkdir(parents=True)
    assert calls[1].name == files.OLD
    assert os.listdir(folder) == ["precious"]
    assert os.listdir(tmp_path) == ["run"]


def test_links_and_devices_stay_what_they_are(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/f")
    write_file(tmp_path / "link", b"content", shared=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "f").read_bytes() == b"content"
    device = os.stat("/dev/null")
    write_file(Path("/dev/null"), b"content", shared=True)
    assert os.path.samestat(os.stat("/dev/null"), device)


@pytest.fixture
def small_files():
    """Files of more than 4 KB meet an error, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("shared", [True, False])
def test_a_full_disk_names_the_file(tmp_path, shared):
    path = tmp_path / "f"
    write_file(path, b"old")
    with pytest.raises(OSError) as caught:
        write_file(path, bytes(5000), shared=shared)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f": b"old"}


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("size", [0, 2000, 3900, 5000, 100_000])
def test_a_full_disk_is_itself_where_a_library_hides_it(tmp_path, size):
    """torch.save ends with "unexpected pos", and HDF5 may end with a segmentation fault."""
    with contextlib.ExitStack() as stack:
        error = stack.enter_context(pytest.raises(OSError)) if size > 3000 else None
        with making_folder(tmp_path / "run") as scratch:
            scratch.mkdir()
            with files.steady(scratch / "head.pt") as file:
                torch.save(torch.zeros(size, dtype=torch.uint8), file)
    if error:
        assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(tmp_path / "run" / "head.pt"))
        assert os.listdir(tmp_path) == []
    else:
        assert len(torch.load(tmp_path / "run" / "head.pt")) == size


def test_other_errors_of_a_block_stay_themselves(tmp_path):
    with pytest.raises(ValueError, match="mine"), files.steady(tmp_path / "f"):
        raise ValueError("mine")


def refuse(number, *, folders=False):
    """A call of the system that fails, for folders alone or for everything."""

    def call(descriptor, *rest):
        if not folders or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EPERM], ids=errno.errorcode.get)
def test_folders_that_cannot_be_synced_are_one_warning(tmp_path, monkeypatch, number):
    """Such file systems keep files whole, too; only the last ones may be lost by a power cut."""
    monkeypatch.setattr(os, "fsync", refuse(number, folders=True))
    monkeypatch.setattr(files, "_unsynced", set())
    with pytest.warns(UserWarning, match=f"{tmp_path}.*cannot sync folders .*{os.strerror(number)}.*same command"):
        write_file(tmp_path / "new" / "f", b"content")
    assert (tmp_path / "new" / "f").read_bytes() == b"content"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_file(tmp_path / "g", b"content")


def test_a_disk_that_fails_is_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError) as caught:
        sync_folder(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_named_with_the_way_out(tmp_path, monkeypatch, number):
    def flock(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    store, run, result = tmp_path / "a.zarr", tmp_path / "f", tmp_path / "r.jsonl"
    takes = lambda: _lease.lock(store, alone=True), lambda: locked(run).__enter__(), lambda: results.append(result, [])
    for take in takes:
        with pytest.raises(FeatcacheError, match=f"lock {tmp_path}.*{os.strerror(number)}.*no locks.*local disk"):
            take()
    assert not _lease.is_locked(tmp_path / "a.zarr")  # nobody can write there, and it can be read
    monkeypatch.setenv("FEATCACHE_NO_LOCKS", "1")
    _lease.free(_lease.lock(tmp_path / "a.zarr", alone=True))
    with locked(run) as ours:
        assert ours
    assert not run.exists()
    results.append(result, [])
    monkeypatch.setenv("FEATCACHE_NO_LOCKS", "0")
    with pytest.raises(FeatcacheError, match=r"--no-locks"):
        results.append(result, [])


def test_a_lock_that_fails_otherwise_is_an_error_of_that_file(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: refuse(errno.EIO)(0))
    monkeypatch.setenv("FEATCACHE_NO_LOCKS", "1")
    with pytest.raises(OSError) as caught, locked(tmp_path / "f"):
        pass
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "f"))


@pytest.mark.parametrize(
    ("kind", "options", "local"),
    [
        ("lustre", "rw,localflock,lazystatfs", "localflock"),
        ("lustre", "rw,flock,lazystatfs", ""),
        ("nfs", "rw,vers=3,nolock", "nolock"),
        ("nfs4", "rw,vers=4.2,local_lock=none", ""),
        ("nfs4", "rw,local_lock=all", "local_lock=all"),
        ("ext4", "rw,localflock", ""),
    ],
)
def test_locks_of_one_machine_are_warned_of_once(tmp_path, monkeypatch, kind, options, local):
    """The table is that of the kernel: the longest place counts, and then the last line; a blank is \\040."""
    place = tmp_path / "big disk"
    place.mkdir()
    spelled = str(place).replace(" ", "\\040")
    lines = [
        "none / overlay rw 0 0",
        f"old {spelled} lustre rw,localflock 0 0",
        f"mgs:/home {spelled} {kind} {options} 0 0",
        f"other {spelled}2 lustre rw,localflock 0 0",
        "garbage",
    ]
    (tmp_path / "mounts").write_text("\n".join(lines))
    monkeypatch.setattr(files, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(files, "_looked_up", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("f", "g"):
            with locked(place / name):
                pass
    assert len(caught) == bool(local)
    for warning in caught:
        assert re.search(rf"{place}.*this machine only.*{kind}.*{local}.*--shards", str(warning.message))


def test_a_lock_is_a_file_only_while_it_is_held(tmp_path):
    lock = tmp_path / "new" / "f.lock"
    with locked(lock) as ours:
        assert ours
        assert lock.exists()
        with locked(lock, wait=False) as theirs:
            assert not theirs
        assert lock.exists()
    assert not lock.exists()
    with pytest.raises(KeyboardInterrupt), locked(lock):
        raise KeyboardInterrupt
    assert not lock.exists()


def test_a_lock_whose_holder_was_killed_is_free(tmp_path):
    lock = tmp_path / "f.lock"
    code = (
        f"import os, pathlib\nfrom featcache.files import locked\nwith locked(pathlib.Path({str(lock)!r})): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert lock.exists()
    with locked(lock, wait=False) as ours:
        assert ours
    assert not lock.exists()


def test_only_one_holds_a_lock_though_its_file_comes_and_goes(tmp_path):
    """The file that a waiting thread has opened may be removed before the thread gets its lock."""
    lock, inside, most, rounds = tmp_path / "f.lock", [], [], 0

    def work():
        nonlocal rounds
        for wait in (True, False) * 40:
            with locked(lock, wait=wait) as ours:
                if ours:
                    inside.append(1)
                    most.append(len(inside))
                    rounds += 1
                    inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert rounds >= 4 * 40
    assert not lock.exists()


def test_a_file_that_is_being_written_is_named_with_the_writer(tmp_path):
    path = tmp_path / "out.npz"
    with claimed(path):
        assert claim_of(path).exists()
        with pytest.raises(BusyError, match=f"{path} .*process {os.getpid()} on .*wait"), claimed(path):
            pass
    with claimed(path):
        pass
    assert list(tmp_path.iterdir()) == []
