"""Captions and narrations by Sentence-BERT (Reimers & Gurevych 2019), through the library sentence-transformers.

The library runs the model's own steps: its tokenizer, its default prompt if it has one, its pooling, and the modules
after that. A model that is not a sentence encoder yet gets the mean over its tokens. A caption longer than the model's
limit (128 to 512 tokens, about as many words or fewer) is cut there, as the library does, and its row does not depend
on the rest. `featcache extract` counts such captions.

With `tokens`, each token becomes a row, the transformer's output for it, special tokens and prompt included: a sequence
for NetVLAD. A store keeps the tokens of a caption as its windows, as many as the caption has.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featcache import schema
from featcache.errors import ConfigError
from featcache.extractors import bounded
from featcache.extractors._hub import PICKLED, WEIGHTS, Hub, check_tokenizer, loaded
from featcache.extractors._tokens import CALLS, MASK, SIZES, array, limit, remark, remark_tokens, rows_by_length
from featcache.windows import Caption, Tokens


@dataclass(frozen=True)
class Params:
    """The sentence encoder and the form of its rows."""

    model: str = "sentence-transformers/bert-base-nli-stsb-mean-tokens"  #: id of the hub, or a local folder
    revision: str = ""  #: commit, tag or branch of the hub; "": its main branch
    normalise: bool = False  #: divide rows by their length, unless the model does so anyway
    max_tokens: int = bounded(0, 0, 100_000)  #: most tokens of a caption, with special ones; 0: the model's limit
    tokens: int = bounded(0, 0, 100_000)  #: rows of a caption, its first tokens; 0: one row for the sentence


class SentenceBert(Hub):
    """An extractor of one row per caption, or of one row per token."""

    name = "sentence-bert"
    modality = "text"
    needs = ("sentence_transformers", "text")
    window = Caption()
    sizes = SIZES
    calls = CALLS

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        if params.max_tokens in (1, 2):
            raise ConfigError(f"sentence-bert.max_tokens is {params.max_tokens}; allowed: 0, or 3 to 100000")
        if params.tokens:
            self.window = Tokens(params.tokens)

    def network(self, trained: bool) -> nn.Module:
        """Return sentence-transformers' model as a network of one tensor of token ids."""
        check_tokenizer(self.folder, self.name)
        model = _model(self.folder) if trained else _untrained(self.folder)
        network = model.transformers_model
        if network is None:
            raise ConfigError(f"sentence-bert: {self.model} has no transformer; choose a model that has one")
        if trained:  # a second time, because the library does not report missing tensors
            loaded(type(network), _transformer(self.folder), network.config, self.name)
        own = limit(model.max_seq_length, network)
        most = limit(None, network)
        if self.params.max_tokens > most:
            raise ConfigError(f"sentence-bert.max_tokens is {self.params.max_tokens}; {self.model} takes up to {most}")
        self.length = self.params.max_tokens or own
        model.max_seq_length = self.length
        self.library, self.lock = model, threading.Lock()
        self.prompt = model.prompts.get(model.default_prompt_name or "") or None
        self.pad = model.tokenizer.pad_token_id or 0
        encoded = self.encoded("a caption")
        self.names = tuple(name for name, value in encoded.items() if isinstance(value, Tensor) and value.dim() == 2)
        constant = {name: value for name, value in encoded.items() if name not in self.names}
        output = "token_embeddings" if self.params.tokens else "sentence_embedding"
        module = _Sentences(model, self.names, constant, output, self.params.normalise)
        return self.measure(module, self.prepare("a caption"))

    def encoded(self, caption: str) -> dict[str, Any]:
        """Return the library's inputs for one caption, cut to the limit."""
        with self.lock:  # the library's tokenizers keep their padding and limit as state
            inputs: dict[str, Any] = self.library.preprocess([caption], prompt=self.prompt)
        return inputs

    def prepare(self, window: str) -> NDArray[np.int32]:
        """A caption -> its token ids, attention mask and the model's other inputs, (names, length)."""
        encoded = self.encoded(window)
        return array({name: encoded[name][0].tolist() for name in self.names}, self.names, self.length, self.pad)

    def remark(self, window: NDArray[np.generic]) -> str:
        """Return a remark about a caption that may have been cut, or that has more tokens than rows."""
        mask = window[self.names.index(MASK)]
        return remark(bool(mask[-1]), self.length) or remark_tokens(int(mask.sum()), self.params.tokens or self.length)

    def tokens(self, window: NDArray[np.generic]) -> int:
        """Return the number of the caption's tokens that become rows, at most `Params.tokens`."""
        return min(int(window[self.names.index(MASK)].sum()), self.params.tokens)

    def transform(self, windows: Tensor) -> Tensor:
        """Token ids (n, names, length) -> int64, as torch needs them."""
        return windows.long()

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """(n, names, length) -> (n, dims), or (n, tokens, dims)."""
        if self.module is None:
            return super().__call__(windows)  # raises an error that names the problem
        return rows_by_length(super().__call__, windows, self.names.index(MASK), self.row_shape, self.params.tokens)


class _Sentences(nn.Module):
    """A SentenceTransformer as a network: one tensor (n, names, length) -> rows (n, dims) or (n, length, dims)."""

    def __init__(
        self, model: nn.Module, names: tuple[str, ...], constant: dict[str, Any], output: str, normalise: bool
    ) -> None:
        super().__init__()
        self.model, self.names, self.constant = model, names, constant
        self.output, self.normalise = output, normalise

    def forward(self, tokens: Tensor) -> Tensor:
        inputs = dict(zip(self.names, tokens.unbind(1), strict=True))
        rows: Tensor = self.model(self.constant | inputs)[self.output]
        return functional.normalize(rows, dim=-1) if self.normalise else rows


def _model(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": torch.float32},
    )


@dataclass(frozen=True)
class _Module:
    """The part that is read of an entry of modules.json."""

    path: str


def _transformer(folder: Path) -> Path:
    """Return the folder of a model's transformer, which is the first of its modules."""
    modules = folder / "modules.json"
    if not modules.exists():
        return folder
    listed = schema.read(modules, tuple[_Module, ...], fix="download the model again", newer=True)
    if not listed or ".." in Path(listed[0].path).parts or Path(listed[0].path).is_absolute():
        raise ConfigError(f"{modules} names no transformer in its folder; download the model again")
    return folder / listed[0].path


def _untrained(folder: Path) -> Any:
    """Return the model with random weights, through a folder of files, because the library reads weights from files."""
    from transformers import AutoConfig, AutoModel

    with TemporaryDirectory() as scratch:
        copytree(folder, scratch, ignore=ignore_patterns(*WEIGHTS, *PICKLED), dirs_exist_ok=True)
        place = _transformer(Path(scratch))
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        AutoModel.from_config(config, trust_remote_code=False).save_pretrained(place)
        return _model(Path(scratch))


EXTRACTOR = SentenceBert
