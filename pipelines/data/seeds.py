"""Seeded generators, one per purpose, so that draws do not depend on each other."""

import hashlib

import torch


def generator(seed: int, *purpose: str) -> torch.Generator:
    """A CPU generator of its own for each purpose, so that one draw more here moves nothing there."""
    digest = hashlib.sha256("/".join((str(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
