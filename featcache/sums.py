"""SHA256SUMS: the list of digests of a folder's files, which `sha256sum --check SHA256SUMS` can check, too."""

import re
from collections.abc import Mapping

NAME = "SHA256SUMS"


def text(digests: Mapping[str, str]) -> bytes:
    """The content of SHA256SUMS for {file: SHA-256}."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def parse(data: bytes) -> dict[str, str]:
    """Return {file: SHA-256}; ValueError unless every byte is as `text` writes it."""
    digests = {name: digest for digest, name in (line.split("  ", 1) for line in data.decode().splitlines())}
    if not digests or text(digests) != data or not all(re.fullmatch("[0-9a-f]{64}", sum) for sum in digests.values()):
        raise ValueError("it is not a list of SHA-256 digests")
    return digests
