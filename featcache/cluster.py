"""Ray: the connection to a cluster, or to one of this machine, and jobs on its nodes. Ray is imported when it is used.

Nothing is reported to anybody: no usage statistics, no dashboard, and a cluster of this machine listens on loopback.
"""

import logging
import os
import queue
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from featcache import plugins
from featcache.arguments import one_of
from featcache.errors import ArgumentsError, ConfigError
from featcache.parallel import Hear, WorkerEnded, answer, heard_by, packed, unpacked
from featcache.wording import first_line, shortened

J = TypeVar("J")
R = TypeVar("R")
TRIES = 3  #: times that a job is started, when it is lost with its process or node
LOOK_SECONDS = 1.0  #: between two looks at the cluster
PATIENCE = 600.0  #: seconds to wait for a node with room
PROBE_SECONDS = 60.0  #: for nodes to import what they need
CONNECT_SECONDS = 5.0  #: to reach the head of a cluster
SHARED = ("FEATCACHE_NO_LOCKS",)  #: variables of the environment that jobs on other nodes take from this process

#: environment of the processes that Ray starts
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
#: Ray's switch for clusters of one machine, which makes all its processes use the loopback address
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


ENGINES = ("local", "ray")
LEAST = 1e-4  #: the smallest share of a GPU that Ray can reserve


def check_engine(engine: str, device: str, address: str | None, gpus: float | None) -> None:
    """Raise ConfigError for an unknown engine, options of Ray without it, and a device that Ray chooses."""
    one_of("engine", engine, ENGINES)
    if address == "":
        raise ArgumentsError("--address is empty; write HOST:PORT of the head, or auto, or leave the option out")
    if engine == "ray":
        if device not in ("cpu", "cuda"):
            raise ArgumentsError(f"--device {device}: Ray chooses the GPUs of each worker; write --device cuda")
        if gpus is not None and not (gpus == 0 or LEAST <= gpus < float("inf")):
            raise ArgumentsError(f"--gpus is {gpus:g}; give 0, or {LEAST:g} or more")
    elif address or gpus is not None:
        option = f"--address {address}" if address else f"--gpus {gpus:g}"
        raise ArgumentsError(f"{option} belongs to --engine ray; add it, or leave {option.split()[0]} out")


def gpus_of(gpus: float | None, device: str) -> float:
    """Return the GPUs of a worker: as many as are given, or else one if the device is a GPU."""
    return float(device == "cuda") if gpus is None else gpus


def needed() -> Any:
    """Import Ray; ConfigError with the extra if it is missing."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--engine ray needs Ray ({error}); install it with: pip install 'featcache[ray]'") from None
    return ray


@contextmanager
def connected(address: str | None, cores: int) -> Iterator[Any]:
    """Yield Ray, connected to the cluster at this address, or to one that is made for this process.

    address: HOST:PORT of the head; "auto": the cluster of RAY_ADDRESS, or the one of this machine; None: a cluster of
    this machine only, with this number of cores, which ends with this process. A connection that the caller has made
    is used, and kept. ConfigError if there is no cluster, or if it has another version.
    """
    with ExitStack() as stack:
        with _environment(QUIET | ({} if address else LOOPBACK)):
            ray = needed()
            if not ray.is_initialized():
                if not address:
                    stack.enter_context(_on_loopback())
                stack.callback(ray.shutdown)
                _connect(ray, address, cores)
                if not address:
                    stack.enter_context(_reaped(ray))
        with _silent(ray):
            yield ray


@contextmanager
def _reaped(ray: Any) -> Iterator[None]:
    """End the helpers of this process's own node when this process ends, however it does.

    Ray kills the node then, but not the node's helpers, which would outlive it for a minute.
    """
    raylets = getattr(ray._private.worker._global_node, "all_processes", {}).get("raylet", ())
    helpers = [pid for raylet in raylets for pid, name in _children(raylet.process.pid) if name.endswith("Agent")]
    words = ["sh", "-c", "read _; sleep 0.2; kill -9 $*", "sh", *helpers]  # `read` ends when this process does
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(words, stdin=subprocess.PIPE, **quiet) as reaper:
        try:
            yield
        finally:
            ray.shutdown()
            reaper.kill()


def _children(pid: int) -> Iterator[tuple[str, str]]:
    """Yield the number and the name of each child of a process; none where the system does not list them."""
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            name = Path(f"/proc/{child}/cmdline").read_bytes().partition(b"\0")[0]
            yield child, name.decode(errors="replace").strip()


@contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Keep Ray from printing what it does about lost processes among the lines of this one; the caller counts them."""
    printing, name = ray._private.worker, "print_to_stdstream"
    usual = getattr(printing, name, None)
    setattr(printing, name, lambda data, ignore_prefix: None)
    try:
        yield
    finally:
        setattr(printing, name, usual)


def _connect(ray: Any, address: str | None, cores: int) -> None:
    """Connect to a cluster, or make one; Ray's own messages are left out."""
    if address:
        _check_reachable(address)
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        options |= {"num_cpus": cores, "include_dashboard": False}
    log = logging.getLogger("ray")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with _own_signals():
            ray.init(**options)
    except Exception as error:  # ConnectionError, RuntimeError, TimeoutError, ValueError, and Ray's own
        place = f"--address {address}: no Ray cluster can be used there" if address else "Ray cannot start here"
        raise ConfigError(f"{place} ({first_line(error)}); start one with `ray start --head`") from None
    finally:
        log.setLevel(level)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Take SIGTERM back from Ray, which would print the addresses of its functions."""
    usual = signal.getsignal(signal.SIGTERM)
    yield
    if usual is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, usual)


def _check_reachable(address: str) -> None:
    """Raise ConfigError unless something listens at the address of a head; Ray would look for it for minutes."""
    option = f"--address {address}"
    if address == "auto":
        if "RAY_ADDRESS" not in os.environ:
            return  # that of the cluster which was started on this machine
        address = os.environ["RAY_ADDRESS"]
        option += f": RAY_ADDRESS is {address}"
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) < 1 << 16) or "://" in address:
        client = "Ray Client is not used; " if "://" in address else ""
        raise ConfigError(f"{option}: {client}write HOST:PORT of the head, such as head:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"{option}: nothing can be reached there ({error.strerror or error}); start Ray with `ray start --head`, "
            "or correct the address"
        ) from None


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Keep the processes that Ray starts inside on loopback, as LOOPBACK does if Ray has not been imported before."""
    from ray._private import ray_constants

    usual, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = usual


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment that are not set, for the processes that are started inside."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def node_name(ray: Any, node: str) -> str:
    """Return the name of a node for people."""
    for facts in ray.nodes():
        if facts["NodeID"] == node:
            return f"node {facts['NodeManagerHostname']} ({facts['NodeManagerAddress']}, {node[:6]})"
    return f"node {node[:6]}"


def room(ray: Any, gpus: float = 0.0, without: Collection[str] = ()) -> int:
    """Return how many workers of one CPU and so many GPUs fit on the nodes, except those that are left out."""
    places = 0
    for facts in ray.nodes():
        if facts["Alive"] and facts["NodeID"] not in without:
            has = facts["Resources"]
            places += int(min(has.get("CPU", 0.0), has.get("GPU", 0.0) / gpus if gpus else has.get("CPU", 0.0)))
    return places


def room_for_one(ray: Any, gpus: float) -> int:
    """Return `room`; ConfigError if not one worker fits."""
    if not (places := room(ray, gpus)):
        raise ConfigError(f"no node of the cluster has room: a worker takes 1 CPU and {gpus:g} GPUs")
    return places


def elsewhere(nodes: Collection[str]) -> dict[str, Any]:
    """Return the option of Ray that keeps an actor or a job from these nodes."""
    return {"label_selector": {"ray.io/node-id": f"!in({','.join(nodes)})"}} if nodes else {}


def unable(ray: Any, nodes: Collection[str], module: str) -> dict[str, str]:
    """Return node -> reason, of the nodes on which a module cannot be imported; those that do not answer are left out.

    The function that is sent there is pickled with its code, so nothing of this package is imported to run it.
    """

    def attempt(name: str) -> str:
        import importlib

        try:
            importlib.import_module(name)
        except Exception as error:  # of any module
            return f"{type(error).__name__}: {error}"
        return ""

    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    question, found = ray.remote(attempt), dict[str, str]()
    options = {node: {"num_cpus": 0, "scheduling_strategy": On(node, soft=False)} for node in nodes}
    asked = {question.options(**options[node]).remote(module): node for node in nodes}
    for ref in ray.wait([*asked], num_returns=len(asked), timeout=PROBE_SECONDS)[0] if asked else ():
        with suppress(ray.exceptions.RayError):
            if reason := ray.get(ref):
                found[asked[ref]] = f"cannot import featcache ({shortened(reason)})"
    return found


def in_tasks(
    ray: Any, gpus: float, function: Callable[[J], R], jobs: deque[J], workers: int, hear: Hear | None = None
) -> Generator[tuple[J, R | WorkerEnded], None, None]:
    """Yield (job, function(job)) for each job, as `parallel.in_parallel` does, on the nodes of a cluster.

    workers: number of jobs at a time. gpus: GPUs of each job, or a share of one. The nodes have the same packages and
    folders; one that cannot import them is left out, with a warning. A job whose process or node is lost is started
    again; if it is lost too often, it is yielded with a WorkerEnded. WorkerEnded is raised if no node has room.
    """
    there, sent = _Nodes(ray, gpus, function), ray.remote(_messages)
    flying: dict[Any, tuple[J, int]] = {}  # stream -> its job, and how often that has been lost
    again: deque[tuple[J, int]] = deque()
    try:
        while jobs or again or flying:
            while (jobs or again) and len(flying) < workers:
                job, lost = again.popleft() if again else (jobs.popleft(), 0)
                settings = {name: os.environ[name] for name in SHARED if name in os.environ}
                words = packed((function, job)), os.getcwd(), settings, plugins.described()
                flying[sent.options(**there.options()).remote(*words)] = job, lost
            ready = ray.wait([*flying], num_returns=1, timeout=LOOK_SECONDS)[0]
            if not ready:
                there.look()
            for stream in ready:
                job, lost = flying[stream]
                result: Any
                try:
                    kind, content = ray.get(next(stream))
                    result, failure = unpacked(content) if kind == "answer" else (content, None)
                    if isinstance(failure, BrokenProcessPool):  # the job cannot be loaded there
                        raise failure
                except (ray.exceptions.RayError, BrokenProcessPool) as error:
                    del flying[stream]
                    if there.blamed():
                        again.append((job, lost))
                    elif isinstance(error, BrokenProcessPool):
                        raise
                    elif lost + 1 < TRIES:
                        again.append((job, lost + 1))
                    else:
                        yield job, WorkerEnded(f"its worker was lost {TRIES} times ({first_line(error)})")
                    continue
                if kind == "message":
                    if hear:
                        hear(result)
                    continue
                del flying[stream]
                if failure:
                    raise failure
                yield job, result
    finally:
        for stream in flying:
            with suppress(Exception):  # it has just ended
                ray.cancel(stream, force=True)


class _Nodes:
    """The nodes that do the jobs of a function."""

    def __init__(self, ray: Any, gpus: float, function: Callable[..., Any]) -> None:
        while isinstance(function, partial):
            function = function.func
        self._ray, self._gpus, self._module = ray, gpus, function.__module__
        self._asked: set[str] = set()
        self._faulty: dict[str, str] = {}  # node -> reason
        self._room = time.monotonic()  # time when a node had room

    def options(self) -> dict[str, Any]:
        """Return the options of a job."""
        return {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": 0, "num_returns": "streaming"} | elsewhere(
            self._faulty
        )

    def blamed(self) -> bool:
        """Leave out the nodes that cannot import the function, after a loss; return whether there is a new one."""
        nodes = {facts["NodeID"] for facts in self._ray.nodes() if facts["Alive"]} - self._asked
        self._asked |= nodes
        found = {node: f"{node_name(self._ray, node)} is left out: it {reason}"
                 for node, reason in unable(self._ray, nodes, self._module).items()}  # fmt: skip
        self._faulty |= found
        for text in found.values():
            warnings.warn(text, stacklevel=1)
        if found and not room(self._ray, self._gpus, without=self._faulty):
            raise ConfigError(f"no node of the cluster can do the work: {'; '.join(self._faulty.values())}")
        return bool(found)

    def look(self) -> None:
        """Raise WorkerEnded if no node has had room for a job for a long time."""
        if room(self._ray, self._gpus, without=self._faulty):
            self._room = time.monotonic()
        elif time.monotonic() - self._room > PATIENCE:
            raise WorkerEnded(f"no node of the cluster had room for {PATIENCE:.0f} s")


def _messages(job: bytes, folder: str, settings: Mapping[str, str], plugged: str | None) -> Iterator[tuple[str, Any]]:
    """Do a job in this process; yield ("message", content) for each message that it sends, then ("answer", bytes)."""
    with suppress(OSError):  # absolute paths do not need it
        os.chdir(folder)
    os.environ |= settings
    plugins.take(plugged)
    sent: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def work() -> None:
        with heard_by(lambda content: sent.put(("message", content))):
            done = answer(job)
        sent.put(("answer", bytes(done)))

    threading.Thread(target=work, daemon=True).start()
    while True:
        kind, content = sent.get()
        yield kind, content
        if kind == "answer":
            return
