"""The files of a dataset on the Hugging Face Hub, by huggingface_hub; each error is a StoreError of one sentence.

    hf://datasets/OWNER/NAME[@REVISION][/PATH]

A listing is one request for a dataset of fewer than 1,000 files, and one more for every 1,000 of a larger one. It is
that of one commit, and files are read at that commit; so what is read belongs together, whatever others push. The
content of a file is compared with its digest in the listing, SHA-256 or that of git.

Writes are collected. Large files are uploaded in between, and `commit` makes all of them visible in one step. The hub
keeps files that were uploaded and not committed, so a push that was killed does not upload them again. HF_TOKEN,
HF_ENDPOINT and the other variables of huggingface_hub have their usual meanings.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from urllib.parse import unquote

from featcache.errors import ArgumentsError, ConfigError, FeatcacheError, StoreError
from featcache.remote.bucket import Entry, check_online, checked

FORM = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+))?")
ANSWER, SILENCE = 4.0, 60.0  #: seconds for the answer to the first request; later: without a byte
MANY = 1000  #: files from which the hub's answer about a dataset may lack some
AT_ONCE = 64 << 20  #: bytes that are collected before they are uploaded
KIND = "dataset"
LIBRARY = "featcache"


class Hub:
    """The files of a dataset whose names begin with a URL."""

    def __init__(self, url: str) -> None:
        check_online(url)
        form = FORM.fullmatch(url)
        if not form or {"", ".", ".."} & {*(form["path"] or "-").split("/")}:
            raise ArgumentsError(f"{url} names no dataset of the hub; write hf://datasets/OWNER/NAME[@REVISION][/PATH]")
        self._hub = needed(url)
        self.url, self._repo = url, form["repo"]
        self._revision = unquote(form["revision"] or "") or None
        self._prefix = f"{form['path']}/" if form["path"] else ""
        self._api = self._hub.HfApi(library_name=LIBRARY)
        self._commit = ""  #: the commit of the listing
        self._operations = dict[str, Any]()  #: path -> its last change since the last commit
        self._unsent, self._lock = list[Any](), Lock()
        self.private = ""  #: the page where its owner can make it public; "" if it is public

    def listing(self) -> dict[str, Entry]:
        """Name -> entry of each file, in order of the names."""
        with self._errors():
            info = self._api.dataset_info(self._repo, revision=self._revision, timeout=ANSWER, files_metadata=True)
            self._set_private(bool(info.private))
            self._commit, files = info.sha or "", {file.rfilename: file for file in info.siblings or ()}
            if len(files) >= MANY:
                tree = self._api.list_repo_tree(self._repo, revision=self._commit, recursive=True, repo_type=KIND)
                files = {file.path: file for file in tree if hasattr(file, "size")}
        inside = {name.removeprefix(self._prefix): f for name, f in files.items() if name.startswith(self._prefix)}
        return checked(self.url, {name: _entry(file) for name, file in inside.items()})

    def begin(self) -> dict[str, Entry]:
        """Return the listing; a dataset that does not exist is made, is private, and has no files."""
        try:
            return self.listing()
        except _MissingError as missing:
            if not self._hub.get_token():
                raise
            if self._revision not in (None, "main"):
                raise StoreError(f"{missing}, or make the dataset by a push without @{self._revision}") from None
            with self._errors():
                try:
                    self._api.create_repo(self._repo, repo_type=KIND, private=True)
                except self._hub.errors.HfHubHTTPError as error:
                    if getattr(error.response, "status_code", 0) in (401, 403):
                        raise StoreError(f"{missing}, and this token may not make it") from error
                    raise
        self._set_private(True)
        return {}

    def _set_private(self, private: bool) -> None:
        self.private = f"{self._api.endpoint}/datasets/{self._repo}/settings" if private else ""

    def get(self, name: str, entry: Entry | None = None) -> memoryview:
        """Return the content of a file by one request.

        entry: of the listing; StoreError if the content is not that of the listing. FileNotFoundError if there is none,
        and no entry.
        """
        with self._errors(name):
            url = self._hub.hf_hub_url(
                self._repo,
                self._prefix + name,
                repo_type=KIND,
                revision=self._commit or self._revision,
                endpoint=self._api.endpoint,
            )
            headers = self._hub.utils.build_hf_headers(library_name=LIBRARY)
            answer = self._hub.utils.http_backoff("GET", url, headers=headers, timeout=SILENCE, follow_redirects=True)
            self._hub.utils.hf_raise_for_status(answer)
            data = memoryview(answer.content)
        if entry and not self.holds(name, entry, data):
            raise StoreError(f"{self.url}/{name} does not match its digest in the listing; run the same command again")
        return data

    def holds(self, name: str, entry: Entry, data: bytes | memoryview) -> bool:
        """Return True if a file has this content, by its digest in the listing."""
        if len(data) != entry.size:
            return False
        if len(entry.version) == 64:
            return hashlib.sha256(data).hexdigest() == entry.version
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == entry.version

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Collect a file for the next commit; large ones are uploaded as soon as there are enough of them."""
        with self._lock, self._errors(name):
            add = self._hub.CommitOperationAdd(self._prefix + name, bytes(data))
            self._operations[add.path_in_repo] = add
            self._unsent.append(add)
            if sum(each.upload_info.size for each in self._unsent) >= AT_ONCE:
                self._upload()

    def delete(self, *names: str) -> None:
        """Collect deletions for the next commit."""
        with self._lock, self._errors():
            for delete in [self._hub.CommitOperationDelete(self._prefix + name) for name in names]:
                self._operations[delete.path_in_repo] = delete

    def commit(self, message: str) -> None:
        """Make all files visible that were collected; nothing if there are none."""
        with self._lock:
            if not self._operations:
                return
            self._upload()
            with self._errors(), _quiet(self._hub):
                changes = list(self._operations.values())
                self._api.create_commit(
                    self._repo, changes, commit_message=message, repo_type=KIND, revision=self._revision
                )
            self._operations = {}

    def _upload(self) -> None:
        """Upload the large ones of the collected files, each content once, and free their memory."""
        unsent, self._unsent = {each.upload_info.sha256: each for each in self._unsent}, []
        with self._errors(), _quiet(self._hub):
            self._api.preupload_lfs_files(self._repo, unsent.values(), repo_type=KIND, revision=self._revision)

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Raise a StoreError of one sentence for each error of the client, except for a file that is not there."""
        errors = self._hub.errors
        try:
            yield
        except FeatcacheError:
            raise
        except errors.EntryNotFoundError as error:
            raise FileNotFoundError(f"{self.url}/{name}") from error
        except errors.GatedRepoError as error:
            raise StoreError(self._sentence(error)) from error
        except errors.RepositoryNotFoundError as error:
            raise _MissingError(self._sentence(error)) from error
        except Exception as error:  # those of its HTTP client, of the system and of answers that it cannot read
            raise StoreError(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        """Return one sentence for a client's error: what is wrong, and the fix."""
        errors, endpoint, token = self._hub.errors, self._api.endpoint, bool(self._hub.get_token())
        status = getattr(getattr(error, "response", None), "status_code", 0)
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if isinstance(error, errors.GatedRepoError):
            fix = "" if token else ", and set HF_TOKEN"
            return f"{self.url} is gated: accept its terms at {endpoint}/datasets/{self._repo}{fix}"
        if isinstance(error, errors.RepositoryNotFoundError):
            fix = "the token sees no private dataset of this name" if token else "for a private one, set HF_TOKEN"
            return f"{self.url}: {endpoint} has no dataset {self._repo!r}; correct the URL ({fix})"
        if isinstance(error, errors.RevisionNotFoundError):
            named = self._revision or "main"
            return f"{self.url}: the dataset has no revision {named!r}; name a branch, a tag or a commit after @"
        if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
            if token:
                return f"{self.url}: access is refused ({status}); check the rights of the token, HF_TOKEN"
            return (
                f"{self.url}: access is refused without a token: the dataset does not exist, or is private, or this is "
                "a push; correct the URL, or set HF_TOKEN (or run `hf auth login`)"
            )
        if isinstance(error, errors.HFValidationError):
            return f"{self.url} names no dataset of the hub ({first}); write hf://datasets/OWNER/NAME[@REVISION][/PATH]"
        if isinstance(error, errors.OfflineModeIsEnabled):
            return f"{self.url} needs the network, and HF_HUB_OFFLINE is set; unset it"
        if isinstance(error, getattr(errors, "HTTPError", ())) and not status:
            return f"{self.url}: {endpoint} cannot be reached ({first}); check the network and HF_ENDPOINT"
        return f"{self.url} cannot be read or written: {first}; run the same command again later"


class _MissingError(StoreError):
    """There is no dataset of this name, as far as the token can see."""


def needed(url: str) -> Any:
    """Import huggingface_hub; ConfigError that names the extra if it is missing."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise ConfigError(f"{url} needs huggingface_hub ({error}): pip install 'featcache[hub]'") from None
    return huggingface_hub


@contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Show no progress bars of the client; ours counts files."""
    shown = not hub.utils.are_progress_bars_disabled()
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            hub.utils.enable_progress_bars()


def _entry(file: Any) -> Entry:
    """Return the entry of a file in an answer about a dataset, or in one about a tree."""
    lfs = file.lfs
    return Entry(file.size, lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256 if lfs else file.blob_id)
