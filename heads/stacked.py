"""Many heads in one pass: equal methods with their weights stacked, `torch.vmap` over their losses, one backward pass.

A step of a small head costs more in calls than in arithmetic, and a pass of K heads makes hardly more calls than one
head does. Every method keeps its own parameters and buffers: they become views of the stacked tensors. So everything
except a step (begin_epoch, evaluation, state_dict) works on each method as if it were alone.

Contract, which `heads.testing` checks: all state that `losses` reads and that differs between the methods is in
parameters, buffers or weights of `Params` (fields `lambda_*`), and the rounds of a step are `Method.objectives`.

Shapes: K methods.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import functional_call
from torch.nn import Parameter

from heads import noise
from heads.batch import Batch, Side
from heads.methods import Method

Tensors = dict[str, Any]  #: name -> tensor, or the same again


def why_not(method: type[Method]) -> str:
    """Return the reason why runs of a method cannot share a pass; "" if they can."""
    own = method.rounds is not Method.rounds
    return "its rounds have code of their own after an update, such as banks or teachers" if own else ""


def form(method: Method) -> tuple[object, ...]:
    """Return the names, shapes and types of the method's tensors: methods of equal form can be stacked."""
    parameters = [(name, p.shape, p.dtype, p.device, p.requires_grad) for name, p in method.named_parameters()]
    buffers = [(name, b.shape, b.dtype, b.device) for name, b in method.named_buffers()]
    return *parameters, *buffers


def weights(params: Any) -> dict[str, float]:
    """Return the numbers of a `Params` that losses only multiply with: the fields whose names begin with `lambda_`."""
    names = [field.name for field in fields(params) if field.name.startswith("lambda_")]
    return {name: getattr(params, name) for name in names if isinstance(getattr(params, name), float)}


class Stack:
    """Methods of equal form, whose parameters and buffers are views of stacked tensors until `release`."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self.methods = methods
        self.memory = {  #: name -> the same numbers as in `parameters`, contiguous, without gradient: for optimisers
            name: torch.stack([_turned(method.get_parameter(name).detach(), 2) for method in methods])
            for name, _ in methods[0].named_parameters()
        }
        self.parameters = {
            name: _turned(self.memory[name], 3).detach().requires_grad_(p.requires_grad)
            for name, p in methods[0].named_parameters()
        }
        self.buffers: dict[str, Tensor] = {}
        for k, method in enumerate(methods):
            for name, p in method.named_parameters():
                p.data = self.parameters[name].detach()[k]
        self.refresh()
        values = {name: [weights(method.params)[name] for method in methods] for name in weights(methods[0].params)}
        self.weights = {  # a weight that all share stays a number
            name: torch.tensor(each, device=self.device) for name, each in values.items() if len({*each}) > 1
        }

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(iter(self.parameters.values())).device

    def refresh(self) -> None:
        """Stack the buffers again that the methods have replaced; ValueError if other state of theirs differs."""
        if name := _different(self.methods):
            raise ValueError(f"its runs differ in {name}, which is no parameter, buffer or weight; keep it in a buffer")
        for name, _ in self.methods[0].named_buffers():
            own = [method.get_buffer(name) for method in self.methods]
            views = list(self.buffers[name]) if name in self.buffers else []
            if [b.data_ptr() for b in own] != [view.data_ptr() for view in views]:
                self.buffers[name] = torch.stack(own)
                for b, view in zip(own, self.buffers[name], strict=True):
                    b.data = view

    def terms(
        self, batch: Batch, progress: float, draws: Sequence[Generator], objective: str = "losses"
    ) -> dict[str, Tensor]:
        """Return the terms of an objective of all methods, name -> (K,).

        batch: the tensors of its sides have a dimension of K in front, or those of a side that all methods share have
        none. draws: a generator per method, or a single one from which all draw the same numbers.
        """
        first, params = self.methods[0], self.methods[0].params
        sides = {name: side for name in ("source", "target") if (side := getattr(batch, name)) is not None}
        tensors = {
            name: {field.name: getattr(side, field.name) for field in fields(Side)} for name, side in sides.items()
        }
        dims = {name: 0 if side.index.dim() == 2 else None for name, side in sides.items()}

        def one(parameters: Tensors, buffers: Tensors, weights: Tensors, rows: Tensors, head: Tensor) -> Any:
            first.params = replace(params, **weights)
            of_one = Batch(**{name: Side(**values) for name, values in rows.items()})
            with _drawing(draws, head):
                return functional_call(first, (parameters, buffers), (of_one, progress, objective))

        heads = torch.arange(len(self.methods), device=self.device)
        try:
            passes = torch.vmap(one, in_dims=(0, 0, 0, dims, 0), randomness="same")
            terms: dict[str, Tensor] = passes(self.parameters, self.buffers, self.weights, tensors, heads)
        finally:
            first.params = params
        return terms

    def backward(self, terms: dict[str, Tensor]) -> None:
        """Set the gradients of the stacked parameters: each method's are those of the sum of its terms."""
        for p in self.parameters.values():
            p.grad = None
        torch.stack(list(terms.values())).sum().backward()

    def gradient(self, name: str, part: slice) -> Tensor | None:
        """Return the gradient of a parameter of some methods, in the order of `memory`."""
        gradient = self.parameters[name].grad
        return None if gradient is None else _turned(gradient, 3)[part]

    def release(self) -> None:
        """Give every method tensors of its own again."""
        for method in self.methods:
            for tensor in (*method.parameters(), *method.buffers()):
                tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def _turned(p: Tensor, dims: int) -> Tensor:
    """Return a matrix (O, I), with dims=2, or matrices (K, O, I), with dims=3, transposed; anything else as it is.

    The gradient of a stacked linear layer is computed as (K, I, O), and would be copied if its matrix had another order
    in memory.
    """
    return p.mT if p.dim() == dims else p


def _different(methods: Sequence[Method]) -> str:
    """Return the name of a number, text or tensor that the methods hold outside of buffers and not all alike."""
    for modules in zip(*(method.modules() for method in methods), strict=True):
        for name, value in vars(modules[0]).items():
            if not name.startswith("_") and not all(_equal(value, vars(other).get(name)) for other in modules[1:]):
                return name
    return ""


def _equal(a: Any, b: Any) -> bool:
    """Compare numbers, texts and tensors, also in lists and dictionaries; anything else counts as equal."""
    if isinstance(a, Tensor):
        return isinstance(a, Parameter) or (isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b))
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    return a == b if isinstance(a, int | float | str | None) else True


def _drawing(draws: Sequence[Generator], head: Tensor) -> AbstractContextManager[None]:
    return noise.many(draws, head) if len(draws) > 1 else noise.one(draws[0])
