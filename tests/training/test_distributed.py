"""Two processes act as one: real processes, real gloo, each checked against the single process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WORKER = """
import os, sys, torch, torch.distributed as dist
from torch import nn
from seeall.ssl.simclr import SimCLR
from seeall.training.distributed import SyncBatchNorm, gather, leave, synchronise_batchnorm, world_size

rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
assert world_size() == world
torch.manual_seed(0)
parts = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.BatchNorm1d(16)]
net = nn.Sequential(*parts).double()
x, groups = torch.randn(16, 3, 8, 8).double(), torch.arange(8).repeat(2)
if world > 1:
    synchronise_batchnorm(net, torch.device("cpu"))
    assert sum(isinstance(m, SyncBatchNorm) for m in net) == 2
    net = nn.parallel.DistributedDataParallel(net)
net.train()
share = 16 // world
mine = slice(rank * share, (rank + 1) * share)
loss = SimCLR()(gather(net(x[mine])), gather(groups[mine]))["loss"]
loss.backward()
state = (net.module if world > 1 else net)
grads = torch.cat([p.grad.flatten() for p in state.parameters()])
stats = torch.cat([b.double().flatten() for b in state.buffers()])
if rank == 0:
    torch.save({"loss": loss.detach(), "grads": grads, "stats": stats}, sys.argv[4])
if world > 1:
    del net
    leave()
    names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    assert not any("gloo" in name for name in names), names  # one that works on while this ends would abort it
"""


def test_loss_gradient_and_statistics_of_two_processes_equal_those_of_one(tmp_path: Path) -> None:
    import torch

    (tmp_path / "worker.py").write_text(WORKER)
    found = {}
    for world in (1, 2):
        out = tmp_path / f"out{world}"
        started = [
            subprocess.Popen(
                [sys.executable, str(tmp_path / "worker.py"), str(rank), str(world), str(tmp_path / "store"), str(out)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        for process in started:
            _, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
        found[world] = torch.load(out)
    for name, value in found[1].items():
        torch.testing.assert_close(found[2][name], value, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_a_norm_that_is_held_stays_as_it_is() -> None:
    import torch
    from torch import nn

    from seeall.training.distributed import SyncBatchNorm, hold, synchronise_batchnorm

    net = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3)))
    hold(net[0])
    synchronise_batchnorm(net, torch.device("cpu"))
    net.train()
    assert type(net[0]) is nn.BatchNorm2d and not net[0].training
    assert type(net[1][0]) is SyncBatchNorm and net[1][0].training
