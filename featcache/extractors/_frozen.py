"""The common part of extractors with a network: weights, device, precision, memory order, and a batch's forward pass.

Pictures stay uint8 until they are on the device, where `transform` turns them into the input of the network.
"""

import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featcache.errors import ConfigError, WeightsError
from featcache.extractors import UNTRAINED, Extractor, Runtime

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MEMORY = {4: torch.channels_last, 5: torch.channels_last_3d}  #: memory formats, by number of dimensions
COMPILE = {"on": "default", "graphs": "reduce-overhead"}  #: our name -> torch.compile's mode
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ENDS = ("bn3.weight", "conv2.1.weight")  #: gains at the ends of residual branches in ResNeXt and R(2+1)D


class Frozen(Extractor):
    """An extractor with a network of featcache/backbones. Subclasses choose the network and prepare its input."""

    layout: ClassVar[str]  #: the network's name in featcache/backbones/layouts.py
    weights: str  #: name of its own weights in the catalogue
    sizes: tuple[int, int] = (2, 32)  #: windows of a forward pass, on a CPU and on a GPU
    calls: int = 1  #: forward passes per call that are efficient
    size: int  #: windows of a forward pass on the device in use
    precision: str = "fp32"
    module: nn.Module | None = None
    device: torch.device
    channels_last: bool
    compile: str

    def build(self) -> nn.Module:
        """The network, with any weights."""
        raise NotImplementedError

    def transform(self, windows: Tensor) -> Tensor:
        """Prepared windows (n, ...) on the device -> the network's input, float32."""
        raise NotImplementedError

    def pool(self, features: Tensor) -> Tensor:
        """The network's output -> rows (n, *row_shape)."""
        return features

    def ready(self, runtime: Runtime) -> Self:
        """Load the weights and move the network to its device; WeightsError if the weights are not available."""
        check(runtime)
        if runtime.weights == UNTRAINED:
            module = self.build()
            fill_by_seed(module, runtime.seed)
            self.weights_sha256, self.licence = f"{UNTRAINED}:{runtime.seed}", "no weights"
        else:
            module = self.load(runtime.weights or self.weights)
        self.module = placed(module, runtime)
        self.device, self.channels_last = torch.device(runtime.device), runtime.channels_last
        self.precision, self.compile = runtime.precision, runtime.compile
        self.size = self.sizes[self.device.type == "cuda"]
        self.batch = self.size * self.calls
        if self.device.type == "cuda" and runtime.compile != "graphs":  # CUDA graphs belong to one thread
            self.threads = 2  # one copies while the other computes
        return self

    def load(self, name: str) -> nn.Module:
        """Return the network with weights from the catalogue or a file."""
        from featcache import training_data, weights
        from featcache.backbones import layouts

        path = weights.find(name)
        with torch.device("meta"):  # no memory and no initial values: the file has all values
            module = self.build()
        layouts.fill(module, layouts.convert(weights.read(path), self.layout), str(path))
        self.weights_sha256 = weights.digest(path)
        entry = weights.CATALOGUE.get(name) or weights.recognised(path)
        self.licence = entry.licence if entry else f"unknown: {path.name} is a file of the user"
        self.trained_on = training_data.text(entry.trained_on) if entry else ""
        return module

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe, which contains the precision unless it is float32, but neither the device nor the batch size."""
        return super().recipe | ({} if self.precision == "fp32" else {"precision": self.precision})

    @property
    def facts(self) -> dict[str, str]:
        """The facts, with the device, the mode of torch.compile, and whether a GPU used TF32 in convolutions."""
        facts = super().facts | {"device": "cpu", "compile": self.compile}
        if self.device.type == "cuda":
            facts["device"] = torch.cuda.get_device_name(self.device)
            facts["tf32"] = "on" if torch.backends.cudnn.allow_tf32 else "off"
        return facts

    def __call__(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        """Prepared windows (n, ...) -> rows (n, *row_shape).

        Each forward pass has `size` windows; the last pass is filled up by repeating the last window. BLAS and cuDNN
        sum in another order for another batch size, so a row's last digits would depend on the number of windows.
        """
        if self.module is None:
            raise WeightsError(f"{self.name} has no weights yet: call ready(Runtime(...)) first")
        numbers = np.arange(-(-len(windows) // self.size) * self.size).clip(max=len(windows) - 1)
        rows = [self._rows(windows[part]) for part in numbers.reshape(-1, self.size)]
        return np.concatenate(rows)[: len(windows)]

    def _rows(self, windows: NDArray[Any]) -> NDArray[np.float32]:
        assert self.module is not None
        batch = torch.from_numpy(np.ascontiguousarray(windows))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        with torch.inference_mode():
            x = self.transform(batch)
            if self.channels_last and x.dim() in MEMORY:
                x = x.contiguous(memory_format=MEMORY[x.dim()])
            autocast = self.precision != "fp32"
            with torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=autocast):
                rows = self.pool(self.module(x))
        return np.asarray(rows.float().cpu().numpy(), np.float32)


def check(runtime: Runtime) -> None:
    """Raise ConfigError for an unknown precision, device or compile mode."""
    for name, value, choices in (
        ("precision", runtime.precision, PRECISIONS),
        ("compile", runtime.compile, ("off", *COMPILE)),
    ):
        if value not in choices:
            raise ConfigError(f"{name} is {value!r}; choose from {', '.join(choices)}")
    try:
        device = torch.device(runtime.device)
    except RuntimeError:
        raise ConfigError(f"no device {runtime.device!r}; write cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no device {runtime.device!r}: torch has {torch.cuda.device_count()} CUDA devices; use cpu")
    if runtime.compile == "graphs" and device.type != "cuda":
        raise ConfigError(f"compile is 'graphs' (CUDA graphs) on {runtime.device!r}; use --device cuda, or 'on'")


def placed(module: nn.Module, runtime: Runtime) -> nn.Module:
    """Freeze the network, move it to its device and memory order, and compile it if requested."""
    module = module.eval().requires_grad_(False).to(runtime.device)
    if torch.device(runtime.device).type == "cpu" and runtime.precision != "fp32":
        for layer in module.modules():
            if isinstance(layer, CONVOLUTIONS) and is_wrong_in_bf16(layer):
                layer.forward = in_float32(layer.forward)  # type: ignore[assignment, method-assign]
    for tensor in module.parameters() if runtime.channels_last else ():
        if tensor.dim() in MEMORY:
            tensor.data = tensor.data.contiguous(memory_format=MEMORY[tensor.dim()])
    if runtime.compile != "off":
        module.compile(mode=COMPILE[runtime.compile])
    return module


def is_wrong_in_bf16(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """Return whether oneDNN may compute this convolution wrongly in bfloat16.

    On processors with AMX (torch 2.13) convolutions of 4 to 31 channels and a width of 4 or more give numbers that have
    nothing in common with those in float32, where channels times width is a multiple of 32. Such layers are small, so
    they run in float32 on every processor.
    """
    return 4 <= layer.in_channels // layer.groups < 32 and layer.kernel_size[-1] >= 4


def in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a layer's `forward` without autocast."""

    def exact(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return exact


def fill_by_seed(module: nn.Module, seed: int) -> None:
    """Draw the weights from the seed: kernels from N(0, 2 / fan-in), so that features keep their size at any depth.

    Residual branches are damped, because each of them would otherwise double the variance. Each tensor has its own
    generator, seeded by seed and name, so equal networks get equal weights.
    """
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(ENDS):
            tensor.copy_(0.1 + 0.01 * noise.abs())
        elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.copy_(1 + 0.1 * noise.abs())
        elif tensor.dim() <= 1:
            tensor.copy_(0.1 * noise)
        else:
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
