"""Files of torch.save, read as the tensors in them and nothing else."""

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
    """What torch.load(weights_only=True) gives; `array` turns its tensors into arrays. FormatError says `place`."""
    import torch

    if data[:2] == b"PK":
        _check_archive(data, place)
    elif data[:1] != b"\x80":  # either format of torch.save has one of the two
        raise FormatError(
            f"{place} is not a file of torch.save. Files of Lua's Torch7 are not read: load them with the package"
            " `torchfile` and save them again with torch.save"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own storages
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything, and advises to load without the safety
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {asked[1]}; nothing was run" if asked else "it is damaged, or not only tensors are in it"
        raise FormatError(f"{place} cannot be read by torch.load(weights_only=True): {reason}") from None


def array(tensor: Any, limit: int, place: str) -> NDArray[Any]:
    """A tensor as an array, bfloat16 as float32. It may be no larger than `limit`, the bytes that it came from."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise FormatError(f"{place} holds a {type(tensor).__name__}, not a dense tensor")
    if tensor.is_meta or max(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()) > limit:
        raise FormatError(f"{place} claims a tensor {tuple(tensor.shape)} of {tensor.dtype} in {limit} bytes")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _check_archive(data: bytes, place: str) -> None:
    """FormatError for a zip archive that torch.save has not written."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except Exception as error:  # zipfile, too, raises anything
        raise FormatError(f"{place} is not a file of torch.save, or it is damaged: {error}") from None
    if problem := not_stored(entries, len(data)):
        raise FormatError(f"{place} {problem}")
