"""Seeded generators, one per purpose, so that draws do not depend on each other."""

import hashlib

import torch


def generator(seed: int, *purpose: str) -> torch.Generator:
    """Return the CPU generator of a purpose. An extra draw for one purpose does not change the draws of another."""
    digest = hashlib.sha256("/".join((str(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
