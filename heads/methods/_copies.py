"""Copies of a net, or of its classifier, that a method holds in addition to the net."""

import copy

import torch
from torch import nn
from torch.nn import Parameter

from heads.nets import Net


def encoder_parameters(net: Net) -> list[Parameter]:
    """Return the parameters that features depend on: all except the classifier's."""
    first = {id(parameter) for parameter in net.classifier.parameters()}
    return [parameter for parameter in net.parameters() if id(parameter) not in first]


def second_head(net: Net) -> Net:
    """Return the net with a copy of its classifier; both share one encoder, which is not copied."""
    return copy.deepcopy(net, {id(parameter): parameter for parameter in encoder_parameters(net)})


@torch.no_grad()
def average(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Update the teacher's weights, θ' = decay θ' + (1 - decay) θ; its buffers stay."""
    for kept, new in zip(teacher.parameters(), student.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


class Teacher(nn.Module):
    """A copy of the net without gradient or dropout: it stays in eval mode, also when the loop calls `train`."""

    net: Net

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, net: Net, decay: float = 0.0) -> None:
        """Update all weights, θ' = decay θ' + (1 - decay) θ, and copy the buffers; decay 0 copies the net."""
        average(self.net, net, decay)
        for kept, new in zip(self.net.buffers(), net.buffers(), strict=True):
            kept.copy_(new)
