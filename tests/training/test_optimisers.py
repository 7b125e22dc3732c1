"""The optimisers by hand, and what decays and what does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall import catalog
from seeall.backbones.load import build
from seeall.training.optimisers import adamw, lars, sgd
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


def decaying(net: nn.Module, optimiser: Any = adamw) -> set[str]:
    """The names of what decays. Everything is in one group."""
    made = optimiser(net)
    groups = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert len(groups) == sum(len(group["params"]) for group in made.param_groups) == len(list(net.parameters()))
    return {name for name, p in net.named_parameters() if groups[id(p)] > 0}


def matrices(net: nn.Module) -> set[str]:
    """By what the modules are: linear layers, convolutions and attention, however few channels they have."""
    found = set()
    for name, part in net.named_modules():
        if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
            found.add(f"{name}.weight")
        if isinstance(part, nn.MultiheadAttention):
            found.add(f"{name}.in_proj_weight")
    return found


@pytest.mark.parametrize("name", [n for n in catalog.BACKBONES if n not in ("resnet101", "vgg16_bn", "vit_b_16")])
def test_matrices_and_kernels_decay_and_nothing_else(name: str) -> None:
    """Not ConvNeXt's scales, nor the token and the positions of a vision transformer."""
    network, _ = build(name, "none")
    assert decaying(network) == matrices(network)
    if name.startswith("res"):  # all that is no vector, as ever
        assert decaying(network) == {name for name, p in network.named_parameters() if p.ndim > 1}
    others = {name.rpartition(".")[2] for name, p in network.named_parameters() if p.ndim > 1} - {
        name.rpartition(".")[2] for name in matrices(network)
    }
    own = {"convnext_tiny": {"layer_scale"}, "vit_tiny": {"class_token", "pos_embedding"}}
    assert others == own.get(name, set())


@pytest.mark.parametrize(
    "name", ["timm/vit_tiny_patch16_224", "timm/deit_tiny_distilled_patch16_224", "timm/resnet10t"]
)
def test_matrices_and_kernels_of_timm(name: str) -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    network, _ = build(name, "none")
    assert decaying(network) == matrices(network)
    bare = {name.rpartition(".")[2] for name, p in network.named_parameters() if p.ndim > 1}
    assert bare - {"weight"} <= {"cls_token", "dist_token", "pos_embed"}


@pytest.mark.parametrize("optimiser", [adamw, sgd, lars])
def test_kernels_of_one_channel_decay(optimiser: Any) -> None:
    """They are no scales, though they have the shape of some."""
    parts = {
        "one in": nn.Conv2d(1, 8, 1), "one out": nn.Conv2d(8, 1, 1), "both": nn.Conv2d(1, 1, 1),
        "depthwise": nn.Conv2d(8, 8, 1, groups=8), "in time": nn.Conv1d(1, 8, 1), "up": nn.ConvTranspose2d(8, 1, 1),
        "number": nn.Linear(1, 1), "row": nn.Linear(8, 1), "column": nn.Linear(1, 8),
        "norm": nn.BatchNorm2d(8), "layers": nn.LayerNorm(8), "slope": nn.PReLU(8),
        "attention": nn.MultiheadAttention(8, 2),
    }  # fmt: skip
    net = nn.ModuleDict(parts)
    assert decaying(net, optimiser) == matrices(net)
    assert {f"{name}.weight" for name in list(parts)[:9]} < decaying(net, optimiser)


def test_scales_tokens_and_positions_of_ones_own() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.token = nn.Parameter(torch.ones(8, 1, 1)), nn.Parameter(torch.ones(1, 1, 8))
            self.pos_embed, self.mixing = nn.Parameter(torch.ones(1, 4, 8)), nn.Parameter(torch.ones(4, 8))
            self.temperature = nn.Parameter(torch.ones(()))

    assert decaying(Own()) == {"mixing"}
