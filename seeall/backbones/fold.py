"""A backbone for looking only: each BatchNorm folded into the convolution before it, which leaves less to compute.

In evaluation BatchNorm is γ (x - μ) / σ + β with constants, so a convolution with weights γ w / σ and bias
β + γ (b - μ) / σ does the work of both (`torch.nn.utils.fusion`).
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from seeall.backbones.contract import Backbone

_TOLERANCE = 1e-4
_SIDE = 64


@torch.no_grad()
def folded(backbone: Backbone) -> Backbone:
    """A copy of `backbone` in evaluation mode whose embeddings are the same to 1e-4 of the largest, sooner.

    Which convolution feeds which BatchNorm is seen from one pass of a random picture. Where the copy does not
    agree with the original, as where a convolution's output has a second reader, it is a plain copy.
    """
    still = not any(module.training for module in backbone.modules())
    plain = backbone if still else copy.deepcopy(backbone).eval()
    if not any(type(module) is nn.BatchNorm2d for module in plain.modules()):
        return copy.deepcopy(plain)
    copied = copy.deepcopy(plain)
    x = torch.rand(2, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(next(copied.parameters()))
    names = {module: name for name, module in copied.named_modules()}
    for convolution, norm in _pairs(copied, x):
        _replace(copied, names[convolution], fuse_conv_bn_eval(convolution, norm))
        _replace(copied, names[norm], nn.Identity())
    wanted, found = plain(x), copied(x)
    return copied if (wanted - found).abs().max() <= _TOLERANCE * wanted.abs().max() else copy.deepcopy(plain)


def _pairs(backbone: Backbone, x: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The pairs of one pass in which a BatchNorm's input is a convolution's output, and each ran just once."""
    outputs: list[tuple[nn.Conv2d, Tensor]] = []  # the tensors themselves, lest another one takes an address
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    runs: Counter[nn.Module] = Counter()

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        runs[module] += 1
        if isinstance(module, nn.Conv2d):
            outputs.append((module, output))
        elif type(module) is nn.BatchNorm2d and module.track_running_stats:
            pairs.extend((convolution, module) for convolution, made in outputs if made is inputs[0])

    hooks = [module.register_forward_hook(after) for module in backbone.modules()]
    backbone(x)
    for hook in hooks:
        hook.remove()
    return [(a, b) for a, b in pairs if runs[a] == runs[b] == 1]


def _replace(root: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, new)
