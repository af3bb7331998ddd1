"""Models of Hugging Face: finding their files, identifying them, and loading them without running their code.

A model is a local folder, or an id of the hub. An id is looked up in the local cache and downloaded if it is missing
there. HF_HUB_OFFLINE=1 forbids that, and models that only a recipe names are never downloaded. Weights are read from
safetensors, or else from a `pytorch_model.bin`, from which torch reads only tensors. A model that brings its own Python
code is refused.
"""

import contextlib
import importlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import nn

from featcache.errors import ConfigError, FeatcacheError, WeightsError
from featcache.extractors import UNTRAINED, Runtime
from featcache.extractors._frozen import Frozen
from featcache.files import folder_sha256
from featcache.windows import Tokens
from featcache.wording import first_line

SETTINGS = ("*.json", "*.txt", "*.model")  #: files of configuration, tokenizer and preprocessing
WEIGHTS = ("*.safetensors",)
PICKLED = ("*pytorch_model*.bin",)
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")  #: files of a tokenizer, besides SentencePiece's *.model
OTHERS = (".*", "*/.*", "onnx/*", "*/onnx/*", "openvino/*", "*/openvino/*", "checkpoint-*", "runs/*", "original/*")


class Hub(Frozen):
    """An extractor whose network comes from the hub: `Params` has `model` and `revision`."""

    needs: ClassVar[tuple[str, str]]  #: the package that loads the network, and the extra of featcache that installs it
    weights = ""
    folder: Path  #: folder of the model's files

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        local = Path(params.model).expanduser()
        self.model = local.resolve().name if params.model and local.is_dir() else str(params.model)

    def network(self, trained: bool) -> nn.Module:
        """Return the network from the output of `transform` to rows. Sets window, modality and row_shape."""
        raise NotImplementedError

    def ready(self, runtime: Runtime) -> Self:
        """Find the model's files and load the model; WeightsError or ConfigError if that fails."""
        if runtime.weights not in ("", UNTRAINED):
            raise ConfigError(
                f"{self.name} takes no --weights {runtime.weights}, because the model includes its weights; "
                f"name another model, or a folder, with {_option(self.name, 'MODEL')}"
            )
        package, extra = self.needs
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(f"{self.name} needs {package} ({error}): pip install 'featcache[{extra}]'") from None
        weights = runtime.weights != UNTRAINED
        self.folder = find(self.name, self.params.model, self.params.revision, weights, runtime.offline)
        with quiet(), refused(f"{self.name}: model {self.model!r} in {self.folder} cannot be loaded"):
            return super().ready(runtime)

    def build(self) -> nn.Module:
        """Return the network with any weights, from the model's configuration."""
        return self.network(trained=False)

    def load(self, name: str) -> nn.Module:
        """Return the network with the model's weights."""
        if not any(_matches(file, (*WEIGHTS, *PICKLED)) for file in files(self.folder)):
            raise WeightsError(
                f"{self.name}: {self.folder} has no weights; put model.safetensors there, or use --weights untrained"
            )
        module = self.network(trained=True)
        self.weights_sha256, self.licence = digest(self.folder), f"that of {self.model}"
        return module

    def measure(self, module: nn.Module, example: NDArray[Any]) -> nn.Module:
        """Set row_shape by running the network on one prepared window, and return the network."""
        with torch.inference_mode():
            rows = module.eval()(self.transform(torch.from_numpy(example[None])))
        self.row_shape = tuple(rows.shape[2 if isinstance(self.window, Tokens) else 1 :])
        return module

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe. A local folder appears by its last part, because the digest identifies the model in any place.

        `tokens` is included only if it is not 0, so that the recipes of older stores stay valid.
        """
        recipe = super().recipe
        params = {key: value for key, value in recipe["params"].items() if key != "tokens" or value}
        return recipe | {"params": params | {"model": self.model}}


def find(name: str, model: str, revision: str, weights: bool, offline: bool = False) -> Path:
    """Return the folder of the model's files, downloaded if needed. weights: fetch the weights, too.

    offline: look only in the local cache; WeightsError if the model is not there.
    """
    if not model:
        raise ConfigError(f"{name} needs a model: write {_option(name, 'MODEL')}, an id of the hub or a folder")
    local = Path(model).expanduser()
    if local.is_dir():
        if revision:
            raise ConfigError(f"{name}.revision is {revision!r}, but {model} is a folder, which has none; leave it out")
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    def fetched(patterns: tuple[str, ...]) -> Path:
        allow, ignore = list(patterns), list(OTHERS)
        only: Any = {"local_files_only": True} if offline else {}
        found = snapshot_download(
            model, revision=revision or None, allow_patterns=allow, ignore_patterns=ignore, **only
        )
        return Path(found)

    try:
        folder = fetched(SETTINGS + WEIGHTS if weights else SETTINGS)
        if weights and not any(folder.glob("*.safetensors")):
            folder = fetched(SETTINGS + WEIGHTS + PICKLED)
    except HFValidationError:
        raise ConfigError(f"{name}: {model!r} is neither a folder nor an id of the hub, OWNER/MODEL") from None
    except RevisionNotFoundError:
        raise ConfigError(f"{name}: model {model!r} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{name}: the hub has no model {model!r}, or it is private and needs `hf auth login`"
        ) from None
    except Exception as error:  # any other error of the hub or of the network
        here = "only models on this machine are used here" if offline else ""
        reason = here or ("HF_HUB_OFFLINE is set" if _offline() else f"the hub was not reached: {first_line(error)}")
        raise WeightsError(
            f"{name}: model {model!r} is not in the cache of Hugging Face, and {reason}; run `hf download {model}` "
            f"where there is a network, or name a local folder with {_option(name, 'FOLDER')}"
        ) from None
    return folder


def _option(name: str, model: str) -> str:
    """Return the text that selects an extractor's model on the command line."""
    return f"hf:{model}" if name.partition(":")[0] == "hf" else f"--set {name}.model={model}"


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def files(folder: Path) -> list[str]:
    """Return the names of the files in a model's folder that determine its rows: settings, and the weights to read."""
    present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    used = [name for name in present if _matches(name, SETTINGS + WEIGHTS + PICKLED) and not _matches(name, OTHERS)]
    safe = {Path(name).parent for name in used if _matches(name, WEIGHTS)}
    return [name for name in used if not (_matches(name, PICKLED) and Path(name).parent in safe)]


def digest(folder: Path) -> str:
    """Return the SHA-256 over names and bytes of `files`, so that another tokenizer is another model."""
    return folder_sha256(folder, files(folder))


def check_tokenizer(folder: Path, name: str) -> None:
    """Raise WeightsError if the tokenizer's vocabulary is missing: transformers would build one without words."""
    if not any(Path(file).name in TOKENIZERS or file.endswith(".model") for file in files(folder)):
        raise WeightsError(
            f"{name}: {folder} has no tokenizer; put tokenizer.json there, or {', '.join(TOKENIZERS[1:])}"
        )


def loaded(kind: Any, folder: Path, config: Any, name: str) -> tuple[Any, set[str]]:
    """Return the model of class `kind`, float32, and the names of tensors that its files lack.

    transformers fills these at random without an error, so only tensors of a pooler may be missing.
    """
    model, report = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    missing = set(report["missing_keys"])
    if needed := sorted(key for key in missing if "pooler" not in key.split(".")):
        raise WeightsError(
            f"{name}: its weight files lack {len(needed)} of the model's tensors, the first is {needed[0]!r}"
        )
    return model, missing


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and notes of transformers; we check for the problems that matter and raise errors."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def refused(problem: str) -> Iterator[None]:
    """Turn any error of the libraries about a model's files into a WeightsError of one sentence."""
    try:
        yield
    except FeatcacheError:
        raise
    except Exception as error:
        raise WeightsError(f"{problem}: {first_line(error)}") from error
