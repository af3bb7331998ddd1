"""Models of Hugging Face: where their files are, what identifies them, and loading them without running their code.

A model is a local folder, or an id of the hub that is looked up in the local cache and fetched when a network is there
(HF_HUB_OFFLINE=1 forbids that). Weights are read from safetensors, or from a `pytorch_model.bin` where there is no such
file, of which torch then reads only tensors. A model that brings Python code of its own is refused.
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

SETTINGS = ("*.json", "*.txt", "*.model")  #: configuration, tokenizer, preprocessing
WEIGHTS = ("*.safetensors",)
PICKLED = ("*pytorch_model*.bin",)
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")  #: or a file of SentencePiece, *.model
OTHERS = (".*", "*/.*", "onnx/*", "*/onnx/*", "openvino/*", "*/openvino/*", "checkpoint-*", "runs/*", "original/*")


class Hub(Frozen):
    """An extractor whose network comes from the hub: `Params` has `model` and `revision`."""

    needs: ClassVar[tuple[str, str]]  #: the package that loads the network, and our extra that installs it
    weights = ""
    folder: Path  #: of the model's files

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        local = Path(params.model).expanduser()
        self.model = local.resolve().name if params.model and local.is_dir() else str(params.model)

    def network(self, trained: bool) -> nn.Module:
        """The network that turns what `transform` gives into rows. Sets window, modality and row_shape."""
        raise NotImplementedError

    def ready(self, runtime: Runtime) -> Self:
        """Find the model's files and load it; WeightsError or ConfigError where that cannot be."""
        if runtime.weights not in ("", UNTRAINED):
            raise ConfigError(
                f"{self.name} has no --weights {runtime.weights}: its weights are those of the model; "
                f"name another model, or a folder, by {_way(self.name, 'MODEL')}"
            )
        package, extra = self.needs
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(f"{self.name} needs {package} ({error}): pip install 'featcache[{extra}]'") from None
        self.folder = find(self.name, self.params.model, self.params.revision, runtime.weights != UNTRAINED)
        with quiet(), refused(f"{self.name}: model {self.model!r} in {self.folder} cannot be loaded"):
            return super().ready(runtime)

    def build(self) -> nn.Module:
        """The network with any weights, from the model's configuration."""
        return self.network(trained=False)

    def load(self, name: str) -> nn.Module:
        """The network with the model's weights."""
        if not any(_matches(file, (*WEIGHTS, *PICKLED)) for file in files(self.folder)):
            raise WeightsError(
                f"{self.name}: {self.folder} has no weights; put model.safetensors there, or use --weights untrained"
            )
        module = self.network(trained=True)
        self.weights_sha256, self.licence = digest(self.folder), f"that of {self.model}"
        return module

    def measure(self, module: nn.Module, example: NDArray[Any]) -> nn.Module:
        """The network, after one prepared window has shown the shape of its rows."""
        with torch.inference_mode():
            rows = module.eval()(self.transform(torch.from_numpy(example[None])))
        self.row_shape = tuple(rows.shape[2 if isinstance(self.window, Tokens) else 1 :])
        return module

    @property
    def recipe(self) -> dict[str, Any]:
        """A local folder is named by its last part: what identifies the model is the digest, wherever it lies.

        `tokens` is part of it where there are some: other stores keep the recipe that they have.
        """
        recipe = super().recipe
        params = {key: value for key, value in recipe["params"].items() if key != "tokens" or value}
        return recipe | {"params": params | {"model": self.model}}


def find(name: str, model: str, revision: str, weights: bool) -> Path:
    """The folder of the model's files, fetched if need be. weights: those, too, and not only the settings."""
    if not model:
        raise ConfigError(f"{name} needs a model: write {_way(name, 'MODEL')}, an id of the hub or a folder")
    local = Path(model).expanduser()
    if local.is_dir():
        if revision:
            raise ConfigError(f"{name}.revision is {revision!r}, but {model} is a folder, which has none; leave it out")
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    def fetched(patterns: tuple[str, ...]) -> Path:
        allow, ignore = list(patterns), list(OTHERS)
        return Path(snapshot_download(model, revision=revision or None, allow_patterns=allow, ignore_patterns=ignore))

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
            f"{name}: the hub has no model {model!r}, or it is private and wants `hf auth login`"
        ) from None
    except Exception as error:  # all that remains of the hub's own errors, and of the network's
        reason = "HF_HUB_OFFLINE is set" if _offline() else f"the hub was not reached: {first_line(error)}"
        raise WeightsError(
            f"{name}: model {model!r} is not in the cache of Hugging Face, and {reason}; run `hf download {model}` "
            f"where there is a network, or name a local folder by {_way(name, 'FOLDER')}"
        ) from None
    return folder


def _way(name: str, model: str) -> str:
    """How the model of an extractor is named on the command line."""
    return f"hf:{model}" if name.partition(":")[0] == "hf" else f"--set {name}.model={model}"


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def files(folder: Path) -> list[str]:
    """Names of the files in a model's folder that make its rows: settings, and weights in the form that is read."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = [name for name in found if _matches(name, SETTINGS + WEIGHTS + PICKLED) and not _matches(name, OTHERS)]
    safe = {Path(name).parent for name in found if _matches(name, WEIGHTS)}
    return [name for name in found if not (_matches(name, PICKLED) and Path(name).parent in safe)]


def digest(folder: Path) -> str:
    """SHA-256 over names and bytes of those files, so that another tokenizer is another model, too."""
    return folder_sha256(folder, files(folder))


def check_tokenizer(folder: Path, name: str) -> None:
    """WeightsError where a tokenizer's words are not there: transformers would make one that knows no word."""
    if not any(Path(file).name in TOKENIZERS or file.endswith(".model") for file in files(folder)):
        raise WeightsError(
            f"{name}: {folder} has no tokenizer; put tokenizer.json there, or {', '.join(TOKENIZERS[1:])}"
        )


def loaded(kind: Any, folder: Path, config: Any, name: str) -> tuple[Any, set[str]]:
    """The model of that class, float32, and the names of tensors that its files lack: none but those of a pooler.

    transformers draws such tensors at random and goes on.
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
    if lost := sorted(key for key in missing if "pooler" not in key.split(".")):
        raise WeightsError(
            f"{name}: its weight files lack {len(lost)} of the model's tensors, the first is {lost[0]!r}"
        )
    return model, missing


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and notes from transformers: what matters of them we check, and say as an error."""
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
def refused(what: str) -> Iterator[None]:
    """Whatever the libraries raise about a model's files becomes one sentence: WeightsError."""
    try:
        yield
    except FeatcacheError:
        raise
    except Exception as error:
        raise WeightsError(f"{what}: {first_line(error) or type(error).__name__}") from error


def first_line(error: Exception) -> str:
    """The first line of a message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
