"""Where every pixel of a frame goes until the next one, exactly, from the transforms that drew both.

A pixel belongs to the foremost layer that its centre lies in: the background, things from back to front,
poles. Its centre is carried to the next frame by that layer's own transform, and is visible there if it is
within the picture and in no layer further in front. Surfaces move, light does not: shadows, shading and noise
have no flow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seeall.data.scenes.render import beside, distance, local
from seeall.data.scenes.shapes import Array
from seeall.data.scenes.world import Pose, Scene


class Flow(NamedTuple):
    """Motion from a frame to the next one."""

    vectors: NDArray[np.float32]
    """(H, W, 2) px to the right and downwards, for every pixel, visible or not."""
    visible: NDArray[np.bool_]
    """(H, W) whether what the pixel shows can be seen in the next frame."""


def flow(now: Scene, then: Scene, size: int) -> Flow:
    """The flow between two scenes of the same things in the same order, drawn at `size` px."""
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    owner = np.zeros((size, size), np.int64)
    for layer, inside in _layers(now, x, y):
        owner[inside] = layer
    goal_x, goal_y = _carried(now, then, owner, x, y)
    visible = (goal_x >= 0) & (goal_x < 1) & (goal_y >= 0) & (goal_y < 1)
    for layer, inside in _layers(then, goal_x, goal_y):
        visible &= (layer <= owner) | ~inside
    vectors = size * np.stack([goal_x - x, goal_y - y], -1)
    return Flow(vectors.astype(np.float32), visible)


def _layers(scene: Scene, x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Number of every layer, from 1 for the thing farthest back, and which points of the picture are in it."""
    px: Array = x.astype(np.float32)
    py: Array = y.astype(np.float32)
    things = len(scene.things)
    for k, thing in enumerate(scene.things):
        _, _, u, v = local(thing.pose(0.0), px, py)
        yield 1 + k, distance(thing.identity, u, v) <= 0
    for k, pole in enumerate(scene.poles):
        yield 1 + things + k, np.abs(beside(pole, px, py)) <= 1


def _carried(
    now: Scene, then: Scene, owner: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where points of the picture are in the next frame, each going with its layer."""
    before, after = now.background.shift, then.background.shift
    goal_x, goal_y = x + (after[0] - before[0]), y + (after[1] - before[1])
    for k, (thing, same) in enumerate(zip(now.things, then.things, strict=True)):
        own = owner == 1 + k
        goal_x[own], goal_y[own] = _similar(thing.pose(0.0), same.pose(0.0), x[own], y[own])
    for k, (pole, it) in enumerate(zip(now.poles, then.poles, strict=True)):
        own = owner == 1 + len(now.things) + k
        goal_x[own], goal_y[own] = x[own] + (it.x - pole.x), y[own] + (it.y - pole.y)
    return goal_x, goal_y


def _similar(
    a: Pose, b: Pose, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points fixed to a thing at pose a, when it is at pose b."""
    factor, turn = b.scale / a.scale, b.angle - a.angle
    c, s = factor * math.cos(turn), factor * math.sin(turn)
    dx, dy = x - a.x, y - a.y
    return b.x + c * dx - s * dy, b.y + s * dx + c * dy
