"""VICReg, Barlow Twins, BYOL, SimSiam, MoCo and DINO against loops written from the papers, and against lightly."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import BarlowTwinsLoss, DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from seeall.ssl.barlow_twins import BarlowTwins
from seeall.ssl.byol import BYOL
from seeall.ssl.dino import DINO
from seeall.ssl.moco import MoCo
from seeall.ssl.simsiam import SimSiam
from seeall.ssl.twins import twins
from seeall.ssl.vicreg import VICReg
from seeall.training.distributed import gather, synchronise_batchnorm
from seeall.types import SeeallError

D = 4
MAKE: dict[str, Callable[[], nn.Module]] = {
    "vicreg": lambda: VICReg(invariance=3, variance=2, covariance=0.5),
    "barlow_twins": lambda: BarlowTwins(redundancy=0.25),
    "byol": lambda: BYOL(D, hidden=5, momentum=0.75),
    "simsiam": lambda: SimSiam(D, hidden=3),
    "moco": lambda: MoCo(D, size=11, temperature=0.5, momentum=0.75),
    # temperatures that float32 holds exactly: lightly rounds the teacher's to it
    "dino": lambda: DINO(
        D, prototypes=6, student_temperature=0.5, teacher_temperature=0.25, centre_momentum=0.875, momentum=0.75
    ),
}
TAUGHT = {"byol", "moco", "dino"}
ORDERED = {"vicreg", "barlow_twins"}
"""Whose statistics are taken over first and second rows apart."""
REMEMBERS = {"byol", "simsiam", "moco", "dino"}
PATTERNS = {
    "two views": [0, 1, 2, 3, 0, 1, 2, 3],
    "twins side by side": [4, 4, 1, 1, 3, 3],
    "one alone": [0, 7, 1, 2, 0, 1, 2],
    "three and four of a kind": [5, 5, 5, 9, 9, -7, 5, -7, 9],
    "two of one group": [3, 3, 3, 3, 3],
}
every = pytest.mark.parametrize("name", MAKE)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def call(name: str, objective: nn.Module, z: Tensor, groups: Any, taught: Tensor | None = None) -> dict[str, Tensor]:
    more = [z.detach().flip(1) * 0.5 + 0.1 if taught is None else taught] if name in TAUGHT else []
    out: dict[str, Tensor] = objective(z, torch.as_tensor(groups, dtype=torch.int64), *more)
    return out


def used(name: str, seed: int = 0) -> nn.Module:
    """An objective in float64 in the middle of a training: memory, centre, averages have moved."""
    torch.manual_seed(seed)
    objective = MAKE[name]().double()
    if name in REMEMBERS:
        call(name, objective, randn(10, D, seed=90), [0, 1, 2, 3, 4, 0, 1, 20, 21, 4], randn(10, D, seed=91))
    with torch.no_grad():
        for k, weight in enumerate(objective.parameters()):
            weight += 0.3 * randn(*weight.shape, seed=80 + k)
    return objective


def gradients(objective: nn.Module, loss: Callable[[Tensor], Tensor], z: Tensor) -> list[Tensor]:
    """The value, its gradient for z, and for every weight."""
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    return [value.detach(), *torch.autograd.grad(value, [z, *objective.parameters()])]


# --- the papers, one scalar at a time -------------------------------------------------------------------------------

Rows = list[list[Tensor]]


def pairs_by_hand(groups: list[int]) -> list[tuple[int, int]]:
    waiting: dict[int, int] = {}
    found = []
    for row, group in enumerate(groups):
        if group in waiting:
            found.append((waiting.pop(group), row))
        else:
            waiting[group] = row
    return found


def scalars(z: Tensor) -> Rows:
    return [[z[i, k] for k in range(z.shape[1])] for i in range(len(z))]


def dot(x: list[Tensor], y: list[Tensor]) -> Tensor:
    return sum((p * q for p, q in zip(x, y, strict=True)), torch.zeros((), dtype=torch.float64))


def unit(x: list[Tensor]) -> list[Tensor]:
    length = dot(x, x).sqrt()
    return [p / length for p in x]


def mean(x: list[Tensor]) -> Tensor:
    return sum(x, torch.zeros((), dtype=torch.float64)) / len(x)


def column(x: Rows, k: int) -> list[Tensor]:
    """Of dimension k, the mean taken off."""
    middle = mean([row[k] for row in x])
    return [row[k] - middle for row in x]


def vicreg_by_hand(objective: nn.Module, z: Tensor, groups: list[int], taught: Tensor) -> Tensor:
    """Eq. 1, 3, 4, 5 and 6, with s / D and v / 2 as the authors' code has them."""
    pairs, x = pairs_by_hand(groups), scalars(z)
    halves = [[x[i] for i, _ in pairs], [x[j] for _, j in pairs]]
    n = len(pairs)
    s = sum(dot([p - q for p, q in zip(x[i], x[j])], [p - q for p, q in zip(x[i], x[j])]) for i, j in pairs) / n / D
    v, c = 0, 0
    for half in halves:
        for k in range(D):
            deviation = (dot(column(half, k), column(half, k)) / (n - 1) + 1e-4).sqrt()
            v = v + torch.clamp(1 - deviation, min=0) / D
            for m in range(D):
                if m != k:
                    c = c + (dot(column(half, k), column(half, m)) / (n - 1)) ** 2 / D
    return 3 * s + 2 * v / 2 + 0.5 * c


def barlow_twins_by_hand(objective: nn.Module, z: Tensor, groups: list[int], taught: Tensor) -> Tensor:
    """Eq. 1 and 2, with 1e-5 added to variances."""
    pairs, x = pairs_by_hand(groups), scalars(z)
    first, second = [x[i] for i, _ in pairs], [x[j] for _, j in pairs]
    n, total = len(pairs), torch.zeros((), dtype=torch.float64)
    for k, m in itertools.product(range(D), range(D)):
        p, q = column(first, k), column(second, m)
        c = dot(p, q) / n / ((dot(p, p) / n + 1e-5).sqrt() * (dot(q, q) / n + 1e-5).sqrt())
        total = total + ((1 - c) ** 2 if k == m else 0.25 * c**2)
    return total


def predicted_by_hand(head: Any, x: Rows) -> Rows:
    """Linear, BatchNorm in training, ReLU, linear."""
    before, norm, _, after = head.layers
    inner = [[dot(row, list(w)) for w in before.weight] for row in x]
    for k in range(len(before.weight)):
        centred = column(inner, k)
        scale = norm.weight[k] / (dot(centred, centred) / len(x) + norm.eps).sqrt()
        for row, value in zip(inner, centred):
            row[k] = torch.clamp(value * scale + norm.bias[k], min=0)
    return [[dot(row, list(w)) + b for w, b in zip(after.weight, after.bias)] for row in inner]


def byol_by_hand(objective: Any, z: Tensor, groups: list[int], taught: Tensor) -> Tensor:
    """Eq. 2 and its other direction, summed, from 4 + 4 L to L."""
    pairs, x, t = pairs_by_hand(groups), scalars(z), scalars(taught)
    kept = sorted(itertools.chain(*pairs))
    q = dict(zip(kept, predicted_by_hand(objective.predictor, [x[i] for i in kept])))
    terms = [2 - 2 * dot(unit(q[i]), unit(t[j])) + 2 - 2 * dot(unit(q[j]), unit(t[i])) for i, j in pairs]
    return (mean(terms) - 4) / 4


def simsiam_by_hand(objective: Any, z: Tensor, groups: list[int], taught: Tensor) -> Tensor:
    """Eq. 4."""
    pairs, x, still = pairs_by_hand(groups), scalars(z), scalars(z.detach())
    kept = sorted(itertools.chain(*pairs))
    p = dict(zip(kept, predicted_by_hand(objective.predictor, [x[i] for i in kept])))
    return mean([-dot(unit(p[i]), unit(still[j])) / 2 - dot(unit(p[j]), unit(still[i])) / 2 for i, j in pairs])


def moco_by_hand(objective: Any, z: Tensor, groups: list[int], taught: Tensor) -> Tensor:
    """Eq. 1 in both directions."""
    pairs, x, t = pairs_by_hand(groups), scalars(z), scalars(taught)
    known = range(min(int(objective.seen), len(objective.memory)))
    terms = []
    for q, k in pairs + [(j, i) for i, j in pairs]:
        positive = torch.exp(dot(unit(x[q]), unit(t[k])) / 0.5)
        others = [m for m in known if int(objective.memory_groups[m]) != groups[q]]
        negatives = [torch.exp(dot(unit(x[q]), list(objective.memory[m])) / 0.5) for m in others]
        terms.append(-torch.log(positive / (positive + sum(negatives))))
    return mean(terms)


def softmax_by_hand(x: list[Tensor], temperature: float) -> list[Tensor]:
    powers = [torch.exp(v / temperature) for v in x]
    return [p / sum(powers) for p in powers]


def dino_by_hand(objective: Any, z: Tensor, groups: list[int], taught: Tensor) -> Tensor:
    """Eq. 1 and 2 over two views, with the teacher's prototypes a quarter of the way to the student's."""
    pairs, x, t = pairs_by_hand(groups), scalars(z), scalars(taught)
    own = scalars(objective.prototypes.weight)
    averaged = scalars(0.75 * objective.taught_prototypes + 0.25 * objective.prototypes.weight.detach())
    centre = objective.criterion.center.flatten()

    def student(row: int) -> list[Tensor]:
        return softmax_by_hand([dot(unit(x[row]), unit(w)) for w in own], 0.5)

    def teacher(row: int) -> list[Tensor]:
        return softmax_by_hand([dot(unit(t[row]), unit(w)) - c for w, c in zip(averaged, centre)], 0.25)

    terms = []
    for i, j in pairs:
        for one, other in ((i, j), (j, i)):
            terms.append(-dot(teacher(one), [torch.log(s) for s in student(other)]))
    return mean(terms)


BY_HAND: dict[str, Callable[[nn.Module, Tensor, list[int], Tensor], Tensor]] = {
    "vicreg": vicreg_by_hand,
    "barlow_twins": barlow_twins_by_hand,
    "byol": byol_by_hand,
    "simsiam": simsiam_by_hand,
    "moco": moco_by_hand,
    "dino": dino_by_hand,
}


@every
@pytest.mark.parametrize("pattern", PATTERNS)
def test_value_and_gradient_follow_the_paper(name: str, pattern: str) -> None:
    groups, objective = PATTERNS[pattern], used(name)
    z, taught = randn(len(groups), D, seed=1), randn(len(groups), D, seed=2)
    before = copy.deepcopy(objective)
    want = gradients(before, lambda x: BY_HAND[name](before, x, groups, taught), z)
    got = gradients(objective, lambda x: call(name, objective, x, groups, taught)["loss"], z)
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, rtol=1e-9, atol=1e-11)
    assert want[1].abs().max() > 1e-3


# --- lightly, on two halves -----------------------------------------------------------------------------------------


def by_lightly(name: str, objective: Any, a: Tensor, b: Tensor, ta: Tensor, tb: Tensor) -> Tensor:
    cosine = NegativeCosineSimilarity()
    if name == "vicreg":
        loss = VICRegLoss(3, 2, 0.5)(a, b)
    elif name == "barlow_twins":
        loss = BarlowTwinsLoss(0.25)(a, b)
    elif name in ("byol", "simsiam"):
        pa, pb = objective.predictor(torch.cat([a, b])).chunk(2)
        ta, tb = (ta, tb) if name == "byol" else (a.detach(), b.detach())
        loss = 0.5 * (cosine(pa, tb) + cosine(pb, ta))
    elif name == "moco":
        loss = torch.zeros((), dtype=torch.float64)
        for query, key in ((a, tb), (b, ta)):
            one = NTXentLoss(temperature=0.5, memory_bank_size=(11, D))
            one.memory_bank.bank = objective.memory.clone()
            loss = loss + 0.5 * one(query, key)
    else:
        criterion = DINOLoss(6, teacher_temp=0.25, student_temp=0.5, center_momentum=0.875)
        criterion.center = objective.criterion.center.clone()
        weights = F.normalize(objective.prototypes.weight, dim=1)
        averaged = objective.taught_prototypes.lerp(objective.prototypes.weight.detach(), 0.25)
        teacher = [F.normalize(t, dim=1) @ F.normalize(averaged, dim=1).T for t in (ta, tb)]
        loss = criterion(teacher, [F.normalize(z, dim=1) @ weights.T for z in (a, b)])
        objective.lightly_centre = criterion.center
    return loss


@every
def test_two_views_equal_lightly_on_two_halves(name: str) -> None:
    n = 30
    objective = used(name)
    if name == "moco":  # lightly's memory is always full, and knows no groups
        call(name, objective, randn(13, D, seed=5), range(100, 113))
    before = copy.deepcopy(objective)
    z, taught = randn(2 * n, D, seed=1), randn(2 * n, D, seed=2)
    want = gradients(before, lambda x: by_lightly(name, before, *x.chunk(2), *taught.chunk(2)), z)
    got = gradients(objective, lambda x: call(name, objective, x, [*range(n)] * 2, taught)["loss"], z)
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, rtol=1e-9, atol=1e-11)
    if name == "dino":
        assert_close(objective.criterion.center, before.lightly_centre, rtol=1e-12, atol=1e-14)


# --- what all of them promise ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.sampled_from([0, 1, 2, 3, -(2**62), 2**62]), max_size=12))
def test_twins_are_first_and_second_third_and_fourth(groups: list[int]) -> None:
    a, b = twins(torch.tensor(groups, dtype=torch.int64))
    assert a.dtype == b.dtype == torch.int64
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == sorted(pairs_by_hand(groups))


@every
def test_order_of_rows_changes_nothing(name: str) -> None:
    groups = torch.tensor([0, 1, 2, 3, 4, 5, 9, 0, 1, 2, 3, 4, 5])
    z, taught = randn(13, D, seed=1), randn(13, D, seed=2)
    order = torch.argsort(randn(13, seed=3))
    if name in ORDERED:  # twins may stand anywhere, but not in each other's place
        order = torch.cat([order[groups[order] == g].sort().values for g in (3, 0, 9, 5, 1, 4, 2)])
    results = []
    for rows in (torch.arange(13), order):
        objective = used(name)

        def loss(x: Tensor, objective: nn.Module = objective, rows: Tensor = rows) -> Tensor:
            return call(name, objective, x[rows], groups[rows], taught[rows])["loss"]

        results.append(gradients(objective, loss, z))
    for got, want in zip(*results, strict=True):
        assert_close(got, want, rtol=1e-10, atol=1e-12)


@every
def test_first_and_second_views_may_change_places(name: str) -> None:
    z, taught, groups = randn(12, D, seed=1), randn(12, D, seed=2), [*range(6)] * 2
    there = call(name, used(name), z, groups, taught)["loss"]
    back = call(name, used(name), z.roll(6, 0), groups, taught.roll(6, 0))["loss"]
    assert_close(there, back, rtol=1e-10, atol=1e-12)


@every
@pytest.mark.parametrize("groups", [[], [4], [0, 1], [0, 1, 2, 3, 4]], ids=str)
def test_a_batch_without_pairs_costs_nothing(name: str, groups: list[int]) -> None:
    objective = used(name)
    keys = call(name, objective, randn(8, D), [0, 1, 2, 3] * 2).keys()
    z = randn(len(groups), D).requires_grad_()
    out = call(name, objective, z, groups)
    out["loss"].backward()
    assert out.keys() == keys
    assert all(v == 0 for v in out.values())
    for x in (z, *objective.parameters()):  # DDP waits for a gradient of every weight
        assert x.grad is not None
        assert not x.grad.any()


DEGENERATE = {
    "one pair": (randn(2, D), [6, 6]),
    "one pair, alike": (torch.ones(2, D), [6, 6]),
    "one pair among others": (randn(4, D), [6, 1, 6, 2]),
    "two pairs": (randn(4, D), [0, 1, 0, 1]),
    "one group": (randn(6, D), [3] * 6),
    "all alike": (torch.ones(8, D), [0, 1, 2, 3] * 2),
    "all zero": (torch.zeros(8, D), [0, 1, 2, 3] * 2),
    "twins opposite": (torch.cat([randn(4, D), -randn(4, D)]), [0, 1, 2, 3] * 2),
    "huge": (1e4 * randn(8, D), [0, 1, 2, 3] * 2),
    "tiny": (1e-12 * randn(8, D), [0, 1, 2, 3] * 2),
}


@every
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("fresh", [True, False])
def test_degenerate_rows_stay_finite(name: str, kind: str, fresh: bool) -> None:
    rows, groups = DEGENERATE[kind]
    objective = (MAKE[name]() if fresh else used(name)).float()
    for _ in range(2):
        z = rows.float().clone().requires_grad_()
        out = call(name, objective, z, groups)
        out["loss"].backward()
        assert all(torch.isfinite(v) for v in out.values())
        for x in (z, *objective.parameters()):
            assert x.grad is not None
            assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(v).all() for v in objective.state_dict().values())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_loss_in_float32(name: str, dtype: torch.dtype) -> None:
    objective = used(name).float()
    other = copy.deepcopy(objective)
    z, groups, taught = randn(16, D).to(dtype), [*range(8)] * 2, randn(16, D, seed=1, dtype=torch.float32)

    def under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return call(name, objective, x, groups, taught)["loss"]

    want = gradients(other, lambda x: call(name, other, x.float(), groups, taught)["loss"], z)
    got = gradients(objective, under_autocast, z)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    for g, w in zip(got, want, strict=True):
        assert torch.equal(g, w)


@every
def test_float64_rows_meet_float32_weights(name: str) -> None:
    out = call(name, used(name).float(), randn(8, D), [0, 1, 2, 3] * 2)["loss"]
    assert out.dtype == (torch.float64 if name in ORDERED else torch.float32)


@every
def test_what_is_told(name: str) -> None:
    z, objective = randn(12, D).requires_grad_(), used(name)
    out = call(name, objective, z, [*range(6)] * 2)
    assert out["loss"].requires_grad
    assert all(v.ndim == 0 for v in out.values())
    assert not any(v.requires_grad for key, v in out.items() if key != "loss")
    u = F.normalize(z.detach(), dim=1)
    assert_close(out["alignment"], (u[:6] * u[6:]).sum(1).mean())


@pytest.mark.parametrize("name", sorted(TAUGHT))
def test_no_gradient_goes_to_the_teacher(name: str) -> None:
    z, taught = randn(8, D).requires_grad_(), randn(8, D, seed=1).requires_grad_()
    call(name, used(name), z, [0, 1, 2, 3] * 2, taught)["loss"].backward()
    assert z.grad is not None
    assert taught.grad is None


@pytest.mark.parametrize("name", sorted(TAUGHT))
def test_the_teacher_matters_and_the_momentum_is_there_to_read(name: str) -> None:
    z, groups = randn(8, D), [0, 1, 2, 3] * 2
    losses = [call(name, used(name), z, groups, randn(8, D, seed=s))["loss"] for s in (1, 2)]
    assert losses[0] != losses[1]
    assert used(name).momentum == 0.75


@every
def test_a_resumed_objective_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    def step(objective: nn.Module, t: int) -> dict[str, Tensor]:
        groups = torch.arange(3 * t, 3 * t + 4).repeat(2) % 7
        return call(name, objective, randn(8, D, seed=t, dtype=torch.float32), groups, randn(8, D, seed=50 + t))

    whole = used(name).float()
    for t in range(3):
        step(whole, t)
    torch.save(whole.state_dict(), tmp_path / "state")
    other = used(name, seed=7).float()
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for t in range(3, 7):
        want, got = step(whole, t), step(other, t)
        assert all(torch.equal(got[key], want[key]) for key in want)
    assert all(torch.equal(v, other.state_dict()[key]) for key, v in whole.state_dict().items())


@every
def test_evaluation_changes_nothing_and_training_does(name: str) -> None:
    objective = used(name)
    before = {key: v.clone() for key, v in objective.state_dict().items()}

    def same() -> bool:
        return all(torch.equal(v, before[key]) for key, v in objective.state_dict().items())

    z, groups = randn(8, D, seed=1), [0, 1, 2, 3] * 2
    objective.eval()
    first, second = (call(name, objective, z, groups) for _ in range(2))
    assert same()
    assert all(torch.equal(first[key], second[key]) for key in first)
    objective.train()
    trained = call(name, objective, z, groups)
    assert same() == (name not in REMEMBERS)
    assert first.keys() == trained.keys()
    if name not in REMEMBERS:
        assert torch.equal(first["loss"], trained["loss"])


@every
def test_two_of_a_seed_are_equal_to_the_bit(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(MAKE[name]().state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@every
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    for z, groups in ((4, D), (5,)), ((4, D), (4, 1)), ((4,), (4,)):
        with pytest.raises(ValueError, match="groups"):
            call(name, used(name), torch.zeros(z), torch.zeros(groups), torch.zeros(z))
    if name in REMEMBERS:
        with pytest.raises(ValueError, match="4 dimensions, not 5"):
            call(name, used(name), torch.zeros(6, 5), [0, 1, 2] * 2)
    if name in TAUGHT:
        with pytest.raises(ValueError, match="groups"):
            call(name, used(name), torch.zeros(6, D), [0, 1, 2] * 2, torch.zeros(5, D))


REFUSED: list[tuple[Callable[..., nn.Module], str, list[Any], str]] = [
    (VICReg, "vicreg: invariance", [-1, math.nan, math.inf], "25, 25 and 1"),
    (VICReg, "vicreg: variance", [-0.1, math.nan], "25, 25 and 1"),
    (VICReg, "vicreg: covariance", [-0.1, math.inf], "25, 25 and 1"),
    (BarlowTwins, "barlow_twins: redundancy", [-0.1, math.nan, math.inf], "0.005"),
    (BYOL, "byol: hidden", [0, -3], "512 to 4096"),
    (BYOL, "byol: momentum", [-0.1, 1.0, math.nan], "0.99"),
    (SimSiam, "simsiam: hidden", [0, -3], "a quarter of the width"),
    (MoCo, "moco: size", [0, -1], "4096 to 65536"),
    (MoCo, "moco: temperature", [0.0, -1, math.nan, math.inf], "0.07 to 0.2"),
    (MoCo, "moco: momentum", [-0.1, 1.0, math.nan], "0.99 to 0.999"),
    (DINO, "dino: prototypes", [1, 0], "1024 to 65536"),
    (DINO, "dino: student_temperature", [0.0, math.nan], "0.1"),
    (DINO, "dino: teacher_temperature", [-1, math.inf], "0.04 to 0.07"),
    (DINO, "dino: centre_momentum", [-0.1, 1.0], "0.9"),
    (DINO, "dino: momentum", [-0.1, 1.0, math.nan], "0.99 to 0.996"),
]


@pytest.mark.parametrize(("kind", "what", "values", "usual"), REFUSED, ids=[what for _, what, _, _ in REFUSED])
def test_settings_out_of_range_are_refused(kind: Any, what: str, values: list[Any], usual: str) -> None:
    setting = what.partition(": ")[2]
    for value in values:
        with pytest.raises(SeeallError) as fault:
            kind(**{setting: value}) if kind in (VICReg, BarlowTwins) else kind(D, **{setting: value})
        text = str(fault.value)
        assert text.startswith(f"{what} must be")
        assert text.endswith(f", not {value}; {usual} {'are' if 'and' in usual else 'is'} usual")
        assert "\n" not in text


def test_defaults_can_be_built() -> None:
    assert SimSiam(128).predictor.layers[0].weight.shape == (32, 128)
    assert SimSiam(2).predictor.layers[0].weight.shape == (1, 2)
    for objective in (VICReg(), BarlowTwins(), BYOL(16), SimSiam(16), MoCo(16), DINO(16)):
        z, groups = randn(8, 16, dtype=torch.float32), torch.arange(4).repeat(2)
        more = [z] if hasattr(objective, "momentum") else []
        assert torch.isfinite(objective(z, groups, *more)["loss"])


# --- MoCo's memory and DINO's centre --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 6, 16, 40])
def test_the_memory_holds_the_last_keys(size: int) -> None:
    objective, told = MoCo(D, size=size), list[tuple[Tensor, int]]()
    for t, n in enumerate((6, 6, 4, 9, 6)):
        taught, groups = randn(n, D, seed=t, dtype=torch.float32), torch.arange(n) // 2 + t
        objective(randn(n, D), groups, taught)
        told += zip(F.normalize(taught, dim=1), groups.tolist(), strict=True)
        known = min(len(told), size)
        kept = sorted((g, *row.tolist()) for row, g in told[-known:])
        found = zip(objective.memory[:known], objective.memory_groups[:known].tolist(), strict=True)
        assert kept == sorted((g, *row.tolist()) for row, g in found)
        assert objective.seen == len(told)


def test_the_first_step_has_no_negatives() -> None:
    z = randn(8, D).requires_grad_()
    out = call("moco", MAKE["moco"]().double(), z, [0, 1, 2, 3] * 2)
    out["loss"].backward()
    assert out["loss"] == 0
    assert out["accuracy"] == 1
    assert z.grad is not None
    assert not z.grad.any()


def test_keys_of_ones_own_group_are_no_negatives() -> None:
    z, groups = randn(4, D), [0, 1, 0, 1]
    for stranger, loss_is_0 in ((0, False), (1, False), (None, True)):
        objective = MAKE["moco"]().double()
        call("moco", objective, randn(3, D, seed=4), [0, 0, 0] if stranger is None else [0, 0, stranger + 5])
        assert bool(call("moco", objective, z[:1].repeat(2, 1), [0, 0])["loss"] == 0) == loss_is_0
    assert call("moco", objective, z, groups)["loss"] > 0  # group 1 sees the keys of group 0


def test_accuracy_counts_queries_closer_to_their_key_than_to_any_negative() -> None:
    objective, far = MAKE["moco"]().double(), torch.eye(D, dtype=torch.float64)
    objective(far[:2], torch.tensor([50, 51]), far[:2])
    z = far[[0, 2, 3, 2]]  # twins: rows 0 and 2, at right angles to each other; 1 and 3, alike
    assert objective(z, torch.tensor([0, 1, 0, 1]), z)["accuracy"] == 0.5


def test_the_centre_and_the_averaged_prototypes_move_by_equation_4_and_the_momentum() -> None:
    objective = used("dino")
    start, centre = objective.taught_prototypes.clone(), objective.criterion.center.clone()
    taught = randn(9, D, seed=6)
    call("dino", objective, randn(9, D), [0, 1, 2, 3, 0, 1, 2, 3, 8], taught)
    averaged = 0.75 * start + 0.25 * objective.prototypes.weight
    assert_close(objective.taught_prototypes, averaged.detach())
    seen = F.normalize(taught[:8], dim=1) @ F.normalize(averaged, dim=1).T
    assert_close(objective.criterion.center, 0.875 * centre + 0.125 * seen.mean(0).detach())
    assert not objective.taught_prototypes.requires_grad


def test_entropy_is_that_of_the_teacher() -> None:
    objective = used("dino").eval()
    z, taught = randn(8, D), randn(8, D, seed=6)
    out = call("dino", objective, z, [0, 1, 2, 3] * 2, taught)["entropy"]
    cosines = F.normalize(taught, dim=1) @ F.normalize(objective.taught_prototypes, dim=1).T
    shares = torch.softmax((cosines - objective.criterion.center.flatten()) / 0.25, 1)
    assert_close(out, -(shares * shares.log()).sum(1).mean())


# --- two processes, a GPU -------------------------------------------------------------------------------------------


class Task(nn.Module):
    """A network, its teacher and an objective over the rows of all processes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.objective = name, MAKE[name]()
        self.net, self.teacher = nn.Linear(3, D), nn.Linear(3, D).requires_grad_(False)
        self.double()

    def forward(self, x: Tensor, groups: Tensor) -> Tensor:
        return call(self.name, self.objective, gather(self.net(x)), gather(groups), gather(self.teacher(x)))["loss"]


def train(rank: int, world: int) -> dict[str, dict[str, Tensor]]:
    """Four steps of every objective, the third without pairs → what all have learnt."""
    found = {}
    for name in MAKE:
        task = Task(name)
        model: nn.Module = task
        if world > 1:
            synchronise_batchnorm(task, torch.device("cpu"))
            model = nn.parallel.DistributedDataParallel(task)
        optimiser = torch.optim.SGD(task.parameters(), lr=0.1)
        for t in range(4):
            x, groups = randn(12, 3, seed=t), torch.arange(12) if t == 2 else torch.arange(6).repeat(2) + t
            views = torch.arange(12).view(2, world, 6 // world)[:, rank].flatten()  # first views, then second ones
            optimiser.zero_grad()
            model(x[views], groups[views]).backward()
            optimiser.step()
        if rank == 0:  # alone: nothing in here may wait for the others
            call(name, task.objective.eval(), randn(4, D), [0, 1, 0, 1])
        found[name] = task.state_dict()
    return found


WORKER = """
import runpy, sys, torch, torch.distributed as dist
_, test, rank, folder = sys.argv
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(rank), world_size=2)
torch.save(runpy.run_path(test)["train"](int(rank), 2), f"{folder}/{rank}")
dist.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, __file__]
    started = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    one = train(0, 1)
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    first, second = (torch.load(tmp_path / rank) for rank in ("0", "1"))
    for name, state in one.items():
        for key, want in state.items():
            got, where = first[name][key], f"{name}: {key}"
            assert torch.equal(got, second[name][key]), where
            if "running_var" in key:  # n / (n - 1), where n counts gathered rows once a process
                continue
            if "memory" in key:  # the rows of a step stand in another order
                got, want = (x.double().view(len(x), -1).sum(1).sort().values for x in (got, want))
            assert_close(got, want, rtol=1e-9, atol=1e-10, msg=lambda m, where=where: f"{where}: {m}")


@every
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu(name: str) -> None:
    z, taught, groups = randn(64, D), randn(64, D, seed=1), torch.arange(32).repeat(2)
    here, there = used(name), used(name).cuda()
    for _ in range(2):
        want = gradients(here, lambda x: call(name, here, x, groups, taught)["loss"], z)
        got = gradients(
            there, lambda x: there(x, groups.cuda(), *([taught.cuda()] if name in TAUGHT else []))["loss"], z.cuda()
        )
        for g, w in zip(got, want, strict=True):
            assert_close(g.cpu(), w, rtol=1e-8, atol=1e-10)
