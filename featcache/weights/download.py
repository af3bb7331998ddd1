"""Download a URL (http, https or file) with urllib into a file, continuing an interrupted download.

A download is continued (HTTP's Range) only when the result can be trusted: the server compares the validator that it
gave with the beginning (If-Range), or the caller compares a digest in the end. Otherwise it starts again.
"""

import http.client
import json
import os
import time
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from featcache import schema
from featcache.errors import WeightsError
from featcache.files import disk_errors, write_file
from featcache.progress import Progress, silent

SCHEMES = ("https", "http", "file")
ATTEMPTS = 3  #: attempts in a row without a new byte
PAUSE = 1.0  #: seconds before another attempt
CHUNK = 1 << 18
BROKEN = (URLError, TimeoutError, ConnectionError, http.client.HTTPException)


def fill(
    url: str,
    partial: Path,
    *,
    size: int | None = None,
    digest_known: bool = False,
    progress: Progress = silent,
    timeout: float = 30.0,
) -> None:
    """Download `url` into the file `partial`, continuing from its present end; broken connections are opened again.

    size: bytes that it must have, if known. digest_known: the caller will compare a digest. timeout: seconds without a
    byte. WeightsError names the URL, the failure and the fix; the bytes received are kept for the next attempt.
    """
    check_scheme(url)
    attempts_left = ATTEMPTS
    while True:
        before = _bytes(partial)
        try:
            if _receive(url, partial, size, digest_known, progress, timeout):
                return
            reason = "the connection ended early"
        except HTTPError as error:
            error.close()
            raise WeightsError(f"{url}: HTTP {error.code} {error.reason}; {_fix(error.code)}") from None
        except BROKEN as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        attempts_left = ATTEMPTS if _bytes(partial) > before else attempts_left - 1
        if not attempts_left or urlsplit(url).scheme == "file":
            kept = f"; {_bytes(partial)} bytes are kept, and the same command continues" if _bytes(partial) else ""
            raise WeightsError(f"{url}: {reason}; check the network, or set FEATCACHE_MIRROR{kept}")
        time.sleep(PAUSE)


def is_begun(partial: Path) -> bool:
    """Return whether there is an unfinished file, or the note with its URL."""
    return partial.exists() or _note(partial).exists()


def discard(partial: Path) -> None:
    """Remove an unfinished file, and the note with its URL."""
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def finish(partial: Path, path: Path) -> None:
    """Rename a complete file to its final name, atomically; the caller makes the folder durable."""
    os.replace(partial, path)
    discard(partial)


def check_scheme(url: str) -> None:
    """Raise WeightsError unless the URL's scheme is http, https or file."""
    if urlsplit(url).scheme not in SCHEMES:
        raise WeightsError(f"{url!r} cannot be fetched; write a URL that begins with http://, https:// or file://")


class _Redirects(HTTPRedirectHandler):
    """A handler that follows redirects only to http and https, never to ftp, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise WeightsError(
                f"{req.full_url} redirects to {newurl[:200]}, which is not safe; set FEATCACHE_MIRROR to a mirror"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


_OPENER = build_opener(_Redirects)


def _receive(url: str, partial: Path, size: int | None, digest_known: bool, progress: Progress, timeout: float) -> bool:
    """Receive bytes over one connection; True when the file is complete by the server's length or `size`."""
    have, validator = _begun(partial, url)
    if have and not validator and not digest_known:
        have = 0
    request_headers = {"User-Agent": f"featcache/{version('featcache')}", "Accept-Encoding": "identity"}
    if have:
        request_headers["Range"] = f"bytes={have}-"
        if validator:
            request_headers["If-Range"] = validator
    try:
        response = _OPENER.open(Request(url, headers=request_headers), timeout=timeout)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{have}":  # the file is already complete
            return True
        discard(partial)
        return False
    with response:
        headers: Any = response.headers
        if headers.get_content_type() == "text/html":
            raise WeightsError(
                f"{url}: the server sent a web page instead of a file; open it in a browser and fetch it by hand"
            )
        continues = getattr(response, "status", None) == 206
        if continues and not headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            discard(partial)
            return False
        start = have if continues else 0
        length = headers.get("Content-Length")
        total = start + int(length) if length else size
        if size is not None and total != size:
            raise WeightsError(
                f"{url}: the file has {total} bytes instead of {size}, so it is another file; set FEATCACHE_MIRROR to a"
                " mirror"
            )
        if not continues:
            discard(partial)
            etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
            validator = modified if etag.startswith("W/") else etag or modified
            write_file(_note(partial), json.dumps({"url": url, "validator": validator}).encode())
        received = start
        with disk_errors(partial), partial.open("ab") as file:
            progress(received, total or 0)
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                received += len(chunk)
                progress(received, total or 0)
                if total is not None and received > total:
                    break
            file.flush()
            os.fsync(file.fileno())
    if total is not None and received > total:
        discard(partial)
        raise WeightsError(
            f"{url}: the server sent more than the {total} bytes it announced; set FEATCACHE_MIRROR to a mirror"
        )
    return total is None or received == total


@dataclass(frozen=True)
class _Note:
    """The file next to an unfinished download."""

    url: str
    validator: str


def _begun(partial: Path, url: str) -> tuple[int, str]:
    """The number of bytes received from this URL, and the validator that came with them."""
    try:
        note = schema.read(_note(partial), _Note, error=WeightsError)
    except (OSError, WeightsError):
        return 0, ""
    return (_bytes(partial), note.validator) if note.url == url and note.validator.isprintable() else (0, "")


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _bytes(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _fix(code: int) -> str:
    if code in (404, 410):
        return "the file has moved: set FEATCACHE_MIRROR, or fetch it by hand"
    if code in (401, 403):
        return "access is restricted: fetch the file by hand"
    return "try again later, or set FEATCACHE_MIRROR"
