"""VICReg, Barlow Twins, BYOL, SimSiam, MoCo and DINO over two processes as in one, on a GPU as on a CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from seeall.training.distributed import gather, synchronise_batchnorm
from tests.objectives.lightly_six import MAKE, TAUGHT, D, call, every, gradients, randn, used


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
from seeall.training.distributed import leave
_, test, rank, folder = sys.argv
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(rank), world_size=2)
torch.save(runpy.run_path(test)["train"](int(rank), 2), f"{folder}/{rank}")
leave()
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
