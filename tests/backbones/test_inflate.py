"""Networks over clips: a tiled still gives what the still gives, and order in time can be seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from seeall.backbones.contract import Backbone
from seeall.backbones.inflate import TimeConvolution, inflate
from seeall.backbones.load import build
from seeall.types import SeeallError

FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18": {"stem": "3x3"},
    "resnet50": {},
    "vgg16_bn": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "convnext_tiny": {},
    "vit_tiny": {"layers": 2},
    "flownet": {"width": 8},
    "timm/resnet10t": {},
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def network(family: str) -> Backbone:
    torch.manual_seed(0)
    backbone = build(family, **FAMILIES[family])[0]
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        backbone.train()(torch.randn(8, 3, 64, 64))  # statistics that matter, as after training
    return backbone.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "how"),
    [(family, {}) for family in FAMILIES]
    + [
        (family, how)
        for family in ("resnet18", "mobilenet_v3_small", "vit_tiny")
        for how in (
            {"which": "half", "kernel": 5},
            {"which": "first", "every": 2},
            {"taps": "mean"},
            {"taps": "middle", "kernel": 5},
        )
    ],
)
def test_a_tiled_still_gives_what_the_still_gives(family: str, how: dict[str, Any]) -> None:
    backbone = network(family).double()
    still = torch.randn(1, 3, 33, 40, dtype=torch.float64)
    maps, embedding = backbone.stages(still), backbone(still)
    inflated = inflate(backbone, **how)
    clips = still[:, :, None].expand(-1, -1, 5, -1, -1)
    for flat, deep in zip(maps, inflated.stages(clips), strict=True):
        assert deep.shape[2] == (3 if how.get("every") else 5)
        scale = flat.abs().max()
        for t in range(deep.shape[2]):
            torch.testing.assert_close(deep[:, :, t] / scale, flat / scale, atol=1e-10, rtol=0)
    scale = embedding.abs().max()
    torch.testing.assert_close(inflated(clips) / scale, embedding / scale, atol=1e-10, rtol=0)
    said = inflated.float()(clips.float()).double()  # in float32, up to its rounding through so many layers
    torch.testing.assert_close(said / scale, embedding / scale, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("taps", ["turns", "mean", "middle"])
def test_how_kernels_begin(taps: Any) -> None:
    backbone = network("resnet18")
    old = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d)).weight.clone()
    inflated = inflate(backbone, taps=taps)
    new = next(m for m in inflated.modules() if isinstance(m, TimeConvolution)).weight
    for k in range(len(old)):
        for t in range(3):
            share = {"turns": float(t == k % 3), "mean": 1 / 3, "middle": float(t == 1)}[taps]
            torch.testing.assert_close(new[k, :, t], share * old[k])
    clip = torch.randn(1, 3, 6, 32, 32)
    backwards = torch.allclose(inflated(clip), inflated(clip.flip(2)), atol=1e-4)
    assert backwards == (taps != "turns")


@torch.no_grad()
@every_family
def test_the_order_of_frames_counts_and_that_of_clips_does_not(family: str) -> None:
    inflated = inflate(network(family))
    clips = torch.randn(2, 3, 4, 32, 32)
    said = inflated(clips)
    assert not torch.allclose(said, inflated(clips[:, :, [1, 0, 3, 2]]), atol=1e-4)
    torch.testing.assert_close(inflated(clips.flip(0)), said.flip(0), atol=1e-4, rtol=1e-4)


def test_a_convolution_over_time_is_an_explicit_sum() -> None:
    torch.manual_seed(0)
    flat = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    walk = lambda network, x: ([network(x)], network(x).mean((2, 3)))  # noqa: E731
    backbone = Backbone(nn.Sequential(flat), walk, channels=(4,), strides=(2,), embed_dim=4)
    inflated = inflate(backbone)
    deep = next(m for m in inflated.modules() if isinstance(m, TimeConvolution))
    nn.init.normal_(deep.weight)
    clip = torch.randn(1, 3, 4, 6, 6)
    found = inflated.stages(clip)[0]
    for t in range(4):
        wanted = sum(
            nn.functional.conv2d(clip[:, :, min(max(t + k - 1, 0), 3)], deep.weight[:, :, k], None, 2, 1)
            for k in range(3)
        )
        torch.testing.assert_close(found[:, :, t], wanted + flat.bias[:, None, None], atol=1e-5, rtol=1e-5)  # type: ignore[index]


@every_family
def test_all_of_it_learns(family: str) -> None:
    inflated = inflate(network(family)).train()
    sum(m.square().mean() for m in [*inflated.stages(torch.randn(2, 3, 3, 32, 32))]).backward()
    deep = [m for m in inflated.modules() if isinstance(m, TimeConvolution)]
    assert deep and all(m.weight.grad is not None and m.weight.grad.isfinite().all() for m in deep)


def test_what_cannot_be_inflated_is_said() -> None:
    with pytest.raises(SeeallError, match="odd number of frames"):
        inflate(network("resnet18"), kernel=4)
    bare = Backbone(nn.Linear(2, 2), lambda n, x: ([x], x), channels=(2,), strides=(1,), embed_dim=2)
    with pytest.raises(SeeallError, match="no convolution"):
        inflate(bare)
