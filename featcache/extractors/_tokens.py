"""Captions as token ids: arrays of one shape, and forward passes in which captions of like length are together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

MASK = "attention_mask"
SIZES = (8, 64)  #: captions per forward pass, on a CPU and on a GPU
CALLS = 8  #: forward passes per call, over which captions are sorted by length
STEP = 16  #: captions are padded to a multiple of this many tokens
UNLIMITED = 512  #: tokens of a caption that are kept if the model has no limit


def limit(own: int | None, network: nn.Module) -> int:
    """Return how many tokens a network takes at most. own: the tokenizer's limit; from 10^6 on it means none."""
    limits = [own] if own and own < 10**6 else []
    table = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):  # RoBERTa's positions begin after that of padding
        limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    elif most := getattr(getattr(network, "config", None), "max_position_embeddings", None):
        limits.append(most)
    return min(limits, default=UNLIMITED)


def remark(full: bool, length: int) -> str:
    """Return the remark about a caption that fills the limit; the tokenizer does not report whether it was longer."""
    return f"the caption fills the model's {length} tokens, and any further text is cut" if full else ""


def remark_tokens(tokens: int, kept: int) -> str:
    """Return the remark about a caption with more tokens than are kept."""
    return f"the caption has more than {kept} tokens, and only the first {kept} become rows" if tokens > kept else ""


def array(encoded: Mapping[str, Sequence[int]], names: Sequence[str], length: int, pad: int) -> NDArray[np.int32]:
    """Turn one caption's inputs, by name, with its attention mask, into (names, length), padded on the right."""
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
    """Return rows of captions (n, names, length), from forward passes over captions of about the same length.

    So a caption's padding, and with it its row, depends only on the caption, and short captions are not padded to long
    ones. mask: position of the attention mask among the names. tokens: if `run` returns a row per token, the number of
    rows to keep; the result is (n, tokens, *row_shape), zeros after the last token.
    """
    lengths = -(-windows[:, mask].sum(axis=1) // STEP) * STEP
    rows = np.zeros((len(windows), *([tokens] if tokens else []), *row_shape), np.float32)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        output = run(np.ascontiguousarray(windows[chosen, :, :length]))
        if tokens:
            rows[chosen, : output.shape[1]] = output[:, :tokens]
        else:
            rows[chosen] = output
    return rows
