"""A file is there whole or not at all, and what stood there stays until then."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
import warnings

import pytest

from featcache import files
from featcache.errors import BusyError, FeatcacheError, FormatError
from featcache.files import claim_of, claimed, locked, replacing, sync_folder, write_file
from featcache.store import _lease
from tests.conftest import ROOT


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_in_the_making_has_another_name(tmp_path, shared):
    """Its name is the process's own where another one may write the same file."""
    path = tmp_path / "new" / "f"
    with replacing(path, shared=shared) as scratch:
        scratch.write_bytes(b"content")
        assert [file.name for file in path.parent.iterdir()] == [scratch.name]
        assert (str(os.getpid()) in scratch.name) == shared
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


def test_leftovers_of_a_kill_are_written_over(tmp_path):
    (tmp_path / ".f.partial").write_bytes(b"a longer one that a kill has left behind")
    write_file(tmp_path / "f", b"new")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f": b"new"}


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
    for take in (lambda: _lease.lock(tmp_path / "a.zarr", alone=True), lambda: locked(tmp_path / "f").__enter__()):
        with pytest.raises(FeatcacheError, match=f"lock {tmp_path}.*{os.strerror(number)}.*no locks.*local disk"):
            take()
    assert not _lease.is_locked(tmp_path / "a.zarr")  # nobody can write there, and it can be read


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
