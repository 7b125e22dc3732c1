"""How much of a backbone learns along with a head, and how fast.

Which parameters belong to which stage is read off the network itself: a parameter belongs to the first stage whose map
depends on it. So stages can be frozen, or learn more slowly the earlier they are, whatever the network is called.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from seeall.backbones.contract import Backbone
from seeall.training.distributed import hold
from seeall.types import SeeallError

_PROBE = 64
"""Side of the picture that is sent through to see what depends on what, px."""


def transfer(
    *, backbone_rate: float = 1.0, stage_decay: float = 1.0, norm: Literal["train", "frozen"] = "train"
) -> dict[str, Any]:
    """backbone_rate: the backbone's learning rate, as a factor on the head's · stage_decay: a further one for every
    stage before the last · norm: whether BatchNorm goes on with its statistics, or keeps those it came with

    Raises: SeeallError for factors out of bounds.
    """
    for name, value in (("backbone_rate", backbone_rate), ("stage_decay", stage_decay)):
        if not 0 < value <= 10:
            raise SeeallError(f"setting {name!r} is {value}: choose a factor above 0, 10 at most")
    return {"backbone_rate": backbone_rate, "stage_decay": stage_decay, "norm": norm}


def stages_of(backbone: Backbone) -> dict[str, int]:
    """Name of each parameter → the first stage whose map depends on it; the last one where none does."""
    found, last = _reached(backbone), len(backbone.channels) - 1
    return {name: found.get(name, last) for name, _ in backbone.named_parameters()}


def leave_out(backbone: Backbone) -> None:
    """Take those parameters out of training that no map depends on, for heads that ask for maps alone."""
    found = _reached(backbone)
    for name, parameter in backbone.named_parameters():
        if name not in found:
            parameter.requires_grad_(False)


def _reached(backbone: Backbone) -> dict[str, int]:
    device = next(backbone.parameters()).device
    training = backbone.training
    names, parameters = zip(*backbone.named_parameters())
    asked = [p.requires_grad for p in parameters]
    backbone.eval().requires_grad_(True)
    found: dict[str, int] = {}
    with torch.enable_grad():
        maps = backbone.stages(torch.zeros(1, backbone.inputs, _PROBE, _PROBE, device=device))
        for i, stage in enumerate(maps):
            reached = torch.autograd.grad(stage.sum(), parameters, retain_graph=True, allow_unused=True)
            for name, gradient in zip(names, reached):
                if gradient is not None:
                    found.setdefault(name, i)
    for parameter, before in zip(parameters, asked):
        parameter.requires_grad_(before)
    backbone.train(training)
    return found


def freeze(backbone: Backbone, what: str, *, norm: str = "train") -> int:
    """Take parameters out of training: "none", "backbone", or the first N stages. Returns how many parameters.

    BatchNorm all of whose parameters are frozen, or all of it where `norm` says so, keeps its statistics.

    Raises: SeeallError where `what` is none of these.
    """
    stages, count = stages_of(backbone), len(backbone.channels)
    if what not in ("none", "backbone") and not (what.isdecimal() and 1 <= int(what) <= count):
        raise SeeallError(
            f"--freeze {what}: choose none, backbone, or how many of this backbone's {count} stages, from the first"
        )
    depth, frozen = {"none": 0, "backbone": count}.get(what) or int(what if what.isdecimal() else 0), 0
    for name, parameter in backbone.named_parameters():
        if stages[name] < depth:
            parameter.requires_grad_(False)
            frozen += 1
    for module in backbone.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and (norm == "frozen" or (own and not any(p.requires_grad for p in own))):
            hold(module)
    return frozen


def rates(task: nn.Module, backbone: Backbone, backbone_rate: float, stage_decay: float) -> dict[str, float]:
    """Name of each parameter of `task` that is the backbone's → the factor on its learning rate, where that is not
    1.
    """
    last = len(backbone.channels) - 1
    of_stage = {i: backbone_rate * stage_decay ** (last - i) for i in range(last + 1)}
    stages = stages_of(backbone)
    factor = {id(p): of_stage[stages[name]] for name, p in backbone.named_parameters()}
    return {name: factor[id(p)] for name, p in task.named_parameters() if factor.get(id(p), 1.0) != 1.0}
