"""Windows are found where they lay, as an explicit search finds them, and what has not moved stays."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seeall.heads.video.match import lay


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def shifts(at: Tensor) -> Tensor:
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in at.shape[1:]), indexing="ij")
    return at - torch.stack([rows, columns])


def searched(a: Tensor, b: Tensor, reach: int, window: int) -> Tensor:
    """One level, by the definition: every pixel, every shift, every pixel of the window that is in the picture."""
    height, width = a.shape
    found, half = torch.zeros(2, height, width, dtype=torch.int64), window // 2
    steps = range(-reach, reach + 1)
    tried = sorted(itertools.product(steps, steps), key=lambda one: abs(one[0]) + abs(one[1]))
    for y, x in itertools.product(range(height), range(width)):
        least = float("inf")
        for dy, dx in tried:
            cost = 1e-3 * (abs(dy) + abs(dx)) * window**2
            for v, u in itertools.product(
                range(max(0, y - half), min(height, y + half + 1)), range(max(0, x - half), min(width, x + half + 1))
            ):
                there = b[min(max(v + dy, 0), height - 1), min(max(u + dx, 0), width - 1)]
                cost += float(abs(a[v, u] - there))
            if cost < least - 1e-6:
                least = cost
                found[:, y, x] = torch.tensor([min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)])
    return found


def test_one_level_is_the_explicit_search() -> None:
    old, new = noise(9, 11), noise(9, 11)
    new[..., 2:, 1:] = old[..., :-2, :-1]
    new += 0.05 * noise(9, 11, seed=1)
    wanted = searched(new.mean(1)[0], old.mean(1)[0], 2, 3)
    assert torch.equal(lay(new, old, levels=0, reach=2, window=3), wanted)
    assert (shifts(wanted)[:, 3:-1, 2:-1] == torch.tensor([-2, -1]).view(2, 1, 1)).float().mean() > 0.9


@pytest.mark.parametrize("by", [(0, 0), (3, -5), (-7, 10), (12, 12), (-16, 8)])
def test_a_camera_that_pans(by: tuple[int, int]) -> None:
    world = F.interpolate(noise(15, 18), scale_factor=8, mode="bicubic")
    old, new = world[..., 20:100, 20:120], world[..., 20 + by[0] : 100 + by[0], 20 + by[1] : 120 + by[1]]
    at = lay(new, old)
    inner = (..., slice(20, 60), slice(20, 80))
    off = (shifts(at)[inner] - torch.tensor(by).view(2, 1, 1)).abs().amax(0)
    # whole pixels of a quarter's size find what moves by multiples of 4 px exactly, and the rest about so
    assert (off <= (3 if any(step % 4 for step in by) else 0)).float().mean() > 0.9


def test_a_thing_that_moves_over_what_stays() -> None:
    ground, thing = noise(80, 112), noise(40, 40, seed=1)
    old, new = ground.clone(), ground.clone()
    old[..., 20:60, 20:60], new[..., 24:64, 28:68] = thing, thing
    at = shifts(lay(new, old))
    assert (at[:, 36:52, 40:56] == torch.tensor([-4, -8]).view(2, 1, 1)).all()
    assert (at[:, :8] == 0).all() and (at[:, :, 80:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (33, 17)])
def test_what_is_all_alike_or_small_stays(size: tuple[int, int]) -> None:
    assert not shifts(lay(torch.full((1, 3, *size), 0.4), torch.full((1, 3, *size), 0.4))).any()
    assert not shifts(lay(noise(*size), noise(*size))).any()


def test_never_beyond_the_border() -> None:
    at = lay(noise(20, 30), noise(20, 30, seed=1))
    assert at.min() >= 0 and at[0].max() < 20 and at[1].max() < 30
