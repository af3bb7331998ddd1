"""The objects below a URL, by obstore; each error is a StoreError of one sentence.

The first request has short timeouts and few retries, so that wrong settings are reported within seconds. All later
requests are patient, because a busy service asks its clients to wait.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from featcache.errors import ConfigError, StoreError
from featcache.remote.urls import CREDENTIALS
from featcache.wording import size

CONNECT, ANSWER, SILENCE = "2s", "4s", "60s"  #: of the first request: connect, whole answer; later: without a byte
LONGEST = "3600s"  #: for a whole object, whatever the speed of the network
OFFLINE = "FEATCACHE_OFFLINE"
ENDPOINT = "AWS_ENDPOINT_URL"
ENDPOINTS = (f"{ENDPOINT}_S3", ENDPOINT, "AWS_ENDPOINT")  #: variables with the address of the service; the first counts
#: parts of messages of clients and services that mean that there are no credentials
NO_KEYS = re.compile(
    r"latest/api/token|computeMetadata|metadata/identity|Missing ?(Account|AccessKeyId|SecretAccessKey)|"
    "Account must be specified"
)
REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "AuthorizationFailure")
REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint", "redirect without LOCATION")
NO_FILE = "{} has an object {!r}, which is no name of a file; remove it"
#: obstore's words for such a name
NO_NAME = re.compile(r'invalid path: (?:Error parsing )?Path "(.+?)"(?::| contained)')
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")


@dataclass(frozen=True)
class Entry:
    """An object in a listing."""

    size: int
    version: str  #: its e_tag, or its time where a service has none; another content has another version


class Bucket:
    """The objects whose names begin with a URL."""

    def __init__(self, url: str) -> None:
        check_online(url)
        self.url = url
        self._client = needed(url)
        with self._errors():
            self._clients = _opened(url, patient=False), _opened(url, patient=True)
        self._answered = False  #: True when a request has succeeded

    @property
    def _store(self) -> Any:
        """The client of the next request."""
        return self._clients[self._answered]

    def listing(self) -> dict[str, Entry]:
        """Name -> entry of each object, in order of the names: one request for every 1,000 objects.

        Markers of folders, the empty objects that consoles make, are left out.
        """
        with self._errors():
            found = [meta for page in self._client.list(self._store, chunk_size=1000) for meta in page]
        entries = {meta["path"]: Entry(meta["size"], _version(meta)) for meta in found}
        folders = {"", *folders_of(entries)}
        return checked(self.url, {name: entry for name, entry in entries.items() if entry.size or name not in folders})

    def begin(self) -> dict[str, Entry]:
        """Make ready for writing, and return the listing."""
        return self.listing()

    def holds(self, name: str, entry: Entry, data: bytes | memoryview) -> bool:
        """Return True if an object surely has this content: its e_tag is the MD5, as S3 makes it for one request."""
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return len(data) == entry.size and entry.version.strip('"') == digest

    def commit(self, message: str) -> None:
        """Nothing is left to do: every write has been one request."""

    def get(self, name: str, entry: Entry | None = None) -> memoryview:
        """Return the content of an object by one request.

        entry: of the listing; StoreError if the object has changed since. FileNotFoundError if there is none, and no
        entry.
        """
        try:
            with self._errors(name):
                answer = self._client.get(self._store, name)
                data = memoryview(answer.bytes())
        except FileNotFoundError:
            if entry is None:
                raise
            raise self._changed(name) from None
        if entry and (len(data) != entry.size or _version(answer.meta) != entry.version):
            raise self._changed(name)
        return data

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write an object by one request; an older one is replaced."""
        with self._errors(name):
            self._client.put(self._store, name, data, use_multipart=False)

    def create(self, name: str, data: bytes) -> str:
        """Write an object that must be new, and return its version; "" if there is one of other content.

        A service may store the object and lose its answer; the client's second attempt then finds that object. So an
        object that exists is read and compared.
        """
        return self._written_if(name, data, "create")

    def swap(self, name: str, data: bytes, version: str) -> str:
        """Replace an object that must still be of a version, and return the new one; "" if it is of another one."""
        return self._written_if(name, data, {"e_tag": version})

    def _written_if(self, name: str, data: bytes, condition: object) -> str:
        try:
            with self._errors(name):
                answer = self._client.put(self._store, name, data, mode=condition, use_multipart=False)
                return str(answer["e_tag"])
        except (ConditionError, FileNotFoundError):
            pass
        try:
            present, version, _ = self.read(name)
        except FileNotFoundError:
            return ""
        return version if present == data else ""

    def read(self, name: str) -> tuple[bytes, str, datetime]:
        """Return content, version and time of an object; FileNotFoundError if there is none."""
        with self._errors(name):
            answer = self._client.get(self._store, name)
            return bytes(answer.bytes()), _version(answer.meta), answer.meta["last_modified"]

    def delete(self, *names: str) -> None:
        """Delete objects, one after the other; those that do not exist are skipped."""
        for name in names:
            try:
                with self._errors(name):
                    self._client.delete(self._store, name)
            except FileNotFoundError:
                pass

    def _changed(self, name: str) -> StoreError:
        return StoreError(f"{self.url}/{name} changed while it was read; run the same command again")

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Raise a StoreError of one sentence for each error of the client, except for an object that is not there."""
        errors = self._client.exceptions
        try:
            yield
            self._answered = True
        except (errors.AlreadyExistsError, errors.PreconditionError) as error:
            raise ConditionError from error
        except FileNotFoundError as error:
            if any(word in str(error) for word in NO_BUCKET):
                raise StoreError(reason(self.url, str(error))) from error
            raise
        except (errors.BaseError, OSError) as error:
            raise StoreError(reason(f"{self.url}/{name}" if name else self.url, str(error))) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of the client, for settings that it does not check
                raise
            raise StoreError(reason(f"{self.url}/{name}" if name else self.url, str(error))) from error


class ConditionError(Exception):
    """The condition of a write does not hold: there is an object, or it has another version."""


def check_online(url: str) -> None:
    """Raise StoreError if requests are forbidden."""
    if os.environ.get(OFFLINE, "") not in ("", "0"):
        raise StoreError(f"{url} needs the network, and {OFFLINE} is set; unset it, or name a local folder")


def folders_of(names: Iterable[str]) -> set[str]:
    """Return the folders of objects: a/b and a for a/b/c."""
    return {name[: slash.start()] for name in names for slash in re.finditer("/", name)}


def checked(url: str, entries: dict[str, Entry]) -> dict[str, Entry]:
    """Return a listing in order of its names; StoreError for a name that could lead out of a folder."""
    for name in entries:
        if {"", ".", ".."} & {*name.split("/")}:
            raise StoreError(NO_FILE.format(url, name))
    return dict(sorted(entries.items()))


def needed(url: str) -> Any:
    """Import obstore; ConfigError that names the extra if it is missing."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise ConfigError(f"{url} needs obstore ({error}): pip install 'featcache[s3]'") from None
    return obstore


def _opened(url: str, *, patient: bool) -> Any:
    """Open the client of a URL with the settings of the environment."""
    import obstore.store

    options: dict[str, Any] = {"connect_timeout": CONNECT, "timeout": ANSWER}
    retries: dict[str, Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=4)}
    if patient:
        options = {"connect_timeout": "5s", "read_timeout": SILENCE, "timeout": LONGEST}
        retries = {"max_retries": 10, "retry_timeout": timedelta(seconds=180)}
    retries["backoff"] = {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=15 if patient else 1),
        "base": 2,
    }
    if url.startswith("s3://") and _endpoint().startswith("http://"):
        options["allow_http"] = True
    opened: Any = obstore.store.from_url  # its overloads name the settings of each service
    return opened(url, client_options=options, retry_config=retries)


def _endpoint() -> str:
    """The address of another service than Amazon's, "" for Amazon; ConfigError if it is no address of the web."""
    for variable in ENDPOINTS:
        if address := os.environ.get(variable, ""):
            if not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/\S*)?|https?://\[[\da-fA-F:.]+\](:\d+)?(/\S*)?", address):
                shown = address.rpartition("@")[2]  # without a password
                raise ConfigError(f"{variable} is {shown!r}; write http://HOST:PORT or https://HOST")
            return address
    return ""


def _version(meta: Any) -> str:
    return str(meta["e_tag"] or meta["last_modified"].isoformat())


def reason(url: str, message: str) -> str:
    """Return one sentence for a client's message: what is wrong with which URL, and the fix."""
    scheme, _, rest = url.partition("://")
    bucket, text = rest.partition("/")[0], message.partition("Debug source")[0]
    code = found[1] if (found := re.search(r"<Code>(\w+)</Code>", text)) else ""
    first = " ".join(text.partition("<?xml")[0].split())
    endpoint = next((address for name in ENDPOINTS if (address := os.environ.get(name))), "")
    service = f"the service {endpoint}" if endpoint and scheme == "s3" else "the service"
    if found := NO_NAME.search(text):
        return NO_FILE.format(url, found[1])
    if NO_KEYS.search(text):
        return f"{url}: no credentials were found; set {CREDENTIALS[scheme]}"
    if any(word in text for word in NO_BUCKET):
        fix = f", or {ENDPOINT} if it is elsewhere" if scheme == "s3" else ""
        return f"{url}: {service} has no bucket {bucket!r}; correct the URL{fix}"
    if any(word in text for word in REGION):
        expected = found[1] if (found := re.search(r"expecting '([\w-]+)'|<Region>([\w-]+)<", text)) else ""
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        fix = f"AWS_REGION={expected}" if expected else "AWS_REGION to the region of the bucket"
        return f"{url}: {region} is not the region of bucket {bucket!r}; set {fix}"
    if code in REFUSED or re.search(r"status code: 40[13]\b", text):
        return f"{url}: access is refused ({code or first}); check {CREDENTIALS[scheme]}, and the rights of the key"
    if "error sending request" in text or "builder error" in text or "HTTP error" in text:
        place = endpoint if endpoint and scheme == "s3" else "its service"
        fix = f" and {ENDPOINT}" if scheme == "s3" else ""
        return f"{url}: {place} cannot be reached; check the network{fix}"
    return f"{url} cannot be read or written: {code or first[:300]}; run the same command again later"


def no_room(url: str, needed_bytes: int, free: int, folder: object, variable: str) -> str:
    """Return the sentence for a full disk of the cache."""
    return (
        f"{url} has {size(needed_bytes)}, and {folder} has {size(free)} free; make room, or set {variable} to a folder "
        "of another disk"
    )
