"""Triplet, contrastive and margin loss against loops written from the papers and pytorch-metric-learning."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seeall.ssl.contrastive import Contrastive
from seeall.ssl.margin import Margin
from seeall.ssl.negatives import mining
from seeall.ssl.negatives.all import All
from seeall.ssl.negatives.distance import DistanceWeighted
from seeall.ssl.negatives.hard import Hard
from seeall.ssl.negatives.queue import Queue
from seeall.ssl.negatives.random import Random
from seeall.ssl.negatives.semihard import SemiHard
from seeall.ssl.triplet import Triplet
from seeall.types import SeeallError
from tests.objectives.contrastive_loops import value_and_gradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_metric_learning import distances, losses, reducers

Numbers = list[tuple[int, int, int]]
PATTERNS = {
    "two views": [0, 1, 2, 0, 1, 2],
    "unequal groups": [5, 5, 9, 9, -7, 5],
    "one group": [3] * 4,
    "one pair, the rest alone": [0, 1, 0, 2, 3],
    "everyone alone": [0, 1, 2],
    "two together": [1, 1],
    "two apart": [1, 2],
    "one row": [4],
    "far apart ids": [2**62, -(2**62), 2**62, 0, 0],
}
INPUTS = ("random", "all alike", "twins and opposites", "zero rows")
MINERS: dict[str, Callable[[], Any]] = {
    "all": All,
    "random": Random,
    "hard": Hard,
    "semihard": lambda: SemiHard(margin=0.5),
    "distance": DistanceWeighted,
}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rows(kind: str, n: int, dim: int = 3) -> Tensor:
    """n rows; with dim 3 a batch where every kind of distance occurs."""
    z = randn(n, dim, seed=n)
    if kind == "all alike":
        z = z[:1].repeat(n, 1)
    if kind == "twins and opposites":
        z[1::3], z[2::3] = z[0], -z[0]
    if kind == "zero rows":
        z[::3] = 0
    return z


class Loop:
    """One scalar at a time, in float64: distances of rows of length one, and sums over lists of numbers."""

    def __init__(self, z: Tensor, groups: list[int]) -> None:
        n, d = z.shape
        self.z = z = z.detach().clone().requires_grad_()
        self.zero, self.groups, self.n = z.sum() * 0, groups, n
        unit = []
        for i in range(n):
            squares = sum(z[i, k] * z[i, k] for k in range(d))
            length = squares.sqrt() if squares > 0 else 1e-12  # a row of zeros stays one
            unit.append([z[i, k] / length for k in range(d)])
        self.d2: dict[tuple[int, int], Tensor] = {}
        self.d: dict[tuple[int, int], Tensor] = {}
        for i in range(n):
            for j in range(i):
                square = sum((a - b) * (a - b) for a, b in zip(unit[i], unit[j]))
                self.d2[i, j] = self.d2[j, i] = square
                # where two points coincide their distance has no gradient; 0 is the one of least length
                self.d[i, j] = self.d[j, i] = square.sqrt() if square > 0 else square

    def pairs(self, alike: bool) -> list[tuple[int, int]]:
        both = [(i, j) for i in range(self.n) for j in range(self.n) if i != j]
        return [(i, j) for i, j in both if (self.groups[i] == self.groups[j]) == alike]

    def triplets(self) -> Numbers:
        return [(a, p, n) for a, p in self.pairs(True) for b, n in self.pairs(False) if a == b]

    def split(self, chosen: Numbers | None) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Positive pairs and negative ones: all, or those of the triplets that were chosen."""
        if chosen is None:
            return self.pairs(True), self.pairs(False)
        return [(a, p) for a, p, _ in chosen], [(a, n) for a, _, n in chosen]

    def mean(self, terms: list[Tensor]) -> Tensor:
        """Of the terms above zero."""
        some = [x for x in terms if x > 0]
        return sum(some) / len(some) if some else self.zero

    def gradient(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return value.detach(), torch.autograd.grad(value + self.zero, self.z, retain_graph=True)[0]


def triplet_loop(loop: Loop, chosen: Numbers | None, margin: float, soft: bool) -> Tensor:
    """FaceNet's hinge is of squared distances; the soft margin of Hermans et al. is of distances."""
    terms = []
    for a, p, n in loop.triplets() if chosen is None else chosen:
        hinge = loop.d2[a, p] - loop.d2[a, n] + margin
        terms.append(torch.log(1 + torch.exp(loop.d[a, p] - loop.d[a, n])) if soft else hinge)
    return loop.mean(terms)


def contrastive_loop(loop: Loop, chosen: Numbers | None, margin: float) -> Tensor:
    near, far = loop.split(chosen)
    inside = [margin - loop.d[i, j] for i, j in far]
    return loop.mean([loop.d2[i, j] for i, j in near]) + loop.mean([x * x for x in inside if x > 0])


def margin_loop(loop: Loop, chosen: Numbers | None, margin: float, beta: Tensor, nu: float) -> Tensor:
    near, far = loop.split(chosen)
    terms = [margin + (loop.d[i, j] - beta) for i, j in near] + [margin - (loop.d[i, j] - beta) for i, j in far]
    return loop.mean(terms) + nu * beta


def close(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], tolerance: float = 1e-10) -> None:
    """The value relatively; the gradient of every row relatively to the row's largest entry, or to 1."""
    assert_close(got[0].double(), want[0].double(), rtol=tolerance, atol=tolerance)
    for g, w in zip(got[1].double(), want[1].double(), strict=True):
        assert torch.isfinite(g).all()
        assert_close(g, w, rtol=tolerance, atol=tolerance * max(1.0, float(w.abs().max())))


class Chosen:
    """A miner that remembers what another one chose."""

    def __init__(self, miner: Any) -> None:
        self.miner, self.last = miner, []

    def __call__(self, found: mining.Candidates) -> mining.Triplets:
        self.last.append(self.miner(found))
        return self.last[-1]


def watched(name: str) -> tuple[Any, Callable[[], mining.Triplets | None]]:
    """Negatives of that name, and how to ask what they chose last; None where everything counts."""
    if name == "all":
        return All(), lambda: None
    chosen = Chosen(MINERS[name]())
    return chosen, lambda: chosen.last[-1]


def listed(chosen: mining.Triplets | None) -> Numbers | None:
    return None if chosen is None else list(zip(*(x.tolist() for x in chosen)))


def lp(power: int) -> Any:
    return distances.LpDistance(power=power)


class SquaredContrastive(losses.ContrastiveLoss):
    """Theirs is linear in the distances; Hadsell's is not."""

    def pos_calc(self, d: Tensor, margin: float) -> Tensor:
        return torch.relu(d - margin) ** 2

    def neg_calc(self, d: Tensor, margin: float) -> Tensor:
        return torch.relu(margin - d) ** 2


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", MINERS)
def test_losses_follow_the_papers_and_pytorch_metric_learning(name: str, pattern: str, kind: str) -> None:
    """Value and gradient, with all pairs and triplets and with chosen ones, on every kind of input."""
    groups = PATTERNS[pattern]
    z, labels = rows(kind, len(groups)), torch.tensor(groups)
    negatives, chosen = watched(name)
    loop = Loop(z, groups)
    torch.manual_seed(7)
    for soft in (False, True):
        objective = Triplet(negatives, margin=0.3, soft=soft)
        got = value_and_gradient(lambda x, o=objective: o(x, labels)["loss"], z)
        picked = chosen()
        close(got, loop.gradient(triplet_loop(loop, listed(picked), 0.3, soft)))
        theirs = losses.TripletMarginLoss(0.0 if soft else 0.3, smooth_loss=soft, distance=lp(1 if soft else 2))
        close(got, value_and_gradient(lambda x, t=theirs, c=picked: t(x, labels, c), z))

    got = value_and_gradient(lambda x: Contrastive(negatives, margin=0.9)(x, labels)["loss"], z)
    picked = chosen()
    close(got, loop.gradient(contrastive_loop(loop, listed(picked), 0.9)))
    if picked is None or len(picked[0]) != 1:  # theirs is 0 where there is a single triplet
        theirs = SquaredContrastive(neg_margin=0.9, distance=lp(1))
        close(got, value_and_gradient(lambda x: theirs(x, labels, picked), z))

    objective = Margin(negatives, margin=0.25, beta=1.1, nu=0.1)
    beta = objective.beta.detach().double().requires_grad_()
    got = value_and_gradient(lambda x: objective(x, labels)["loss"], z)
    picked = chosen()
    want = margin_loop(loop, listed(picked), 0.25, beta, 0.1)
    close(got, loop.gradient(want))
    want.backward()
    assert_close(objective.beta.grad.double(), beta.grad, rtol=1e-6, atol=1e-7)
    if picked is None:  # theirs takes triplets alone; pairs are another loss of theirs, which learns nothing
        close(got, value_and_gradient(lambda x: margin_by_pairs(x, labels, 0.25, beta.item(), 0.1), z))
    elif len(picked[0]):  # with no triplet theirs is 0, without ν β
        theirs = losses.MarginLoss(margin=0.25, nu=0.1, beta=1.1, learn_beta=True).double()
        close(got, value_and_gradient(lambda x: theirs(x, labels, picked).squeeze(), z))
        assert_close(objective.beta.grad.double(), theirs.beta.grad[0], rtol=1e-6, atol=1e-7)


def margin_by_pairs(z: Tensor, labels: Tensor, margin: float, beta: float, nu: float) -> Tensor:
    """The margin loss out of pytorch-metric-learning's parts: linear in the distances, with two boundaries."""
    theirs = losses.ContrastiveLoss(beta - margin, beta + margin, distance=lp(1), reducer=reducers.DoNothingReducer())
    found = [x["losses"] for x in theirs(z, labels).values()]
    terms = torch.cat([x for x in found if isinstance(x, Tensor)] or [z.new_zeros(0)])
    terms = terms[terms > 0]
    return (terms.mean() if len(terms) else z.sum() * 0) + nu * beta


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MINERS)
def test_larger_batches_equal_pytorch_metric_learning(name: str, dtype: torch.dtype) -> None:
    z = randn(60, 24, seed=3)
    z[30:] = z[:30] + 0.7 * z[30:]  # so that there are near pairs and far ones
    labels = torch.cat([torch.arange(30), torch.arange(30) // 3])
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    negatives, chosen = watched(name)
    torch.manual_seed(1)
    objectives = [Triplet(negatives), Triplet(negatives, soft=True), Contrastive(negatives, margin=1.2)]
    peers = [
        losses.TripletMarginLoss(0.2, distance=lp(2)),
        losses.TripletMarginLoss(0.0, distance=lp(1), smooth_loss=True),
        SquaredContrastive(neg_margin=1.2, distance=lp(1)),
        losses.MarginLoss(margin=0.2, nu=0.3, beta=1.2, learn_beta=True).double(),
    ]
    if name != "all":
        objectives.append(Margin(negatives, nu=0.3))
    for objective, peer in zip(objectives, peers):
        got = value_and_gradient(lambda x, o=objective: o(x, labels)["loss"], z.to(dtype))
        picked = chosen()
        close(got, value_and_gradient(lambda x, t=peer, c=picked: t(x, labels, c).squeeze(), z), tolerance)
        assert got[0].dtype == got[1].dtype == dtype
    if name != "all":
        assert_close(objectives[-1].beta.grad.double(), peers[-1].beta.grad[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", [Triplet(), Triplet(soft=True), Contrastive(), Margin()])
def test_gradients_equal_differences(objective: torch.nn.Module) -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    z = randn(6, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: objective(x, labels)["loss"], z)


@pytest.mark.parametrize("negatives", [All(), Hard()])
def test_the_soft_form_parts_rows_however_near_they_are(negatives: Any) -> None:
    """The slope of a distance does not shrink with it: here it is the same from 0.1 down to 0.0001, where that of
    FaceNet's hinge, of squared ones, falls a thousandfold."""
    labels, one = torch.tensor([0, 0, 1, 1]), randn(1, 16)
    slopes = {}
    for soft in (True, False):
        for apart in (1e-1, 1e-4):
            z = one + apart * randn(4, 16, seed=1)
            objective = Triplet(negatives, soft=soft)
            slopes[soft, apart] = float(value_and_gradient(lambda x, o=objective: o(x, labels)["loss"], z)[1].norm())
    assert slopes[True, 1e-4] == pytest.approx(slopes[True, 1e-1], rel=0.1) and slopes[True, 1e-4] > 0.01
    assert slopes[False, 1e-4] < 2e-3 * slopes[False, 1e-1]


def test_what_is_logged() -> None:
    groups = PATTERNS["unequal groups"]
    z, labels = rows("random", len(groups)).requires_grad_(), torch.tensor(groups)
    loop = Loop(z, groups)
    near, far = ([loop.d[i, j].item() for i, j in loop.pairs(alike)] for alike in (True, False))
    out = Contrastive(margin=1.3)(z, labels)
    want = {
        "found": len(far),
        "active": sum(d < 1.3 for d in far) / len(far),
        "d_positive": sum(near) / len(near),
        "d_negative": sum(far) / len(far),
    }
    assert {name: pytest.approx(float(out[name])) for name in want} == want
    out = Triplet(margin=0.4)(z, labels)
    every = [(loop.d[a, p].item(), loop.d[a, n].item()) for a, p, n in loop.triplets()]
    want = {
        "found": len(every),
        "active": sum(p * p - n * n + 0.4 > 0 for p, n in every) / len(every),
        "d_positive": sum(p for p, _ in every) / len(every),
        "d_negative": sum(n for _, n in every) / len(every),
    }
    assert {name: pytest.approx(float(out[name])) for name in want} == want
    out = Margin(beta=0.9)(z, labels)
    assert float(out["beta"]) == pytest.approx(0.9)
    assert all(v.ndim == 0 and v.requires_grad == (name == "loss") for name, v in out.items())


@pytest.mark.parametrize("make", [Triplet, Contrastive, Margin])
@pytest.mark.parametrize("name", [*MINERS, "queue"])
def test_an_empty_batch_costs_nothing(make: Any, name: str) -> None:
    z = torch.zeros(0, 4, requires_grad=True)
    out = make({**MINERS, "queue": Queue}[name]())(z, torch.zeros(0, dtype=torch.int64))
    out["loss"].backward()
    assert all(torch.isfinite(v) for v in out.values())
    assert out["found"] == out["loss"] == 0


@pytest.mark.parametrize("make", [Triplet, Contrastive, Margin])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_leaves_the_loss_in_float32(make: Any, dtype: torch.dtype) -> None:
    z, labels = randn(16, 8).to(dtype), torch.arange(8).repeat(2)
    want = value_and_gradient(lambda x: make()(x, labels)["loss"], z)
    with torch.autocast("cpu", torch.bfloat16):
        got = value_and_gradient(lambda x: make()(x, labels)["loss"], z)
    assert got[0].dtype == torch.float32
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_beta_stays_where_its_rate_is_nothing() -> None:
    assert not Margin(beta_lr=0).beta.requires_grad
    assert Margin(beta_lr=0).own_rates == {}
    assert Margin(beta_lr=0.01).own_rates == {"beta": 0.01}
    assert dict(Margin().named_parameters()).keys() == {"beta"}


@pytest.mark.parametrize(
    ("make", "setting", "message"),
    [
        (Triplet, {"margin": 0.0}, "triplet: margin is 0.0: choose above 0, up to 4"),
        (Triplet, {"margin": 4.1}, "triplet: margin is 4.1"),
        (Contrastive, {"margin": 0}, "contrastive: margin is 0: choose above 0, up to 2"),
        (Contrastive, {"margin": 2.5}, "contrastive: margin is 2.5"),
        (Margin, {"margin": 0.0}, "margin: margin is 0.0: choose above 0 and below 2"),
        (Margin, {"beta": 2.0}, "margin: beta is 2.0: choose above 0 and below 2"),
        (Margin, {"beta_lr": -1.0}, "margin: beta_lr is -1.0: choose 0 or more"),
        (Margin, {"nu": math.inf}, "margin: nu is inf: choose 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, setting: dict[str, float], message: str) -> None:
    with pytest.raises(SeeallError) as error:
        make(**setting)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [Triplet, Contrastive, Margin])
@pytest.mark.parametrize("shapes", [((4, 3), (5,)), ((4, 3), (4, 1)), ((4,), (4,))])
def test_shapes_that_do_not_fit_are_refused(make: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="groups"):
        make()(torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.int64))
