"""Features in memory, once: all runs of a process and all workers of a command that need the same ones share a copy.

Workers are the processes that train the runs of one command. They find each other's copies in a list, which is a file
in memory that their parent makes. A copy is such a file, too (`memfd_create`): it is in no folder, fills no disk, and
the kernel frees it when the last process that uses it drops it or dies, even by SIGKILL. One worker fills a copy, while
the others that need it wait, and adds it to the list when it is complete. All workers map it read-only. A system that
refuses a step of this gives each worker a copy of its own.
"""

import fcntl
import mmap
import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

POPULATE_READ = 22  #: advice of madvise: map all pages now; exists since Linux 5.14

_here: "weakref.WeakValueDictionary[tuple[str, str], Tensor]" = weakref.WeakValueDictionary()
_place: "Place | None" = None  #: the place that this process has joined
_list = -1  #: the open list of that place


@dataclass(frozen=True)
class Place:
    """The place where the workers of a command find each other's features."""

    path: str  #: of the list
    sets: int  #: the largest number of different sets of features that are in use at the same time


@contextmanager
def meeting_place(workers: int, sets: int) -> Iterator[Place | None]:
    """Make the place for the workers of a command; None for one worker, or if the system has no files in memory."""
    file = _new_file() if workers > 1 else None
    if file is None:
        yield None
        return
    try:
        yield Place(f"/proc/{os.getpid()}/fd/{file}", min(workers, sets))
    finally:
        os.close(file)


def join(place: Place | None) -> None:
    """Share the features of this process with the workers that have joined this place, and with no others."""
    global _place, _list
    if place == _place:
        return
    if _list >= 0:
        os.close(_list)
    _place, _list = None, -1
    if place:
        with suppress(OSError):  # a system without /proc
            _list = os.open(place.path, os.O_RDWR | os.O_APPEND)
            _place = place


def copies(workers: int) -> int:
    """Return the largest number of copies of the features of a run that so many workers have in RAM together."""
    return _place.sets if _place else workers


def held(key: str, shape: tuple[int, ...], device: str, fill: Callable[[Tensor], None]) -> Tensor:
    """Return the float32 tensor of this key, which must not be changed; `fill` writes it if there is none yet.

    key: a hash (hexadecimal) of everything that the content depends on.
    """
    tensor = _here.get((key, device))
    if tensor is None:
        on_cpu = torch.device(device).type == "cpu"
        if on_cpu and _place and prod(shape):
            tensor = _of_workers(key, shape, fill)
        if tensor is None:
            # numpy asks for huge pages, torch does not
            tensor = torch.from_numpy(np.empty(shape, np.float32)) if on_cpu else torch.empty(shape, device=device)
            fill(tensor)
        _here[key, device] = tensor
    return tensor


def _of_workers(key: str, shape: tuple[int, ...], fill: Callable[[Tensor], None]) -> Tensor | None:
    """Return the copy of the workers, and fill it if no worker has one; None if the system refuses it."""
    lock = int(key[:15], 16)  # a lock for each key, so that workers can fill different copies
    fcntl.lockf(_list, fcntl.LOCK_EX, 1, lock)  # the kernel unlocks it if this process dies
    try:
        file = _listed(key, 4 * prod(shape))
        if file is None:
            file = _filled(shape, fill)
        tensor = None if file is None else _mapped(file, shape)
        if file is not None and tensor is not None:
            with suppress(OSError):  # then no other worker finds it
                os.write(_list, f"{key} /proc/{os.getpid()}/fd/{file} {os.stat(file).st_ino}\n".encode())
        return tensor
    finally:
        fcntl.lockf(_list, fcntl.LOCK_UN, 1, lock)


def _listed(key: str, size: int) -> int | None:
    """Open the copy of this key that a worker has; None if no worker has one any more."""
    lines = os.pread(_list, os.stat(_list).st_size, 0).decode().splitlines()
    for fields in map(str.split, reversed(lines)):
        if len(fields) != 3 or fields[0] != key:  # a worker that was killed can leave a part of a line
            continue
        _, path, inode = fields
        with suppress(OSError):  # that worker has dropped the copy, or has ended
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            found = os.stat(file)
            if (found.st_ino, found.st_size) == (int(inode), size):
                return file
            os.close(file)  # the number of the open file is in use again
    return None


def _filled(shape: tuple[int, ...], fill: Callable[[Tensor], None]) -> int | None:
    """Make a copy and fill it; None if the system refuses the memory."""
    file = _new_file()
    if file is None:
        return None
    try:
        os.ftruncate(file, 4 * prod(shape))
        memory = mmap.mmap(file, 4 * prod(shape))
    except OSError:
        os.close(file)
        return None
    try:
        fill(torch.from_numpy(np.frombuffer(memory, np.float32).reshape(shape)))
    except BaseException:
        os.close(file)
        raise
    return file


def _mapped(file: int, shape: tuple[int, ...]) -> Tensor | None:
    """Map an open copy read-only; the file is closed when the tensor is dropped. None if the system refuses it."""
    try:
        memory = mmap.mmap(file, 4 * prod(shape), prot=mmap.PROT_READ)
    except OSError:
        os.close(file)
        return None
    weakref.finalize(memory, os.close, file)
    with suppress(OSError):
        memory.madvise(POPULATE_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.frombuffer(memory, np.float32).reshape(shape))


def _new_file() -> int | None:
    """Make an empty file in memory, without a name in any folder; None if the system has none."""
    with suppress(AttributeError, OSError):  # not Linux, or refused
        return os.memfd_create("featcache")
    return None
