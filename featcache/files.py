"""Files and folders that exist whole or not at all, even after a power cut; locks; cached reads of files.

`write_file`, `replacing` and `making_folder` write next to the place of a file or folder, sync and rename. A process
that is killed leaves a scratch folder, and the next write to the same path removes it. Errors of a full disk name the
path. Journals, logs and downloads, which grow, are not written by these functions.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, wraps
from pathlib import Path
from typing import IO, Any, TypeVar, TypeVarTuple

from featcache.errors import BusyError, FeatcacheError, FormatError
from featcache.wording import alike, exactly

Rest = TypeVarTuple("Rest")
T = TypeVar("T")

#: errors of file systems that cannot open or sync a folder (CIFS, VirtualBox, some FUSE); a bad disk gives others
UNSYNCABLE = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EISDIR)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  #: errors of a full disk, a full quota, and a limit of file sizes
MANY = 500  #: files from which one sync of the whole machine is faster than one for each of them
CWD, EXCHANGE = -100, 2  #: AT_FDCWD and RENAME_EXCHANGE of Linux
TICK = 20_000_000  #: ns; within a tick of the kernel, at most 10 ms, all changes of a file get the same time
IRREGULAR = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
NO_LOCKS = "FEATCACHE_NO_LOCKS"  #: environment variable that is 1 if files may be written without locks
LOCKLESS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)  #: errors of lacking locks
MOUNTS = Path("/proc/mounts")  #: the mounted file systems of Linux, a line each
#: type of a file system -> options with which its locks hold on one machine only
LOCAL_LOCKS = {
    "lustre": {"localflock"},
    "nfs": {"nolock", "local_lock=flock", "local_lock=all"},
    "nfs4": {"local_lock=flock", "local_lock=all"},
}
_looked_up: set[int] = set()  #: devices whose locks have been looked up
_unsynced: set[int] = set()  #: devices that were named in a warning, so that each one is named once


def write_file(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Write these bytes to a file, as `replacing` does."""
    with replacing(path, shared=shared) as scratch:
        scratch.write_bytes(data)


def check_new(path: Path, overwrite: bool) -> None:
    """Raise FormatError, before any work, if a file cannot be written there, or would replace another one."""
    if path.is_dir():
        raise FormatError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise FormatError(f"{path} exists; name another file, or replace it with --overwrite")
    above = next((folder for folder in path.absolute().parents if folder.exists()), path.parent)
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "cannot be written to" if above.is_dir() else "is a file"
        raise FormatError(f"{path} cannot be written: {above} {why}; name another place")


@contextlib.contextmanager
def replacing(path: Path, *, shared: bool = True) -> Iterator[Path]:
    """Give a scratch file to write to; it is synced and renamed to `path` when the block succeeds.

    When the block fails, the scratch file is removed, and an older file at `path` stays as it was. A link stays a link,
    and a device or a pipe (/dev/stdout) is written to directly. FormatError when `path` is a folder.
    shared: other processes may write the same file now, so the scratch file is in a folder of its own (see `_scratch`).
    Otherwise it has a fixed name, so that the next write replaces one that a killed process has left.
    """
    if path.is_dir():
        raise FormatError(f"{path} is a folder; name a file")
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    make_folder(path.parent)
    with contextlib.ExitStack() as stack:
        if shared:
            scratch = stack.enter_context(_scratch(path)) / path.name
        else:
            scratch = path.with_name(f".{path.name}.partial")
        try:
            with disk_errors(path, scratch):
                yield scratch
                _sync(scratch)
                os.replace(scratch, path)
        except BaseException:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise
    sync_folder(path.parent)


@contextlib.contextmanager
def making_folder(folder: Path, *, replace: bool = False, durable: bool = True) -> Iterator[Path]:
    """Give the path of a scratch folder, to be made by the block; it is renamed to `folder` when the block succeeds.

    All files of the scratch folder are synced. When the block fails, it is removed, and an older `folder` stays.
    replace: `folder` may exist and have files. The two are exchanged in one step. Where the system cannot do that,
    `folder` is moved away just before the renaming, and moved back if that fails; when a process is killed between the
    two, `remove_abandoned` moves it back.
    durable: False for files that can be fetched again and are verified after a power cut; they are not synced.
    """
    make_folder(folder.parent)
    with _scratch(folder) as own, disk_errors(folder, own / folder.name):
        scratch, old = own / folder.name, own / OLD
        yield scratch
        if durable:
            _sync_all(scratch)
        try:
            _rename(scratch, folder, old if replace else None)
        except BaseException:
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            raise
        if durable:
            sync_folder(folder.parent)


def _rename(scratch: Path, folder: Path, old: Path | None) -> None:
    """Rename `scratch` to `folder`. old: the place of a `folder` that has files, if the two cannot be exchanged."""
    while True:
        try:
            os.replace(scratch, folder)
            return
        except OSError as error:
            if old is None or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _exchange(scratch, folder):
            return
        shutil.rmtree(old, ignore_errors=True)  # another process has just made the folder, too
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder, old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that both paths always exist; False where the system cannot do that."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # Linux
    return renameat2 is not None and renameat2(CWD, os.fsencode(one), CWD, os.fsencode(other), EXCHANGE) == 0


def remove_folder(folder: Path) -> None:
    """Delete a folder, renaming it first, so that its path never holds half of it."""
    with _scratch(folder) as own:
        os.replace(folder, own / folder.name)


@contextlib.contextmanager
def steady(path: Path) -> Iterator["Steady"]:
    """Open a new file for a library that does not survive a full disk (HDF5) or hides it behind its own errors (torch).

    After the first error of the disk, the file takes everything and keeps nothing, so that the library ends in order.
    That error is raised at the end of the block, in place of the library's.
    """
    with Steady(path, "w+b") as file:
        try:
            yield file
        except Exception:
            if file.error is None:
                raise
        if file.error is not None:
            file.error.filename = file.error.filename or os.fspath(path)
            raise file.error


class Steady(io.FileIO):
    """A file that remembers the first error of the disk in `error` instead of raising it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all bytes, unless an error has occurred."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.error is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the size, unless an error has occurred."""
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0


# ------------------------------------------------------------------------------------------------------ scratch folders

LOCK, OLD = "lock", "old"  #: in a scratch folder: the file that its process has locked; the folder that is replaced
TRIES = 100  #: names of scratch folders that are tried before giving up


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Make a folder next to `path` for its next version, and remove it in the end.

    Its process holds a lock of the kernel on a file in it. The kernel releases that lock when the process dies, so an
    unlocked scratch folder is in use by no process, and the next call for the same path removes it. (Process ids cannot
    show that: two containers may have equal ones.) On a file system without locks, scratch folders of killed processes
    stay.
    """
    remove_abandoned(path)
    folder, lock = _own_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _own_folder(path: Path) -> tuple[Path, IO[bytes]]:
    """Make a scratch folder and lock it; another process may take it for an abandoned one just before it is locked."""
    for _ in range(TRIES):
        folder = path.with_name(f".{_shortened(path)}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        with disk_errors(path, folder):
            folder.mkdir()
            with contextlib.suppress(FileNotFoundError):
                lock = (folder / LOCK).open("ab")
                if _lock(lock, fcntl.LOCK_EX) is None or is_file_of(lock, folder / LOCK):
                    return folder, lock
                lock.close()
    raise OSError(errno.EEXIST, "no scratch folder can be made", os.fspath(path))


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes have left next to `path`, or move it back where they were replacing a folder."""
    name = re.escape(_shortened(path))
    pattern = re.compile(rf"\.{name}(\.\d+(-[0-9a-f]+)?)?\.partial")
    with contextlib.suppress(FileNotFoundError):
        for left in sorted(filter(pattern.fullmatch, os.listdir(path.parent))):
            with contextlib.suppress(OSError):  # another process has just removed it, or it is somebody else's
                _remove_unlocked(path.parent / left, path)


def _remove_unlocked(left: Path, path: Path) -> None:
    """Remove a scratch file or folder that no process has locked; nothing where locks do not work."""
    of_folder = left.is_dir() and not left.is_symlink()
    file = left / LOCK if of_folder else left
    with file.open("ab") as lock:
        if not _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) or not is_file_of(lock, file):
            return
        if (left / OLD).is_dir() and not path.exists():
            os.replace(left / OLD, path)
            sync_folder(path.parent)
        if of_folder:
            shutil.rmtree(left)
        else:
            left.unlink()


def _lock(file: IO[bytes], kind: int) -> bool | None:
    """Lock a file; False while another process holds it, None on a file system without locks."""
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _shortened(path: Path) -> str:
    """The name of a path, short enough to be part of the name of a scratch folder."""
    return os.fsdecode(os.fsencode(path.name)[:200])


@contextlib.contextmanager
def disk_errors(path: Path, scratch: Path | None = None) -> Iterator[None]:
    """Make errors of a full disk name `path`. By themselves they name nothing, or the scratch file for it."""
    try:
        yield
    except OSError as error:
        name = error.filename
        if name is None and error.errno in FULL:
            named = os.fspath(path)
        elif scratch is not None and isinstance(name, str) and os.fspath(scratch) in name:
            named = name.replace(os.fspath(scratch), os.fspath(path))
        else:
            raise
        raise OSError(error.errno, error.strerror, named) from error  # libraries have errors whose name cannot be set


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _sync_all(folder: Path) -> None:
    """Sync a folder's files and folders: one by one, or all of the machine's at once if they are many."""
    parts = list(folder.rglob("*"))
    if len(parts) > MANY:
        os.sync()
        return
    for part in [*parts, folder]:
        if part.is_dir():
            sync_folder(part)
        elif part.is_file():
            _sync(part)


# ----------------------------------------------------------------------------------------------------- folders and sums


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in missing:
        sync_folder(part.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that renames and removals in it survive a power cut.

    On a file system that cannot sync folders, a warning names the folder, once per file system.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCABLE:
            error.filename = error.filename or os.fspath(folder)
            raise
        device = folder.stat().st_dev
        if device not in _unsynced:
            _unsynced.add(device)
            warnings.warn(
                f"the file system of {folder} cannot sync folders ({error.strerror}): files are written whole and "
                "synced, but the last ones may be missing after a power cut; run the same command again then",
                stacklevel=2,
            )


def regular(path: Path, error: type[FeatcacheError] = FormatError, *, or_folder: bool = False) -> Path:
    """Return the path of a file that is about to be read; `error` for a folder, pipe, socket or device.

    Opening a pipe may wait for ever, and a device may never end. A path that does not exist is returned: opening it
    gives the reason. or_folder: a folder is allowed, too.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return path
    except ValueError:
        raise error(f"{os.fspath(path)!a} contains a null character; correct the name") from None
    if not (stat.S_ISREG(mode) or (or_folder and stat.S_ISDIR(mode))):
        kind = next((kind for test, kind in IRREGULAR.items() if test(mode)), "not a regular file")
        raise error(f"{path} is {kind}, but a file is needed; put a file in its place, or name another one")
    return path


def read_bytes(path: Path, error: type[FeatcacheError] = FormatError) -> bytes:
    """The bytes of a file; `error` for a folder, pipe, socket or device, which a hostile folder may hold."""
    return regular(path, error).read_bytes()


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes, 64 digits."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path, names: Iterable[str]) -> str:
    """Digest of the names and digests of these files of a folder, in this order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{file_sha256(folder / name)}\n".encode())
    return digest.hexdigest()


def folder_size(folder: str | Path) -> int:
    """Bytes of all files in a folder, by `scandir`: pathlib takes seconds for the files of thousands of blocks."""
    with os.scandir(folder) as entries:
        return sum(folder_size(entry.path) if entry.is_dir() else entry.stat().st_size for entry in entries)


@contextlib.contextmanager
def locked(lock: Path, *, wait: bool = True) -> Iterator[bool]:
    """Wait for a lock file, hold it against all other processes and threads of the machine, and remove it at the end.

    Yields True; if not `wait`, yields False at once while another process or thread holds the lock.
    The kernel releases the lock of a process that dies; the next holder removes the file.
    """
    make_folder(lock.parent)
    while True:
        with regular(lock).open("a+b", buffering=0) as file:
            try:
                flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if not is_file_of(file, lock):  # its last holder has removed it meanwhile
                continue
            try:
                with contextlib.suppress(OSError):  # a full disk has room for locks
                    file.truncate(0)
                    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                yield True
            finally:
                if is_file_of(file, lock):
                    lock.unlink()
            return


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep other processes from writing the file or folder at `path`; BusyError, which names it, while one does."""
    lock = claim_of(path)
    with locked(lock, wait=False) as ours:
        if not ours:
            raise BusyError(f"{path} is being written by {_holder(lock)}; wait for it, or stop that process")
        yield


def claim_of(path: Path) -> Path:
    """The lock file of a file or folder that is being written."""
    return path.with_name(f".{path.name}.lock")


def _holder(lock: Path) -> str:
    """The process that holds a lock, as text."""
    try:
        return lock.read_text(encoding="utf-8", errors="replace") or "another process"
    except OSError:
        return "another process"


def is_file_of(file: IO[Any], path: Path) -> bool:
    """Return whether an open file is the one that the path leads to now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def flock(file: IO[Any], kind: int) -> None:
    """Lock or unlock an open file by the kernel, as `fcntl.flock` does; BlockingIOError while another process holds it.

    FeatcacheError on a file system without locks, where two processes could damage each other's work, unless the
    environment variable FEATCACHE_NO_LOCKS is 1. Warns, once per file system, where locks hold on this machine only.
    """
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in LOCKLESS:
            error.filename = error.filename or file.name
            raise
        if os.environ.get(NO_LOCKS) != "1":
            raise FeatcacheError(
                f"cannot lock {file.name}: {error.strerror}. Its file system has no locks, which keep two processes "
                "from writing the same files; use a folder on a local disk, mount the file system with locks (flock), "
                "or make sure that no other process writes there and add --no-locks"
            ) from None
    else:
        _warn_of_local_locks(file)


def _warn_of_local_locks(file: IO[Any]) -> None:
    """Warn, once per file system, if its locks do not reach other machines."""
    device = os.fstat(file.fileno()).st_dev
    if device in _looked_up:
        return
    _looked_up.add(device)
    place, kind, options = _mount(os.path.realpath(file.name))
    if local := LOCAL_LOCKS.get(kind, set()).intersection(options.split(",")):
        warnings.warn(
            f"locks in {place} hold on this machine only ({kind} is mounted with {min(local)}): two machines that "
            "write the same store or run would damage it; extract with --shards, a part per machine, or mount it with "
            "locks that all machines share (flock)",
            stacklevel=3,
        )


def _mount(path: str) -> tuple[str, str, str]:
    """Return the place, type and options of the mounted file system that holds a path; "" where they are not listed."""
    found = ("", "", "")
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            _, place, kind, options, *_ = (*line.split(" "), "", "", "")
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place)  # blanks are \040
            if len(place) >= len(found[0]) and os.path.join(path, "").startswith(os.path.join(place, "")):
                found = (place, kind, options)
    return found


def remembered(
    most: int, *, settled: bool = False
) -> Callable[[Callable[[Path, *Rest], T]], Callable[[Path, *Rest], T]]:
    """Decorate a function that reads a file, so that a file is read again only when it has changed.

    The results of the last `most` files are kept. A file has changed when its device, inode, size or one of its times
    has. OSError when there is no file.
    settled: a file that was written just now is read again, too, because its next change may get the same times.
    """

    def decorate(read: Callable[[Path, *Rest], T]) -> Callable[[Path, *Rest], T]:
        @lru_cache(maxsize=most)
        def read_once(path: Path, stamp: tuple[int, ...], *rest: *Rest) -> T:
            return read(path, *rest)

        @wraps(read)
        def read_again_if_changed(path: Path, *rest: *Rest) -> T:
            s = path.stat()
            if settled and abs(time.time_ns() - s.st_ctime_ns) < TICK:
                return read(path, *rest)
            return read_once(path, (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns), *rest)

        return read_again_if_changed

    return decorate


def near(path: Path) -> str:
    """Return the end of a sentence about a path that does not exist: the existing path spelled almost alike, or "".

    Two spellings are alike if they differ only in / and backslashes, which are part of names here, in case, blanks,
    invisible characters or Unicode form: macOS stores é as two characters (NFD), most keyboards write one (NFC).
    """
    slashed = os.fspath(path).replace("\\", "/")
    advice = "write / instead of backslashes" if slashed != os.fspath(path) else ""
    try:
        existing = _existing(Path(slashed))
    except OSError:  # a folder that cannot be listed
        existing = None
    if existing is None or existing == path:
        return f"; {advice}" if advice else ""
    if existing != Path(slashed):
        advice = "; ".join(
            [advice] * bool(advice) + ["spell it as on the disk (case, blanks and Unicode form, NFC or NFD)"]
        )
    return f", but {exactly([os.fspath(existing)])[0]} does; {advice}"


def _existing(path: Path) -> Path | None:
    """Return the existing path that is spelled like this one, part by part; None if there is none."""
    if os.path.exists(path):
        return path
    folder = _existing(path.parent) if path != path.parent else None
    same = _names(folder).get(alike(path.name)) if folder and folder.is_dir() else None
    return folder / same if folder and same else None


@remembered(8)
def _names(folder: Path) -> dict[str, str]:
    """Form that names alike share -> name in the folder."""
    return {alike(name): name for name in sorted(os.listdir(folder), reverse=True)}
