"""Optimisers of a run: their parameters and learning rates."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import Parameter
from torch.nn.utils import get_total_norm

from featcache.errors import ConfigError
from heads.methods import Method
from pipelines.config import Optim, RunConfig

TINY = 1e-6  #: added to the norm, as in clip_grad_norm_


def optimizers(
    method: Method, parameters: list[Parameter], config: RunConfig
) -> list[tuple[Optim, torch.optim.Optimizer]]:
    """One optimiser per Optim of a player's parameters: that of the longest prefix of the name, else `config.optim`."""
    names = {parameter: name for name, parameter in method.named_parameters()}
    for prefix in config.optim_for:
        if not any(_starts(name, prefix) for name in names.values()):
            modules = sorted({name.rpartition(".")[0] for name in names.values()})
            raise ConfigError(
                f"optim_for names {prefix!r}, but no parameter's name starts with it; there are: {', '.join(modules)}"
            )
    groups: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        matching = [prefix for prefix in config.optim_for if _starts(names[parameter], prefix)]
        groups.setdefault(max(matching, key=len, default=""), []).append(parameter)
    pairs: list[tuple[Optim, torch.optim.Optimizer]] = []
    for prefix, group in groups.items():
        optim = config.optim_for.get(prefix, config.optim)
        if optim.name == "adam":
            adam = torch.optim.Adam(group, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
            pairs.append((optim, adam))
        else:
            sgd = torch.optim.SGD(
                group,
                lr=optim.lr,
                momentum=optim.momentum,
                weight_decay=optim.weight_decay,
                nesterov=optim.nesterov,
                fused=True,  # weights, gradients and momenta pass through memory once, not four times
            )
            pairs.append((optim, sgd))
    return pairs


def update(optim: Optim, optimizer: torch.optim.Optimizer, progress: float) -> None:
    """One step at the scheduled learning rate, with the gradient clipped if `clip_norm` is set.

    The fused step divides gradients by `grad_scale`, so clipping is no pass of its own: the result is that of
    `torch.nn.utils.clip_grad_norm_` before the step.
    """
    (group,) = optimizer.param_groups
    group["lr"] = optim.at(progress)
    if optim.clip_norm:
        norm = get_total_norm([p.grad for p in group["params"] if p.grad is not None])
        optimizer.grad_scale = ((norm + TINY) / optim.clip_norm).clamp_min(1)  # type: ignore[attr-defined]
    optimizer.step()


def update_each(
    optim: Optim, optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor | None], progress: float
) -> None:
    """Make the same step with stacked parameters (K, ...) and these gradients, each run's clipped by its own norm."""
    (group,) = optimizer.param_groups
    group["lr"] = optim.at(progress)
    for p, gradient in zip(group["params"], gradients, strict=True):
        p.grad = gradient
    if optim.clip_norm and (given := [gradient for gradient in gradients if gradient is not None]):
        norm_K = torch.stack([vector_norm(g[..., None].flatten(1), dim=1) for g in given]).norm(dim=0)
        scale_K = ((norm_K + TINY) / optim.clip_norm).clamp_min(1)
        for g in given:
            g.div_(scale_K.view(-1, *[1] * (g.dim() - 1)))
    optimizer.step()


def _starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
