"""A convolution with few positions of output: the same as torch's own, value and gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from seeall.backbones.load import build
from seeall.backbones.pointwise import Convolution, quicken

CASES: list[tuple[tuple[int, int], dict[str, Any]]] = [
    ((1, 1), {"kernel_size": 3, "padding": 1}),
    ((2, 2), {"kernel_size": 3, "padding": 1, "stride": 2}),
    ((1, 2), {"kernel_size": 3, "padding": 1, "stride": 2}),
    ((2, 1), {"kernel_size": (5, 3), "padding": (2, 1), "stride": (3, 1), "bias": True}),
    ((2, 2), {"kernel_size": 2}),
    ((2, 2), {"kernel_size": 3, "stride": 2, "padding": (1, 1), "bias": True}),
    ((2, 2), {"kernel_size": 3, "padding": 1}),
    ((3, 4), {"kernel_size": 3, "padding": 1, "stride": 2, "bias": True}),
    ((1, 2), {"kernel_size": 2, "padding": 2, "stride": 3}),  # one position sees nothing but padding
    ((1, 5), {"kernel_size": 4, "padding": (2, 0)}),
    ((5, 6), {"kernel_size": 2, "stride": (4, 2)}),  # three positions a row: torch's own
    ((3, 3), {"kernel_size": 3, "padding": 1}),
    ((1, 1), {"kernel_size": 3, "padding": 1, "groups": 2}),
    ((1, 1), {"kernel_size": 3, "padding": 2, "dilation": 2}),
    ((1, 1), {"kernel_size": 3, "padding": "same"}),
    ((2, 2), {"kernel_size": 3, "padding": 1, "stride": 2, "padding_mode": "circular"}),
    ((7, 5), {"kernel_size": 3, "padding": 1, "stride": 2}),
]


@pytest.mark.parametrize(("side", "settings"), CASES)
def test_value_and_gradient(side: tuple[int, int], settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, **{"bias": False, **settings}).double()
    quick = copy.deepcopy(plain)
    quicken(quick)
    assert type(quick) is Convolution
    found = []
    for convolution in (plain, quick):
        x = torch.randn(3, 4, *side, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = convolution(x)
        (y * torch.arange(y.numel()).view_as(y)).sum().backward()
        found.append((y, x.grad, *(p.grad for p in convolution.parameters())))
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted)


def test_every_backbone_has_them_and_keeps_its_names() -> None:
    from torchvision.models import resnet18

    backbone, _ = build("resnet18")
    kinds = [type(m) for m in backbone.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    assert kinds and set(kinds) == {Convolution}
    assert set(backbone.network.state_dict()) == {k for k in resnet18().state_dict() if not k.startswith("fc.")}


def test_a_small_picture_is_seen_as_before() -> None:
    torch.manual_seed(0)
    backbone, _ = build("resnet18")
    backbone.eval()
    plain = copy.deepcopy(backbone)
    for module in plain.modules():
        if isinstance(module, Convolution):
            module.__class__ = nn.Conv2d
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), plain(x), rtol=1e-4, atol=1e-4)
