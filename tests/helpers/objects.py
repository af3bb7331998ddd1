"""moto's S3 server on loopback: every request is listed, and faults can be injected.

with serving() as server, monkeypatch.context() as patch:
    server.environment(patch)
    server.fault = lambda request: "503" if request.number % 3 == 0 else ""
"""

import contextlib
import os
import threading
import urllib.request
from dataclasses import dataclass, field

from werkzeug.serving import WSGIRequestHandler, make_server

from featcache.remote.bucket import Bucket

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
SETTINGS = ("AWS_", "GOOGLE_", "AZURE_", "FEATCACHE_OFFLINE")  #: beginnings of variables that a test must not inherit


@dataclass(frozen=True)
class Request:
    """A request: its number from 1 on, method, and path with the query."""

    number: int
    method: str
    path: str


@dataclass
class Server:
    """The server. fault: request -> "503" (refused), "lost" (done, but the answer is 503), other XML, or ""."""

    url: str = ""
    requests: list = field(default_factory=list)
    fault: object = staticmethod(lambda request: "")

    def environment(self, patch):
        """Set the variables of the standard AWS clients."""
        for name in [name for name in os.environ if name.startswith(SETTINGS)]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", self.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")

    def counted(self, method=""):
        """Return the number of requests since the last call of `clear`."""
        return sum(not method or request.method == method for request in self.requests)

    def clear(self):
        """Forget the requests, and inject no faults."""
        self.requests.clear()
        self.fault = lambda request: ""


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


@contextlib.contextmanager
def serving(*buckets):
    """Run a server with these buckets in a thread."""
    from moto.server import DomainDispatcherApplication, create_backend_app  # takes a second

    server, lock, app = Server(), threading.Lock(), DomainDispatcherApplication(create_backend_app)

    def faulty(environ, start_response):
        query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
        with lock:
            request = Request(len(server.requests) + 1, environ["REQUEST_METHOD"], environ["PATH_INFO"] + query)
            server.requests.append(request)
        fault = server.fault(request)
        if fault == "lost":
            b"".join(app(environ, lambda *_: None))
        if not fault:
            return app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) if fault != "lost" else None
        status, body = ("503 Slow Down", BUSY) if fault in ("503", "lost") else ("400 Bad Request", fault.encode())
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    http = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=_Quiet)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        for bucket in buckets:
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/{bucket}", method="PUT")).close()
        server.clear()
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def emptied(server, monkeypatch, folder):
    """Put the server into the environment without objects, with an empty cache in a folder, and return it."""
    server.environment(monkeypatch)
    monkeypatch.setenv("FEATCACHE_STORES", str(folder / "cache"))
    server.clear()
    everything = Bucket("s3://bucket")
    everything.delete(*everything.listing())
    server.clear()
    return server
