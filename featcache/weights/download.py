"""What is at a URL, into a file that may have its beginning already. http, https and file URLs; nothing but urllib.

A beginning is continued (HTTP's Range) only where it is known to be of the same content: the server says so of the
validator that it gave (If-Range), or whoever calls compares a digest in the end. Else the file is begun again.
"""

import http.client
import json
import os
import time
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from featcache import __version__
from featcache.errors import WeightsError
from featcache.files import write_file
from featcache.progress import Progress, silent

SCHEMES = ("https", "http", "file")
ATTEMPTS = 3  #: in a row without a further byte
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
    """Fill the file `partial` with what is at `url`, going on from what it has; connections that break are renewed.

    size: bytes that it must have, if known. digest_known: the caller will compare a digest. timeout: seconds without a
    byte. WeightsError names the URL, what happened and what to do; what came is kept for the next attempt.
    """
    check_scheme(url)
    left = ATTEMPTS
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
        left = ATTEMPTS if _bytes(partial) > before else left - 1
        if not left or urlsplit(url).scheme == "file":
            kept = f"; {_bytes(partial)} bytes are kept, the same command goes on from there" if _bytes(partial) else ""
            raise WeightsError(f"{url}: {reason}; look at the network, or set FEATCACHE_MIRROR{kept}")
        time.sleep(PAUSE)


def discard(partial: Path) -> None:
    """Remove an unfinished file, and the note on where it comes from."""
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def finish(partial: Path, path: Path) -> None:
    """Give a complete file its name, which it gets at once; the caller makes the folder durable."""
    os.replace(partial, path)
    discard(partial)


def check_scheme(url: str) -> None:
    """WeightsError for anything but http, https and file."""
    if urlsplit(url).scheme not in SCHEMES:
        raise WeightsError(
            f"{url!r} is no URL that is fetched; write one that begins with http://, https:// or file://"
        )


class _Redirects(HTTPRedirectHandler):
    """Follows to http and https only, not to ftp as urllib's own does, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise WeightsError(f"{req.full_url}: it leads to {newurl[:200]}, which is not safe to follow; use a mirror")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


_OPENER = build_opener(_Redirects)


def _receive(url: str, partial: Path, size: int | None, digest_known: bool, progress: Progress, timeout: float) -> bool:
    """One connection. True when the file is complete, as far as the server or `size` can tell."""
    have, validator = _begun(partial, url)
    if have and not validator and not digest_known:
        have = 0
    headers = {"User-Agent": f"featcache/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = _OPENER.open(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{have}":  # all of it is there already
            return True
        discard(partial)
        return False
    with response:
        said: Any = response.headers
        if said.get_content_type() == "text/html":
            raise WeightsError(f"{url}: a web page came instead of a file; open it in a browser and fetch it by hand")
        goes_on = getattr(response, "status", None) == 206
        if goes_on and not said.get("Content-Range", "").startswith(f"bytes {have}-"):
            discard(partial)
            return False
        start = have if goes_on else 0
        length = said.get("Content-Length")
        total = start + int(length) if length else size
        if size is not None and total != size:
            raise WeightsError(
                f"{url}: it has {total} bytes, and {size} are expected; it is another file, use a mirror"
            )
        if not goes_on:
            discard(partial)
            etag = said.get("ETag", "")
            validator = (
                said.get("Last-Modified", "") if etag.startswith("W/") else etag or said.get("Last-Modified", "")
            )
            write_file(_note(partial), json.dumps({"url": url, "validator": validator}).encode())
        got = start
        with partial.open("ab") as file:
            progress(got, total or 0)
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                got += len(chunk)
                progress(got, total or 0)
                if total is not None and got > total:
                    break
            file.flush()
            os.fsync(file.fileno())
    if total is not None and got > total:
        discard(partial)
        raise WeightsError(f"{url}: more came than the {total} bytes that were announced; use a mirror")
    return total is None or got == total


def _begun(partial: Path, url: str) -> tuple[int, str]:
    """How many bytes of this URL are there, and the validator that came with them."""
    try:
        note = json.loads(_note(partial).read_bytes())
        return (_bytes(partial), str(note["validator"])) if note["url"] == url else (0, "")
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _bytes(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _fix(code: int) -> str:
    if code in (404, 410):
        return "the file has moved: set FEATCACHE_MIRROR, or fetch it by hand"
    if code in (401, 403):
        return "it is not open to everybody: fetch it by hand"
    return "try again later, or set FEATCACHE_MIRROR"
