"""What a frozen extractor promises. The folder is the registry: `extractors/i3d_rgb.py` is the extractor `i3d-rgb`.

An extractor file holds one `Params` dataclass, one class and `EXTRACTOR = ThatClass`. Each number in `Params` says
what it may be: `count: int = bounded(7, 3, 301)  #: pictures of a window`. Rules between parameters stand in the
class's `__init__`. Helpers shared by several files start with an underscore. `featcache.testing.ExtractorTests` is the
contract as tests.

`hf:MODEL` is the extractor `hf` with MODEL for its parameter `model`; its store is called `hf-` and MODEL.
`i3d-rgb@flip` is `i3d-rgb` on mirrored pictures, one of VIEWS, with a store of its own.
"""

from copy import copy
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache import registry
from featcache.errors import ConfigError
from featcache.windows import VIEWS, Pictures, Window
from featcache.wording import unknown

UNTRAINED = "untrained"  #: in the place of weights: drawn by seed


@dataclass(frozen=True)
class Runtime:
    """With which weights a network runs, and how. Extractors without a network have no use for it."""

    weights: str = ""  #: a name of the catalogue or a file; "": the extractor's own; "untrained": none, drawn by seed
    seed: int = 0  #: of untrained weights
    device: str = "cpu"
    precision: str = "fp32"  #: fp32, or autocast to bf16 or fp16
    channels_last: bool = True  #: memory order of the network's tensors
    compile: str = "off"  #: off, on, or graphs: torch.compile, the last with CUDA graphs


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

    `prepare` runs in decoding threads and must be reentrant; `__call__` runs in `threads` threads on batches.
    Rows are float32, finite, and to the bit the same whatever else is in the batch; no state is kept between calls.
    """

    name: str
    modality: str  #: what the rows describe: rgb, flow, audio, text, skeleton, ...
    version: ClassVar[int] = 1  #: raised when the same parameters begin to give other rows
    batch: int = 8  #: windows per call that are worth while
    threads: int = 1  #: calls at the same time that are
    weights_sha256: str = "none"  #: "none": computed by rule; "untrained:SEED"; else the digest of the weights
    licence: str = "no weights"  #: under which the weights may be used
    window: Window  #: what one window is made of
    row_shape: tuple[int, ...]  #: shape of one row

    def __init__(self, params: Any) -> None:
        if is_dataclass(params):
            _check(self.name, params)
        self.params = params

    @classmethod
    def complete(cls, params: Any, source: Path) -> Any:
        """Parameters that were left open, such as a number of dimensions, as the first source of a manifest has it."""
        return params

    def ready(self, runtime: Runtime) -> Self:
        """Load the weights, if there are any; only then may the extractor be called."""
        if runtime.weights not in ("", UNTRAINED):
            raise ConfigError(f"{self.name} has no network, so --weights {self.name}={runtime.weights} cannot be used")
        return self

    def seen(self, view: str) -> Self:
        """The same extractor, with the same weights in memory, on another view of the pictures: one of VIEWS."""
        if not isinstance(self.window, Pictures) or (view != "flip" and not self.window.crop):
            has = "sees no pictures" if not isinstance(self.window, Pictures) else "does not cut its pictures"
            raise ConfigError(f"{self.name} {has}, so it has no view {view!r}; name it alone")
        other = copy(self)
        other.name, other.window = f"{self.name}@{view}", replace(self.window, view=view)
        return other

    @property
    def store(self) -> str:
        """Name of its store: `hf:facebook/dinov2-base` fills hf-facebook--dinov2-base.zarr."""
        return self.name.replace("/", "--").replace(":", "-")

    def prepare(self, window: Any) -> NDArray[np.generic]:
        """One window, decoded -> the array that goes into a batch.

        The window is, by its kind: a list of `count` uint8 (height, width, 3) RGB pictures, which may be one object
        repeated; of `count` float32 (height, width, 2) fields of flow in pixels; float32 (samples,) mono sound in
        [-1, 1]; a caption; a Skeleton; or float64 (rows, columns) numbers.
        """
        raise NotImplementedError

    def remark(self, window: NDArray[np.generic]) -> str:
        """What the user should be told about a prepared window; "" where there is nothing."""
        return ""

    def tokens(self, window: NDArray[np.generic]) -> int:
        """How many tokens of a prepared caption are rows, where the window is `Tokens`; 0: it is one row."""
        return 0

    def __call__(self, windows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Prepared windows (n, ...) -> rows (n, *row_shape), float32.

        Where the window is `Tokens`: (n, count, *row_shape), of which the first `tokens(window)` are rows.
        """
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

    @property
    def facts(self) -> dict[str, str]:
        """What a store says of how it was made although another value makes no other feature."""
        return {"licence": self.licence}


def names() -> list[str]:
    """The extractors there are."""
    return [name.replace("_", "-") for name in registry.names(__name__)]


def params_type(name: str) -> type:
    """The Params of the extractor of that name; unknown names list the known ones."""
    params: type = _module(name).Params
    return params


def split_view(name: str) -> tuple[str, str]:
    """`i3d-rgb@flip` -> ("i3d-rgb", "flip"), `i3d-rgb` -> ("i3d-rgb", "")."""
    base, _, view = name.rpartition("@")
    if base and view in VIEWS:
        return base, view
    if base and ":" not in name:  # behind it stands a model, whose name may have an @
        raise ConfigError(f"no view {view!r} of {base!r}; choose from {', '.join(VIEWS)}")
    return name, ""


def default_params(name: str) -> Any:
    """Its default parameters; `hf:MODEL` has MODEL among them."""
    kind, _, argument = name.partition(":")
    params = params_type(kind)()
    if not argument:
        return params
    if not hasattr(params, "model"):
        raise ConfigError(f"extractor {kind!r} takes no {argument!r}; write its name alone")
    return replace(params, model=argument)


def complete(name: str, params: Any, source: Path) -> Any:
    """Parameters with what was left open filled in, see `Extractor.complete`."""
    return _module(name).EXTRACTOR.complete(params, source)


def load(name: str, params: Any = None) -> Extractor:
    """The extractor of that name, with its default parameters unless others are given."""
    extractor: Extractor = _module(name.partition(":")[0]).EXTRACTOR(params or default_params(name))
    return extractor


def _module(name: str) -> Any:
    kind = name.partition(":")[0]
    if kind not in names():
        raise unknown("extractor", name, names())
    return registry.load(__name__, kind.replace("-", "_"), "extractor")
