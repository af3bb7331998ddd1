"""The weights in a run's folder: read, replaced, and in the format of earlier versions."""

import torch

from pipelines.training.kept import WEIGHTS, read_weights, weights_file, write_weights
from pipelines.training.runs import write_sums

HEAD, EARLIER = WEIGHTS


def saved(folder):
    """Name -> tensor."""
    return read_weights(weights_file(folder))


def put(folder, weights):
    """Write other weights, and the digests of all files."""
    write_weights(weights, folder)
    write_sums(folder)


def as_earlier(folder):
    """Make a folder that of an earlier version: head.pt in place of head.safetensors, and no SHA256SUMS; return it."""
    torch.save(saved(folder), folder / EARLIER)
    (folder / HEAD).unlink()
    (folder / "SHA256SUMS").unlink()
    return folder
