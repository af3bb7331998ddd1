"""Benchmark of object storage: fetching a store from moto's S3 server on loopback, in a process of its own."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from featcache.remote.bucket import Bucket
from featcache.remote.cache import AT_ONCE, VARIABLE
from featcache.store.places import local
from pipelines.bench._lines import Line, alternate
from pipelines.bench.store import write_store

ROWS, WINDOWS, WIDTH = 4096, 5, 3072  #: a store of 126 MB in four shards
URL = "s3://bench/stores/store.zarr"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}


def store_fetch(folder: Path) -> Iterator[Line]:
    """Fetching a store into an empty cache against the client's own requests for the same objects."""
    rows = np.random.default_rng(0).standard_normal((ROWS, WINDOWS, WIDTH)).astype(np.float16)
    path = folder / "fetched.zarr"
    write_store(path, rows, ROWS, rows.shape[1:], "float16")
    with _server():
        bucket = Bucket(URL)
        names = [str(file.relative_to(path)) for file in sorted(path.rglob("*")) if file.is_file()]
        for name in names:
            bucket.put(name, (path / name).read_bytes())
        names.sort(key=lambda name: -(path / name).stat().st_size)

        def fetch(n: int) -> None:
            os.environ[VARIABLE] = str(folder / f"cache{n}")
            local(URL)

        def write(n: int, name: str) -> None:
            place = folder / f"plain{n}" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(bucket.get(name))

        def rate(s: float) -> str:
            return f"{rows.nbytes / s / 1e6:,.0f} MB/s"

        ours, plain = alternate(fetch, lambda n: _each(lambda name: write(n, name), names))
        yield "fetch a store of 126 MB into the cache", "GETs of its objects into files", ours, plain, rate
        ours, plain = alternate(lambda n: fetch(n + 100), lambda n: _each(bucket.get, names))
        yield "fetch a store of 126 MB into the cache", "GETs of its objects into memory", ours, plain, rate
        ours, plain = alternate(lambda n: fetch(0), lambda n: Bucket(URL).listing())
        yield "open a fetched store, warm", "one listing", ours, plain, lambda s: f"{1000 * s:.1f} ms"


def _each(job: Callable[[str], object], names: list[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(job, names))


@contextmanager
def _server() -> Iterator[None]:
    """Run the server with an empty bucket, and name it in the environment."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    before = dict(os.environ)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            lines = iter(process.stderr or ())
            url = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            ThreadPoolExecutor(1).submit(lambda: [None for _ in lines])  # so that the pipe never fills
            os.environ |= {**KEYS, "AWS_ENDPOINT_URL": url}
            urllib.request.urlopen(urllib.request.Request(f"{url}/bench", method="PUT")).close()
            yield
        finally:
            os.environ.clear()
            os.environ |= before
            process.terminate()


BENCHMARKS = {"store_fetch": store_fetch}
