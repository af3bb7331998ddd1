"""The contract of frozen extractors. The folder is the registry: `extractors/i3d_rgb.py` is the extractor `i3d-rgb`.

An extractor file holds one `Params` dataclass, one class and `EXTRACTOR = ThatClass`. Each number in `Params` has its
range: `count: int = bounded(7, 3, 301)  #: pictures of a window`. The class's `__init__` checks rules between
parameters. Helpers shared by several files start with an underscore. `featcache.testing.ExtractorTests` tests the
contract.

`hf:MODEL` is the extractor `hf` with MODEL for its parameter `model`; its store is called `hf-` and MODEL.
`i3d-rgb@flip` is `i3d-rgb` on mirrored pictures, one of VIEWS, with its own store.
"""

from copy import copy
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache import plugins, registry
from featcache.errors import ConfigError
from featcache.naming import folder_name
from featcache.windows import VIEWS, Caption, Flow, Joints, Numbers, Pictures, Sound, Tokens, Window, described

# with the kinds of windows, because the file of an extractor names one
__all__ = [
    "Caption",
    "Extractor",
    "Flow",
    "Joints",
    "Numbers",
    "Pictures",
    "Runtime",
    "Sound",
    "Tokens",
    "bounded",
    "complete",
    "completes",
    "default_params",
    "later",
    "load",
    "names",
    "params_type",
    "split_view",
]

UNTRAINED = "untrained"  #: value of `Runtime.weights` for random weights drawn from the seed


@dataclass(frozen=True)
class Runtime:
    """The weights that a network runs with, and how it runs. Extractors without a network ignore it."""

    weights: str = ""  #: name in the catalogue, file, "": the extractor's own, or "untrained": random from seed
    seed: int = 0  #: seed of untrained weights
    device: str = "cpu"
    precision: str = "fp32"  #: fp32, or autocast to bf16 or fp16
    channels_last: bool = True  #: memory order of the network's tensors
    compile: str = "off"  #: off, on (torch.compile), or graphs (torch.compile with CUDA graphs)
    offline: bool = False  #: True if a model that is not on this machine is an error, and no network is contacted


N = TypeVar("N", int, float)
T = TypeVar("T")


def bounded(default: N, low: float, high: float, *, added: bool = False) -> N:
    """Return a field of `Params` in [low, high], which `Extractor` checks; with an int default, whole numbers only.

    added: see `later`.
    """
    return field(default=default, metadata={"low": low, "high": high} | ({"later": True} if added else {}))


def later(default: T) -> T:
    """Return a field that was added to the `Params` of an extractor of which there are stores.

    Recipes lack it at its default, so older ones stay equal.
    """
    return field(default=default, metadata={"later": True})


def _check(name: str, params: Any) -> None:
    """Raise ConfigError for the first number outside its bounds; NaN is outside."""
    for param in fields(params):
        if "low" in param.metadata:
            value, low, high = getattr(params, param.name), param.metadata["low"], param.metadata["high"]
            kind = Integral if isinstance(param.default, int) else Real
            if not isinstance(value, kind) or not low <= value <= high:
                whole = "whole numbers from " if kind is Integral else ""
                raise ConfigError(f"{name}.{param.name} is {value}; allowed: {whole}{low:g} to {high:g}")


def store_of(name: str) -> str:
    """Return the name of an extractor's store; ConfigError if it cannot be that of a folder."""
    return folder_name(name.replace("/", "--").replace(":", "-"), "extractor", "give it another name")


class Extractor:
    """A frozen function from windows to rows.

    `prepare` runs in decoding threads and must be reentrant; `__call__` runs in `threads` threads on batches.
    Rows are float32 and finite, and do not depend on the rest of the batch, to the bit. Calls leave no state behind.
    """

    name: str
    modality: str  #: subject of the rows: rgb, flow, audio, text, skeleton, ...
    version: ClassVar[int] = 1  #: increased when the same parameters give other rows than before
    batch: int = 8  #: windows per call that are efficient
    threads: int = 1  #: simultaneous calls that are efficient
    weights_sha256: str = "none"  #: "none" without weights, "untrained:SEED", or the digest of the weights
    licence: str = "no weights"  #: licence of the weights
    trained_on: str = ""  #: data that the weights were trained on, as `featcache.training_data.text`; "": not known
    window: Window  #: kind and parameters of a window
    row_shape: tuple[int, ...]  #: shape of one row

    def __init__(self, params: Any) -> None:
        if is_dataclass(params):
            _check(self.name, params)
        self.params = params

    @classmethod
    def complete(cls, params: Any, source: Path) -> Any:
        """Return the parameters with open ones, such as a number of dimensions, read from a manifest's first source."""
        return params

    def ready(self, runtime: Runtime) -> Self:
        """Load the weights, if there are any. The extractor may be called only after this."""
        if runtime.weights not in ("", UNTRAINED):
            raise ConfigError(f"{self.name} has no network, so --weights {self.name}={runtime.weights} cannot be used")
        return self

    def seen(self, view: str) -> Self:
        """Return this extractor, with the same weights in memory, on another view of the pictures, one of VIEWS."""
        if not isinstance(self.window, Pictures) or (view != "flip" and not self.window.crop):
            reason = "takes no pictures" if not isinstance(self.window, Pictures) else "does not crop its pictures"
            raise ConfigError(f"{self.name} {reason}, so it has no view {view!r}; leave @{view} out")
        other = copy(self)
        other.name, other.window = f"{self.name}@{view}", replace(self.window, view=view)
        return other

    @property
    def store(self) -> str:
        """The name of its store: `hf:facebook/dinov2-base` fills hf-facebook--dinov2-base.zarr."""
        return store_of(self.name)

    def prepare(self, window: Any) -> NDArray[np.generic]:
        """Turn one decoded window into the array that goes into a batch.

        The window is, by its kind: a list of `count` uint8 (height, width, 3) RGB pictures, which may be one object
        repeated; a list of `count` float32 (height, width, 2) fields of flow in pixels; float32 (samples,) mono sound
        in [-1, 1]; a caption; a Skeleton; or float64 (rows, columns) numbers.
        """
        raise NotImplementedError

    def remark(self, window: NDArray[np.generic]) -> str:
        """Return a remark for the user about a prepared window, or ""."""
        return ""

    def note(self, source: Path) -> str:
        """Return a note for the user about what is taken of a source, the first of the manifest, or ""."""
        return ""

    def tokens(self, window: NDArray[np.generic]) -> int:
        """Return how many tokens of a prepared caption are rows, for `Tokens` windows; 0: the caption is one row."""
        return 0

    def __call__(self, windows: NDArray[np.generic]) -> NDArray[np.float32]:
        """Prepared windows (n, ...) -> rows (n, *row_shape), float32.

        For `Tokens` windows: (n, count, *row_shape), of which the first `tokens(window)` are rows.
        """
        raise NotImplementedError

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that determines a row, as JSON values. A different recipe is a different feature."""
        files = plugins.digests(type(self.params).__module__)
        return {
            "extractor": self.name,
            "version": self.version,
            "modality": self.modality,
            "weights_sha256": self.weights_sha256,
            "params": _recorded(self.params),
            "window": described(self.window),
            **({"plugin": files} if files else {}),
        }

    @property
    def facts(self) -> dict[str, str]:
        """Facts about the extraction that a store records but that do not change the feature."""
        return {"licence": self.licence} | ({"trained_on": self.trained_on} if self.trained_on else {})


def _recorded(params: Any) -> dict[str, Any]:
    """Return parameters as JSON values of a recipe."""
    defaults = {each.name: each.default for each in fields(params) if "later" in each.metadata}
    return {name: value for name, value in asdict(params).items() if name not in defaults or value != defaults[name]}


def names() -> list[str]:
    """Return the names of all extractors."""
    return [name.replace("_", "-") for name in registry.names(__name__)]


def params_type(name: str) -> type:
    """Return the `Params` of the extractor with that name. ConfigError lists the names if it is unknown."""
    params: type = _module(name).Params
    return params


def split_view(name: str) -> tuple[str, str]:
    """`i3d-rgb@flip` -> ("i3d-rgb", "flip"), `i3d-rgb` -> ("i3d-rgb", "")."""
    base, _, view = name.rpartition("@")
    if base and view in VIEWS:
        return base, view
    if base and ":" not in name:  # after a colon comes a model, whose name may have an @
        raise ConfigError(f"no view {view!r} of {base!r}; choose from {', '.join(VIEWS)}")
    return name, ""


def default_params(name: str) -> Any:
    """Return the default parameters of an extractor; those of `hf:MODEL` contain MODEL."""
    kind, _, argument = name.partition(":")
    params = params_type(kind)()
    if not argument:
        return params
    if not hasattr(params, "model"):
        raise ConfigError(f"extractor {kind!r} has no models, so {argument!r} cannot be used; write {kind}")
    return replace(params, model=argument)


def completes(name: str) -> bool:
    """Return True if the extractor has parameters that it may fill in from a source."""
    return _module(name).EXTRACTOR.complete.__func__ is not Extractor.complete.__func__  # type: ignore[attr-defined]


def complete(name: str, params: Any, source: Path) -> Any:
    """Return the parameters with open ones filled in, see `Extractor.complete`."""
    return _module(name).EXTRACTOR.complete(params, source)


def load(name: str, params: Any = None) -> Extractor:
    """Return the extractor with that name, with its default parameters unless others are given."""
    extractor: Extractor = _module(name.partition(":")[0]).EXTRACTOR(params or default_params(name))
    return extractor


def ready(extractor: Extractor, runtime: Runtime) -> Extractor:
    """Return the extractor with its weights, see `Extractor.ready`.

    ConfigError if it still lacks its modality, its window or the shape of its rows: those of a model are in its files.
    """
    made = extractor.ready(runtime)
    if missing := [fact for fact in ("modality", "window", "row_shape") if not hasattr(made, fact)]:
        raise ConfigError(
            f"extractor {made.name}: {type(made).__name__} of {type(made).__module__} has no "
            f"{' and no '.join(missing)}; set it in the class, in __init__ or in ready"
        )
    return made


def _module(name: str) -> Any:
    kind = name.partition(":")[0]
    if kind not in names():
        raise registry.no_entry("extractor", name, names())
    return registry.load(__name__, kind.replace("-", "_"), "extractor")
