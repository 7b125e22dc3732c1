"""Folding BatchNorm away: the same features from a network that has less to do."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from seeall import catalog
from seeall.backbones.contract import Backbone
from seeall.backbones.fold import folded
from seeall.backbones.load import build

BIG = {"resnet34", "resnet101", "vit_b_16"}
NAMES = [name for name in catalog.BACKBONES if name not in BIG] + ["timm/resnet10t", "timm/mobilenetv3_small_050"]


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def lived(network: nn.Module) -> None:
    """Statistics and weights as training leaves them, not those of a newborn, which change nothing."""
    for norm in (m for m in norms(network) if m.track_running_stats):
        for values, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.5, 2), (norm.weight, 0.5, 1.5)):
            nn.init.uniform_(values, low, high)
        nn.init.uniform_(norm.bias, -1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_features_stay(name: str) -> None:
    if name.startswith("timm/") and not importlib.util.find_spec("timm"):
        pytest.skip("timm is not installed")
    torch.manual_seed(0)
    backbone, _ = build(name)
    lived(backbone)
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    quick = folded(backbone)
    x = torch.randn(3, 3, 48, 40)
    with torch.no_grad():
        wanted = backbone.eval()(x)
        torch.testing.assert_close(quick(x), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    assert not quick.training and (quick.embed_dim, quick.preprocessing) == (backbone.embed_dim, backbone.preprocessing)
    assert not norms(quick) or name.startswith("timm/")
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, state[key]), "the original was changed"


class Twice(nn.Module):
    """A convolution with a reader beside the norm, one that runs twice, and a norm without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), *self._norms()
        self.batch = nn.BatchNorm2d(8, track_running_stats=False)

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [nn.BatchNorm2d(8), nn.BatchNorm2d(8)]


def walk_aside(network: Twice, x: Tensor) -> tuple[list[Tensor], Tensor]:
    a = network.first(x)
    y = network.norm(a) + a
    return [y], y.mean((2, 3))


def walk_again(network: Twice, x: Tensor) -> tuple[list[Tensor], Tensor]:
    y = network.batch(network.second(network.other(network.second(network.first(x)))))
    return [y], y.mean((2, 3))


@pytest.mark.parametrize("walk", [walk_aside, walk_again])
def test_what_cannot_be_folded_is_left_alone(walk) -> None:
    torch.manual_seed(0)
    network = Twice()
    lived(network)
    backbone = Backbone(network, walk, channels=(8,), strides=(1,), embed_dim=8).eval()
    quick = folded(backbone)
    assert len(norms(quick)) == 3
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(quick(x), backbone(x), rtol=0, atol=0)
