"""Ray: the connection to a cluster, or to one of this machine, and jobs on its nodes. Ray is imported when it is used.

Nothing is reported to anybody: no usage statistics, no dashboard, and a cluster of this machine listens on loopback.
"""

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from featcache.errors import ArgumentsError, ConfigError
from featcache.wording import first_line

#: of the processes that Ray starts
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
#: Ray's switch for clusters of one machine, which makes all its processes use the loopback address
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


ENGINES = ("local", "ray")


def check_engine(engine: str, device: str, address: str | None, gpus: float | None) -> None:
    """Raise ArgumentsError for options of Ray without it, and for a device that Ray chooses."""
    if engine == "ray":
        if device not in ("cpu", "cuda"):
            raise ArgumentsError(f"--device {device}: Ray chooses the GPUs of each worker; write --device cuda")
        if gpus is not None and gpus < 0:
            raise ArgumentsError(f"--gpus is {gpus:g}; give 0 or more")
    elif address or gpus is not None:
        option = f"--address {address}" if address else f"--gpus {gpus:g}"
        raise ArgumentsError(f"{option} belongs to --engine ray; add it, or leave {option.split()[0]} out")


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
    usual = {} if address else LOOPBACK
    with _environment(QUIET | usual):
        ray = needed()
        own = not ray.is_initialized()
        if own:
            _connect(ray, address, cores)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, address: str | None, cores: int) -> None:
    """Connect to a cluster, or make one; Ray's own messages are left out."""
    if address and "://" in address:
        raise ConfigError(f"--address {address}: Ray Client is not used; write HOST:PORT of the head, or auto")
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = False  # as LOOPBACK does, if Ray has been imported before
        options |= {"num_cpus": cores, "include_dashboard": False}
    log = logging.getLogger("ray")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        ray.init(**options)
    except Exception as error:  # ConnectionError, RuntimeError, TimeoutError, ValueError, and Ray's own
        place = f"--address {address}: no Ray cluster can be used there" if address else "Ray cannot start here"
        raise ConfigError(f"{place} ({first_line(error)}); start one with `ray start --head`") from None
    finally:
        log.setLevel(level)


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
