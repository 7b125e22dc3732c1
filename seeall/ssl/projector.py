"""The projection head between backbone and objective (Chen et al. 2020, section 4.2); thrown away afterwards."""

from __future__ import annotations

import itertools

from torch import nn

from seeall.types import SeeallError


def projector(
    embed_dim: int, *, hidden: int = 512, out: int = 128, layers: int = 2, norm: bool = True
) -> nn.Sequential:
    """(N, embed_dim) → (N, out): linear layers with BatchNorm and ReLU between them.

    hidden: width between the layers · layers: how many linear layers, 1 or more · norm: BatchNorm after the last
    one too, as in the authors' code; it keeps dimensions from dying and speeds the first epochs up

    Raises: SeeallError where one of the numbers is below 1.
    """
    for name, value in (("hidden", hidden), ("out", out), ("layers", layers)):
        if value < 1:
            raise SeeallError(f"setting 'projector.{name}' is {value}: choose at least 1")
    widths = [embed_dim] + [hidden] * (layers - 1)
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    last = [nn.Linear(widths[-1], out, bias=False), nn.BatchNorm1d(out)] if norm else [nn.Linear(widths[-1], out)]
    return nn.Sequential(*parts, *last)
