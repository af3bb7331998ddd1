"""Free memory: the amount that the kernel calls available, or that a cgroup leaves."""

import os
from pathlib import Path

import torch

CGROUPS = (  # folder of the hierarchy; files of limit and usage; keys of page cache and its tmpfs in memory.stat
    ("", "memory.max", "memory.current", "file", "shmem"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem"),
)


def free_memory(device: str = "cpu", proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the free bytes of a device; on the CPU, those that the kernel calls available or a cgroup leaves.

    Systems without this number in /proc, such as macOS: half of their memory counts as free.
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines, groups = (
        path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for path in (proc / "meminfo", proc / "self" / "cgroup")  # emulations of Linux have one or neither
    )
    free = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    if not free:
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    for line in groups:
        _, controllers, group = line.split(":", 2)
        for hierarchy, limit, usage, cached, tmpfs in CGROUPS:
            if hierarchy == controllers:
                root = cgroups / hierarchy
                folder = root / group.lstrip("/")
                free += [
                    left
                    for f in (folder, *folder.parents)
                    if f.is_relative_to(root)
                    if (left := _left(f, limit, usage, cached, tmpfs)) is not None
                ]
    return max(0, min(free))


def _left(folder: Path, limit: str, usage: str, cached: str, tmpfs: str) -> int | None:
    """Return the bytes that a cgroup may still take, counting page cache except tmpfs; None without a limit."""
    try:
        most = int((folder / limit).read_text(encoding="utf-8"))
        used = int((folder / usage).read_text(encoding="utf-8"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return most - used + int(counts.get(cached, 0)) - int(counts.get(tmpfs, 0))
