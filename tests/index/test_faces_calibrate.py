"""Thresholds for strangers: against loops, scipy, and worlds in which the true rate is known."""

import math

import numpy as np
import pytest
from pytest import approx
from scipy.stats import beta

from seeall.index.faces.calibrate import beta_quantiles, pairs, strangers
from seeall.index.faces.score import LEVELS
from seeall.types import SeeallError


def on_grid(x: np.ndarray) -> np.ndarray:
    return np.round(x * LEVELS) / LEVELS


@pytest.mark.parametrize(
    ("a", "b"), [(1, 99), (5, 46), (0.2, 8), (0.03, 1.5), (300, 99_701), (2, 2), (1, 1e-2), (4000, 6000)]
)
def test_quantiles_are_those_of_scipy(a: float, b: float) -> None:
    shares = (0.025, 0.5, 0.975)
    assert beta_quantiles(a, b, shares) == approx(beta.ppf(shares, a, b).tolist(), rel=2e-3, abs=1e-7)


def test_threshold_is_the_lowest_that_keeps_the_promise() -> None:
    rng = np.random.default_rng(0)
    for n, far in ((99, 0.01), (100, 0.01), (199, 0.05), (60, 0.1)):
        scores, people = on_grid(rng.random(n)), np.arange(n)
        found = strangers(scores, people, far)
        rank = math.floor(far * (n + 1))
        assert sum(scores >= found.threshold) == rank - 1, "just above the rank-th highest"
        assert found.expected == approx(rank / (n + 1)) and found.expected <= far
        assert found.independent == n
        assert (found.low, found.high) == approx(tuple(beta.ppf([0.025, 0.975], rank, n + 1 - rank)), rel=2e-3)


def test_ties_are_refused_together() -> None:
    found = strangers(np.array([0.5] * 20 + [0.75] * 5 + [0.25] * 25), np.arange(50), 0.05)
    assert 0.75 < found.threshold < 0.75 + 1 / LEVELS


def world(rng: np.random.Generator, people: int, takes: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores, `share` of whose variance is the person's own."""
    own = rng.standard_normal((people, 1)) * math.sqrt(share)
    scores = own + rng.standard_normal((people, takes)) * math.sqrt(1 - share)
    return on_grid(scores.ravel()), np.repeat(np.arange(people), takes)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_promise_and_interval_hold_in_a_world_that_is_known(share: float) -> None:
    """True rates of thresholds that many calibrations find: their mean is as promised, the interval holds most."""
    rng, rates, inside = np.random.default_rng(1), [], 0
    for _ in range(400):
        found = strangers(*world(rng, 30, 8, share), 0.05)
        true = 0.5 * math.erfc(found.threshold / math.sqrt(2))
        rates.append(true)
        inside += found.low <= true <= found.high
    assert 0.04 < np.mean(rates) <= 0.051
    assert inside >= 0.93 * 400
    assert (found.independent > 150) == (share == 0), "pictures of a person count less where they are alike"


def test_few_people_who_are_each_alike() -> None:
    """Where most is told by who it is, ten pictures a person do not make one in ten."""
    rng, rates, inside = np.random.default_rng(4), [], 0
    for _ in range(300):
        found = strangers(*world(rng, 6, 10, 0.7), 0.15)
        true = 0.5 * math.erfc(found.threshold / math.sqrt(2))
        rates.append(true)
        inside += found.low <= true <= found.high
    assert 0.1 < np.mean(rates) <= 0.16 and inside >= 0.91 * 300


def test_people_who_are_each_one_score() -> None:
    """All pictures of a person the same: they tell no more than one."""
    scores = np.repeat(on_grid(np.random.default_rng(2).random(12)), 10)
    assert strangers(scores, np.repeat(np.arange(12), 10), 0.05).independent == approx(12)
    assert strangers(np.ones(40), np.repeat(np.arange(4), 10), 0.2).independent == approx(4)


@pytest.mark.parametrize("sizes", [[4] * 6, [1, 7, 3, 2, 9]])
def test_pairs_are_the_loop(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    people = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.standard_normal((len(people), 6))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    scores = [
        float(on_grid(x[i].astype(np.float64) @ x[j].astype(np.float64)))
        for i in range(len(x)) for j in range(i) if people[i] != people[j]
    ]  # fmt: skip
    found = pairs(x, people, 0.05)
    rank = math.floor(0.05 * (len(scores) + 1))
    assert sum(s >= found.threshold for s in scores) == rank - 1 and found.expected == rank / (len(scores) + 1)
    assert found.independent == len(scores) and 0 <= found.low <= (rank - 1) / len(scores) <= found.high <= 1
    monkeypatch.setattr("seeall.index.faces.calibrate._ROWS", 5)
    assert pairs(x, people, 0.05) == found


def test_too_few() -> None:
    with pytest.raises(
        SeeallError, match=r"50 pictures of 50 people .*as much as 50 .*give more than 99 .*or --far 0.02 or more"
    ):
        strangers(np.arange(50) / 64, np.arange(50), 0.01)
    with pytest.raises(SeeallError, match="two people at least"):
        strangers(np.arange(50) / 64, np.zeros(50), 0.1)
    with pytest.raises(SeeallError, match="between 0 and 1"):
        strangers(np.arange(50) / 64, np.arange(50), 1.0)
    strangers(np.arange(50) / 64, np.arange(50), 0.02)
    strangers(np.arange(99) / 128, np.arange(99), 0.01)
    alike = np.repeat(np.arange(5), 10)
    with pytest.raises(SeeallError, match="which tell as much as 5 of people of their own.*--far 0.092 or more"):
        strangers(alike / 8, alike, 0.05)
    with pytest.raises(SeeallError, match="pairs of pictures"):
        pairs(np.eye(3, dtype=np.float32), np.arange(3), 0.01)
