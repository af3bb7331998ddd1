"""Captions as token ids: arrays of one shape, and forward passes in which no caption is padded for another's sake."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

MASK = "attention_mask"
SIZES = (8, 64)  #: captions of a forward pass, on a CPU and on a GPU
CALLS = 8  #: forward passes per call: captions of several lengths are sorted into them
STEP = 16  #: captions are padded to a multiple of this many tokens
UNLIMITED = 512  #: tokens that are kept of a caption where the model names no limit


def limit(own: int | None, network: nn.Module) -> int:
    """Tokens that a network takes at most. own: as its tokenizer says, where that is not "any number"."""
    found = [own] if own and own < 10**6 else []
    table = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):  # RoBERTa counts its positions from the one after padding's
        found.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    elif most := getattr(getattr(network, "config", None), "max_position_embeddings", None):
        found.append(most)
    return min(found, default=UNLIMITED)


def remark(full: bool, length: int) -> str:
    """Of a caption that fills the limit: the tokenizer does not say whether it was longer."""
    return f"the caption fills the model's {length} tokens, and what goes beyond them is cut" if full else ""


def remark_tokens(found: int, count: int) -> str:
    """Of a caption with more tokens than are kept."""
    return f"the caption has more than {count} tokens, of which only the first become rows" if found > count else ""


def array(encoded: Mapping[str, Sequence[int]], names: Sequence[str], length: int, pad: int) -> NDArray[np.int32]:
    """One caption's inputs, by name -> (names, length), padded on the right; the attention mask is among them."""
    out = np.zeros((len(names), length), np.int32)
    for k, name in enumerate(names):
        out[k] = pad if name == "input_ids" else 0
        out[k, : len(encoded[name])] = encoded[name]
    return out


def rows_by_length(
    run: Callable[[NDArray[Any]], NDArray[np.float32]],
    windows: NDArray[Any],
    mask: int,
    row_shape: tuple[int, ...],
    tokens: int = 0,
) -> NDArray[np.float32]:
    """Rows of captions (n, names, length), in forward passes over captions of about the same number of tokens.

    So padding depends on the caption alone, and with it its row; and short ones do not wait for long ones.
    mask: the place of the attention mask among the names.
    tokens: where `run` gives a row per token, how many of them are kept: (n, tokens, *row_shape), then zeros.
    """
    lengths = -(-windows[:, mask].sum(axis=1) // STEP) * STEP
    rows = np.zeros((len(windows), *([tokens] if tokens else []), *row_shape), np.float32)
    for length in np.unique(lengths):
        here = np.flatnonzero(lengths == length)
        found = run(np.ascontiguousarray(windows[here, :, :length]))
        if tokens:
            rows[here, : found.shape[1]] = found[:, :tokens]
        else:
            rows[here] = found
    return rows
