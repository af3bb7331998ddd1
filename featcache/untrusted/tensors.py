"""Files of torch.save, read only as tensors."""

import io
import re
import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError
from featcache.untrusted import not_stored


def load(data: bytes, place: str) -> Any:
    """Load a file with torch.load(weights_only=True); `array` turns its tensors into arrays. place: for FormatError."""
    import torch

    if data[:2] == b"PK":
        _check_archive(data, place)
    elif data[:1] != b"\x80":  # either format of torch.save has one of the two
        raise FormatError(
            f"{place} is not a file of torch.save; if it is a file of Lua's Torch7, load it with the package"
            " `torchfile` and save it again with torch.save"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own storages
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything, and its message advises to turn the safety off
        required = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"it requires {required[1]}; nothing was run" if required else "it is damaged, or holds more than tensors"
        )
        raise FormatError(f"{place} cannot be read by torch.load(weights_only=True): {reason}") from None


def array(tensor: Any, limit: int, place: str) -> NDArray[Any]:
    """Turn a tensor into an array, bfloat16 into float32; FormatError when it has more bytes than `limit`."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise FormatError(f"{place} holds a {type(tensor).__name__}, not a dense tensor")
    if tensor.is_meta or max(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()) > limit:
        raise FormatError(f"{place} claims a tensor {tuple(tensor.shape)} of {tensor.dtype} in {limit} bytes")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _check_archive(data: bytes, place: str) -> None:
    """Raise FormatError for a zip archive that torch.save has not written."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except Exception as error:  # zipfile raises anything, too
        raise FormatError(f"{place} is not a file of torch.save, or it is damaged: {error}") from None
    if problem := not_stored(entries, len(data)):
        raise FormatError(f"{place} {problem}")
