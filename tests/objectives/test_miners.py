"""Miners against brute force, the papers' formulas and pytorch-metric-learning; draws against their odds."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from seeall.ssl.contrastive import Contrastive
from seeall.ssl.margin import Margin
from seeall.ssl.negatives import mining
from seeall.ssl.negatives.all import All
from seeall.ssl.negatives.distance import DistanceWeighted
from seeall.ssl.negatives.hard import Hard
from seeall.ssl.negatives.queue import Queue
from seeall.ssl.negatives.random import Random, draw
from seeall.ssl.negatives.semihard import SemiHard
from seeall.ssl.triplet import Triplet
from seeall.types import SeeallError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_metric_learning import distances, miners
    from pytorch_metric_learning.utils import loss_and_miner_utils

MINERS: dict[str, Any] = {"random": Random, "hard": Hard, "semihard": SemiHard, "distance": DistanceWeighted}
PATTERNS = {
    "two views": [0, 1, 2, 3, 0, 1, 2, 3],
    "unequal groups": [5, 5, 5, 9, 9, -7, 5, 2],
    "one group": [3] * 7,
    "everyone alone": [0, 1, 2, 3],
    "two together": [1, 1],
    "two apart": [1, 2],
    "one row": [4],
    "nothing": [],
}
SOMETHING = [pattern for pattern in PATTERNS if pattern != "nothing"]
KINDS = ("random", "all alike", "opposites", "zero rows")


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rows(kind: str, n: int, dim: int) -> Tensor:
    z = randn(n, dim, seed=n)
    if kind == "all alike":
        z = z[:1].repeat(n, 1)
    if kind == "opposites":
        one = z[:1].clone()
        z[::2] = one
        z[1::2] = -one * (1 + 1e-7 * z[1::2])
    if kind == "zero rows":
        z[::3] = 0
    return z


def candidates(z: Tensor, groups: list[int] | Tensor) -> mining.Candidates:
    """What a miner is shown."""
    seen: list[mining.Candidates] = []

    def miner(found: mining.Candidates) -> mining.Triplets:
        seen.append(found)
        return (torch.zeros(0, dtype=torch.int64),) * 3

    mining.triplets(z, torch.as_tensor(groups, dtype=torch.int64), miner)
    return seen[0]


def listed(chosen: Any) -> list[tuple[int, int, int]]:
    return list(zip(*(x.tolist() for x in chosen)))


def every(groups: list[int]) -> list[tuple[int, int, int]]:
    """All triplets, by brute force."""
    n = range(len(groups))
    return [(a, p, q) for a in n for p in n for q in n if a != p and groups[a] == groups[p] and groups[a] != groups[q]]


def pick(miner: Any, z: Tensor, groups: list[int], seed: int = 0) -> list[tuple[int, int, int]]:
    torch.manual_seed(seed)
    return listed(miner(candidates(z, groups)))


def apart(z: Tensor, i: int, j: int) -> float:
    return math.dist(normalize(z, dim=1)[i].tolist(), normalize(z, dim=1)[j].tolist())


@pytest.mark.parametrize("pattern", SOMETHING)
def test_what_a_miner_is_shown(pattern: str) -> None:
    groups = PATTERNS[pattern]
    z = randn(len(groups), 5).requires_grad_()
    found = candidates(z, groups)
    assert not found.distance.requires_grad
    assert found.dim == 5
    for i, own in enumerate(groups):
        for j, other in enumerate(groups):
            assert bool(found.positive[i, j]) == (own == other and i != j)
            assert bool(found.negative[i, j]) == (own != other)
            assert float(found.distance[i, j]) == pytest.approx(apart(z.detach(), i, j), abs=1e-12)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(groups=st.lists(st.integers(-2, 3), max_size=9), seed=st.integers(0, 2**31))
def test_all_triplets_and_pairs_are_found(groups: list[int], seed: int) -> None:
    z, labels = randn(len(groups), 3, seed=seed), torch.tensor(groups, dtype=torch.int64)
    positive, negative = mining.triplets(z, labels, All())
    want = every(groups)
    assert len(positive) == len(negative) == len(want)
    got = sorted(zip(positive.tolist(), negative.tolist()))
    assert_close(torch.tensor(got), torch.tensor(sorted((apart(z, a, p), apart(z, a, n)) for a, p, n in want)))
    positive, negative = mining.pairs(z, labels, All())
    n = range(len(groups))
    near = [apart(z, i, j) for i in n for j in n if i != j and groups[i] == groups[j]]
    far = [apart(z, i, j) for i in n for j in n if groups[i] != groups[j]]
    assert_close(positive.sort().values, torch.tensor(sorted(near), dtype=torch.float64))
    assert_close(negative.sort().values, torch.tensor(sorted(far), dtype=torch.float64))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    groups=st.lists(st.integers(-2, 3), min_size=1, max_size=9),
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([2, 3, 40]),
    margin=st.floats(0.01, 4.0),
    kind=st.sampled_from(KINDS),
)
def test_what_every_miner_promises(groups: list[int], seed: int, dim: int, margin: float, kind: str) -> None:
    z = rows(kind, len(groups), dim) if kind != "random" else randn(len(groups), dim, seed=seed)
    found, want = candidates(z, groups), set(every(groups))
    pairs = sorted({(a, p) for a, p, _ in want})
    d = found.distance.tolist()
    for miner in (Random(), DistanceWeighted()):
        chosen = listed(miner(found))
        assert set(chosen) <= want
        assert sorted((a, p) for a, p, _ in chosen) == pairs  # each pair once
        torch.manual_seed(seed)
        again = listed(miner(found))
        torch.manual_seed(seed)
        assert again == listed(miner(found))
    near = {a for a, _, n in want if d[a][n] < 1.4}
    assert all(d[a][n] < 1.4 for a, _, n in listed(DistanceWeighted()(found)) if a in near)

    chosen = listed(Hard()(found))
    assert set(chosen) <= want
    assert [a for a, _, _ in chosen] == sorted({a for a, _, _ in want})  # each anchor once
    for a, p, n in chosen:
        assert d[a][p] == max(d[a][j] for i, j, _ in want if i == a)
        assert d[a][n] == min(d[a][j] for i, _, j in want if i == a)

    chosen = listed(SemiHard(margin=margin)(found))
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == {(a, p, n) for a, p, n in want if 0 < d[a][n] ** 2 - d[a][p] ** 2 <= margin}


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", SOMETHING)
def test_semihard_equals_pytorch_metric_learning(pattern: str, kind: str, margin: float) -> None:
    groups = PATTERNS[pattern]
    z = rows(kind, len(groups), 4)
    theirs = miners.TripletMarginMiner(margin, "semihard", distance=distances.LpDistance(power=2))
    assert set(pick(SemiHard(margin=margin), z, groups)) == set(listed(theirs(z, torch.tensor(groups))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", SOMETHING)
def test_hard_equals_pytorch_metric_learning(pattern: str, kind: str) -> None:
    """The same triplets; where rows are equally far, the same distances."""
    groups = PATTERNS[pattern]
    z = rows(kind, len(groups), 4)
    theirs = listed(miners.BatchHardMiner(distance=distances.LpDistance())(z, torch.tensor(groups)))
    ours = pick(Hard(), z, groups)
    if kind == "random":
        assert ours == theirs
    assert [a for a, _, _ in ours] == [a for a, _, _ in theirs]
    far = [[(apart(z, a, p), apart(z, a, n)) for a, p, n in chosen] for chosen in (ours, theirs)]
    assert_close(torch.tensor(far[0]), torch.tensor(far[1]))


def test_larger_batches_equal_pytorch_metric_learning() -> None:
    z, labels = randn(90, 16, seed=4), torch.arange(90).sqrt().long()
    z += 2 * randn(10, 16, seed=5)[labels]
    for ours, theirs in (
        (SemiHard(), miners.TripletMarginMiner(0.2, "semihard", distance=distances.LpDistance(power=2))),
        (Hard(), miners.BatchHardMiner(distance=distances.LpDistance())),
    ):
        want = listed(theirs(z, labels))
        assert len(want) > 50
        assert set(pick(ours, z, labels.tolist())) == set(want)


@pytest.mark.parametrize("name", ["hard", "semihard"])
def test_order_of_rows_changes_nothing(name: str) -> None:
    z, groups, order = randn(20, 6), torch.arange(20) % 6, torch.argsort(randn(20))
    moved = pick(MINERS[name](), z[order], groups[order].tolist())
    assert {tuple(order[list(t)].tolist()) for t in moved} == set(pick(MINERS[name](), z, groups.tolist()))


def by_hand(distance: list[float], dim: int, draws: int) -> mining.Candidates:
    """One anchor with `draws` positives, and negatives that far; positives lie between them."""
    d = torch.tensor([1.0, *distance[:2], *[0.3] * draws, *distance[2:]])[None]
    positive = torch.zeros_like(d, dtype=torch.bool)
    positive[:, 3 : 3 + draws] = True
    negative = ~positive
    negative[0, 0] = False  # the anchor itself
    return mining.Candidates(d, positive, negative, dim)


def frequencies(miner: Any, found: mining.Candidates) -> tuple[Tensor, Tensor]:
    """How often each row was drawn, in the order of the draws and in all."""
    torch.manual_seed(11)
    a, p, n = miner(found)
    assert torch.equal(p, found.positive[0].nonzero().flatten())
    assert not a.any()
    return n, torch.bincount(n, minlength=found.distance.shape[1])


def test_random_is_even() -> None:
    found = by_hand([0.1, 0.5, 1.0, 1.4, 2.0, 2.0], 8, 30_000)
    n, often = frequencies(Random(), found)
    assert often[~found.negative[0]].sum() == 0
    assert chisquare(often[found.negative[0]].numpy()).pvalue > 0.001
    after = torch.stack([n[:-1][::2], n[1:][::2]])  # one positive's draw says nothing about the next one's
    names = {int(j): k for k, j in enumerate(found.negative[0].nonzero())}
    pairs = torch.bincount(torch.tensor([names[x] * 6 + names[y] for x, y in after.T.tolist()]), minlength=36)
    assert chisquare(pairs.numpy()).pvalue > 0.001


def odds_by_the_paper(distance: list[float], dim: int, cutoff: float) -> list[float]:
    """Wu et al. 2017, section 4: min(1/q(cutoff), 1/q(d)), the largest being 1; one number at a time."""

    def log_inverse(d: float) -> float:
        return -((dim - 2) * math.log(d) + (dim - 3) / 2 * math.log(1 - d * d / 4)) if d > 0 else math.inf

    logs = [min(log_inverse(cutoff), log_inverse(d)) for d in distance]
    return [math.exp(x - max(logs)) for x in logs]


def test_distance_follows_the_paper() -> None:
    distance = [0.0, 0.2, 0.5, 0.9, 1.1, 1.2, 1.3, 1.39]
    for dim in (2, 3, 4, 8, 128, 2048):
        weights = DistanceWeighted().weights(by_hand(distance, dim, 1))[0]
        want = odds_by_the_paper(distance, dim, 0.5)
        got = [float(w) for k, w in enumerate(weights) if k not in (0, 3)]
        assert got == pytest.approx(want, rel=1e-3 if dim > 100 else 1e-5, abs=1e-30)  # distances are float32 here
    found = by_hand([*distance, 1.4, 1.41, 2.0], 4, 30_000)
    _, often = frequencies(DistanceWeighted(), found)
    drawn, weights = often[found.negative[0]].double(), torch.tensor(odds_by_the_paper(distance, 4, 0.5)).double()
    assert drawn[len(distance) :].sum() == 0
    assert often[~found.negative[0]].sum() == 0
    expected = weights / weights.sum() * 30_000
    assert chisquare(drawn[: len(distance)].numpy(), expected.numpy()).pvalue > 0.001


@pytest.mark.parametrize("dim", [2, 3, 4, 8, 128, 2048])
def test_distance_is_capped_at_both_ends(dim: int) -> None:
    """The paper's min(λ, 1/q) up to opposite points, where 1/q grows without bounds again."""
    distance = [0.0, 0.3, 0.5, 0.8, 1.2, 1.41, 1.7, 1.95, 1.99]
    weights = DistanceWeighted(farthest=2.0).weights(by_hand([*distance, 2.0], dim, 1))[0]
    got = [float(w) for k, w in enumerate(weights) if k not in (0, 3)]
    want = odds_by_the_paper(distance, dim, 0.5)
    assert got[:-1] == pytest.approx(want, rel=1e-3 if dim > 100 else 1e-5, abs=1e-30)
    assert got[-1] == 0  # not below `farthest`


@pytest.mark.parametrize("dim", [2, 3, 8, 128])
def test_distance_equals_pytorch_metric_learning(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their table of odds, caught on its way to their draw; where theirs has a row of nothing, see the next test."""
    caught: list[Tensor] = []
    draws = loss_and_miner_utils.get_random_triplet_indices

    def catch(*args: Any, weights: Tensor, **kwargs: Any) -> Any:
        caught.append(weights)
        return draws(*args, weights=weights.nan_to_num(), **kwargs)

    monkeypatch.setattr(loss_and_miner_utils, "get_random_triplet_indices", catch)
    z, labels = randn(40, dim, seed=6), torch.arange(40) % 9
    z += 1.5 * randn(1, dim, seed=7)  # on one side of the sphere, so that distances vary
    z[5] = z[4]
    for cutoff, farthest in ((0.5, 1.4), (0.2, 1.1)):
        theirs = miners.DistanceWeightedMiner(cutoff, farthest)
        theirs(z, labels)
        ours = DistanceWeighted(cutoff=cutoff, farthest=farthest).weights(candidates(z, labels))
        some = torch.isfinite(caught[-1]).all(1)
        assert some.sum() > 30
        assert_close((ours / ours.sum(1, keepdim=True))[some], caught[-1][some], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 128, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("farthest", [1.4, 2.0])
def test_distance_is_sound_everywhere(dim: int, dtype: torch.dtype, farthest: float) -> None:
    """Twins, opposites and nearly so: no NaN, and odds wherever there is a negative."""
    z = randn(12, dim, dtype=dtype)
    z[1], z[2], z[3] = z[0], -z[0], -z[0]
    z[3, 0] += 1e-3
    z[4] = 0
    for labels in (torch.arange(12), torch.arange(12) // 6, torch.zeros(12)):
        found = candidates(z, labels.long())
        weights = DistanceWeighted(farthest=farthest).weights(found)
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()
        assert not weights[~found.negative].any()
        assert torch.equal(weights.amax(1), found.negative.any(1).to(dtype))


def test_distance_draws_evenly_where_all_are_far() -> None:
    """Where pytorch-metric-learning divides 0 by 0 and leaves the anchor out."""
    found = by_hand([1.5, 1.6, 1.99, 2.0], 128, 8_000)
    assert DistanceWeighted().weights(found)[found.negative].tolist() == [1.0] * 4
    _, often = frequencies(DistanceWeighted(), found)
    assert chisquare(often[found.negative[0]].numpy()).pvalue > 0.001


def test_draws_follow_their_odds_row_by_row() -> None:
    """Anchors without odds, or without positives, shift nobody else's draws."""
    groups = torch.tensor([0, 1, 0, 2, 1, 0, 2])
    found = candidates(randn(7, 3), groups)
    weights = torch.zeros(7, 7)
    for a, n in {0: 4, 1: 3, 3: 2, 4: 5, 5: 6}.items():  # none for 2 and 6
        weights[a, n] = 0.5
    want = [(0, 2, 4), (0, 5, 4), (1, 4, 3), (3, 6, 2), (4, 1, 5), (5, 0, 6), (5, 2, 6)]
    assert sorted(listed(draw(found, weights))) == want
    assert listed(draw(found, torch.zeros(7, 7))) == []


@pytest.mark.parametrize("make", [Triplet, Contrastive, Margin])
@pytest.mark.parametrize("name", [*MINERS, "all", "queue"])
def test_every_miner_serves_every_loss_whatever_comes(name: str, make: Any) -> None:
    for pattern, kind in [(p, k) for p in PATTERNS for k in KINDS]:
        groups = PATTERNS[pattern]
        z = rows(kind, len(groups), 6).float().requires_grad_()
        objective = make({**MINERS, "all": All, "queue": Queue}[name]())
        for _ in range(2):  # a queue remembers the second time
            out = objective(z, torch.tensor(groups, dtype=torch.int64))
            out["loss"].backward()
        assert all(torch.isfinite(v) for v in out.values()), (pattern, kind)
        assert z.grad is not None
        assert torch.isfinite(z.grad).all(), (pattern, kind)


def test_more_triplets_than_fit_are_refused() -> None:
    with pytest.raises(SeeallError) as error:
        Triplet()(randn(600, 2), torch.arange(600) % 4)
    assert "a batch holds 40,230,000 triplets, more than the 33,554,432 that fit" in str(error.value)
    assert "--negatives semihard, hard, distance or random" in str(error.value)
    assert "\n" not in str(error.value)


class Largest(TorchDispatchMode):
    """Remembers how many entries the largest tensor has that any operation returns."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                self.entries = max(self.entries, t.numel())
        return out


@pytest.mark.parametrize("name", ["all", "semihard"])
def test_one_large_group_takes_little_memory(name: str) -> None:
    """300 rows that belong together make 89,700 pairs and, with two strangers, twice as many triplets."""
    groups = [0] * 150 + [1, 2] + [0] * 150
    with Largest() as seen:
        positive, _ = mining.triplets(randn(302, 8), torch.tensor(groups), {**MINERS, "all": All}[name]())
    assert len(positive) == 2 * 300 * 299 if name == "all" else len(positive) > 1000
    assert seen.entries < 1 << 23


@pytest.mark.parametrize(
    ("make", "setting", "message"),
    [
        (SemiHard, {"margin": 0.0}, "semihard: margin is 0.0: choose above 0, up to 4"),
        (SemiHard, {"margin": 5.0}, "semihard: margin is 5.0"),
        (DistanceWeighted, {"cutoff": 0.0}, "distance: cutoff is 0.0, farthest 1.4: choose 0 < cutoff < farthest <= 2"),
        (DistanceWeighted, {"farthest": 0.4}, "distance: cutoff is 0.5, farthest 0.4"),
        (DistanceWeighted, {"farthest": 2.1}, "distance: cutoff is 0.5, farthest 2.1"),
        (Queue, {"size": 0}, "setting 'size' of the queue is 0: choose at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(SeeallError) as error:
        make(**setting)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
