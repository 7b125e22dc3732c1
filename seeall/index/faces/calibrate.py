"""A threshold that takes a stranger for somebody at a stated rate, and how sure that is.

Of n pictures of people who are not enrolled, each has the score of the person it looks most like. The threshold stands
just above the r-th highest of these. Were the pictures independent, a further one would be accepted with a chance of
r / (n + 1), whatever the scores are spread like (the argument of conformal prediction: Vovk, Gammerman and Shafer
2005), and the rate of the threshold itself, over all strangers there are, would be Beta(r, n + 1 - r).

Pictures of one person are not. They tell as much as n' = n / (1 + (m - 1) ρ) independent ones, with m the pictures a
person and ρ the correlation of scores within a person, by analysis of variance on their ranks (Kish 1965, "Survey
Sampling", section 5.4). The r highest of n are then about the r' = r n' / n + (1 - n' / n) / 2 highest of n': the half
is for those of a person that end in the middle of a rank. r is the largest with r' / (n' + 1) ≤ F, that is the chance
which is told, and the 2.5 and 97.5 percentiles of Beta(r', n' + 1 - r') are the interval. In worlds of 5 to 100 people
whose rates are known the mean rate was at most F, but for 5 people who each look the same on all pictures, and the
interval held it in 92 to 99 % (`tests/index/test_faces_calibrate.py` has two of them).

The threshold for whether two pictures show the same person is found in the same way among all pairs of pictures of two
of these people. Pairs share people, so the interval is a bootstrap's over people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from seeall.data import keyed
from seeall.index.faces.score import LEVELS, Doubles
from seeall.index.segments import Floats, Ids
from seeall.types import SeeallError

RESAMPLES = 1000
_PAIRS = 0xFACE6
"""Stream of random numbers."""
_ROWS = 1024


class Threshold(NamedTuple):
    """threshold: what is accepted is at or above it; expected: the chance of a further one; low, high: 95 %."""

    threshold: float
    expected: float
    low: float
    high: float
    independent: float
    """How many pictures that have nothing to do with each other tell as much."""


def strangers(scores: Doubles, people: Ids, far: float) -> Threshold:
    """scores: (n,) each picture's highest, in steps of 2⁻²⁰; people: (n,) who it is; far: in (0, 1).

    Raises: SeeallError where there are too few to tell such a rate, or fewer than two people.
    """
    n, count = len(scores), len(np.unique(people))
    _check(far)
    if count < 2:
        raise SeeallError("a threshold needs pictures of two people at least who are not enrolled; 20 are better")
    independent = n / _design(scores, people)
    share = independent / n
    between = (1 - share) / 2
    rank = math.floor((far * (independent + 1) - between) / share + 1e-9)
    if rank < 1:
        least = math.ceil(1 / far - 1 - 1e-9)
        raise SeeallError(
            f"--far {far:g}: {n} pictures of {count} people who are not enrolled, which tell as much as"
            f" {independent:.0f} of people of their own, cannot tell so small a rate: give more than {least} of"
            f" people of their own, or --far {_up((share + between) / (independent + 1))} or more"
        )
    scaled = rank * share + between
    low, high = beta_quantiles(scaled, independent + 1 - scaled, (0.025, 0.975))
    return Threshold(_above(np.sort(scores)[-rank]), scaled / (independent + 1), low, high, independent)


def pairs(vectors: Floats, people: Ids, far: float, *, seed: int = 0) -> Threshold:
    """vectors: (n, D) of length one. The threshold for a pair of pictures of two people. Raises as `strangers`."""
    _, who = np.unique(people, return_inverse=True)
    size, n = int(who.max()) + 1, len(vectors)
    counts = np.bincount(who)
    total = (n * n - int(np.square(counts).sum())) // 2
    _check(far)
    rank = math.floor(far * (total + 1) + 1e-9)
    if rank < 1:
        raise SeeallError(
            f"--far {far:g}: {total} pairs of pictures of two people cannot tell so small a rate: give more pictures,"
            f" or --far {_up(1 / (total + 1))} or more"
        )
    above: Doubles = np.empty(0)
    for scores, _, _ in _pairs(vectors, who):  # the rank highest of all
        above = np.concatenate([above, scores])
        above = np.partition(above, len(above) - rank)[-rank:] if len(above) > rank else above
    threshold = _above(above.min())
    accepted = np.zeros((size, size))
    for scores, first, second in _pairs(vectors, who):
        kept = scores >= threshold
        np.add.at(accepted, (first[kept], second[kept]), 1)
    drawn = (keyed.uniform(seed, _PAIRS, torch.arange(RESAMPLES), n=size).double().numpy() * size).astype(np.int64)
    times = np.apply_along_axis(np.bincount, 1, drawn, minlength=size).astype(np.float64)
    each = np.outer(counts, counts) * (1 - np.eye(size))
    there = np.einsum("ra,ab,rb->r", times, each, times, optimize=True) / 2
    rates = np.einsum("ra,ab,rb->r", times, accepted, times, optimize=True) / np.where(there > 0, there, math.inf)
    low, high = np.quantile(rates[there > 0], (0.025, 0.975)).tolist()
    return Threshold(threshold, rank / (total + 1), low, high, float(total))


def beta_quantiles(a: float, b: float, shares: tuple[float, ...]) -> list[float]:
    """Quantiles of Beta(a, b), a and b above 0: its density over the logit, summed up."""
    centre = math.log(a / b)
    width = min(600.0, 40 * math.sqrt(1 / a + 1 / a**2 + 1 / b + 1 / b**2))
    z = np.linspace(centre - width, centre + width, 20_001)
    log = -a * np.logaddexp(0, -z) - b * np.logaddexp(0, z)
    density = np.exp(log - log.max())
    total = np.cumsum((density[1:] + density[:-1]) / 2)
    found = np.interp(shares, np.concatenate([[0], total / total[-1]]), z)
    return [float(p) for p in 1 / (1 + np.exp(-found))]


def _check(far: float) -> None:
    if not 0 < far < 1:
        raise SeeallError(f"--far {far}: a rate is between 0 and 1, such as 0.01")


def _up(rate: float) -> str:
    """With two digits, and no less.

    >>> _up(0.0321), _up(0.5), _up(0.02)
    ('0.033', '0.5', '0.02')
    """
    digits = 1 - math.floor(math.log10(rate))
    return f"{math.ceil(round(rate * 10**digits, 6)) / 10**digits:g}"


def _above(score: float) -> float:
    """Between a score and the next one possible."""
    return float(score) + 0.5 / LEVELS


def _design(scores: Doubles, people: Ids) -> float:
    """By how much fewer the pictures are than they seem."""
    _, who = np.unique(people, return_inverse=True)
    sizes = np.bincount(who).astype(np.float64)
    n, k = len(scores), len(sizes)
    if n == k:
        return 1.0
    values, place = np.unique(scores, return_inverse=True)
    ends = np.cumsum(np.bincount(place, minlength=len(values)))
    ranks = (ends - (np.bincount(place) - 1) / 2)[place]  # of equal ones the mean
    means = np.bincount(who, ranks) / sizes
    between = float((sizes * np.square(means - ranks.mean())).sum()) / (k - 1)
    within = float(np.square(ranks - means[who]).sum()) / (n - k)
    usual = (n - float(np.square(sizes).sum()) / n) / (k - 1)
    total = between + (usual - 1) * within
    share = min(1.0, max(0.0, (between - within) / total)) if total > 0 else 1.0
    return 1 + (float(np.square(sizes).sum()) / n - 1) * share


def _pairs(vectors: Floats, who: Ids) -> Iterator[tuple[Doubles, Ids, Ids]]:
    """All pairs of two people, some at a time: scores (p,) and who both are, (p,) each."""
    for start in range(0, len(vectors), _ROWS):
        part = vectors[start : start + _ROWS].astype(np.float64)
        products = np.round(part @ vectors[start:].T.astype(np.float64) * LEVELS) / LEVELS
        first, second = np.broadcast_arrays(who[start : start + _ROWS, None], who[None, start:])
        taken = (first != second) & np.triu(np.ones_like(products, dtype=bool), 1)
        yield products[taken], first[taken], second[taken]
