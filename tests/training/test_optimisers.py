"""The optimisers by hand, and what decays and what does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall.training.optimisers import lars
from seeall.types import SeeallError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 4))


def learnt(net: nn.Module, t: int) -> None:
    """The gradient of step t."""
    net.zero_grad()
    net(torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(t))).square().sum().backward()


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_lars_by_hand(weight_decay: float) -> None:
    """You et al. 2017, equations 4 and 6: a matrix moves by its own length, whatever the length of its gradient; with
    decay or without. Biases and norms go by SGD."""
    lr, trust, momentum = 0.4, 1e-3, 0.9
    net, want = network(), [p.detach().double() for p in network().parameters()]
    optimiser = lars(net, lr=lr, trust=trust, momentum=momentum, weight_decay=weight_decay)
    speeds = [torch.zeros_like(w) for w in want]
    for t in range(4):
        learnt(net, t)
        for k, (p, w) in enumerate(zip(net.parameters(), want)):
            assert p.grad is not None
            step: Tensor = p.grad.double()
            if p.ndim > 1:
                step = step + weight_decay * w
                step = step * trust * w.norm() / (p.grad.double().norm() + weight_decay * w.norm())
            speeds[k] = momentum * speeds[k] + step
            want[k] = w - lr * speeds[k]
        optimiser.step()
        for p, w in zip(net.parameters(), want):
            torch.testing.assert_close(p.detach().double(), w, rtol=1e-5, atol=1e-6)


def test_lars_without_decay_leaves_alone_what_has_no_gradient() -> None:
    """What stands in for a decay of 0 changes no weight, not even one whose gradient is 0 at every step."""
    net = nn.Linear(4, 2, bias=False)
    before = net.weight.detach().clone()
    optimiser = lars(net, lr=1.0, trust=0.05, weight_decay=0)
    for _ in range(50):
        net.zero_grad()
        net(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).sum().backward()
        optimiser.step()
    assert torch.equal(net.weight[:, 1:], before[:, 1:]) and not torch.equal(net.weight[:, 0], before[:, 0])


@pytest.mark.parametrize("trust", [0.0, -0.1, math.nan, math.inf])
def test_a_trust_that_is_none(trust: float) -> None:
    with pytest.raises(SeeallError) as error:
        lars(nn.Linear(2, 2), trust=trust)
    assert str(error.value) == f"setting 'trust' is {trust}: choose a number above 0; 0.001 is usual"


@pytest.mark.parametrize("setting", [{"weight_decay": -1.0}, {"weight_decay": math.nan}, {"momentum": math.nan}])
def test_lars_settings_that_make_no_sense(setting: dict[str, Any]) -> None:
    with pytest.raises(SeeallError, match=next(iter(setting))):
        lars(nn.Linear(2, 2), **setting)
