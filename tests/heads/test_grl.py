"""Gradient reversal and its ramp."""

import pytest
import torch

from heads.grl import reverse
from heads.schedules import dann


def test_identity_forward_sign_and_size_backward():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse(x, 0.25)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [-0.75, -1.25]


def test_stacks_under_vmap_of_grad():
    x = torch.randn(4, 3)
    loss = lambda row: (reverse(row, 0.5) ** 2).sum()  # noqa: E731
    assert torch.allclose(torch.func.vmap(torch.func.grad(loss))(x), -x)


def test_ramp_by_hand():
    assert dann(0) == 0
    assert dann(0.5) == pytest.approx(2 / (1 + 2.718281828459045**-5) - 1)
    assert all(dann(p / 10) < dann((p + 1) / 10) < 1 for p in range(10))
