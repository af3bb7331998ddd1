"""Checkpoints of any origin, read only as named tensors: no code in a file is ever run.

Files of torch.save (zip and the older format, also of Python 2) are read by torch.load(weights_only=True), which
accepts tensors and plain containers. A few more names, which training scripts leave next to the state dict, are also
accepted, because here they stand for `_Dropped`, which does nothing. safetensors and .npz hold numbers by design.
"""

import math
import re
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache import schema
from featcache.errors import WeightsError
from featcache.untrusted import not_stored
from featcache.untrusted.npy import check_npz

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("state_dict", "model", "net")  #: keys under which training scripts save the state dict
DTYPES = {  # dtype of safetensors -> dtype of torch
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
HARMLESS = (  # names that are read as `_Dropped`
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
    """A stand-in for objects that are not needed: it takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *_: Any) -> "_Dropped":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read(path: Path) -> "dict[str, Tensor]":
    """Read the state dict in a file of torch.save, safetensors or .npz: unchanged names, tensors on the CPU.

    No code in the file is run. Epoch, optimizer and other values next to a wrapped state dict are dropped. WeightsError
    when the file is damaged, requires code to be run, holds anything except tensors, or a tensor larger than itself.
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
        raise WeightsError(f"{path} {problem}; fetch it again, or unpack it if it is an archive of files")
    return _torch(path)


def _torch(path: Path) -> Any:
    import torch

    harmless: Any = [(_Dropped, name) for name in HARMLESS]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless):
            warnings.simplefilter("ignore")  # torch warns about its own storages
            return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")
    except Exception as error:  # torch raises anything, and its message advises to turn the safety off
        raise WeightsError(f"{path}: {_refusal(str(error))}") from None


def _refusal(message: str) -> str:
    """The reason why torch did not load a file, and a fix, without torch's advice to load it unsafely."""
    required = re.search(r"GLOBAL ([\w.]+)", message)
    if required:
        return (
            f"it requires {required[1]}, which no tensor needs, so it was refused and nothing was run. If you trust the"
            " file, save only its tensors with torch.save(model.state_dict(), FILE)"
        )
    if "TorchScript" in message:
        return "it is a TorchScript program; save its state dict with torch.save instead"
    if any(part in message for part in ("Unsupported operand", "Can only", "not allowed", "reduce for")):
        return "it holds more than tensors, so it was refused; save only the state dict, with torch.save's defaults"
    return "it is truncated or damaged, or not a checkpoint of torch.save; fetch it again"


def _npz(path: Path) -> Any:
    import numpy as np
    import torch

    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # zipfile and numpy raise anything
        raise WeightsError(f"{path} cannot be read as arrays of numbers: {error}") from None


def _safetensors(path: Path) -> "dict[str, Tensor]":
    """Read a safetensors file: 8 bytes with the header's length, the header in JSON, then the tensors' values."""
    import torch

    size = path.stat().st_size
    read_tensors: dict[str, Tensor] = {}
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError(f"its header claims {length} bytes")
            header = schema.loads(file.read(length), "its header", error=WeightsError)
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
                    raise ValueError(f"{name} lacks some of its bytes")
                flat = torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)
                read_tensors[name] = flat.reshape(shape)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, struct.error) as error:
            reason = f"no dtype {error}" if isinstance(error, KeyError) else error
            raise WeightsError(f"{path} is not a safetensors file, or it is truncated: {reason}") from None
    return read_tensors


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
        limit = max(limit, sum(tensor.nbytes for tensor in value.values()))  # arrays may be compressed
    state_dict = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            kind = "NumPy value" if isinstance(tensor, _Dropped) else type(tensor).__name__
            raise WeightsError(
                f"{path}: {str(name)[:100]!r} is a {kind}, not a tensor with a name; save a plain state dict, or put it"
                f" under one of the keys {', '.join(WRAPPERS)}"
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise WeightsError(f"{path}: {name[:100]!r} is not a dense tensor; save it with dense, unquantized weights")
        if max(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()) > limit:
            raise WeightsError(
                f"{path}: {name[:100]!r} claims a shape {tuple(tensor.shape)} in a file of {limit} bytes"
            )
        state_dict[name] = tensor.detach()
    return state_dict


def _guess(path: Path, head: bytes) -> str:
    if head.lstrip()[:1] == b"<":
        return "it begins like a web page, which the download site sent instead of the file; fetch it by hand"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to a file; fetch the file itself"
    if head[257:262] == b"ustar" and tarfile.is_tarfile(path):
        return "it is a tar archive; unpack it (a checkpoint of torch before 0.2 must be saved again by a newer torch)"
    if head[:4] == b"\x89HDF" or head[:2] == b"\x1f\x8b":
        return "it is an HDF5 or gzip file; convert it to safetensors or torch.save's format"
    return "it has none of the formats torch.save, safetensors and .npz; fetch it again, or convert it"
