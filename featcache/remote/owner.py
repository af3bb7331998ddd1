"""The owner of a remote store: one small object, so that two machines do not write the store at the same time.

The object names the machine, the process, and the token of its work folder. It stays when the writer has finished,
marked as free. It also has the token of the work folder with the newest rows. To a writer of another work folder, the
newest rows are those of the remote store.

- Each write of the object replaces the version that this process has written last, so at most one process owns a store.
- A thread shows a sign of life every minute, from `take` to `release`, whatever else the process does. A sign that
  fails is repeated a minute later.
- Another machine takes a store over if the last sign of life is ten minutes old. Both times are those of the service,
  which stamps a small object for the comparison, so the clocks of the machines do not matter.
- `confirm` asks the service. Once the store is lost, it and all later calls raise LostError.
"""

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime

from featcache import schema
from featcache.errors import StoreError
from featcache.remote.bucket import Bucket
from featcache.remote.urls import beside

STALE = 600.0  #: seconds without a sign of life, after which another machine may take a store over
BEAT = 60.0  #: seconds between two signs of life


class LostError(StoreError):
    """Another process has become the owner of a store."""


@dataclass(frozen=True)
class _Holder:
    token: str  #: of the work folder of the writer
    newest: str  #: token of the work folder that agrees with the remote store, "" for none
    host: str
    pid: int
    free: bool
    time: float  #: of the writer's clock; it makes each content differ, and so each version


class Owner:
    """The right to write the store `name` below a bucket's URL, held by this process from `take` to `release`."""

    def __init__(self, bucket: Bucket, name: str, token: str) -> None:
        self._bucket, self._store, self._token = bucket, name, token
        self._name, self._newest, self._version = beside(name, "writer.json"), "", ""
        self._lock, self._ended, self._lost = threading.Lock(), threading.Event(), False
        self._shown = time.time()  # when the last sign of life began; it goes on while the machine is suspended
        self._heart = threading.Thread(target=self._beat, name=f"owner of {name}", daemon=True)

    def take(self) -> bool:
        """Become the owner, and return True if this work folder has the newest rows of the store.

        StoreError while another process is the owner, unless it has shown no sign of life for ten minutes. A process of
        the same work folder, which the caller has locked, has been killed.
        """
        try:
            data, self._version, when = self._bucket.read(self._name)
        except FileNotFoundError:
            self._version = self._bucket.create(self._name, self._data(free=False))
            if not self._version:
                raise self._taken() from None
        else:
            holder = self._holder(data)
            if holder.token != self._token and not holder.free and self._quiet(when) < STALE:
                raise StoreError(
                    f"{self._bucket.url}/{self._store} is being written by process {holder.pid} on {holder.host}; wait "
                    f"for it or stop it, because it is taken over only {STALE / 60:.0f} minutes after its last sign of "
                    "life"
                )
            self._newest = holder.newest
            self._swap(free=False)
        self._heart.start()
        return self._newest == self._token

    def agree(self) -> None:
        """Record that this work folder has the newest rows."""
        with self._lock:
            if self._newest != self._token:
                self._newest = self._token
                self._swap(free=False)

    def check(self) -> None:
        """Raise LostError if it has been noticed that another process is the owner.

        That is confirmed if two signs of life are missing, as after the machine was suspended; else no request is made.
        """
        if self._lost:
            raise self._taken()
        if abs(time.time() - self._shown) > 2 * BEAT:
            self.confirm()

    def confirm(self) -> None:
        """Show a sign of life; LostError if another process has become the owner."""
        with self._lock:
            self._swap(free=False)

    def release(self) -> None:
        """Let others become the owner; LostError if another process has become it. Nothing after `abandon`."""
        if not self._ended.is_set():
            self.abandon()
            with self._lock:
                self._swap(free=True)

    def abandon(self) -> None:
        """Show no more signs of life, but stay the owner: others can take the store over ten minutes later."""
        self._ended.set()
        self._heart.join()

    def _beat(self) -> None:
        while not self._lost and not self._ended.wait(BEAT):
            with suppress(StoreError):  # it is lost, or the next sign is shown a minute later
                self.confirm()

    def _swap(self, *, free: bool) -> None:
        """Replace the object; it must be of the version that was read or written last."""
        if self._lost:
            raise self._taken()
        data, began = self._data(free=free), time.time()
        version = self._bucket.swap(self._name, data, self._version)
        if not version and (present := self._own()):
            version = self._bucket.swap(self._name, data, present)
        if not version:
            self._lost = True
            raise self._taken()
        self._version, self._shown = version, began

    def _own(self) -> str:
        """Return the version of the object if this process has written it, although it was told that this failed."""
        try:
            data, version, _ = self._bucket.read(self._name)
        except FileNotFoundError:
            return ""
        holder = self._holder(data)
        ours = (holder.token, holder.host, holder.pid) == (self._token, socket.gethostname(), os.getpid())
        return version if ours else ""

    def _quiet(self, when: datetime) -> float:
        """Return the seconds since a time of the service, by the clock of the service."""
        stamp = f"{self._name}.{secrets.token_hex(4)}"
        self._bucket.put(stamp, b"the time of the service")
        try:
            return (self._bucket.read(stamp)[2] - when).total_seconds()
        finally:
            self._bucket.delete(stamp)

    def _holder(self, data: bytes) -> _Holder:
        place, fix = f"{self._bucket.url}/{self._name}", "delete this object if no process writes the store"
        return schema.parse(data, _Holder, place, error=StoreError, fix=fix)

    def _data(self, *, free: bool) -> bytes:
        holder = _Holder(self._token, self._newest, socket.gethostname(), os.getpid(), free, time.time())
        return json.dumps(asdict(holder)).encode()

    def _taken(self) -> LostError:
        return LostError(
            f"{self._bucket.url}/{self._store}: another process has just become the writer; wait for that process"
        )
