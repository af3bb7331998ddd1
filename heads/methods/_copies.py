"""Copies of a net, or of its classifier, that a method holds beside the net itself."""

import copy

import torch
from torch import nn
from torch.nn import Parameter

from heads.nets import Net


def encoder_parameters(net: Net) -> list[Parameter]:
    """What features depend on: all parameters but the classifier's."""
    first = {id(parameter) for parameter in net.classifier.parameters()}
    return [parameter for parameter in net.parameters() if id(parameter) not in first]


def second_head(net: Net) -> Net:
    """The net with another classifier, equal to the first at the start; the encoder is the same one, not a copy."""
    return copy.deepcopy(net, {id(parameter): parameter for parameter in encoder_parameters(net)})


@torch.no_grad()
def average(mine: nn.Module, theirs: nn.Module, decay: float) -> None:
    """θ' = decay θ' + (1 - decay) θ for all weights of mine; its buffers stay."""
    for kept, new in zip(mine.parameters(), theirs.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


class Teacher(nn.Module):
    """A copy of the net that takes no gradient and has no dropout: it stays in eval mode whatever the loop says."""

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
        """θ' = decay θ' + (1 - decay) θ for all weights, and the net's buffers; without decay a copy of the net."""
        average(self.net, net, decay)
        for kept, new in zip(self.net.buffers(), net.buffers(), strict=True):
            kept.copy_(new)
