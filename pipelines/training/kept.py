"""The kept outputs and weights of a run: read as data, and compared with its configuration and facts."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from featcache.errors import ConfigError
from featcache.files import regular, steady
from featcache.untrusted import not_stored, reading, tensors
from featcache.untrusted.npy import npy_header
from featcache.wording import first
from heads.batch import Spec
from heads.methods import Method
from pipelines.training.outputs import ONCE, Outputs

WEIGHTS = ("head.safetensors", "head.pt")  #: names of the file of weights, now and in earlier versions
REGISTERED = 4  #: registrations of parameters per tensor of the weights; some modules register a parameter twice


def read_outputs(path: Path, points: int, spec: Spec) -> Outputs:
    """Read outputs.npz; ConfigError unless names, types, shapes and values are those of a run with this spec.

    points: number of kept points.
    """
    regular(path, ConfigError)
    with reading(path, "an archive of numpy"):
        with zipfile.ZipFile(path) as archive:
            if problem := not_stored(archive.infolist(), path.stat().st_size):
                raise ConfigError(f"it {problem}")
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    npy_header(file, entry.file_size, entry.filename)
        with np.load(path) as arrays:
            outputs: Outputs = dict(arrays)
    needed = {"rows": "rows"}
    if spec.captions:
        needed |= {"captions": "captions", "clip": "captions", "visual": "rows", "text": "captions"}
    elif spec.clusters:
        needed |= {"feature_B0": "rows"}
    else:
        needed |= dict.fromkeys(spec.classes, "rows")
    if missing := [name for name in needed if name not in outputs]:
        raise ConfigError(f"it has no {first(missing)}; it has: {first(outputs) or 'nothing'}")
    for name in ONCE:
        if name in outputs:
            _check_numbers(name, outputs[name], len(outputs["rows"]) if name == "clip" else None)
    for name in outputs.keys() - {*ONCE}:
        width = spec.classes.get(name) or (spec.clusters if name.startswith("cluster_") else None)
        _check_values(name, outputs[name], points, len(outputs[needed.get(name, "rows")]), width)
    if spec.clusters > len(outputs["rows"]):
        raise ConfigError(f"it has {len(outputs['rows'])} rows for {spec.clusters} clusters")
    if spec.captions and len(outputs["clip"]) != len(outputs["captions"]):
        raise ConfigError("'clip' and 'captions' differ in length")
    if spec.captions and outputs["text"].shape[2] != outputs["visual"].shape[2]:
        raise ConfigError("'text' and 'visual' differ in the length of their embeddings")
    return outputs


def _check_numbers(name: str, numbers: NDArray[Any], limit: int | None) -> None:
    """Raise ConfigError unless these are row numbers (n,), n > 0, from 0 and below the limit."""
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not len(numbers):
        raise ConfigError(f"{name!r} holds {numbers.dtype} {numbers.shape}; whole numbers (n,) are expected")
    if numbers.min() < 0 or (limit is not None and numbers.max() >= limit):
        raise ConfigError(
            f"{name!r} has numbers from {numbers.min()} to {numbers.max()}; from 0 to {limit} are expected"
        )


def _check_values(name: str, values: NDArray[Any], points: int, rows: int, width: int | None) -> None:
    """Raise ConfigError unless these are floats (points, rows, width) without NaN and inf; -inf is log 0."""
    expected = (points, rows, width or values.shape[-1] if values.ndim else 0)
    if values.dtype.kind != "f" or values.shape != expected or not values.size:
        raise ConfigError(f"{name!r} holds {values.dtype} {values.shape}; float32 {expected} is expected")
    if not all(bool((point < np.inf).all()) for point in values):  # false for NaN, too
        raise ConfigError(f"{name!r} holds values that are not finite")


def weights_file(folder: Path) -> Path:
    """Return the file of the weights in a run's folder: head.safetensors, or head.pt in runs of earlier versions."""
    new, old = (folder / name for name in WEIGHTS)
    return old if old.exists() and not new.exists() else new


def write_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write head.safetensors to a run's folder. Tensors that share memory are written in full."""
    with steady(folder / WEIGHTS[0]) as file:
        file.write(save({name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `weights_file`, on the CPU; ConfigError if it is damaged or holds anything else.

    Neither format can execute anything: safetensors holds numbers, and a file of torch.save is read as tensors only.
    """
    data = regular(path, ConfigError).read_bytes()
    if path.name == WEIGHTS[0]:
        try:
            return load(data)
        except (SafetensorError, KeyError) as error:  # KeyError: a type of numbers that torch has not
            raise ConfigError(f"it is not a safetensors file, or it is cut off: {error}") from None
    weights = tensors.load(data, "it")
    if not isinstance(weights, dict):
        raise ConfigError(f"it holds a {type(weights).__name__}, not weights by name")
    for name, value in weights.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
        if not isinstance(name, str) or not dense or value.is_meta:
            raise ConfigError(f"{str(name)[:100]!r} is no dense tensor")
    return weights


def with_weights(build: Callable[[], Method], weights: dict[str, Tensor]) -> Method:
    """Build a method and give it these weights; ConfigError unless they fit by name, shape and kind of number.

    The method is first built without memory (on torch's device "meta"), so that no setting can claim more of it than
    the weights have.
    """
    left = REGISTERED * len(weights) + 64

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConfigError(f"the settings describe more layers than its {len(weights)} weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            expected = build().state_dict()
    except ConfigError:
        raise
    except Exception as error:  # settings and facts that nobody has checked against each other: nets raise anything
        raise ConfigError(f"no net can be built by the run's settings ({str(error)[:200]!r})") from None
    finally:
        hook.remove()
    _check_fit(expected, weights)
    return loaded(build(), weights)


def loaded(method: Method, weights: dict[str, Tensor]) -> Method:
    """Give a method these weights, and return it; ConfigError unless they fit and are finite."""
    _check_fit(method.state_dict(), weights)
    method.load_state_dict(weights)
    for name, parameter in method.named_parameters():
        if parameter.numel() and not torch.stack(parameter.aminmax()).isfinite().all():  # NaN and inf are in both
            raise ConfigError(f"{name} has values that are not finite")
    return method


def _check_fit(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Raise ConfigError unless the weights have the expected names, shapes and kinds of number."""
    if different := sorted(expected.keys() ^ weights.keys()):
        raise ConfigError(
            f"its weights are not those of the run's net and method; they differ in {first(different, 3)}"
        )
    for name, value in expected.items():
        shape, stored = tuple(value.shape), tuple(weights[name].shape)
        if shape != stored or value.is_floating_point() != weights[name].is_floating_point():
            raise ConfigError(f"{name} has {weights[name].dtype} {stored}, and the run's settings need {shape}")
