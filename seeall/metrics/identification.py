"""Who is this, among people that are known, or nobody of them? Scores of pictures against people, and the truth.

A picture of somebody enrolled is *known*, any other one *unknown*. A picture's rank is one more than how many other
people score at least as high as the right one, so that ties count against it; its answer at a threshold is the
person who scores highest, if that is at or above the threshold (NIST's open-set identification: Grother, Ngan and
Hanaoka 2019, NISTIR 8271; FPIR there).

    rank@r                of the known, the share whose rank is at most r; over all r the CMC
    tpir@fpir=F           of the known, the share answered rightly at the lowest threshold at which at most a share F of
                          the unknown is answered at all; found among all scores, without interpolation
    coverage@precision=P  of the known, the largest share that is answered, rightly or not, at any threshold at which at
                          least a share P of all answers, those to unknown ones included, is right

Intervals are of the bootstrap over people (Efron 1979): people, not pictures, are drawn with replacement, those known
and those unknown on their own, each with all of their pictures; the 2.5 and 97.5 percentiles of what is then measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seeall.data import keyed
from seeall.metrics.verification import rate_name
from seeall.types import SeeallError

_BUDGET = 1 << 22
"""Weights held at once."""
_KNOWN, _UNKNOWN = 0xFACE4, 0xFACE5
"""Streams of random numbers."""
_SLACK = 1e-9


class _Trials(NamedTuple):
    """m pictures. rank: (m,) int64, 0 of the unknown; level: (m,) the place of their highest score among u of them."""

    known: Tensor
    rank: Tensor
    level: Tensor
    levels: int


@torch.no_grad()
def identification(
    scores: Tensor,
    truth: Tensor,
    people: Tensor,
    *,
    ranks: Sequence[int] = (1, 5),
    fpirs: Sequence[float] = (1e-2, 1e-1),
    precision: float = 0.99,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Measures of open-set identification.

    scores: (m, P) of each picture with each enrolled person; truth: (m,) int64, the column of the right one, or -1
        where that is nobody; people: (m,) int64, who it is, unknown ones included: any number for each.
    fpirs: shares, each in (0, 1]; one is left out where there are fewer than 1/fpir unknown pictures.
    Returns: rank@…, tpir@fpir=…, coverage@precision=…, in [0, 1], each with its interval as …_low and …_high where
        there are two people of a kind at least; known and unknown, how many pictures.
    Raises: SeeallError for scores that are not finite, no known picture, or settings that make no sense.
    """
    for share in (*fpirs, precision):
        if not 0 < share <= 1:
            raise SeeallError(f"identification: a rate must be above 0 and at most 1, not {share}")
    trials = _trials(scores, truth)
    known, unknown = int(trials.known.sum()), int((~trials.known).sum())
    rates = [rate for rate in fpirs if math.floor(rate * unknown + _SLACK) >= 1]
    one = torch.ones(1, len(truth), dtype=torch.float64, device=scores.device)
    found = {name: float(value) for name, value in _measures(trials, one, ranks, rates, precision).items()}
    kinds = [people[trials.known].unique(), people[~trials.known].unique()]  # type: ignore[no-untyped-call]
    if len(kinds[0]) > 1 and len(kinds[1]) != 1 and resamples:
        drawn: dict[str, list[Tensor]] = {name: [] for name in found}
        step = max(1, _BUDGET // len(truth))
        for start in range(0, resamples, step):
            some = torch.arange(start, min(start + step, resamples))
            weights = _weights(trials, people, kinds, seed, some)
            for name, values in _measures(trials, weights, ranks, rates, precision).items():
                drawn[name].append(values)
        ends = torch.tensor([0.025, 0.975], dtype=torch.float64, device=scores.device)
        for name, parts in drawn.items():
            low, high = torch.cat(parts).quantile(ends).tolist()
            found |= {f"{name}_low": low, f"{name}_high": high}
    return found | {"known": known, "unknown": unknown}


@torch.no_grad()
def cmc(scores: Tensor, truth: Tensor) -> Tensor:
    """(P,) float64: of the known pictures, the share whose rank is at most 1, 2, … P. Arguments as above."""
    trials = _trials(scores, truth)
    return trials.rank[trials.known].bincount(minlength=scores.shape[1] + 1)[1:].cumsum(0) / trials.known.sum().double()


@torch.no_grad()
def decisions(scores: Tensor, truth: Tensor, threshold: float) -> dict[str, float]:
    """What is answered at one threshold. Arguments as above.

    Returns: of the known, in [0, 1], those named rightly, those misnamed, and those not answered, `missed`; of the
        unknown, `taken` for somebody, where there are any.
    """
    trials = _trials(scores, truth)
    answered = scores.amax(dim=1) >= threshold
    right = trials.rank == 1
    shares = {"named": answered & right, "misnamed": answered & ~right, "missed": ~answered}
    found = {name: float(some[trials.known].double().mean()) for name, some in shares.items()}
    if not bool(trials.known.all()):
        found["taken"] = float(answered[~trials.known].double().mean())
    return found


def _trials(scores: Tensor, truth: Tensor) -> _Trials:
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"want scores (m, P) and truth (m,), not {(*scores.shape,)} and {(*truth.shape,)}")
    if not bool(torch.isfinite(scores).all()):
        raise SeeallError("scores hold NaN or infinity: check the features they come from")
    known = truth >= 0
    if not bool(known.any()):
        raise SeeallError("there is no picture of anybody who is enrolled: check the names of the folders")
    own = scores.gather(1, truth.clamp(min=0)[:, None])
    rank = torch.where(known, (scores >= own).sum(dim=1), 0)
    levels, level = scores.amax(dim=1).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return _Trials(known, rank, level, len(levels))


def _measures(
    trials: _Trials, weights: Tensor, ranks: Sequence[int], fpirs: Sequence[float], precision: float
) -> dict[str, Tensor]:
    """Each measure (R,) for R weightings of the pictures, (R, m) float64."""
    known = (weights * trials.known).sum(dim=1)
    found = {f"rank@{r}": (weights * (trials.known & (trials.rank <= r))).sum(dim=1) / known for r in ranks}

    def accepted(which: Tensor) -> Tensor:
        """Weight at or above every score and, last, above them all: (R, u + 1)."""
        counts = weights.new_zeros(len(weights), trials.levels + 1)
        counts.scatter_add_(1, trials.level.expand_as(weights), weights * which)
        return counts.flip(1).cumsum(dim=1).flip(1)

    right, unknown, answered = accepted(trials.rank == 1), accepted(~trials.known), accepted(trials.known)
    for rate in fpirs:
        allowed = (rate * unknown[:, :1] + _SLACK).floor()
        at = (unknown > allowed).sum(dim=1, keepdim=True)
        found[f"tpir@fpir={rate_name(rate)}"] = right.gather(1, at)[:, 0] / known
    good = right >= precision * (unknown + answered) - _SLACK
    share = torch.where(good, answered, 0).amax(dim=1) / known
    return found | {f"coverage@precision={precision:g}": share}


def _weights(trials: _Trials, people: Tensor, kinds: Sequence[Tensor], seed: int, some: Tensor) -> Tensor:
    """(R, m): how often the person of each picture was drawn, in the resamples numbered by `some` (R,)."""
    weights = torch.zeros(len(some), len(people), dtype=torch.float64, device=people.device)
    for names, stream, which in zip(kinds, (_KNOWN, _UNKNOWN), (trials.known, ~trials.known)):
        if len(names):
            drawn = (keyed.uniform(seed, stream, some, n=len(names)).double() * len(names)).long().to(people.device)
            times = torch.zeros(len(some), len(names), dtype=torch.float64, device=people.device)
            times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
            weights[:, which] = times[:, torch.searchsorted(names, people[which])]
    return weights
