"""The loop: the schedule, the average, accumulation, faults, signals; on a task small enough to check by hand."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall.training.engine import launch
from seeall.training.loop import Stopped, fit
from seeall.training.optimisers import adamw, cosine, lars, sgd
from seeall.training.run import Run
from seeall.types import SeeallError


class Line(nn.Module):
    """Fit y = 2x + 1; `dropout` makes every step need random numbers."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dropout = nn.Linear(1, 1), nn.Dropout(dropout)

    def training_step(self, x: Tensor) -> dict[str, Tensor]:
        error = self.dropout(self.layer(x)) - (2 * x + 1)
        return {"loss": error.square().mean(), "offset": error.mean()}

    def evaluation(self) -> dict[str, float]:
        return {"bias": float(self.layer.bias.detach())}


def data(t: int) -> Tensor:
    return torch.randn(8, 1, generator=torch.Generator().manual_seed(t))


def a_run(path: Path) -> Run:
    return Run.create(path, {}, {"fingerprint": "x"})


def train(path: Path, task: Line | None = None, run: Run | None = None, **options: Any) -> tuple[Line, Run, dict]:
    task, run = task or Line(), run or a_run(path)
    given = {
        "steps": 20,
        "epoch_steps": 5,
        "samples": 8,
        "fetch": data,
        "optimiser": lambda m: sgd(m, lr=0.1),
        **options,
    }
    fetch, optimiser = given.pop("fetch"), given.pop("optimiser")
    return task, run, fit(launch(precision="32"), task, fetch, optimiser, run, **given)


def weights(task: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in task.parameters()])


def test_one_step_by_hand(tmp_path: Path) -> None:
    reference = Line()
    x = data(0)
    error = reference.layer(x) - (2 * x + 1)
    error.square().mean().backward()
    task, _, _ = train(
        tmp_path / "r", steps=1, warmup=0.5, optimiser=lambda m: sgd(m, lr=0.1, weight_decay=0, momentum=0)
    )
    for p, q in zip(task.parameters(), reference.parameters()):
        torch.testing.assert_close(p.detach(), q.detach() - 0.1 * q.grad)


def test_accumulation_equals_the_larger_batch(tmp_path: Path) -> None:
    whole, _, _ = train(tmp_path / "a", fetch=lambda t: torch.cat([data(2 * t), data(2 * t + 1)]))
    parts, _, _ = train(tmp_path / "b", accumulate=2)
    torch.testing.assert_close(weights(whole), weights(parts))


@pytest.mark.parametrize("optimiser", [adamw, sgd, lars])
def test_every_optimiser_learns_and_spares_biases_from_decay(tmp_path: Path, optimiser: Any) -> None:
    made = optimiser(Line())
    assert [group["weight_decay"] > 0 for group in made.param_groups] == [True, False]
    own = {"trust": 1.0} if optimiser is lars else {}
    _, _, results = train(tmp_path / "r", steps=150, optimiser=lambda m: optimiser(m, lr=0.05, weight_decay=0, **own))
    assert results["loss"] < 0.2


def test_schedule() -> None:
    factors = [cosine(t, 100, 10) for t in range(100)]
    assert factors[0] == 0.1 and max(factors) == 1.0 == factors[10] and 0 < factors[-1] < 0.01
    assert factors[:11] == sorted(factors[:11]) and factors[10:] == sorted(factors[10:], reverse=True)


@pytest.mark.parametrize("background", [False, True])
def test_resume_equals_an_uninterrupted_run_to_the_last_bit(tmp_path: Path, background: bool) -> None:
    """With dropout, momentum and an average of the weights."""
    options = {"ema": 0.9, "clip": 1.0, "background": background, "checkpoint_seconds": 0.0}
    whole, _, _ = train(tmp_path / "a", Line(0.3), **options)

    class Killed(Exception): ...

    def dies(t: int) -> Tensor:
        if t == 13:
            raise Killed
        return data(t)

    with pytest.raises(Killed):
        train(tmp_path / "b", Line(0.3), fetch=dies, **options)
    again, _, _ = train(tmp_path / "b", Line(0.3), Run.open(tmp_path / "b"), resume=True, **options)
    assert torch.equal(weights(whole), weights(again))
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 15, 20]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: signal.Signals) -> None:
    whole, _, _ = train(tmp_path / "a")

    def interrupted(t: int) -> Tensor:
        if t == 7:
            os.kill(os.getpid(), number)
        return data(t)

    with pytest.raises(Stopped) as stop:
        train(tmp_path / "b", fetch=interrupted)
    assert (stop.value.step, stop.value.signal) == (8, number)
    again, _, _ = train(tmp_path / "b", run=Run.open(tmp_path / "b"), resume=True)
    assert torch.equal(weights(whole), weights(again))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, bad: float) -> None:
    def poisoned(t: int) -> Tensor:
        return data(t) * (bad if t == 12 else 1)

    with pytest.raises(
        SeeallError, match=r"no longer a finite number at step 13 \(epoch 3, .*last good checkpoint is .*last"
    ):
        train(tmp_path / "r", fetch=poisoned, checkpoint_seconds=0.0)
    state = torch.load(tmp_path / "r" / "checkpoints" / "last", weights_only=True)
    assert state["step"] == 12
    assert all(v.isfinite().all() for v in state["model"].values())


def test_best_and_evaluation(tmp_path: Path) -> None:
    _, run, results = train(tmp_path / "r", evaluate_every=5, best="bias")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    biases = {line["step"]: line["bias"] for line in lines if "bias" in line}
    assert list(biases) == [5, 10, 15, 20]
    assert results["best bias"] == pytest.approx(max(biases.values()), abs=1e-6)
    best = torch.load(run.best, weights_only=True)["step"]
    assert biases[best] == max(biases.values())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "r")

    class Other(Line):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)

    with pytest.raises(SeeallError, match="does not fit the network"):
        train(tmp_path / "r", Other(), Run.open(tmp_path / "r"), resume=True)


def test_bf16(tmp_path: Path) -> None:
    """Steps compute in bfloat16, weights stay float32."""
    seen = set()

    class Seen(Line):
        def training_step(self, x: Tensor) -> dict[str, Tensor]:
            seen.add(self.layer(x).dtype)
            return super().training_step(x)

    task, run = Seen(), a_run(tmp_path / "r")
    results = fit(
        launch(precision="bf16"), task, data, lambda m: sgd(m, lr=0.1), run, steps=60, epoch_steps=10, samples=8
    )
    assert seen == {torch.bfloat16}
    assert results["loss"] < 0.5 and task.layer.weight.dtype == torch.float32


def test_a_gradient_that_is_no_number_is_not_saved(tmp_path: Path) -> None:
    """The loss is finite, its slope is not: the root of zero."""

    class Steep(Line):
        def training_step(self, x: Tensor) -> dict[str, Tensor]:
            zero = (self.layer.weight * 0).abs().sum().sqrt() if bool((x > 50).any()) else 0
            return {"loss": super().training_step(x)["loss"] + zero}

    with pytest.raises(SeeallError, match="no longer a finite number at step 13"):
        train(
            tmp_path / "r", Steep(), fetch=lambda t: data(t) + (100 if t == 12 else 0),
            checkpoint_seconds=0.0, optimiser=lambda m: sgd(m, lr=1e-6),
        )  # fmt: skip
    assert torch.load(tmp_path / "r" / "checkpoints" / "last", weights_only=True)["step"] == 12


def test_a_full_gpu_says_what_to_do(tmp_path: Path) -> None:
    class Greedy(Line):
        def training_step(self, x: Tensor) -> dict[str, Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    with pytest.raises(SeeallError, match=r"smaller --batch-size.*accumulate=2 \(CUDA out of memory\)"):
        train(tmp_path / "r", Greedy())


def test_an_epoch_that_was_cut_reports_all_of_its_steps(tmp_path: Path) -> None:
    train(tmp_path / "a")

    def interrupted(t: int) -> Tensor:
        if t == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return data(t)

    with pytest.raises(Stopped):
        train(tmp_path / "b", fetch=interrupted)
    _, _, results = train(tmp_path / "b", run=Run.open(tmp_path / "b"), resume=True)
    lines = [[json.loads(x) for x in (tmp_path / r / "metrics.jsonl").read_text().splitlines()] for r in "ab"]
    assert [(x["step"], x["loss"]) for x in lines[0]] == [(x["step"], x["loss"]) for x in lines[1]]
    _, _, at_the_end = train(tmp_path / "b", run=Run.open(tmp_path / "b"), resume=True)
    assert at_the_end == results and "loss" in results


def test_what_is_left_after_a_signal_is_the_average(tmp_path: Path) -> None:
    def interrupted(t: int) -> Tensor:
        if t == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return data(t)

    task = Line()
    with pytest.raises(Stopped):
        train(tmp_path / "b", task, fetch=interrupted, ema=0.9)
    state = torch.load(tmp_path / "b" / "checkpoints" / "last", weights_only=True)
    for name, value in task.state_dict().items():
        assert torch.equal(value, state["average"][name]) and not torch.equal(value, state["model"][name])


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_best_weights_can_be_kept(tmp_path: Path, ema: float | None) -> None:
    """A rate so high that the bias goes past its end and comes back."""
    options = {"evaluate_every": 1, "best": "bias", "ema": ema, "optimiser": lambda m: sgd(m, lr=0.5)}
    last, _, results = train(tmp_path / "last", **options)
    kept, _, told = train(tmp_path / "best", keep="best", **options)
    assert float(last.layer.bias.detach()) == pytest.approx(results["bias"]) and results["bias"] < results["best bias"]
    assert float(kept.layer.bias.detach()) == pytest.approx(told["bias"]) and told["bias"] == told["best bias"]
    assert told["best bias"] == results["best bias"]


def test_best_where_files_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    _, run, _ = train(tmp_path / "r", evaluate_every=5, best="bias")
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == ["best", "last"]
    assert torch.load(run.last, weights_only=True)["step"] == 20


@pytest.mark.parametrize(
    ("given", "words"), [({"precision": "8"}, "choose from auto"), ({"precision": "fp16"}, "needs a GPU")]
)
def test_what_this_machine_has_not(given: dict[str, Any], words: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SeeallError, match=words):
        launch(**given)


def test_several_slurm_tasks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_JOB_NAME", "job"), ("SLURM_PROCID", "1"), ("SLURM_NTASKS", "4")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SeeallError, match="torchrun"):
        launch(precision="32")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    launch(precision="32")
