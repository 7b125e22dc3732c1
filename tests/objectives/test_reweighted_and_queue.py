"""Reweighted, decoupled and remembered negatives, a learnt temperature: loops, published forms, two processes."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import DCLLoss
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from seeall.ssl.contrastive import Contrastive
from seeall.ssl.margin import Margin
from seeall.ssl.negatives.queue import Queue
from seeall.ssl.negatives.reweighted import Reweighted
from seeall.ssl.simclr import SimCLR
from seeall.ssl.similarity import similarity_logsumexp
from seeall.ssl.triplet import Triplet
from seeall.types import SeeallError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_metric_learning import distances, losses

PATTERNS = {
    "two views": [0, 1, 2, 3, 0, 1, 2, 3],
    "unequal groups": [5, 5, 5, 9, 9, -7, 5, 2],
    "one group": [3] * 5,
    "everyone alone": [0, 1, 2, 3],
    "one pair, the rest alone": [0, 1, 2, 0, 3],
    "two apart": [1, 2],
    "two together": [1, 1],
    "one row": [4],
}
Row = list[Tensor]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradient(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    value.backward()
    assert z.grad is not None
    return value.detach(), z.grad


def ours(objective: torch.nn.Module, z: Tensor, groups: list[int] | Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.as_tensor(groups, dtype=torch.int64)
    return value_and_gradient(lambda x: objective(x, labels)["loss"], z)


def close(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], tolerance: float) -> None:
    """The value relatively, the gradient relatively to its largest entry."""
    for g, w in zip(got, want, strict=True):
        assert torch.isfinite(g).all()
        assert_close(g.double(), w.double(), rtol=tolerance, atol=tolerance * max([1e-6, *w.abs().flatten().tolist()]))


def units(z: Tensor) -> list[Row]:
    listed = [[z[i, k] for k in range(z.shape[1])] for i in range(len(z))]
    return [[x / sum(y * y for y in row).sqrt() for x in row] for row in listed]


def dot(x: Row, y: Row) -> Tensor:
    return sum(a * b for a, b in zip(x, y))


def loop(
    z: Tensor,
    groups: list[int],
    term: Callable[[Tensor, list[Tensor], list[Tensor]], Tensor],
    memory: tuple[list[Row], list[int]] = ([], []),
) -> Tensor:
    """The mean over anchors of their mean over positives of term(cosine, cosines to negatives, to other positives).

    Negatives are the rows of other groups, in the batch and in the memory. Without any, an anchor's term is 0.
    """
    unit, n, terms = units(z), range(len(z)), []
    for i in n:
        positives = [p for p in n if p != i and groups[p] == groups[i]]
        if not positives:
            continue
        negatives = [dot(unit[i], unit[j]) for j in n if groups[j] != groups[i]]
        negatives += [dot(unit[i], row) for row, owner in zip(*memory) if owner != groups[i]]
        cosines = [dot(unit[i], unit[p]) for p in positives]
        each = [term(c, negatives, cosines) for c in cosines]
        terms.append(sum(each) / len(each))
    return sum(terms) / len(terms) + z.sum() * 0 if terms else z.sum() * 0


def reweighted(beta: float, tau: float, temperature: float) -> Callable[..., Tensor]:
    """Robinson et al. 2021, section 4, one scalar at a time."""

    def term(positive: Tensor, negatives: list[Tensor], _: list[Tensor]) -> Tensor:
        if not negatives:
            return positive * 0
        n, own = len(negatives), torch.exp(positive / temperature)
        weights = [torch.exp(beta * s / temperature) for s in negatives]
        mean = sum(w * torch.exp(s / temperature) for w, s in zip(weights, negatives)) / sum(weights)
        g = n * (mean - tau * own) / (1 - tau)
        least = n * math.exp(-1 / temperature)
        return -torch.log(own / (own + (g if g > least else least)))

    return term


def decoupled(temperature: float) -> Callable[..., Tensor]:
    """Yeh et al. 2022, eq. 6."""

    def term(positive: Tensor, negatives: list[Tensor], _: list[Tensor]) -> Tensor:
        if not negatives:
            return positive * 0
        return torch.log(sum(torch.exp(s / temperature) for s in negatives)) - positive / temperature

    return term


def usual(temperature: float) -> Callable[..., Tensor]:
    """Khosla et al. 2020, eq. 2."""

    def term(positive: Tensor, negatives: list[Tensor], positives: list[Tensor]) -> Tensor:
        return torch.log(sum(torch.exp(s / temperature) for s in negatives + positives)) - positive / temperature

    return term


SETTINGS = [(1.0, 0.0), (0.0, 0.1), (0.0, 0.0), (1.0, 0.1), (2.5, 0.3), (0.5, 0.9)]


@pytest.mark.parametrize(("beta", "tau"), SETTINGS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_reweighted_follows_the_paper(pattern: str, beta: float, tau: float) -> None:
    groups = PATTERNS[pattern]
    for temperature in (0.01, 0.1, 1.0):
        z = randn(len(groups), 4, seed=len(groups))
        want = value_and_gradient(lambda x, t=temperature: loop(x, groups, reweighted(beta, tau, t)), z)
        objective = SimCLR(Reweighted(beta=beta, tau_plus=tau), temperature=temperature)
        close(ours(objective, z, groups), want, 1e-9)
        close(ours(objective, z.float(), groups), want, 1e-5 + 1e-6 / temperature)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    groups=st.lists(st.integers(-1, 3), min_size=1, max_size=7),
    beta=st.sampled_from([0.0, 0.7, 2.0]),
    tau=st.sampled_from([0.0, 0.05, 0.5]),
    temperature=st.sampled_from([0.02, 0.2, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_any_groups_follow_the_paper(groups: list[int], beta: float, tau: float, temperature: float, seed: int) -> None:
    z = randn(len(groups), 3, seed=seed)
    want = value_and_gradient(lambda x: loop(x, groups, reweighted(beta, tau, temperature)), z)
    close(ours(SimCLR(Reweighted(beta=beta, tau_plus=tau), temperature=temperature), z, groups), want, 1e-8)
    want = value_and_gradient(lambda x: loop(x, groups, decoupled(temperature)), z)
    close(ours(SimCLR(temperature=temperature, decoupled=True), z, groups), want, 1e-8)


def as_published(z: Tensor, beta: float, tau: float, temperature: float) -> Tensor:
    """The form of Robinson et al.'s own programme, for two views: importance weights and a floor."""
    n = len(z) // 2
    u = normalize(z, dim=1)
    e = torch.exp(u @ u.T / temperature)
    other = ~torch.eye(n, dtype=torch.bool).repeat(2, 2)
    negatives = e[other].view(2 * n, 2 * n - 2)
    positive = torch.exp((u * u.roll(n, 0)).sum(1) / temperature)
    importance = torch.exp(beta * negatives.log())
    weighted = (importance * negatives).sum(1) / importance.mean(1)
    g = (weighted - tau * (2 * n - 2) * positive) / (1 - tau)
    g = g.clamp(min=(2 * n - 2) * math.exp(-1 / temperature))
    return -(positive / (positive + g)).log().mean()


@pytest.mark.parametrize(("beta", "tau"), SETTINGS)
@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.07, 0.5, 1.0])
@pytest.mark.parametrize("dim", [2, 8, 1024])
def test_reweighted_equals_the_published_form(beta: float, tau: float, temperature: float, dim: int) -> None:
    """In high dimensions cosines are small, and at a low temperature exponentials leave float32's range."""
    z, groups = randn(24, dim), torch.arange(12).repeat(2)
    objective = SimCLR(Reweighted(beta=beta, tau_plus=tau), temperature=temperature)
    want = value_and_gradient(lambda x: as_published(x, beta, tau, temperature), z)
    close(ours(objective, z, groups), want, 1e-9)
    close(ours(objective, z.float(), groups), want, 1e-5 + 1e-6 / temperature)


def test_nothing_reweighted_is_nearly_simclr() -> None:
    """With one positive an anchor and every setting 0 it is NT-Xent itself."""
    z, groups = randn(20, 6), torch.arange(10).repeat(2)
    close(ours(SimCLR(Reweighted(beta=0)), z, groups), ours(SimCLR(), z, groups), 1e-12)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_decoupled_follows_the_paper(pattern: str, temperature: float) -> None:
    groups = PATTERNS[pattern]
    z = randn(len(groups), 4, seed=len(groups))
    want = value_and_gradient(lambda x: loop(x, groups, decoupled(temperature)), z)
    objective = SimCLR(temperature=temperature, decoupled=True)
    close(ours(objective, z, groups), want, 1e-10)
    close(ours(objective, z.float(), groups), want, 1e-5 + 1e-6 / temperature)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_decoupled_equals_lightly(temperature: float) -> None:
    z, peer = randn(200, 16), DCLLoss(temperature=temperature)
    want = value_and_gradient(lambda x: peer(*x.chunk(2)), z)
    objective = SimCLR(temperature=temperature, decoupled=True)
    close(ours(objective, z, torch.arange(100).repeat(2)), want, 1e-10)
    close(ours(objective, z.float(), torch.arange(100).repeat(2)), want, 1e-5)


VARIANTS: dict[str, Callable[..., SimCLR]] = {
    "plain": SimCLR,
    "decoupled": lambda **k: SimCLR(decoupled=True, **k),
    "queue": lambda **k: SimCLR(Queue(size=6), **k),
    "decoupled queue": lambda **k: SimCLR(Queue(size=6), decoupled=True, **k),
    "reweighted": lambda **k: SimCLR(Reweighted(beta=1.5), **k),
    "debiased": lambda **k: SimCLR(Reweighted(beta=0, tau_plus=0.1), **k),
    "both": lambda **k: SimCLR(Reweighted(beta=10, tau_plus=0.05), **k),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("temperature", [0.021, 0.1, 0.5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_learnt_temperature(variant: str, temperature: float, dtype: torch.dtype) -> None:
    """The loss of the same fixed temperature; its own gradient as differences tell."""
    z, groups = randn(9, 5).to(dtype), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])
    z[8] = z[0] + 0.01 * z[8]
    objective = VARIANTS[variant](temperature=temperature, learn_temperature=True).double()
    objective(randn(4, 5, seed=9), torch.arange(4) + 50)  # something for a queue to remember
    objective.eval()
    objective.zero_grad()
    got = ours(objective, z, groups)
    with torch.no_grad():
        log, h = objective.log_temperature.clone(), 1e-6
        assert float(log.exp()) == pytest.approx(temperature)
        differ = []
        for step in (h, -h):
            objective.log_temperature.copy_(log + step)
            differ.append(objective(z.double(), groups)["loss"])
        objective.log_temperature.copy_(log)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-5 + 1e-5 / temperature
    assert_close(objective.log_temperature.grad, (differ[0] - differ[1]) / (2 * h), rtol=tolerance, atol=1e-7)

    fixed = VARIANTS[variant](temperature=float(log.exp())).double()
    fixed.load_state_dict({k: v for k, v in objective.state_dict().items() if k != "log_temperature"})
    close(got, ours(fixed.eval(), z.double(), groups), 1e-9 if dtype == torch.float64 else tolerance)
    assert float(objective(z, groups)["temperature"]) == pytest.approx(temperature)


def test_a_temperature_at_its_floor_can_rise() -> None:
    """Where it started, and where a step has taken it lower than it may be: the loss wants it higher."""
    z, groups = randn(12, 6, dtype=torch.float32), torch.arange(6).repeat(2)
    objective = SimCLR(temperature=0.02, learn_temperature=True)
    for start in (0.02, 0.015):
        objective.log_temperature.data.fill_(math.log(start))
        objective.zero_grad()
        out = objective(z, groups)
        assert float(out["temperature"]) == pytest.approx(0.02)
        out["loss"].backward()
        assert float(objective.log_temperature.grad) < -1


@pytest.mark.parametrize("tile", [2, 3, 4, 4096])
def test_logsumexp_over_other_groups(tile: int) -> None:
    groups = torch.tensor([4, 0, 0, 1, 1, 1, 2, 0, 9])
    z, t = normalize(randn(9, 4), dim=1).requires_grad_(), torch.tensor(0.3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, s: similarity_logsumexp(x, s, groups=groups, tile=tile), (z, t))
    g = randn(9, seed=1)
    for temperature in (0.3, 0.004):
        s = (z @ z.T / temperature).masked_fill(groups[:, None] == groups, -math.inf)
        got = similarity_logsumexp(z, temperature, groups=groups, tile=tile)
        assert_close(got, s.logsumexp(1), rtol=1e-12, atol=1e-12)
        want = torch.autograd.grad(s.logsumexp(1) @ g, z)[0]
        assert_close(torch.autograd.grad(got @ g, z)[0], want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.3, 0.004, torch.tensor(0.3, dtype=torch.float64)])
def test_logsumexp_over_nothing(temperature: Any) -> None:
    z = normalize(randn(5, 4), dim=1).requires_grad_()
    lse = similarity_logsumexp(z, temperature, groups=torch.ones(5, dtype=torch.int64), tile=2)
    assert (lse == -math.inf).all()
    lse.masked_fill(lse == -math.inf, 0).sum().backward()
    assert not z.grad.any()


def remembering(batches: list[tuple[Tensor, list[int]]], size: int) -> tuple[list[Row], list[int]]:
    """The last rows of the batches, as a memory in float32 holds them."""
    rows = [x for z, _ in batches for x in normalize(z, dim=1).float().double()]
    owners = [g for _, groups in batches for g in groups]
    return [list(x) for x in rows[-size:]], owners[-size:]


STEPS = [[0, 1, 2, 0, 1, 2], [3, 1, 4, 3, 1, 4], [5, 5, 5, 5], [0, 0], [7, 8]]


@pytest.mark.parametrize("size", [1, 4, 7, 100])
@pytest.mark.parametrize("apart", [False, True])
def test_queue_follows_the_loop_over_batch_and_memory(size: int, apart: bool) -> None:
    objective = SimCLR(Queue(size=size), temperature=0.2, decoupled=apart)
    term, past = (decoupled if apart else usual)(0.2), []
    for t, groups in enumerate(STEPS):
        z, memory = randn(len(groups), 4, seed=t), remembering(past, size)
        want = value_and_gradient(lambda x, g=groups, m=memory: loop(x, g, term, m), z)
        close(ours(objective.eval(), z, groups), want, 1e-10)  # looks, and remembers nothing
        close(ours(objective.train(), z, groups), want, 1e-10)
        past.append((z, groups))
    kept = remembering(past, size)
    assert objective.negatives.groups.tolist() == kept[1]
    assert_close(objective.negatives.rows.double(), torch.tensor(kept[0], dtype=torch.float64))


class SquaredContrastive(losses.ContrastiveLoss):
    """Theirs is linear in the distances; Hadsell's is not."""

    def pos_calc(self, d: Tensor, margin: float) -> Tensor:
        return (d - margin) ** 2

    def neg_calc(self, d: Tensor, margin: float) -> Tensor:
        return torch.relu(margin - d) ** 2


@pytest.mark.parametrize("size", [3, 100])
def test_queue_with_pairs_and_triplets(size: int) -> None:
    """Against pytorch-metric-learning, which is told the rows to compare with and which pairs and triplets count."""
    squared, plain = (distances.LpDistance(normalize_embeddings=False, power=k) for k in (2, 1))
    by_triplets = Triplet(Queue(size=size), margin=0.4), losses.TripletMarginLoss(0.4, distance=squared)
    by_pairs = Contrastive(Queue(size=size), margin=1.3), SquaredContrastive(0, 1.3, distance=plain)
    past: list[tuple[Tensor, list[int]]] = []
    for t, groups in enumerate(STEPS[:4]):
        z, labels, n = randn(len(groups), 4, seed=t), torch.tensor(groups), len(groups)
        rows, owners = remembering(past, size)
        everybody = torch.tensor(groups + owners)
        near = [(a, p) for a in range(n) for p in range(n) if a != p and groups[a] == groups[p]]
        far = [(a, j) for a in range(n) for j, g in enumerate(groups + owners) if g != groups[a]]
        triplets = torch.tensor([(a, p, j) for a, p in near for b, j in far if a == b]).view(-1, 3).T
        pairs = [*torch.tensor(near).view(-1, 2).T, *torch.tensor(far).view(-1, 2).T]
        for (objective, peer), chosen in ((by_triplets, tuple(triplets)), (by_pairs, tuple(pairs))):

            def theirs(x: Tensor, peer: Any = peer, chosen: Any = chosen, y: Tensor = labels) -> Tensor:
                u = normalize(x, dim=1)
                held = torch.tensor(rows, dtype=x.dtype).view(-1, 4)  # noqa: B023
                return peer(u, y, chosen, torch.cat([u, held]), everybody)  # noqa: B023

            close(ours(objective, z, groups), value_and_gradient(theirs, z), 1e-10)
        past.append((z, groups))


@pytest.mark.parametrize("make", [SimCLR, Triplet, Contrastive, Margin])
def test_memory_carries_no_gradient_and_is_saved(make: Any, tmp_path: Path) -> None:
    first, second = (randn(6, 4, seed=k).requires_grad_() for k in (0, 1))
    labels, objective = torch.arange(3).repeat(2), make(Queue(size=8))
    objective(first, labels)["loss"].backward()
    before = first.grad.clone()
    objective(second, labels + 3)["loss"].backward()
    assert torch.equal(first.grad, before)
    assert not any(x.requires_grad for x in objective.negatives.buffers())

    torch.save(objective.state_dict(), tmp_path / "state")
    for size in (8, 5):
        fresh = make(Queue(size=size))
        fresh.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        assert torch.equal(fresh.negatives.rows, objective.negatives.rows)
        third = randn(6, 4, seed=2)
        want = ours(objective.eval(), third, labels)
        assert want[0] != ours(make(Queue(size=8)), third, labels)[0]  # the memory matters
        close(ours(fresh, third, labels), want, 1e-12)
        assert len(fresh.negatives.rows) == size  # what it has now been shown counts again by its own size
    make(Queue()).load_state_dict(make(Queue()).state_dict())  # nothing remembered yet


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("groups", [[3, 3, 3], [3], []])
def test_a_memory_of_ones_own_group_alone(groups: list[int], apart: bool) -> None:
    """Nobody to push away, in the batch or in the memory."""
    objective = SimCLR(Queue(size=8), decoupled=apart, temperature=0.5)
    for seed in range(3):
        z = randn(len(groups), 4, seed=seed)
        want = value_and_gradient(lambda x: loop(x, groups, usual(0.5)), z) if not apart else (z.sum() * 0, z * 0)
        close(ours(objective, z, groups), want, 1e-10)


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_rows_stay_finite(beta: float, dtype: torch.dtype) -> None:
    """Rows alike, opposite, of zeros; no rows."""
    makes = [lambda t: SimCLR(Reweighted(beta=beta, tau_plus=0.1), temperature=t)]
    makes += [lambda t: SimCLR(Queue(size=5), decoupled=True, temperature=t)]
    for z in (torch.ones(6, 4), torch.ones(6, 4) * torch.tensor([1, -1] * 3)[:, None], torch.zeros(6, 4)):
        for groups in (torch.arange(3).repeat(2), torch.zeros(6), torch.arange(6)):
            for objective in [make(t) for make in makes for t in (0.01, 0.1, 1.0)] * 2:
                got = ours(objective, z.to(dtype), groups.long())
                assert torch.isfinite(got[0])
                assert torch.isfinite(got[1]).all()
    for objective in [make(0.1) for make in makes] * 2:
        out = objective(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.int64))
        out["loss"].backward()
        assert out["loss"] == 0


WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from seeall.ssl.contrastive import Contrastive
from seeall.ssl.margin import Margin
from seeall.ssl.negatives.distance import DistanceWeighted
from seeall.ssl.negatives.hard import Hard
from seeall.ssl.negatives.queue import Queue
from seeall.ssl.negatives.random import Random
from seeall.ssl.negatives.reweighted import Reweighted
from seeall.ssl.negatives.semihard import SemiHard
from seeall.ssl.simclr import SimCLR
from seeall.ssl.triplet import Triplet
from seeall.training.distributed import gather

class Task(nn.Module):
    def __init__(self, objective):
        super().__init__()
        self.net, self.objective = nn.Linear(12, 6).double(), objective
    def forward(self, x, groups):
        return self.objective(gather(self.net(x)), gather(groups))["loss"]

def work(rank, world):
    objectives = [SimCLR(Queue(size=n), decoupled=d, learn_temperature=True) for n in (20, 5) for d in (0, 1)]
    objectives += [SimCLR(Reweighted(beta=1.0, tau_plus=0.1), learn_temperature=True), SimCLR(decoupled=True)]
    for loss in (Triplet, Contrastive, Margin):
        objectives += [loss(), *(loss(n()) for n in (Random, Hard, SemiHard, DistanceWeighted, Queue))]
    found = []
    for k, objective in enumerate(objectives):
        torch.manual_seed(k)
        task, batches = Task(objective), [(torch.randn(16, 12).double(), torch.arange(16) % (5 + t)) for t in range(2)]
        for t, (x, groups) in enumerate(batches):
            mine = slice(rank * 16 // world, (rank + 1) * 16 // world)
            torch.manual_seed(100 + t)
            task.zero_grad()
            loss = task(x[mine], groups[mine])
            loss.backward()
            for p in task.parameters() if world > 1 else ():  # the mean over processes, as DDP takes it
                dist.all_reduce(p.grad)
                p.grad /= world
            found.append(torch.cat([loss.detach().view(1), *(p.grad.double().flatten() for p in task.parameters())]))
        found += [b.double().flatten() for b in task.buffers()]
    return found

if __name__ == "__main__":
    rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.save(work(rank, world), sys.argv[4] + str(rank))
    dist.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Losses, gradients of network and objective, memories: with draws too, where both seed torch alike."""
    (tmp_path / "worker.py").write_text(WORKER)
    started = [
        subprocess.Popen(
            [
                sys.executable,
                str(tmp_path / "worker.py"),
                str(rank),
                "2",
                str(tmp_path / "store"),
                str(tmp_path / "out"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    here: dict[str, Any] = {"__name__": "worker"}
    exec(WORKER, here)
    alone = here["work"](0, 1)
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    for rank in range(2):
        together = torch.load(tmp_path / f"out{rank}")
        for k, (got, want) in enumerate(zip(together, alone, strict=True)):
            assert_close(got, want, rtol=1e-6, atol=1e-7, msg=lambda m, k=k: f"{k}: {m}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reweighted(beta=-1.0), "reweighted: beta is -1.0: choose 0 or more"),
        (lambda: Reweighted(beta=math.inf), "reweighted: beta is inf"),
        (lambda: Reweighted(tau_plus=1.0), "reweighted: tau_plus is 1.0: choose from 0 and below 1"),
        (
            lambda: SimCLR(Reweighted(), decoupled=True),
            "reweighted negatives are decoupled already; leave decoupled out",
        ),
        (lambda: SimCLR(temperature=0.019, learn_temperature=True), "temperature must be 0.02 or more, not 0.019"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SeeallError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
