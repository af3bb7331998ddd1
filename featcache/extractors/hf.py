"""`hf:MODEL`: any encoder of pictures, videos, sound or text that transformers' AutoModel loads.

MODEL is an id of the hub or a local folder. Preprocessing is the model's own: size, crop, mean and standard deviation
of pictures (`_processor.py`), the feature extractor of sound, the tokenizer of text, which cuts texts that are too
long. `pool` chooses the row:

    auto    text: the mean over the tokens. Models with separate towers (CLIP, SigLIP): their projected embedding,
            of modality rgb unless `modality` is text. Pictures and sound: the model's own pooled output if it has one
            and its weights were saved (DINOv2: normalised CLS; ViT: CLS through a dense layer; AST: mean of its two
            CLS; ResNet, ConvNeXt: mean over space), else CLS if the model has it, else the mean (VideoMAE, wav2vec 2.0,
            Whisper's encoder)
    mean    the mean over the last layer's tokens without CLS and registers: patches, steps of time or tokens of text
    cls     the first token of the last layer

Models of pictures take each picture of a window separately, and the rows are averaged; models of videos take them all.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache import schema
from featcache.errors import ConfigError, WeightsError
from featcache.extractors import _processor as processor
from featcache.extractors import bounded
from featcache.extractors._hub import Hub, check_tokenizer, loaded, refused
from featcache.extractors._tokens import CALLS, MASK, SIZES, array, limit, remark, remark_tokens, rows_by_length
from featcache.windows import Caption, Pictures, Sound, Tokens

MODALITIES = {"rgb": "image", "audio": "audio", "text": "text"}  #: our modality -> transformers' name of its tower
OURS = {"image": "rgb", "video": "rgb", "audio": "audio", "text": "text"}
POOLS = ("auto", "mean", "cls")
SECONDS = 2.0  #: length of a window of sound for models that take any length
SHIFT = 0.01  #: seconds between two spectra of the Audio Spectrogram Transformer
FIRST = ("cls_token", "class_embedding", "distillation_token")  #: parameters of the tokens before the patches


@dataclass(frozen=True)
class Params:
    """The model, its modality and windows, and the part of its output that becomes a row."""

    model: str = ""  #: id of the hub, or a local folder
    revision: str = ""  #: commit, tag or branch of the hub; "": its main branch
    modality: str = ""  #: rgb | audio | text; "": the model's own, of several the first in this order
    pool: str = "auto"  #: auto | mean | cls
    frames: int = bounded(0, 0, 1024)  #: pictures of a window; 0: as many as the model takes, or one
    rate: float = bounded(8.0, 0.01, 1000)  #: pictures per second of a window
    seconds: float = bounded(0.0, 0, 600)  #: length of a window of sound; 0: the model's own, or 2 if it takes any
    tokens: int = bounded(0, 0, 100_000)  #: rows of a caption: the last layer's first tokens; 0: one row


class HuggingFace(Hub):
    """Rows of an encoder. The kind of its windows is set by `ready`, which reads the model."""

    name = "hf"
    needs: ClassVar[tuple[str, str]] = ("transformers", "hf")

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        for key, choices in (("pool", POOLS), ("modality", ("", *MODALITIES))):
            if getattr(params, key) not in choices:
                listed = ", ".join(repr(choice) for choice in choices)
                raise ConfigError(f"hf.{key} is {getattr(params, key)!r}; choose from {listed}")
        self.name = f"hf:{self.model}" if self.model else "hf"

    def network(self, trained: bool) -> nn.Module:
        """Return the model as a network of one input tensor, and set its preprocessing."""
        model, missing = _model(self.folder, self.name, trained)
        self.modality = _modality(model, self.params.modality, self.name)
        tower = _Tower(model, self.modality, self.params.pool, bool(self.params.tokens), missing, self.name)
        if self.params.tokens and (self.modality != "text" or self.params.pool != "auto"):
            raise ConfigError(
                f"{self.name}.tokens is {self.params.tokens}; only text models have tokens, and only with pool 'auto'"
            )
        example: Any
        if self.modality == "rgb":
            example = [np.zeros((48, 64, 3), np.uint8)] * self._pictures(model, tower)
        elif self.modality == "audio":
            example = np.zeros(self._sound(tower), np.float32)
        else:
            self._text(tower)
            example = "a caption"
        return self.measure(tower, self.prepare(example))

    def _pictures(self, model: nn.Module, tower: "_Tower") -> int:
        config: Any = model.config
        self.pipeline = processor.read(self.folder, self.model, config.model_type)
        own = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
        if own and self.params.frames not in (0, own):
            raise ConfigError(f"{self.name}.frames is {self.params.frames}; this model takes {own}; write 0 or {own}")
        tower.video = own is not None
        if tower.net.main_input_name == "pixel_values_videos":  # only V-JEPA 2
            tower.input = "pixel_values_videos"
        count = own or self.params.frames or 1
        self.window = Pictures(count, self.params.rate)
        self.sizes = max(1, 8 // count), max(1, 64 // count)
        return count

    def _sound(self, tower: "_Tower") -> int:
        from transformers import AutoFeatureExtractor

        with warnings.catch_warnings(), refused(f"{self.name}: {self.folder} has no feature extractor for sound"):
            warnings.simplefilter("ignore")  # AST has more mel bands than frequencies in its lowest bins
            self.extractor = AutoFeatureExtractor.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
        if not hasattr(self.extractor, "sampling_rate"):
            raise ConfigError(f"{self.name}: its preprocessor_config.json has no sampling_rate, so it is not for sound")
        tower.input = self.extractor.model_input_names[0]
        rate, kind = self.extractor.sampling_rate, tower.net.config.model_type
        own = getattr(self.extractor, "chunk_length", None) or getattr(self.extractor, "max_length_s", None)
        if kind == "audio-spectrogram-transformer":
            own = self.extractor.max_length * SHIFT
        seconds = float(self.params.seconds or own or SECONDS)
        if own and seconds > own:
            raise ConfigError(f"{self.name}.seconds is {seconds:g}; this model takes at most {own:g}")
        if kind == "whisper":  # it pads to 30 seconds; only tokens of the window may count
            steps = seconds * rate / self.extractor.hop_length
            tower.keep = max(1, math.ceil(steps / 2))
        self.window = Sound(rate, seconds)
        self.sizes = (2, 16)
        return round(seconds * rate)

    def _text(self, tower: "_Tower") -> None:
        from transformers import AutoTokenizer

        check_tokenizer(self.folder, self.name)
        with refused(f"{self.name}: the tokenizer in {self.folder} cannot be read"):
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        if self.params.pool == "cls" and self.tokenizer.cls_token is None:
            raise ConfigError(f"{self.name}.pool is 'cls', but its texts have no such token; choose 'mean'")
        net: Any = tower.net
        towers = getattr(net, "text_model", net)
        self.length = limit(self.tokenizer.model_max_length, towers)
        self.whole = net.config.model_type.startswith("siglip")  # it pools the last token and was trained with padding
        if self.whole and self.params.tokens:
            raise ConfigError(
                f"{self.name}.tokens is {self.params.tokens}; this model counts padding as tokens; write 0"
            )
        accepted = self.tokenizer.model_input_names
        tower.names = ("input_ids", MASK, *(name for name in accepted if name not in ("input_ids", MASK)))
        self.names = tower.names
        # Fast tokenizers keep the limit as state: `measure` sets it by its call, and calls from threads only read it.
        self.window = Tokens(self.params.tokens) if self.params.tokens else Caption()
        self.sizes, self.calls = SIZES, CALLS

    def prepare(self, window: Any) -> NDArray[np.generic]:
        """A window -> uint8 (frames, 3, h, w), the model's float32 input for sound, or token ids (names, length)."""
        if self.modality == "rgb":
            distinct = {id(picture): picture for picture in window}
            pictures = {key: self.pipeline.picture(picture) for key, picture in distinct.items()}
            return np.stack([pictures[id(picture)] for picture in window])
        if self.modality == "audio":
            name = self.extractor.model_input_names[0]
            inputs = self.extractor(window, sampling_rate=self.extractor.sampling_rate, return_tensors="np")
            return np.asarray(inputs[name][0], np.float32)
        encoded = self.tokenizer(window, truncation=True, max_length=self.length, return_attention_mask=True)
        out = array({name: encoded[name] for name in self.names}, self.names, self.length, self._pad)
        if self.whole:
            out[self.names.index(MASK)] = 1
        return out

    def remark(self, window: NDArray[np.generic]) -> str:
        """Return a remark about a caption that may have been cut, or that has more tokens than rows."""
        if self.modality != "text":
            return ""
        ids, mask = (window[self.names.index(name)] for name in ("input_ids", MASK))
        full = bool(ids[-1] != self._pad if self.whole else mask[-1])
        return remark(full, self.length) or remark_tokens(int(mask.sum()), self.params.tokens or self.length)

    def tokens(self, window: NDArray[np.generic]) -> int:
        """Return the number of the caption's tokens that become rows, at most `Params.tokens`."""
        return min(int(window[self.names.index(MASK)].sum()), self.params.tokens) if self.params.tokens else 0

    @property
    def _pad(self) -> int:
        return self.tokenizer.pad_token_id or 0

    def transform(self, windows: Tensor) -> Tensor:
        """Prepared windows -> the model's input."""
        if self.modality == "rgb":
            return self.pipeline.normalised(windows)
        return windows.long() if self.modality == "text" else windows

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """Prepared windows (n, ...) -> rows (n, dims), or (n, tokens, dims)."""
        if self.module is None or self.modality != "text":
            return super().__call__(windows)
        return rows_by_length(super().__call__, windows, self.names.index(MASK), self.row_shape, self.params.tokens)


class _Tower(nn.Module):
    """One encoder of a model: input (n, ...) -> rows (n, dims)."""

    def __init__(self, model: Any, modality: str, pool: str, by_token: bool, missing: set[str], name: str) -> None:
        super().__init__()
        self.by_token = by_token  #: a row for each token of a text
        self.modality, self.pool = modality, "mean" if pool == "auto" and modality == "text" else pool
        self.input = "pixel_values"  #: name of the model's input, except for text
        self.names: tuple[str, ...] = ()  #: names of the inputs of text
        self.video = False  #: true if the model takes all pictures of a window at once
        self.keep: int | None = None  #: number of tokens that are not padding; None: all
        self.projected = _dual(model) and pool == "auto" and not by_token
        if self.projected:
            self.net = model
        elif _dual(model):
            self.net = getattr(model, f"{'vision' if modality == 'rgb' else modality}_model")
        else:
            self.net = model.get_encoder() if model.config.is_encoder_decoder else model
        self.pooler = not any("pooler" in key.split(".") for key in missing)
        parameters = [key.rpartition(".")[2] for key, _ in self.net.named_parameters()]
        self.first = 0 if modality == "text" else sum(parameters.count(kind) for kind in FIRST)
        if pool == "cls" and modality != "text" and not self.first:
            raise ConfigError(f"{name}.pool is 'cls', but this model has no such token; choose 'auto' or 'mean'")
        self.registers = getattr(self.net.config, "num_register_tokens", 0) or 0

    def forward(self, x: Tensor) -> Tensor:
        """Token ids (n, names, length), pictures (n, frames, 3, h, w) or the model's input for sound -> rows."""
        if self.modality == "text":
            inputs = dict(zip(self.names, x.unbind(1), strict=True))
            return self._rows(inputs, inputs[MASK])
        if self.modality == "audio" or self.video:
            return self._rows({self.input: x}, None)
        rows = self._rows({self.input: x.flatten(0, 1)}, None)
        return rows.view(*x.shape[:2], -1).mean(1)

    def _rows(self, inputs: dict[str, Tensor], mask: Tensor | None) -> Tensor:
        if self.projected:
            projected = getattr(self.net, f"get_{MODALITIES[self.modality]}_features")(**inputs)
            return projected if isinstance(projected, Tensor) else projected.pooler_output
        output = self.net(**inputs)
        if self.by_token:
            rows: Tensor = output.last_hidden_state
            return rows
        pooled = getattr(output, "pooler_output", None)
        if self.pool == "auto" and pooled is not None and self.pooler:
            return pooled.flatten(1)
        tokens: Tensor = output.last_hidden_state
        if tokens.dim() == 4:  # convolutional: (n, dims, h, w)
            tokens = tokens.flatten(2).transpose(1, 2)
        if mask is not None and self.pool == "mean":
            weight = mask[..., None].to(tokens.dtype)
            return (tokens * weight).sum(1) / weight.sum(1)
        if self.pool == "cls" or (self.pool == "auto" and self.first):
            return tokens[:, 0]
        return tokens[:, self.first + self.registers if self.first else 0 : self.keep].mean(1)


@dataclass(frozen=True)
class _ModelType:
    """The part that is read of a model's config.json."""

    model_type: str = ""


def _model(folder: Any, name: str, trained: bool) -> tuple[Any, set[str]]:
    """Return the model, and the names of its weights that the files lack, which only a pooler may have."""
    import transformers

    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(f"{name}: {folder} has no config.json, which describes the model; put it there")
    place = f"{name}: model {name.partition(':')[2]!r} in {file} cannot be loaded"
    fix = "download the model again"
    kind = schema.read(file, _ModelType, place, error=WeightsError, fix=fix, newer=True).model_type
    if kind not in transformers.CONFIG_MAPPING:
        raise ConfigError(
            f"{name}: transformers {transformers.__version__} has no model type {kind!r}, which config.json names; "
            "choose another model, or a version of transformers that has it (a model's own Python code is never run)"
        )
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not trained:
        return transformers.AutoModel.from_config(config, trust_remote_code=False), set()
    return loaded(transformers.AutoModel, folder, config, name)


def _dual(model: Any) -> bool:
    """True if the model has a tower for text and another one with a common embedding space (CLIP)."""
    return hasattr(model, "get_text_features") and hasattr(model, "text_model")


def _modality(model: Any, wanted: str, name: str) -> str:
    """Return the modality of the model, in our names: `wanted` if the model has it, or else its first one."""
    if _dual(model):
        modalities = [ours for ours, tower in MODALITIES.items() if hasattr(model, f"get_{tower}_features")]
    else:
        net = model.get_encoder() if model.config.is_encoder_decoder else model
        inputs = net.input_modalities
        inputs = (inputs,) if isinstance(inputs, str) else inputs
        modalities = sorted({OURS.get(kind, kind) for kind in inputs}, key=[*MODALITIES].index)
        if len(modalities) > 1:
            together = " and ".join(modalities)
            raise ConfigError(f"{name}: this model takes {together} together; choose an encoder of one modality")
    if wanted and wanted not in modalities:
        raise ConfigError(f"{name}.modality is {wanted!r}; this model has {', '.join(modalities)}")
    return wanted or modalities[0]


EXTRACTOR = HuggingFace
