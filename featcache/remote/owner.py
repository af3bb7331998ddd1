"""The owner of a remote store: one small object, so that two machines do not write the store at the same time.

The object names the machine, the process, and the token of its work folder. It stays when the writer has finished,
marked as free. It also has the token of the work folder with the newest rows. To a writer of another work folder, the
newest rows are those of the remote store.
"""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from featcache import schema
from featcache.errors import StoreError
from featcache.remote.bucket import Bucket
from featcache.remote.urls import beside

STALE = 600.0  #: seconds without a sign of life, after which another machine may take a store over
REFRESH = 60.0  #: seconds between two signs of life


@dataclass(frozen=True)
class _Holder:
    token: str  #: of the work folder of the writer
    newest: str  #: token of the work folder that agrees with the remote store, "" for none
    host: str
    pid: int
    free: bool
    time: float  #: seconds since 1970 on the clock of the writer


class Owner:
    """The right to write the store `name` below a bucket's URL, held by this process from `take` to `release`."""

    def __init__(self, bucket: Bucket, name: str, token: str) -> None:
        self._bucket, self._store, self._token = bucket, name, token
        self._name, self._newest = beside(name, "writer.json"), ""
        self._version, self._refreshed = "", 0.0

    def take(self) -> bool:
        """Become the owner. Return True if this work folder has the newest rows of the store.

        StoreError while another process is the owner, unless it has shown no sign of life for ten minutes. A process of
        the same work folder, which the caller has locked, has been killed.
        """
        try:
            data, version, when = self._bucket.read(self._name)
        except FileNotFoundError:
            self._version = self._bucket.create(self._name, self._data(free=False))
            if not self._version:
                raise self._taken() from None
            self._refreshed = time.monotonic()
            return False
        place, fix = f"{self._bucket.url}/{self._name}", "delete this object if no process writes the store"
        holder = schema.parse(data, _Holder, place, error=StoreError, fix=fix)
        quiet = (datetime.now(UTC) - when).total_seconds()
        if holder.token != self._token and not holder.free and quiet < STALE:
            raise StoreError(
                f"{self._bucket.url}/{self._store} is being written by process {holder.pid} on {holder.host}; wait for "
                f"it or stop it, because it is taken over only {STALE / 60:.0f} minutes after its last sign of life"
            )
        self._newest = holder.newest
        self._swap(version, free=False)
        return holder.newest == self._token

    def agree(self) -> None:
        """Record that this work folder has the newest rows."""
        if self._newest != self._token:
            self._newest = self._token
            self._swap(self._version, free=False)

    def refresh(self) -> None:
        """Show a sign of life if the last one is a minute old; StoreError if another process has become the owner."""
        if time.monotonic() - self._refreshed > REFRESH:
            self._swap(self._version, free=False)

    def release(self) -> None:
        """Let others become the owner; nothing if another process has become it."""
        self._swap(self._version, free=True)

    def _swap(self, version: str, *, free: bool) -> None:
        self._version = self._bucket.swap(self._name, self._data(free=free), version)
        self._refreshed = time.monotonic()
        if not self._version:
            raise self._taken()

    def _data(self, *, free: bool) -> bytes:
        holder = _Holder(self._token, self._newest, socket.gethostname(), os.getpid(), free, time.time())
        return json.dumps(asdict(holder)).encode()

    def _taken(self) -> StoreError:
        return StoreError(
            f"{self._bucket.url}/{self._store}: another process has just become the writer; wait for that process"
        )
