"""Whether keypoints that nobody has named stay where they are on their things.

Of each pair of pictures, a and b, it is known which thing each pixel of a is on, where it is in b, and whether it can
be seen there. A keypoint is on the thing whose pixel it lies in; its true place in b is its place in a and that pixel's
flow. In percent, and px:

    stays          of the keypoints on things that can still be seen in b, those within 5 px of their true place
    stays/moving   the same of those whose true place is over 5 px away: who does not move has 0
    kept           of those that `stays` is about, those on the same thing in b: within 1 px of where one of its pixels
                   is there. A thing that turns under its keypoints keeps them
    error          how far these keypoints, moving or not, are from their true place, px
    on_things      of all keypoints, those on things
    covered        of all things, those with a keypoint on them
    spread         how far the nearest other keypoint is, px: 0 where all are on one spot

`stays` alone is won by keypoints that are all on one spot, so the last three stand beside it, and three floors:

    …/still        the same keypoints, which do not move
    …/grid         as many points in a regular grid, which do not move
    …/middle       all of them in the middle of the picture, where things often are
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAR = 5.0
"""Within so many px a keypoint is where it should be."""
_ON = 1.0
"""Within so many px of the middle of a thing's pixel a point is on the thing, which may have grown."""

Points = NDArray[np.floating]
"""(K, 2) x and y, px: the pixel in column c covers x from c to c + 1."""


class Tracked(NamedTuple):
    """now, then: the keypoints in a and in b · vectors: (H, W, 2), px, from a to b · visible: (H, W) in b, too
    masks: (M, H, W) things of a
    """

    now: Points
    then: Points
    vectors: NDArray[np.float32]
    visible: NDArray[np.bool_]
    masks: NDArray[np.bool_]


def keypoints(pairs: Iterable[Tracked]) -> dict[str, float]:
    """The measures above by name; those of nothing are left out."""
    sums: dict[str, list[float]] = {}

    def add(name: str, values: Any, unit: float = 100.0) -> None:
        total = sums.setdefault(name, [0.0, 0])
        total[0] += unit * float(values.sum())
        total[1] += values.size

    for now, then, vectors, visible, masks in pairs:
        true, counts, on = _carried(now, vectors, visible, masks)
        away, moved = _apart(then, true)[counts], _apart(now, true)[counts]
        add("stays", away <= NEAR)
        add("stays/moving", (away <= NEAR)[moved > NEAR])
        add("stays/still", moved <= NEAR)
        for suffix, there in (("", then), ("/still", now)):
            add(f"kept{suffix}", _kept(there, on, vectors, visible, masks)[counts])
        add("error", away, 1.0)
        alike, middle = grid(len(now), masks.shape[1:]), grid(1, masks.shape[1:]).repeat(len(now), 0)
        for floor, points in (("grid", alike), ("middle", middle)):
            true_of, counts_of, on_of = _carried(points, vectors, visible, masks)
            add(f"stays/{floor}", (_apart(points, true_of) <= NEAR)[counts_of])
            add(f"kept/{floor}", _kept(points, on_of, vectors, visible, masks)[counts_of])
            add(f"on_things/{floor}", on_of.any(0))
            add(f"covered/{floor}", on_of.any(1))
        add("on_things", on.any(0))
        add("covered", on.any(1))
        add("spread", _nearest(now), 1.0)
        add("spread/grid", _nearest(alike), 1.0)
    return {name: total / count for name, (total, count) in sums.items() if count}


def grid(count: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(count, 2) points, px, evenly over a picture of `shape` (height, width), row by row.

    >>> grid(3, (4, 4)).tolist()
    [[2.0, 1.0], [1.0, 3.0], [3.0, 3.0]]
    """
    rows = max(1, round(count**0.5))
    found = []
    for i in range(rows):
        here = count * (i + 1) // rows - count * i // rows
        found += [((j + 0.5) / here * shape[1], (i + 0.5) / rows * shape[0]) for j in range(here)]
    return np.array(found)


def _carried(
    points: Points, vectors: NDArray[np.float32], visible: NDArray[np.bool_], masks: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Where points (K, 2) are in b; which of them count, on things and still seen, (K,); on which things, (M, K)."""
    height, width = visible.shape
    x, y = (np.floor(points[:, k]).astype(np.int64).clip(0, most - 1) for k, most in enumerate((width, height)))
    on: NDArray[np.bool_] = masks[:, y, x]
    return points + vectors[y, x].astype(np.float64), on.any(0) & visible[y, x], on


def _kept(
    then: Points,
    on: NDArray[np.bool_],
    vectors: NDArray[np.float32],
    visible: NDArray[np.bool_],
    masks: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """(K,) whether points then (K, 2) of b lie on what they were on (M, K) in a."""
    kept = np.zeros(len(then), np.bool_)
    for mine, mask in zip(on, masks):
        y, x = np.nonzero(mask & visible)
        if mine.any() and len(y):
            there = np.stack([x, y], 1) + 0.5 + vectors[y, x]
            kept[mine] = _apart(then[mine][:, None], there[None]).min(1) <= _ON
    return kept


def _apart(one: Points, other: Points) -> NDArray[np.float64]:
    away: NDArray[np.float64] = np.sqrt(((one.astype(np.float64) - other) ** 2).sum(-1))
    return away


def _nearest(points: Points) -> NDArray[np.float64]:
    """(K,) how far the nearest other point is; nothing where there is but one."""
    if len(points) < 2:
        return np.zeros(0)
    away = _apart(points[:, None], points[None])
    np.fill_diagonal(away, np.inf)
    nearest: NDArray[np.float64] = away.min(1)
    return nearest
