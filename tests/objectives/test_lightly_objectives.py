"""VICReg, Barlow Twins, BYOL, SimSiam, MoCo and DINO against loops written from the papers, and against lightly."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightly.loss import BarlowTwinsLoss, DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from seeall.ssl.moco import MoCo
from tests.objectives.lightly_six import MAKE, D, call, every, gradients, pairs_by_hand, randn, used

PATTERNS = {
    "two views": [0, 1, 2, 3, 0, 1, 2, 3],
    "twins side by side": [4, 4, 1, 1, 3, 3],
    "one alone": [0, 7, 1, 2, 0, 1, 2],
    "three and four of a kind": [5, 5, 5, 9, 9, -7, 5, -7, 9],
    "two of one group": [3, 3, 3, 3, 3],
}


# --- the papers, one scalar at a time -------------------------------------------------------------------------------

Rows = list[list[Tensor]]


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
