"""The projection head between backbone and objective (Chen et al. 2020, section 4.2); thrown away afterwards."""

from __future__ import annotations

import itertools

from torch import nn

from seeall.types import SeeallError


def projector(
    embed_dim: int, *, hidden: int = 512, out: int = 128, layers: int = 2, norm: bool = True
) -> nn.Sequential:
    """(N, embed_dim) → (N, out): linear layers with BatchNorm and ReLU between them.

    hidden: width between the layers · layers: how many linear layers; 0 is no projector at all, so that the objective
    sees what is kept: the backbone's own features · norm: BatchNorm after the last one too, as in the authors' code; it
    keeps dimensions from dying and speeds the first epochs up

    Raises: SeeallError where a width is below 1, or layers below 0.
    """
    for name, value, least in (("hidden", hidden, 1), ("out", out, 1), ("layers", layers, 0)):
        if value < least:
            raise SeeallError(f"setting 'projector.{name}' is {value}: choose at least {least}")
    if not layers:
        return nn.Sequential()
    widths = [embed_dim] + [hidden] * (layers - 1)
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    last = [nn.Linear(widths[-1], out, bias=False), nn.BatchNorm1d(out)] if norm else [nn.Linear(widths[-1], out)]
    return nn.Sequential(*parts, *last)
