"""Negatives that are remembered: loops over batch and memory, what a memory keeps, and two processes as one."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from seeall.ssl.contrastive import Contrastive
from seeall.ssl.margin import Margin
from seeall.ssl.negatives.queue import Queue
from seeall.ssl.simclr import SimCLR
from seeall.ssl.triplet import Triplet
from tests.objectives.contrastive_loops import Row, close, decoupled, loop, ours, randn, usual, value_and_gradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_metric_learning import distances, losses


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
