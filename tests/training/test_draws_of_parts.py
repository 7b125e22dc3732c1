"""Random numbers of the micro-batches of a step: each has its own, and so has each of two real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seeall.data import keyed

STEPS, DROPOUT = 2, 0xD409
WORKER = """
import sys, torch
from pathlib import Path
from torch import nn
from seeall.ssl.simclr import SimCLR
from seeall.ssl.task import Pretraining
from seeall.training.engine import launch
from seeall.training.loop import fit
from seeall.training.optimisers import sgd
from seeall.training.run import Run

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.dropout = nn.Linear(12, 16), nn.Dropout(0.5)

    def forward(self, x):
        masks.append(self.dropout(torch.ones(len(x), 16)) > 0)
        return self.layer(x.flatten(1)) * masks[-1]

class Drawing(SimCLR):
    def forward(self, z, groups):
        drawn.append(torch.rand(8))
        return super().forward(z, groups)

masks, drawn = [], []
torch.set_num_threads(1)
torch.manual_seed(0)
folder, steps, accumulate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
engine = launch(precision="32")
task = Pretraining(Net(), nn.Linear(16, 8), Drawing(), nn.Identity())
views = lambda t: torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(t))
fetch = lambda t: {"views": views(t), "groups": torch.arange(4).repeat(2), "pictures": 4, "key": 100 + t}
run = Run(folder, {}, writes=False)
fit(engine, task, fetch, sgd, run, steps=steps, epoch_steps=6, samples=8, accumulate=accumulate, seed=5)
torch.save({"masks": masks, "drawn": drawn}, folder / f"{engine.world}-{accumulate}-{engine.rank}")
engine.part()
"""


def worked(folder: Path, world: int, accumulate: int) -> list[dict[str, list[torch.Tensor]]]:
    """What the dropout of each process let through, and what the objective drew, micro-batch by micro-batch."""
    (folder / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(world):
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        if world > 1:
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
            env |= {name: str(value) for name, value in ranks.items()}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
        given = [sys.executable, str(folder / "worker.py"), str(folder), str(STEPS), str(accumulate)]
        started.append(subprocess.Popen(given, env=env, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    return [torch.load(folder / f"{world}-{accumulate}-{rank}") for rank in range(world)]


@pytest.mark.slow
def test_every_process_drops_what_it_drops(tmp_path: Path) -> None:
    """Twelve masks, of two processes, two steps and three micro-batches: no two alike. The objective's draws are the
    same on both."""
    found = worked(tmp_path, 2, 3)
    masks = [mask for one in found for mask in one["masks"]]
    assert len(masks) == 2 * STEPS * 3
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert 0.2 < float((a == b).float().mean()) < 0.8
    assert all(torch.equal(a, b) for a, b in zip(found[0]["drawn"], found[1]["drawn"], strict=True))


@pytest.mark.slow
def test_a_step_of_one_batch_has_the_numbers_of_its_step(tmp_path: Path) -> None:
    """A step of several begins with them."""
    whole, parts = (worked(tmp_path, 1, accumulate)[0]["masks"] for accumulate in (1, 3))
    for t in range(STEPS):
        torch.manual_seed(keyed.seed(5, DROPOUT, t, 0))
        want = torch.nn.functional.dropout(torch.ones(8, 16), 0.5) > 0
        assert torch.equal(whole[t], want) and torch.equal(parts[3 * t], want)
