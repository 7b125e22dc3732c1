"""What the teacher of BYOL, MoCo and DINO sees: all there is, whatever the learner leaves out by chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from seeall.backbones.load import build
from seeall.ssl.byol import BYOL
from seeall.ssl.projector import projector
from seeall.ssl.task import Pretraining


def drop_path() -> nn.Module:
    layers: Any = pytest.importorskip("timm.layers", reason="timm is an extra")
    return layers.DropPath(0.5)


class Dropping(nn.Module):
    """A small network with something that drops in the middle."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.drop = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), drop
        self.last = nn.Linear(8 * 16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.norm(self.first(x))
        maps = self.drop(maps.flatten(2) if isinstance(self.drop, nn.Dropout1d) else maps)
        return self.last(maps.flatten(1))


KINDS = {
    "dropout": lambda: nn.Dropout(0.5),
    "dropout of channels": lambda: nn.Dropout2d(0.5),
    "dropout of channels in a row": lambda: nn.Dropout1d(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "alpha dropout of channels": lambda: nn.FeatureAlphaDropout(0.5),
    "torchvision's stochastic depth": lambda: StochasticDepth(0.5, "row"),
    "timm's": drop_path,
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_drops_nothing(kind: str) -> None:
    """The same views twice: the same from the teacher, and not from the learner; before and after an evaluation."""
    task = Pretraining(Dropping(KINDS[kind]()), nn.Linear(8, 8), BYOL(8), nn.Identity())  # type: ignore[arg-type]
    x = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for mode in (True, False, True):
        task.train(mode)
        if mode:
            assert torch.equal(task._teach(x), task._teach(x))
            assert not torch.equal(task.backbone(x), task.backbone(x))
    assert task.teacher[0].norm.training and not task.teacher[0].drop.training
    before = task.teacher[0].norm.running_mean.clone()
    task._teach(x)
    assert not torch.equal(task.teacher[0].norm.running_mean, before)


def test_convnext_teaches_without_stochastic_depth() -> None:
    backbone, _ = build("convnext_tiny", "none")
    for name, weight in backbone.named_parameters():
        if name.endswith("layer_scale"):
            nn.init.constant_(weight, 0.3)  # as in a network that has learnt; at the start it is 1e-6
    task = Pretraining(backbone, projector(backbone.embed_dim), BYOL(128), nn.Identity()).train()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(task._teach(x), task._teach(x))
    with torch.no_grad():
        assert not torch.equal(task.backbone(x), task.backbone(x))
