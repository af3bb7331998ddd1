"""A stand-in for the Hugging Face Hub on loopback: only the HTTP calls that huggingface_hub makes for featcache.

It was written from that client's requests, not from the hub's code. It has datasets, tokens, commits, pages of trees,
uploads by LFS and the hub's errors. It has neither Xet nor multipart uploads, pull requests nor limits of rates.

with serving() as hub, monkeypatch.context() as patch:
    hub.environment(patch)
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.objects import Request

TOKEN = "hf_stand_in"
PAGE = 20  #: entries of a page of a tree; the hub has 1,000
SETTINGS = ("HF_", "HUGGING", "FEATCACHE_OFFLINE")  #: beginnings of variables that a test must not inherit
INFO = r"/api/datasets/(?P<repo>[^/]+/[^/]+?)"


def git_sha(data):
    """The digest that git has for a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """A dataset: its commits, the newest of `main` last, and who may see it."""

    commits: list = field(default_factory=list)  #: (id, path -> (content, True if it is in LFS))
    private: bool = False
    gated: bool = False

    def at(self, revision):
        """The commit of a revision, or None."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass
class Hub:
    """The server. fault: request -> a status such as 503, "drop" (the connection is closed), "damage" or ""."""

    url: str = ""
    repos: dict = field(default_factory=dict)
    large: dict = field(default_factory=dict)  #: SHA-256 -> content that was uploaded, committed or not
    requests: list = field(default_factory=list)
    fault: object = staticmethod(lambda request: "")

    def environment(self, patch, token=TOKEN):
        """Point huggingface_hub to this server, in this process and in those that it starts."""
        from huggingface_hub import constants

        for name in [name for name in os.environ if name.startswith(SETTINGS)]:
            patch.delenv(name)
        patch.setenv("HF_ENDPOINT", self.url)
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_TOKEN_PATH", "/none/token")
        if token:
            patch.setenv("HF_TOKEN", token)

    def files(self, repo):
        """Path -> content at the newest commit."""
        return {path: data for path, (data, _) in self.repos[repo].commits[-1][1].items()}

    def commit(self, repo, files, gone=()):
        """Add a commit: path -> (content, True if in LFS)."""
        found = self.repos.setdefault(repo, Repo())
        before = found.commits[-1][1] if found.commits else {}
        after = {path: file for path, file in (before | files).items() if path not in gone}
        number = hashlib.sha1(f"{repo} {len(found.commits)}".encode()).hexdigest()
        found.commits.append((number, after))
        return number

    def counted(self, pattern=""):
        """The number of requests whose method and path have a pattern, since the last call of `clear`."""
        return sum(bool(re.search(pattern, f"{request.method} {request.path}")) for request in self.requests)

    def clear(self):
        """Forget the requests, and inject no faults."""
        self.requests.clear()
        self.fault = lambda request: ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub, lock = None, None

    def log_message(self, *_):
        pass

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/agent-harnesses":  # the client asks for it once a day, for its own statistics
            self._send(404)
            return
        with self.lock:
            request = Request(len(self.hub.requests) + 1, self.command, self.path)
            self.hub.requests.append(request)
            fault = self.hub.fault(request)
            if fault == "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(fault, int):
                self._send(fault, b"fault")
                return
            self.damage = fault == "damage"
            self._route(body)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 (the names of http.server)

    def _send(self, status, data=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value, **headers):
        self._send(200, json.dumps(value).encode(), **headers)

    def _route(self, body):
        path, query = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        routes = [
            ("GET", rf"{INFO}(/revision/(?P<revision>.+))?", self._info),
            ("GET", rf"{INFO}/tree/(?P<revision>[^/]+)", self._tree),
            ("GET", r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)", self._resolve),
            ("GET", r"/cdn/(?P<digest>\w+)", self._cdn),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", self._yaml),
            ("POST", rf"{INFO}/preupload/(?P<revision>[^/]+)", self._preupload),
            ("POST", r"/datasets/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            ("PUT", r"/lfs/(?P<digest>\w+)", self._upload),
            ("POST", rf"{INFO}/commit/(?P<revision>[^/]+)", self._commit),
        ]
        for method, pattern, answer in routes:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                words = found.groupdict()
                if "repo" in words and not self._allowed(words["repo"]):
                    return
                answer(body, query, **words)
                return
        self._send(404, b"the stand-in has no such call")

    def _allowed(self, name):
        """Answer as the hub does where the dataset does not exist or may not be seen; True if it may."""
        token = self.headers.get("Authorization", "") == f"Bearer {TOKEN}"
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not token):
            if token:
                self._send(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            else:
                self._send(401, b"{}", X_Error_Message="Invalid username or password.")
            return False
        if repo.gated:
            self._send(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access to this dataset is restricted")
            return False
        if self.command != "GET" and not token:
            self._send(401, b"{}", X_Error_Message="Unauthorized")
            return False
        return True

    def _at(self, repo, revision):
        if commit := self.hub.repos[repo].at(revision or "main"):
            return commit
        self._send(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        return None

    def _info(self, body, query, repo, revision):
        if commit := self._at(repo, revision):
            files = []
            for path, (data, large) in commit[1].items():
                files.append({"rfilename": path, "size": len(data), "blobId": git_sha(data)})
                if large:
                    lfs = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
                    files[-1]["lfs"] = lfs
            siblings = files if "blobs" in query else [{"rfilename": file["rfilename"]} for file in files]
            private = self.hub.repos[repo].private
            self._json({"id": repo, "sha": commit[0], "siblings": siblings, "tags": [], "private": private})

    def _tree(self, body, query, repo, revision):
        if commit := self._at(repo, revision):
            begin, entries = int(query.get("cursor", ["0"])[0]), []
            for path, (data, large) in sorted(commit[1].items()):
                entries.append({"type": "file", "path": path, "size": len(data), "oid": git_sha(data)})
                if large:
                    lfs = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
                    entries[-1]["lfs"] = lfs
            folders = sorted({path.rpartition("/")[0] for path in commit[1]} - {""})
            entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
            more = begin + PAGE < len(entries)
            url = f"{self.hub.url}/api/datasets/{repo}/tree/{revision}?recursive=True&cursor={begin + PAGE}"
            self._json(entries[begin : begin + PAGE], **({"Link": f'<{url}>; rel="next"'} if more else {}))

    def _resolve(self, body, query, repo, revision, name):
        if commit := self._at(repo, revision):
            if name not in commit[1]:
                self._send(404, b"{}", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
                return
            data, large = commit[1][name]
            if large:
                digest = hashlib.sha256(data).hexdigest()
                headers = {"X_Linked_Etag": f'"{digest}"', "X_Repo_Commit": commit[0]}
                self._send(302, b"", Location=f"{self.hub.url}/cdn/{digest}", **headers)
                return
            self._content(data, ETag=f'"{git_sha(data)}"', X_Repo_Commit=commit[0])

    def _cdn(self, body, query, digest):
        self._content(self.hub.large[digest], ETag=f'"{digest}"')

    def _content(self, data, **headers):
        data = bytes([data[0] ^ 1]) + data[1:] if self.damage else data
        self._send(200, data, "application/octet-stream", **headers)

    def _create(self, body, query):
        words = json.loads(body)
        if self.headers.get("Authorization", "") != f"Bearer {TOKEN}":
            self._send(401, b"{}", X_Error_Message="Unauthorized")
            return
        name = f"{words['organization']}/{words['name']}"
        self.hub.commit(name, {".gitattributes": (b"*.bin filter=lfs\n", False)})
        self.hub.repos[name].private = words.get("visibility") == "private" or bool(words.get("private"))
        self._json({"url": f"{self.hub.url}/datasets/{name}", "id": "0"})

    def _yaml(self, body, query):
        text = json.loads(body)["content"]
        errors = [] if re.search(r"^license: \S+$", text, re.MULTILINE) else [{"message": "no license"}]
        self._send(400 if errors else 200, json.dumps({"errors": errors, "warnings": []}).encode())

    def _preupload(self, body, query, repo, revision):
        files = []
        for file in json.loads(body)["files"]:
            sample = base64.b64decode(file["sample"])
            try:
                sample.decode()
                binary = b"\0" in sample
            except UnicodeDecodeError:
                binary = True
            mode = "lfs" if binary or file["size"] > 10_000_000 else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        self._json({"files": files})

    def _batch(self, body, query, repo):
        objects = []
        for each in json.loads(body)["objects"]:
            objects.append({"oid": each["oid"], "size": each["size"]})
            if each["oid"] not in self.hub.large:
                objects[-1]["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}", "header": {}}}
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, body, query, digest):
        assert hashlib.sha256(body).hexdigest() == digest
        self.hub.large[digest] = body
        self._send(200)

    def _commit(self, body, query, repo, revision):
        files, gone = {}, set()
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"]), False
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]], True
            elif line["key"] == "deletedFile":
                gone.add(value["path"])
        number = self.hub.commit(repo, files, gone)
        self._json({"commitUrl": f"{self.hub.url}/datasets/{repo}/commit/{number}", "commitOid": number})


@contextlib.contextmanager
def serving():
    """Run the stand-in in a thread, without datasets."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub, "lock": threading.RLock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
