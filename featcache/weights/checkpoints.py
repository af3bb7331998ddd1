"""Checkpoints of any origin, read as named tensors and nothing else: no code of a file is ever run.

torch.save's files (zip and the older format, Python 2's too) go through torch.load(weights_only=True), which knows
tensors and plain containers. A few more names, which training scripts leave beside the state dict, are allowed because
they stand for `_Dropped` here, which does nothing. safetensors and .npz hold numbers by design.
"""

import json
import math
import re
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.errors import WeightsError
from featcache.untrusted import not_stored

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("state_dict", "model", "net")  #: where training scripts put the state dict
DTYPES = {  # of safetensors -> torch
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
HARMLESS = (  # names that are read as nothing
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Int64DType",
    "argparse.Namespace",
)


class _Dropped:
    """Stands for what nobody needs from a checkpoint: takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *_: Any) -> "_Dropped":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read(path: Path) -> "dict[str, Tensor]":
    """The state dict in a file of torch.save, safetensors or .npz: names as they are in it, tensors on the CPU.

    No code in the file is run. Epoch, optimizer and the like beside a wrapped state dict are dropped. WeightsError
    where it is damaged, asks for anything to be run, holds something else than tensors, or one larger than the file.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not a file" if path.exists() else f"no file {path}")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise WeightsError(f"{path} is empty; fetch it again")
    if head[:2] == b"PK":
        value = _zip(path)
    elif head[:1] == b"\x80":  # a pickle
        value = _torch(path)
    elif path.suffix == ".safetensors" or head[8:9] == b"{":
        value = _safetensors(path)
    else:
        raise WeightsError(f"{path} is not a checkpoint: {_guess(path, head)}")
    return _tensors(_unwrapped(value), path)


def _zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises anything
        raise WeightsError(f"{path} is truncated or damaged ({error}); fetch it again") from None
    if entries and all(entry.filename.endswith(".npy") for entry in entries):
        return _npz(path)
    if problem := not_stored(entries, path.stat().st_size):
        raise WeightsError(f"{path} {problem}; fetch it again, or unpack it")
    return _torch(path)


def _torch(path: Path) -> Any:
    import torch

    harmless: Any = [(_Dropped, name) for name in HARMLESS]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless):
            warnings.simplefilter("ignore")  # of torch's own storages
            return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")
    except Exception as error:  # torch raises anything, and advises to load without the safety
        raise WeightsError(f"{path}: {_refusal(str(error))}") from None


def _refusal(said: str) -> str:
    """Why torch did not load a file, and what to do, without its advice to load it unsafely."""
    asked = re.search(r"GLOBAL ([\w.]+)", said)
    if asked:
        return (
            f"it asks for {asked[1]}, which no tensor needs; it was refused and nothing was run. Where you trust it,"
            " save its tensors alone with torch.save(model.state_dict(), FILE)"
        )
    if "TorchScript" in said:
        return "it is a TorchScript program; save its state dict with torch.save instead"
    if "Unsupported operand" in said or "Can only" in said or "not allowed" in said or "reduce for" in said:
        return (
            "it holds more than tensors, and was refused; save the state dict alone with torch.save's default protocol"
        )
    return "it is truncated or damaged, or not a checkpoint of torch.save; fetch it again"


def _npz(path: Path) -> Any:
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # zipfile and numpy raise anything
        raise WeightsError(f"{path} cannot be read as arrays of numbers: {error}") from None


def _safetensors(path: Path) -> "dict[str, Tensor]":
    """Its layout: the header's length in 8 bytes, the header in JSON, and the values of each tensor where it says."""
    import torch

    size = path.stat().st_size
    found: dict[str, Tensor] = {}
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError(f"its header claims {length} bytes")
            header = json.loads(file.read(length))
            left = size - 8 - length
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                start, stop = entry["data_offsets"]
                dtype, shape = getattr(torch, DTYPES[entry["dtype"]]), [int(n) for n in entry["shape"]]
                if min([start, *shape]) < 0 or math.prod(shape) * dtype.itemsize != stop - start:
                    raise ValueError(f"{name} has {stop - start} bytes for the shape {shape}")
                left -= stop - start
                file.seek(8 + length + start)
                values = bytearray(file.read(stop - start)) if left >= 0 else b""
                if len(values) != stop - start:
                    raise ValueError(f"{name} has not all of its bytes")
                found[name] = (
                    torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)
                ).reshape(shape)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError, struct.error) as error:
            reason = f"no dtype {error}" if isinstance(error, KeyError) else error
            raise WeightsError(f"{path} is not a safetensors file, or it is truncated: {reason}") from None
    return found


def _unwrapped(value: Any) -> Any:
    for _ in range(3):  # a file may wrap a dict into itself
        inner = [value[key] for key in WRAPPERS if isinstance(value, dict) and isinstance(value.get(key), dict)]
        if not inner:
            break
        value = inner[0]
    return value


def _tensors(value: Any, path: Path) -> "dict[str, Tensor]":
    import torch

    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds a {type(value).__name__}, not a state dict (names to tensors)")
    if not value:
        raise WeightsError(f"{path} holds an empty state dict")
    limit = path.stat().st_size
    if path.suffix == ".npz":
        limit = max(limit, sum(tensor.nbytes for tensor in value.values()))  # they may be compressed
    found = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            kind = "NumPy value" if isinstance(tensor, _Dropped) else type(tensor).__name__
            raise WeightsError(
                f"{path}: {str(name)[:100]!r} is a {kind}, not a tensor under a name; a state dict has nothing else,"
                f" and it is looked for under {', '.join(WRAPPERS)}"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(f"{path}: {name[:100]!r} is not a dense tensor; save it with dense, unquantized weights")
        if max(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()) > limit:
            raise WeightsError(
                f"{path}: {name[:100]!r} claims a shape {tuple(tensor.shape)} in a file of {limit} bytes"
            )
        found[name] = tensor.detach()
    return found


def _guess(path: Path, head: bytes) -> str:
    if head.lstrip()[:1] == b"<":
        return "it begins like a web page, which a download site has sent in its place; fetch it by hand"
    if head.startswith(b"version https://git-lfs"):
        return "it is Git LFS's pointer to a file; fetch the file itself"
    if head[257:262] == b"ustar" and tarfile.is_tarfile(path):
        return "it is a tar archive; unpack it (torch's own, older than 0.2, must be saved again with a newer torch)"
    if head[:4] == b"\x89HDF" or head[:2] == b"\x1f\x8b":
        return "it is a file of HDF5 or gzip; convert it to safetensors or torch.save's format"
    return "it is none of torch.save, safetensors and .npz; fetch it again, or convert it"
