"""Gradient reversal [Ganin and Lempitsky 2015]: the identity forward, -coefficient times the gradient backward."""

from typing import Any

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    generate_vmap_rule = True  # torch.func can then stack the heads of several seeds

    @staticmethod
    def forward(x: Tensor, coefficient: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.coefficient = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.coefficient * grad, None


def reverse(x: Tensor, coefficient: float) -> Tensor:
    """Return x unchanged; layers before it learn to raise the loss that layers after it learn to lower.

    >>> x = torch.ones(2, requires_grad=True)
    >>> reverse(x, 0.5).sum().backward()
    >>> x.grad
    tensor([-0.5000, -0.5000])
    """
    reversed_x: Tensor = _Reversal.apply(x, coefficient)
    return reversed_x
