"""VICReg, Barlow Twins, BYOL, SimSiam, MoCo and DINO made for tests, fresh or in the middle of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall.ssl.barlow_twins import BarlowTwins
from seeall.ssl.byol import BYOL
from seeall.ssl.dino import DINO
from seeall.ssl.moco import MoCo
from seeall.ssl.simsiam import SimSiam
from seeall.ssl.vicreg import VICReg

D = 4
MAKE: dict[str, Callable[[], nn.Module]] = {
    "vicreg": lambda: VICReg(invariance=3, variance=2, covariance=0.5),
    "barlow_twins": lambda: BarlowTwins(redundancy=0.25),
    "byol": lambda: BYOL(D, hidden=5, momentum=0.75),
    "simsiam": lambda: SimSiam(D, hidden=3),
    "moco": lambda: MoCo(D, size=11, temperature=0.5, momentum=0.75),
    # temperatures that float32 holds exactly: lightly rounds the teacher's to it
    "dino": lambda: DINO(
        D, prototypes=6, student_temperature=0.5, teacher_temperature=0.25, centre_momentum=0.875, momentum=0.75
    ),
}
TAUGHT = {"byol", "moco", "dino"}
ORDERED = {"vicreg", "barlow_twins"}
"""Whose statistics are taken over first and second rows apart."""
REMEMBERS = {"byol", "simsiam", "moco", "dino"}
every = pytest.mark.parametrize("name", MAKE)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def call(name: str, objective: nn.Module, z: Tensor, groups: Any, taught: Tensor | None = None) -> dict[str, Tensor]:
    more = [z.detach().flip(1) * 0.5 + 0.1 if taught is None else taught] if name in TAUGHT else []
    out: dict[str, Tensor] = objective(z, torch.as_tensor(groups, dtype=torch.int64), *more)
    return out


def used(name: str, seed: int = 0) -> nn.Module:
    """An objective in float64 in the middle of a training: memory, centre, averages have moved."""
    torch.manual_seed(seed)
    objective = MAKE[name]().double()
    if name in REMEMBERS:
        call(name, objective, randn(10, D, seed=90), [0, 1, 2, 3, 4, 0, 1, 20, 21, 4], randn(10, D, seed=91))
    with torch.no_grad():
        for k, weight in enumerate(objective.parameters()):
            weight += 0.3 * randn(*weight.shape, seed=80 + k)
    return objective


def gradients(objective: nn.Module, loss: Callable[[Tensor], Tensor], z: Tensor) -> list[Tensor]:
    """The value, its gradient for z, and for every weight."""
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    return [value.detach(), *torch.autograd.grad(value, [z, *objective.parameters()])]


def pairs_by_hand(groups: list[int]) -> list[tuple[int, int]]:
    waiting: dict[int, int] = {}
    found = []
    for row, group in enumerate(groups):
        if group in waiting:
            found.append((waiting.pop(group), row))
        else:
            waiting[group] = row
    return found
