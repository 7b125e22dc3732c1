"""End-point errors against an explicit loop and torchvision's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from seeall.metrics.flow import flow


def pairs(n: int = 3, spread: float = 30.0) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(n)
    made = []
    for k in range(n):
        shape = (6 + k, 9)
        true = rng.normal(0, spread, (*shape, 2)).astype(np.float32)
        said = (true + rng.normal(0, 3, true.shape)).astype(np.float32)
        made.append((said, true, rng.random(shape) < 0.8, rng.random(shape) < 0.2))
    return made


def by_hand(some: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for said, true, known, hidden in some:
        for y in range(true.shape[0]):
            for x in range(true.shape[1]):
                if not known[y, x]:
                    continue
                error = math.hypot(said[y, x, 0] - true[y, x, 0], said[y, x, 1] - true[y, x, 1])
                length = math.hypot(*true[y, x])
                found.setdefault("EPE", []).append(error)
                speed = "0-10" if length < 10 else "10-40" if length < 40 else "40+"
                found.setdefault(f"EPE/{speed}", []).append(error)
                if hidden[y, x]:
                    found.setdefault("EPE/hidden", []).append(error)
                found.setdefault("Fl", []).append(100.0 if error > 3 and error > 0.05 * length else 0.0)
                found.setdefault("zero", []).append(length)
    return {name: sum(values) / len(values) for name, values in found.items()}


def test_errors_equal_a_loop() -> None:
    some = pairs()
    told, known = flow(some), by_hand(some)
    assert told.keys() == known.keys() == {"EPE", "EPE/0-10", "EPE/10-40", "EPE/40+", "EPE/hidden", "Fl", "zero"}
    for name, value in known.items():
        assert told[name] == pytest.approx(value, rel=1e-6), name


def test_the_true_flow_none_and_another_pairs() -> None:
    said, true, known, _ = pairs(1)[0]
    perfect = flow([(true, true, known, None)])
    assert perfect["EPE"] == perfect["Fl"] == 0 and "EPE/hidden" not in perfect
    still = flow([(np.zeros_like(true), true, known, None)])
    assert still["EPE"] == still["zero"] == pytest.approx(np.linalg.norm(true, axis=2)[known].mean())
    shuffled = flow([(true[::-1], true, known, None)])
    assert shuffled["EPE"] > 10 * flow([(said, true, known, None)])["EPE"]


def test_nothing_known_says_nothing_and_shapes_must_agree() -> None:
    said, true, known, _ = pairs(1)[0]
    assert flow([(said, true, np.zeros_like(known), None)]) == {} == flow([])
    with pytest.raises(ValueError, match="said"):
        flow([(said[1:], true, known, None)])
