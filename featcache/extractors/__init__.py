"""What a frozen extractor promises. The folder is the registry: `extractors/hog.py` is the extractor `hog`.

An extractor file holds one `Params` dataclass, one class and `EXTRACTOR = ThatClass`. Each number in `Params` says
what it may be: `count: int = bounded(7, 3, 301)  #: pictures of a window`. Rules between parameters stand in the
class's `__init__`. Helpers shared by several files start with an underscore. The contract is tested for every file in
the folder by `tests/test_extractor_contract.py`.
"""

import importlib
import pkgutil
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError


@dataclass(frozen=True)
class Pictures:
    """A window of `count` RGB pictures at `rate` per second, sampled by presentation time."""

    count: int
    rate: float


@dataclass(frozen=True)
class Sound:
    """A window of mono sound: `seconds` long, resampled to `rate` samples per second."""

    rate: int
    seconds: float


@dataclass(frozen=True)
class Caption:
    """The clip's caption; one window, whatever the plan."""


Window = Pictures | Sound | Caption

N = TypeVar("N", int, float)


def bounded(default: N, low: float, high: float) -> N:
    """A field of `Params` that lies in [low, high], which `Extractor` checks. A whole default wants whole numbers."""
    return field(default=default, metadata={"low": low, "high": high})


def _check(name: str, params: Any) -> None:
    """ConfigError for the first number outside its bounds, NaN included."""
    for one in fields(params):
        if "low" in one.metadata:
            value, low, high = getattr(params, one.name), one.metadata["low"], one.metadata["high"]
            kind = Integral if isinstance(one.default, int) else Real
            if not isinstance(value, kind) or not low <= value <= high:
                whole = "whole numbers from " if kind is Integral else ""
                raise ConfigError(f"{name}.{one.name} is {value}; allowed: {whole}{low:g} to {high:g}")


class Extractor:
    """A frozen function from windows to rows.

    `prepare` runs in decoding threads and must be reentrant; `__call__` runs in the main thread on a batch.
    Rows are float32, finite, and the same at every batch size; nothing here keeps state between calls.
    """

    name: ClassVar[str]
    modality: ClassVar[str]  #: what the rows describe: rgb, flow, audio, text, skeleton
    version: ClassVar[int] = 1  #: raised when the same parameters begin to give other rows
    weights_sha256: str = "none"  #: "none": computed by rule; "untrained:SEED"; else the digest of the weights
    licence: str = "no weights"  #: under which the weights may be used
    window: Window  #: what one window is made of
    row_shape: tuple[int, ...]  #: shape of one row

    def __init__(self, params: Any) -> None:
        if is_dataclass(params):
            _check(self.name, params)
        self.params = params

    def prepare(self, window: Any) -> NDArray[np.generic]:
        """One window, decoded -> the array that goes into a batch.

        The window is a list of `count` uint8 (height, width, 3) RGB pictures, which may be one object repeated;
        float32 (samples,) mono sound in [-1, 1]; or a caption.
        """
        raise NotImplementedError

    def __call__(self, windows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Prepared windows (n, ...) -> rows (n, *row_shape), float32."""
        raise NotImplementedError

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes a row what it is, as JSON values: any difference here means another feature."""
        return {
            "extractor": self.name,
            "version": self.version,
            "modality": self.modality,
            "weights_sha256": self.weights_sha256,
            "params": asdict(self.params),
            "window": {"kind": type(self.window).__name__.lower(), **asdict(self.window)},
        }


def names() -> list[str]:
    """The extractors there are: the files of this folder that do not start with an underscore."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def params_type(name: str) -> type:
    """The Params of the extractor of that name; unknown names list the known ones."""
    params: type = _module(name).Params
    return params


def load(name: str, params: Any = None) -> Extractor:
    """The extractor of that name, with its default parameters unless others are given."""
    module = _module(name)
    extractor: Extractor = module.EXTRACTOR(params or module.Params())
    return extractor


def _module(name: str) -> Any:
    if name not in names():
        raise ConfigError(f"no extractor {name!r}; featcache/extractors has: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
