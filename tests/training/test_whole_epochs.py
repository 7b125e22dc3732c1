"""Epochs of steps that take several micro-batches: how many there are, when each is over, and resuming in between."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall.data.sampler import Sampler
from seeall.heads.finetune import finetune
from seeall.index.nearest import nearest
from seeall.ssl.pretrain import pretrain
from seeall.training import checkpoint
from seeall.training.engine import launch
from seeall.training.loop import Stopped, fit
from seeall.training.optimisers import sgd
from seeall.training.run import Run
from seeall.types import SeeallError

TINY: dict[str, Any] = {"backbone": "plain", "batch_size": 8, "image_size": 32}
TIMES = ("pictures_per_second", "data_wait")


class Counting(nn.Module):
    """What it tells is the number of the micro-batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: tuple[int, Tensor]) -> dict[str, Tensor]:
        t, x = batch
        return {"loss": (self.layer(x) - x).square().mean(), "t": torch.tensor(float(t))}

    def evaluation(self) -> dict[str, float]:
        return {"bias": float(self.layer.bias.detach())}


def data(t: int) -> tuple[int, Tensor]:
    return t, torch.randn(8, 1, generator=torch.Generator().manual_seed(t))


def counted(path: Path, fetch: Callable[[int], Any] = data, run: Run | None = None, **options: Any) -> list[dict]:
    """The lines of a run's journal. Seven micro-batches make an epoch."""
    run = run or Run.create(path, {}, {"fingerprint": "x"})
    fit(launch(precision="32"), Counting(), fetch, lambda m: sgd(m, lr=0.05), run, epoch_steps=7, samples=8, **options)
    return lines_of(path)


def lines_of(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def by_loop(steps: int, accumulate: int, every: int) -> list[int]:
    """The steps, from 1, within which a stretch of `every` micro-batches ends, and the last one."""
    found, taken = [], 0
    for step in range(1, steps + 1):
        ends = False
        for _ in range(accumulate):
            taken += 1
            ends |= taken % every == 0
        if ends or step == steps:
            found.append(step)
    return found


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 15), (2, 14), (3, 9), (3, 12), (7, 3), (8, 5), (20, 4)])
def test_an_epoch_is_over_in_the_step_that_takes_its_last_batch(tmp_path: Path, accumulate: int, steps: int) -> None:
    lines = counted(tmp_path / "r", steps=steps, accumulate=accumulate, evaluate_every=14, best="bias")
    ends = by_loop(steps, accumulate, 7)
    assert [line["step"] for line in lines if "t" in line] == ends
    assert [line["step"] for line in lines if "bias" in line] == by_loop(steps, accumulate, 14)
    for first, last, line in zip([0, *ends], ends, (line for line in lines if "t" in line)):
        taken = range(first * accumulate, last * accumulate)
        assert line["t"] == pytest.approx(sum(taken) / len(taken))


@pytest.mark.parametrize(("steps", "epochs"), [(9, [1, 2, 3, 4]), (12, [1, 2, 3, 4, 5])])
def test_which_epoch_a_notice_is_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, steps: int, epochs: list[int]
) -> None:
    """The one that is over, though the step has begun the next; at the end the one that was cut."""
    said = []
    for k in range(len(epochs)):
        seen: list[int] = []

        def notice(means: dict[str, float], k: int = k, seen: list[int] = seen) -> str | None:
            seen.append(1)
            return "here" if len(seen) == k + 1 else None

        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="seeall"):
            counted(tmp_path / str(k), steps=steps, accumulate=3, notice=notice)
        said += [record.getMessage() for record in caplog.records]
    assert said == [f"epoch {epoch}: here" for epoch in epochs]


def test_the_epoch_of_a_loss_that_is_no_number(tmp_path: Path) -> None:
    def poisoned(t: int) -> tuple[int, Tensor]:
        return t, data(t)[1] * (float("nan") if t == 15 else 1)

    with pytest.raises(SeeallError, match=r"at step 6 \(epoch 3, "):
        counted(tmp_path / "r", poisoned, steps=9, accumulate=3)


@pytest.mark.parametrize("at", [2, 6, 7, 8, 13, 20])
def test_resumed_between_epochs_and_within(tmp_path: Path, at: int) -> None:
    """Three micro-batches a step, seven an epoch."""

    def interrupted(t: int) -> tuple[int, Tensor]:
        if t == at:
            os.kill(os.getpid(), signal.SIGINT)
        return data(t)

    options = {"steps": 9, "accumulate": 3, "evaluate_every": 7, "best": "bias"}
    whole = counted(tmp_path / "a", **options)
    with pytest.raises(Stopped):
        counted(tmp_path / "b", interrupted, **options)
    assert counted(tmp_path / "b", run=Run.open(tmp_path / "b"), resume=True, **options) == whole
    one, two = (checkpoint.load(tmp_path / r / "checkpoints" / "last") for r in "ab")
    assert all(torch.equal(one["model"][k], two["model"][k]) for k in one["model"]) and one["sums"] == two["sums"]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The micro-batches that runs ask for."""
    seen: list[int] = []
    ordinary = Sampler.__call__

    def sampled(self: Sampler, t: int) -> tuple[int, Tensor]:
        seen.append(t)
        return ordinary(self, t)

    monkeypatch.setattr(Sampler, "__call__", sampled)
    return seen


@pytest.mark.parametrize(
    ("n", "accumulate", "epochs", "want"),
    [(56, 1, 4, 28), (56, 4, 4, 28), (56, 3, 4, 27), (56, 3, 5, 36), (24, 8, 4, 16), (16, 9, 1, 9)],
)
def test_so_many_epochs_are_so_many_epochs(
    tmp_path: Path, taken: list[int], n: int, accumulate: int, epochs: int, want: int
) -> None:
    """As many as whole steps come nearest to, in pretraining and in fine-tuning alike, and one step at least."""
    world = f"scenes:n={n},size=32,identities=4"
    options = {**TINY, "epochs": epochs, "set": (f"accumulate={accumulate}",)}
    pretrain(world, tmp_path / "p", **options)
    assert sorted({*taken}) == list(range(want))
    taken.clear()
    finetune(world, tmp_path / "f", task="classification", start="none", val=world, **options)
    assert sorted({*taken}) == list(range(want))
    judged = [line["step"] for line in lines_of(tmp_path / "f") if "top1" in line]
    assert judged == by_loop(want // accumulate, accumulate, n // 8)


@pytest.mark.parametrize("at", [5, 13])
@pytest.mark.parametrize("options", [{}, {"negatives": "neighbours", "search": nearest}], ids=["all", "neighbours"])
def test_pretraining_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], at: int) -> None:
    """Three micro-batches a step, seven an epoch, of which a search begins each but the first."""
    ordinary = Sampler.__call__
    sets = ("accumulate=3", *(("every=1", "skip=0", "ceiling=1") if options else ()))
    given = {**TINY, **options, "epochs": 3, "set": sets}
    pretrain("scenes:n=60,size=32,identities=4", tmp_path / "a", **given)

    def sampled(self: Sampler, t: int) -> tuple[int, Tensor]:
        if t == at:
            os.kill(os.getpid(), signal.SIGINT)
        return ordinary(self, t)

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "__call__", sampled)
        with pytest.raises(Stopped):
            pretrain("scenes:n=60,size=32,identities=4", tmp_path / "b", **given)
    pretrain("scenes:n=60,size=32,identities=4", tmp_path / "b", **given, resume=True)
    assert lines_of(tmp_path / "a") == lines_of(tmp_path / "b")
    assert [line["step"] for line in lines_of(tmp_path / "b") if "knn20" in line] == [3, 5, 7]
    one, two = (checkpoint.load(tmp_path / r / "checkpoints" / "last") for r in "ab")
    assert all(torch.equal(one["model"][k], two["model"][k]) for k in one["model"])
