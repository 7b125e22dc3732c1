"""Are these two pictures of the same person? Every pair of pictures, judged by cosine and a threshold.

A pair is accepted where its score is at or above the threshold. Of the pairs of two identities, FAR is the share
accepted; of the pairs of one identity, TAR is the share accepted and FRR = 1 - TAR the share refused.

    tar@far=F     TAR at the lowest threshold whose FAR is at most F, found among all scores, without interpolation
    eer           where FAR = FRR, on the straight line between the two thresholds next to it
    auc           the chance that a pair of one identity scores above one of two, equal scores counting half
    accuracy      ten folds (Huang, Ramesh, Berg and Learned-Miller 2007, "Labeled Faces in the Wild"):
                  no identity in two folds, as many pairs of one identity as of two in each, the threshold that is
                  best on nine folds tested on the tenth. Departure: the folds are drawn here, not a published list.

Scores are rounded to multiples of 2⁻²⁰, about what float32 resolves, so that pairs of equal pictures are ties
whatever the order of summing. Pairs that tie are accepted together, so an embedding that has collapsed gets a
TAR of 0, an EER of a half and an accuracy of a half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seeall.data import keyed
from seeall.metrics.knn import normalised
from seeall.types import SeeallError

_BUDGET = 1 << 22
"""Scores held at once while pairs are counted."""
_LEVELS = 1 << 20
"""Steps of a score from 0 to 1."""
_MOST_OF_A_FOLD = 10_000
"""Pairs of a kind in a fold; LFW has 300."""
_PICTURES, _IDENTITIES, _PAIRS = 0xFACE1, 0xFACE2, 0xFACE3
"""Streams of random numbers, so that no two uses share a key."""


class _Tally(NamedTuple):
    """How many pairs of each kind have each score."""

    scores: Tensor  # (u,) ascending
    same: Tensor  # (u,) int64
    different: Tensor  # (u,) int64

    def accepted(self) -> tuple[Tensor, Tensor]:
        """Pairs of each kind at or above every score and, last, above them all: (u + 1,) and (u + 1,) int64."""
        same, different = (torch.cat([n.flip(0).cumsum(0).flip(0), n.new_zeros(1)]) for n in self[1:])
        return same, different


@torch.no_grad()
def verification(
    features: Tensor,
    labels: Tensor,
    *,
    fars: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4),
    folds: int = 10,
    seed: int = 0,
    most_pairs: int = 20_000_000,
) -> dict[str, float]:
    """Verification measures over all pairs of pictures.

    features: (n, D), of any length, normalised here; labels: (n,) int64, the identity of each picture.
    fars: false accept rates, each in (0, 1]; one is left out where there are fewer than 1/far pairs of two
        identities, which cannot tell it from 0.
    folds: of the accuracy; fewer where there are fewer identities with two pictures, or fewer than two identities
        a fold, and no accuracy where that leaves one fold.
    seed: the key of what is drawn: the folds, their pairs and the pictures.
    most_pairs: where there are more pairs than this, as many pictures as keep below it are drawn, each equally
        likely, and all else is left out: 20 million pairs are those of 6,325 pictures.
    Returns: tar@far=… for every far, eer, auc, accuracy and accuracy_std, the deviation of a fold (with folds - 1,
        as in LFW), all in [0, 1]; pairs_same and pairs_different, how many were compared.
    Raises: SeeallError for features that are none or not finite, fewer than two identities, no identity with two
        pictures, or settings that make no sense.
    """
    _check_settings(fars, folds, most_pairs)
    x, number = _pictures(features, labels, seed, most_pairs)
    tally = _count(x, number)
    accepted_same, accepted_different = tally.accepted()
    pairs_same, pairs_different = int(accepted_same[0]), int(accepted_different[0])
    tar, far = accepted_same.double() / pairs_same, accepted_different.double() / pairs_different
    measures = {}
    for rate in fars:
        allowed = math.floor(rate * pairs_different + 1e-9)
        if allowed >= 1:
            measures[f"tar@far={rate_name(rate)}"] = float(tar[int((accepted_different > allowed).sum())])
    measures |= {"eer": _equal_error(far, tar), "auc": _area(tally, accepted_same)}
    measures |= _accuracy(x, number, folds, seed)
    return measures | {"pairs_same": pairs_same, "pairs_different": pairs_different}


@torch.no_grad()
def pair_scores(
    features: Tensor, labels: Tensor, *, seed: int = 0, most_pairs: int = 20_000_000
) -> tuple[Tensor, Tensor]:
    """The scores that `verification` counts: of the pairs of one identity (p,), of two (q,), float32.

    Arguments and errors as there.
    """
    same, different = zip(*_blocks(*_pictures(features, labels, seed, most_pairs)))
    return torch.cat(same), torch.cat(different)


@torch.no_grad()
def roc(same: Tensor, different: Tensor, *, points: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The curve of TAR over FAR, from (0, 0), where nothing is accepted, to (1, 1).

    same: (p,), different: (q,): scores of pairs of one identity and of two, such as `pair_scores` gives.
    points: about how many to keep for a drawing, half of them even in FAR, half even in its logarithm. Without it
        every corner of the curve is kept: straight lines between them are the whole curve, ties included.
    Returns: far, tar and thresholds, each (c,) float64, FAR and TAR rising and thresholds falling from infinity.
    Raises: SeeallError if there are no scores of one kind, or one is not finite.
    """
    if not (len(same) and len(different)):
        raise SeeallError("a ROC needs scores of pairs of one identity and of two: check the labels of the data")
    if not bool(torch.isfinite(same).all() and torch.isfinite(different).all()):
        raise SeeallError("scores hold NaN or infinity: check the features they come from")
    tally = _tally(same, different)
    accepted = torch.stack(tally.accepted()).flip(1)
    step = accepted.diff(dim=1) > 0
    corner = torch.ones_like(accepted[0], dtype=torch.bool)
    corner[1:-1] = (step[:, 1:] != step[:, :-1]).any(dim=0) | step[:, 1:].all(dim=0)
    tar, far = accepted[0][corner].double() / len(same), accepted[1][corner].double() / len(different)
    thresholds = torch.cat([tally.scores.double().new_tensor([math.inf]), tally.scores.flip(0).double()])[corner]
    if points is None or points >= len(far):
        return far, tar, thresholds
    low = math.log10(1 / len(different))
    wanted = torch.cat([torch.linspace(0, 1, points // 2), torch.logspace(low, 0, points - points // 2)])
    kept = torch.searchsorted(far, wanted.to(far)).clamp(max=len(far) - 1)
    ends = kept.new_tensor([0, len(far) - 1])
    kept = torch.cat([kept, ends]).unique()  # type: ignore[no-untyped-call]
    return far[kept], tar[kept], thresholds[kept]


def _check_settings(fars: Sequence[float], folds: int, most_pairs: int) -> None:
    for rate in fars:
        if not 0 < rate <= 1:
            raise SeeallError(f"verification: a false accept rate must be above 0 and at most 1, not {rate}")
    if folds < 2:
        raise SeeallError(f"verification: folds must be at least 2, not {folds}; 10 is usual")
    if most_pairs < 1:
        raise SeeallError(f"verification: most_pairs must be at least 1, not {most_pairs}")


def _pictures(features: Tensor, labels: Tensor, seed: int, most_pairs: int) -> tuple[Tensor, Tensor]:
    """What is compared: (m, D) of length 1, and identities numbered from 0, (m,)."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(f"want features (n, D) and labels (n,), not {(*features.shape,)} and {(*labels.shape,)}")
    x, labels = normalised(features), labels.to(features.device)
    _require_pairs(labels, "check the labels of the data")
    if math.comb(len(x), 2) > most_pairs:
        m = (1 + math.isqrt(1 + 8 * most_pairs)) // 2
        drawn = keyed.permutation(len(x), seed, _PICTURES)[:m].sort().values.to(x.device)
        x, labels = x[drawn], labels[drawn]
        _require_pairs(labels, f"{m:,} pictures were drawn; raise most_pairs")
    _, number = labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return x, number


def _require_pairs(labels: Tensor, remedy: str) -> None:
    _, sizes = labels.unique(return_counts=True)  # type: ignore[no-untyped-call]
    if len(sizes) < 2:
        raise SeeallError(f"verification needs pictures of at least two identities: {remedy}")
    if int(sizes.max()) < 2:
        raise SeeallError(f"verification needs an identity with at least two pictures: {remedy}")


def _blocks(x: Tensor, number: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The scores of all pairs, each pair once: of one identity and of two, block by block."""
    rows = max(1, _BUDGET // len(x))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        scores = (x[part] @ x[start:].T).clamp(-1, 1).mul(_LEVELS).round().div(_LEVELS)
        same = number[part, None] == number[start:]
        above = torch.ones_like(same).triu(1)
        yield scores[same & above], scores[~same & above]


def _count(x: Tensor, number: Tensor) -> _Tally:
    """All pairs in one pass, in memory that does not grow with their number."""
    counts = torch.zeros(2, 2 * _LEVELS + 1, dtype=torch.int64, device=x.device)
    for block in _blocks(x, number):
        for kind, scores in enumerate(block):
            counts[kind] += (scores * _LEVELS).long().add_(_LEVELS).bincount(minlength=counts.shape[1])
    taken = counts.any(dim=0).nonzero()[:, 0]
    return _Tally((taken - _LEVELS).double() / _LEVELS, counts[0, taken], counts[1, taken])


def _tally(same: Tensor, different: Tensor) -> _Tally:
    scores, index = torch.cat([same, different]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    first, second = index.split([len(same), len(different)])
    return _Tally(scores, first.bincount(minlength=len(scores)), second.bincount(minlength=len(scores)))


def rate_name(rate: float) -> str:
    """How a rate is written in the name of a measure: 0.001 as 1e-3."""
    digits, exponent = f"{rate:.6e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _equal_error(far: Tensor, tar: Tensor) -> float:
    """far, tar: (u + 1,), falling from 1 to 0."""
    gap = far - (1 - tar)  # falls from 1 to -1
    after = int((gap > 0).sum())
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(far[after - 1] + share * (far[after] - far[after - 1]))


def _area(tally: _Tally, accepted_same: Tensor) -> float:
    above = accepted_same[1:].double() + tally.same.double() / 2
    return float((tally.different * above).sum() / (tally.different.sum() * accepted_same[0].double()))


def _accuracy(x: Tensor, number: Tensor, folds: int, seed: int) -> dict[str, float]:
    fold, count = _deal(number, folds, seed)
    if count < 2:
        return {}
    pairs = [_fold_pairs(x[fold == f], number[fold == f], seed, f) for f in range(count)]
    shares = []
    for f, (same, different) in enumerate(pairs):
        others = pairs[:f] + pairs[f + 1 :]
        threshold = _best_threshold(*(torch.cat(kind) for kind in zip(*others)))
        right = int((same >= threshold).sum()) + int((different < threshold).sum())
        shares.append(right / (len(same) + len(different)))
    accuracy = torch.tensor(shares, dtype=torch.float64)
    return {"accuracy": float(accuracy.mean()), "accuracy_std": float(accuracy.std())}


def _deal(number: Tensor, folds: int, seed: int) -> tuple[Tensor, int]:
    """The fold of every picture, (m,), and how many there are.

    Identities are dealt in an order drawn by key, those with two pictures first, so every fold has one of these.
    """
    sizes = number.bincount().cpu()
    order = keyed.permutation(len(sizes), seed, _IDENTITIES)
    order = order[(sizes[order] < 2).long().argsort(stable=True)]
    count = min(folds, int((sizes > 1).sum()), len(sizes) // 2)
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % count if count else 0
    return fold.to(number.device)[number], count


def _fold_pairs(x: Tensor, number: Tensor, seed: int, fold: int) -> tuple[Tensor, Tensor]:
    """As many scores of one identity as of two: all of the rarer kind, others drawn by key."""
    kinds = [torch.cat(kind) for kind in zip(*_blocks(x, number))]
    p = min(len(kinds[0]), len(kinds[1]), _MOST_OF_A_FOLD)
    orders = [keyed.permutation(len(kind), seed, _PAIRS, fold, i)[:p] for i, kind in enumerate(kinds)]
    same, different = (kind[order.to(x.device)] for kind, order in zip(kinds, orders))
    return same, different


def _best_threshold(same: Tensor, different: Tensor) -> float:
    """Halfway between the two scores that it parts best, the lowest of equals; infinite at either end."""
    tally = _tally(same, different)
    accepted_same, accepted_different = tally.accepted()
    best = int((accepted_same - accepted_different).argmax())
    bounds = [-math.inf, *tally.scores.tolist(), math.inf]  # scores[best] is the lowest accepted
    return float(bounds[best] + bounds[best + 1]) / 2
