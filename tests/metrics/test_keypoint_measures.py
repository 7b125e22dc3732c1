"""Keypoints: their measures against an explicit loop, and what cheats and perfect ones get."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seeall.data import scenes
from seeall.data.scenes.flow import flow
from seeall.metrics.keypoints import NEAR, Tracked, grid, keypoints


def drawn(seed: int, count: int = 6) -> Tracked:
    """Random points, things and flow."""
    rng = np.random.default_rng(seed)
    height, width = 20, 30
    owner = rng.integers(-1, 3, (5, 6)).repeat(4, 0).repeat(5, 1)
    masks = np.array([owner == k for k in range(3)])
    now, then = (rng.uniform(0, 1, (count, 2)) * [width, height] for _ in range(2))
    vectors = rng.normal(0, 6, (height, width, 2)).astype(np.float32)
    return Tracked(now, now + 0.3 * (then - now), vectors, rng.random((height, width)) < 0.7, masks)


def by_hand(pairs: list[Tracked]) -> dict[str, float]:
    found: dict[str, list[float]] = {}

    def say(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for now, then, vectors, visible, masks in pairs:
        height, width = visible.shape
        middle = np.full((len(now), 2), [width / 2, height / 2])
        for suffix, points in (("", now), ("/grid", grid(len(now), (height, width))), ("/middle", middle)):
            touched = set()
            for k, (x, y) in enumerate(points):
                column, row = min(int(x), width - 1), min(int(y), height - 1)
                on = [m for m in range(len(masks)) if masks[m, row, column]]
                touched.update(on)
                say(f"on_things{suffix}", 100.0 * bool(on))
                others = [math.dist(points[k], points[j]) for j in range(len(points)) if j != k]
                if others and suffix != "/middle":
                    say(f"spread{suffix}", min(others))
                if not on or not visible[row, column]:
                    continue
                u, v = (float(part) for part in vectors[row, column])
                true = (x + u, y + v)
                there = [
                    (j + 0.5 + float(vectors[i, j, 0]), i + 0.5 + float(vectors[i, j, 1]))
                    for i in range(height)
                    for j in range(width)
                    if visible[i, j] and any(masks[m, i, j] for m in on)
                ]
                if suffix:
                    say(f"stays{suffix}", 100.0 * (math.dist((x, y), true) <= NEAR))
                    say(f"kept{suffix}", 100.0 * any(math.dist((x, y), place) <= 1 for place in there))
                    continue
                say("kept", 100.0 * any(math.dist(then[k], place) <= 1 for place in there))
                say("kept/still", 100.0 * any(math.dist((x, y), place) <= 1 for place in there))
                say("error", math.dist(then[k], true))
                say("stays", 100.0 * (math.dist(then[k], true) <= NEAR))
                say("stays/still", 100.0 * (math.dist((x, y), true) <= NEAR))
                if math.dist((x, y), true) > NEAR:
                    say("stays/moving", 100.0 * (math.dist(then[k], true) <= NEAR))
            for m in range(len(masks)):
                say(f"covered{suffix}", 100.0 * (m in touched))
    return {name: sum(values) / len(values) for name, values in found.items()}


@pytest.mark.parametrize("count", [1, 2, 6, 11])
def test_measures_are_those_of_a_loop(count: int) -> None:
    pairs = [drawn(seed, count) for seed in range(8)]
    found, wanted = keypoints(pairs), by_hand(pairs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert 0 < found["stays"] < 100 or count == 1


def world_pairs() -> list[Tracked]:
    """Points on the things of drawn clips, eight frames apart, carried exactly."""
    world = scenes.parse("scenes:n=6,size=64,frames=9,things=2,actions=left+right+up+down")
    pairs, rng = [], np.random.default_rng(0)
    for clip in range(6):
        a, b = 9 * clip, 9 * clip + 8
        masks = world.truth(a).masks
        vectors, visible = flow(world.scene(a), world.scene(b), 64)
        places = np.argwhere(masks.any(0) & visible)
        rows = places[rng.choice(len(places), 6, replace=False)]
        now = rows[:, ::-1] + rng.random((6, 2))
        pairs.append(Tracked(now, now + vectors[rows[:, 0], rows[:, 1]], vectors, visible, masks))
    return pairs


def test_perfect_frozen_and_random_ones_get_what_they_should() -> None:
    pairs = world_pairs()
    perfect = keypoints(pairs)
    for name in ("stays", "stays/moving", "kept", "on_things"):
        assert perfect[name] == 100, name
    assert perfect["error"] < 1e-5
    frozen = keypoints([pair._replace(then=pair.now) for pair in pairs])
    assert frozen["stays"] == frozen["stays/still"] == perfect["stays/still"] < 60 and frozen["stays/moving"] == 0
    assert frozen["kept"] == frozen["kept/still"] == perfect["kept/still"] < 80
    rng = np.random.default_rng(1)
    thrown = keypoints([pair._replace(then=rng.uniform(0, 64, (6, 2))) for pair in pairs])
    assert thrown["stays"] < 15 and thrown["kept"] < 40  # a disc of 5 px is 2 % of the picture, a thing about 15 %
    for other in (frozen, thrown):
        assert {k: v for k, v in other.items() if "grid" in k or "middle" in k} == {
            k: v for k, v in perfect.items() if "grid" in k or "middle" in k
        }


def test_all_on_one_spot_or_on_nothing_is_seen() -> None:
    pairs = world_pairs()
    alike = keypoints([pair._replace(now=pair.now[[0] * 6], then=pair.then[[0] * 6]) for pair in pairs])
    assert alike["stays"] == 100 and alike["spread"] == 0 and alike["covered"] < 100
    nothing = keypoints([pair._replace(masks=np.zeros_like(pair.masks)) for pair in pairs])
    assert nothing["on_things"] == 0 and "stays" not in nothing
    assert keypoints([]) == {}


@pytest.mark.parametrize("count", range(1, 18))
def test_a_grid_has_as_many_points_evenly_spread(count: int) -> None:
    points = grid(count, (40, 80))
    assert points.shape == (count, 2) and (points > 0).all() and (points < [80, 40]).all()
    assert len(np.unique(points, axis=0)) == count
    np.testing.assert_allclose(points.mean(0), [40, 20], atol=8)
