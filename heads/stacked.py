"""Many heads in one pass: equal methods with their weights stacked, `torch.vmap` over their losses, one backward pass.

A step of a small head costs more in calls than in arithmetic, and a pass of K heads makes hardly more calls than one
head does. Every method keeps its own parameters and buffers: they become views of the stacked tensors. So everything
except a step (begin_epoch, evaluation, state_dict) works on each method as if it were alone.

Contract, which `heads.testing` checks: all state that `losses` reads and that differs between the methods is in
parameters, buffers or weights of `Params` (fields `lambda_*`), and the rounds of a step are `Method.objectives`.

Shapes: K methods.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import Parameter

from heads import noise
from heads.batch import Batch, Joint, Side
from heads.methods import Method

Tensors = dict[str, Any]  #: name -> tensor, or the same again
OF_MODULES = vars(nn.Module()).keys() - {"training"}  #: attributes of every module: its parts, and hooks
OF_RUNS = {"params", "shared"}  #: attributes of methods that differ between runs or have nothing of a run
PLAIN = (int, float, complex, str, bytes, set, frozenset, range, slice, torch.dtype, torch.device)


def why_not(method: type[Method]) -> str:
    """Return the reason why runs of a method cannot share a pass; "" if they can."""
    own = method.rounds is not Method.rounds
    return "its rounds have code of their own after an update, such as banks or teachers" if own else ""


def form(method: Method) -> tuple[object, ...]:
    """Return the names, shapes and types of the method's tensors: methods of equal form can be stacked."""
    parameters = [(name, p.shape, p.dtype, p.device, p.requires_grad) for name, p in method.named_parameters()]
    buffers = [(name, b.shape, b.dtype, b.device) for name, b in method.named_buffers()]
    return *parameters, *buffers


def lambdas(params: Any) -> dict[str, float]:
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
        values = {name: [lambdas(method.params)[name] for method in methods] for name in lambdas(methods[0].params)}
        self.lambdas = {  # a weight that all share stays a number
            name: torch.tensor(each, device=self.device) for name, each in values.items() if len({*each}) > 1
        }

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(iter(self.parameters.values())).device

    def refresh(self, failed: Container[int] = ()) -> None:
        """Stack the buffers again that the methods have replaced; ValueError if other state of theirs differs.

        failed: positions of methods whose results nobody needs any more. They get the buffers of another.
        """
        alive = [method for k, method in enumerate(self.methods) if k not in failed]
        self.first = alive[0]
        if name := _different(alive):
            raise ValueError(
                f"its runs may differ in {name}, which is no parameter, buffer or weight; keep it in a buffer"
            )
        for name, other in self.first.named_buffers():
            own = [other if k in failed else method.get_buffer(name) for k, method in enumerate(self.methods)]
            views = list(self.buffers[name]) if name in self.buffers else []
            if [b.data_ptr() for b in own] != [view.data_ptr() for view in views]:
                self.buffers[name] = torch.stack(own)
                for k, view in enumerate(self.buffers[name]):
                    if k not in failed:
                        own[k].data = view

    def terms(
        self, batch: Batch, progress: float, draws: Sequence[Generator], objective: str = "losses"
    ) -> dict[str, Tensor]:
        """Return the terms of an objective of all methods, name -> (K,).

        batch: the tensors of its sides are (B, K, ...), or those of a side that all methods share (B, ...).
        draws: a generator per method, or a single one from which all draw the same numbers.
        """
        first, params = self.first, self.first.params
        sides = {name: side for name in ("source", "target") if (side := getattr(batch, name)) is not None}
        names = [field.name for field in fields(Side) if field.name != "joint"]
        tensors: Tensors = {name: {field: getattr(side, field) for field in names} for name, side in sides.items()}
        dims = {name: 1 if side.index.dim() == 2 else None for name, side in sides.items()}
        joint = batch.source.joint if batch.source else None
        if joint and len({*dims.values()}) == 1:  # then x is passed once, and both sides get their parts of it
            tensors, dims = tensors | {"joint": joint.x}, dims | {"joint": dims["source"]}
            for name in sides:
                del tensors[name]["x"]

        def one(parameters: Tensors, buffers: Tensors, lambdas: Tensors, rows: Tensors, head: Tensor) -> Any:
            first.params = replace(params, **lambdas)
            of_one = parted(**rows) if "joint" in rows else Batch(**{name: Side(**rows[name]) for name in rows})
            with _drawing(draws, head):
                return functional_call(first, (parameters, buffers), (of_one, progress, objective))

        heads = torch.arange(len(self.methods), device=self.device)
        try:
            passes = torch.vmap(one, in_dims=(0, 0, 0, dims, 0), randomness="same")
            terms: dict[str, Tensor] = passes(self.parameters, self.buffers, self.lambdas, tensors, heads)
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


@contextmanager
def apart(method: Method) -> Iterator[None]:
    """Give a stacked method tensors of its own inside the block, in which it may only be read.

    Products with a part of stacked memory, whose matrices are transposed, have other last digits than those of a method
    that is loaded from a file.
    """
    tensors = [*method.parameters(), *method.buffers()]
    stacked = [tensor.data for tensor in tensors]
    for tensor in tensors:
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    try:
        yield
    finally:
        for tensor, part in zip(tensors, stacked, strict=True):
            tensor.data = part


def parted(joint: dict[str, Tensor], source: Tensors, target: Tensors) -> Batch:
    """Return the batch of these features, which both sides share; the other fields of a side are given."""
    rows = len(source["index"])
    x_s, x_t = {m: x[:rows] for m, x in joint.items()}, {m: x[rows:] for m, x in joint.items()}
    both = Joint(joint, x_s, x_t)
    return Batch(Side(x=x_s, **source, joint=both), Side(x=x_t, **target, joint=both))


def _turned(p: Tensor, dims: int) -> Tensor:
    """Return a matrix (O, I), with dims=2, or matrices (K, O, I), with dims=3, transposed; anything else as it is.

    The gradient of a stacked linear layer is computed as (K, I, O), and would be copied if its matrix had another order
    in memory.
    """
    return p.mT if p.dim() == dims else p


def _different(methods: Sequence[Method]) -> str:
    """Return the name of something that the methods hold outside of parameters and buffers and that may differ."""
    first, *others = methods
    names = _names(first)
    for other in others:
        of_other = _names(other)
        for a, b in zip(first.modules(), other.modules(), strict=True):
            exempt = OF_MODULES | OF_RUNS if a is first else OF_MODULES
            for name in sorted((vars(a).keys() | vars(b).keys()) - exempt):
                if not _equal(vars(a).get(name), vars(b).get(name), names, of_other):
                    return name
    return ""


def _names(method: Method) -> dict[int, str]:
    """Return the names of the modules and parameters by their identity."""
    return {id(part): name for name, part in (*method.named_modules(), *method.named_parameters())}


def _equal(a: Any, b: Any, names: dict[int, str], of_other: dict[int, str]) -> bool:
    """Return whether two values are surely equal; of unknown types, only if they are one object.

    names, of_other: the modules and parameters of the two methods; those of one name count as equal.
    """
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, nn.Module | Parameter) and id(a) in names:
        return names[id(a)] == of_other.get(id(b))

    def equal(pairs: Iterable[tuple[Any, Any]]) -> bool:
        return all(_equal(x, y, names, of_other) for x, y in pairs)

    if isinstance(a, Tensor):
        return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and not a.dtype.hasobject and np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and equal(zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and equal((value, b[key]) for key, value in a.items())
    if isinstance(a, partial):
        return equal([(a.func, b.func), (a.args, b.args), (a.keywords, b.keywords)])
    if isinstance(a, MethodType):
        return a.__func__ is b.__func__ and equal([(a.__self__, b.__self__)])
    if is_dataclass(a):
        return equal((getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return bool(a == b) if isinstance(a, PLAIN) else False


def _drawing(draws: Sequence[Generator], head: Tensor) -> AbstractContextManager[None]:
    return noise.many(draws, head) if len(draws) > 1 else noise.one(draws[0])
