"""Labels of rows as class numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from featcache import Manifest
from featcache.errors import ConfigError


def classes_of(manifest: Manifest, task: str, domains: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes that the rows of these domains have, of any split, sorted."""
    found = {clip.labels.get(task) for clip in manifest if clip.domain in domains}
    return tuple(name for name in manifest.classes[task] if name in found)


def labels(manifest: Manifest, rows: list[int], task: str, classes: Sequence[str]) -> Tensor:
    """Class numbers of rows, their places in `classes` -> (n,) int64; a row without that label is an error."""
    number = {name: k for k, name in enumerate(classes)}
    for row in rows:
        if task not in manifest.clips[row].labels:
            clip = manifest.clips[row]
            raise ConfigError(f"clip {clip.clip_id!r} of domain {clip.domain!r} has no {task!r}, which is needed")
    return torch.tensor([number[manifest.clips[row].labels[task]] for row in rows], dtype=torch.int64)
