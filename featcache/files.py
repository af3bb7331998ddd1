"""Files and folders that exist whole or not at all, even after a power cut; locks; cached reads of files."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, wraps
from pathlib import Path
from typing import IO, Any, TypeVar, TypeVarTuple

from featcache.errors import FeatcacheError, FormatError
from featcache.wording import alike, exactly

Rest = TypeVarTuple("Rest")
T = TypeVar("T")

#: errors of file systems that cannot open or sync a folder (CIFS, VirtualBox, some FUSE); a bad disk gives others
UNSYNCABLE = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EISDIR)
IRREGULAR = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
_unsynced: set[int] = set()  #: devices that were named in a warning, so that each one is named once


def write_file(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Write these bytes to a file, as `replacing` does."""
    with replacing(path, shared=shared) as scratch:
        scratch.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path, *, shared: bool = True) -> Iterator[Path]:
    """Give a scratch file next to `path` to write to; it is synced and renamed to `path` when the block succeeds.

    When the block fails, the scratch file is removed, and an older file at `path` stays as it was. FormatError when
    `path` is a folder.
    shared: other processes may write the same file now, so each has its own scratch file. Otherwise the scratch file
    has a fixed name, so that the next write replaces one that a killed process has left.
    """
    if path.is_dir():
        raise FormatError(f"{path} is a folder; name a file")
    make_folder(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial" if shared else f".{path.name}.partial")
    try:
        yield scratch
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """Give the path of a scratch folder, to be made by the block; it is renamed to `folder` when the block succeeds.

    When the block fails, the scratch folder is removed. The block syncs the files that it writes.
    """
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)  # a killed predecessor's
    try:
        yield scratch
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync_folder(folder.parent)


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
def locked(lock: Path) -> Iterator[None]:
    """Wait for this lock file, and hold it against all other processes and threads of the machine.

    The kernel releases the lock of a process that dies.
    """
    make_folder(lock.parent)
    with regular(lock).open("ab") as file:
        flock(file, fcntl.LOCK_EX)
        yield


def flock(file: IO[Any], kind: int) -> None:
    """Lock an open file by the kernel, as `fcntl.flock` does; BlockingIOError while another process holds the lock.

    FeatcacheError on a file system without locks: two processes could damage each other's work there.
    """
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        raise FeatcacheError(
            f"cannot lock {file.name}: {error.strerror}. Its file system has no locks, which keep two processes from "
            "writing the same files; use a folder on a local disk, or mount the file system with locks (flock)"
        ) from None


def remembered(most: int) -> Callable[[Callable[[Path, *Rest], T]], Callable[[Path, *Rest], T]]:
    """Decorate a function that reads a file, so that a file is read again only when it has changed.

    The results of the last `most` files are kept. A file has changed when its time, size or inode has. OSError when
    there is no file.
    """

    def decorate(read: Callable[[Path, *Rest], T]) -> Callable[[Path, *Rest], T]:
        @lru_cache(maxsize=most)
        def read_once(path: Path, stamp: tuple[int, int, int], *rest: *Rest) -> T:
            return read(path, *rest)

        @wraps(read)
        def read_again_if_changed(path: Path, *rest: *Rest) -> T:
            status = path.stat()
            return read_once(path, (status.st_mtime_ns, status.st_size, status.st_ino), *rest)

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
