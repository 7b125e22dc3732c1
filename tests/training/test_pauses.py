"""Pauses of the loop: when, and that nothing is fetched across them; what is judged, and what is noticed."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall.training import checkpoint
from seeall.training.engine import launch
from seeall.training.journal import Journal
from seeall.training.loop import Stopped, fit
from seeall.training.optimisers import sgd
from seeall.training.run import Run
from seeall.types import SeeallError


class Line(nn.Module):
    """Fit y = 2x + 1; `far` is a scalar that somebody may want to notice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)

    def training_step(self, x: Tensor) -> dict[str, Tensor]:
        error = self.layer(x) - (2 * x + 1)
        return {"loss": error.square().mean(), "far": error.detach().abs().mean()}

    def evaluation(self) -> dict[str, float]:
        return {"bias": float(self.layer.bias.detach())}


class Data:
    """Micro-batch t, shifted by what the last pause said; remembers what happened: ("pause", t), ("fetch", t).

    slow: seconds that a fetch takes, so that a thread ahead is caught at it
    """

    def __init__(self, every: int, slow: float = 0.0, at: dict[int, Callable[[], None]] | None = None) -> None:
        self.every, self.slow, self.at = every, slow, at or {}
        self.said, self.events = -1.0, list[tuple[str, int]]()
        self.heard: dict[int, float] = {}

    def pause(self, t: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.events.append(("pause", t))
        self.said = float(t // self.every) if self.every else 0.0

    def fetch(self, t: int) -> Tensor:
        time.sleep(self.slow)
        self.events.append(("fetch", t))
        self.heard[t] = self.said
        self.at.get(t, lambda: None)()
        return torch.randn(8, 1, generator=torch.Generator().manual_seed(t)) + 0.1 * self.said

    @property
    def pauses(self) -> list[int]:
        return [t for what, t in self.events if what == "pause"]


def a_run(path: Path) -> Run:
    return Run.create(path, {}, {"fingerprint": "x"})


def train(run: Run | Path, data: Data, task: Line | None = None, **options: Any) -> tuple[Line, dict[str, float]]:
    run, task = a_run(run) if isinstance(run, Path) else run, task or Line()
    given = {"steps": 12, "epoch_steps": 4, "samples": 8, "pause_every": data.every, "pause": data.pause, **options}
    found = fit(launch(precision="32"), task, data.fetch, lambda m: sgd(m, lr=0.05), run, **given)
    return task, found


def weights(task: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in task.parameters()])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before, deadline = threading.active_count(), time.monotonic() + 60
    yield
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def in_time(what: Callable[[], None], seconds: float = 20) -> None:
    """What must not hang; a hung one is interrupted, so that the test fails and the others go on."""

    def late(*_: object) -> None:
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        what()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    ("every", "accumulate", "pauses"),
    [
        (4, 1, [0, 4, 8]),
        (5, 1, [0, 5, 10]),
        (1, 1, list(range(12))),
        (12, 1, [0]),
        (100, 1, [0]),
        (0, 1, [0]),
        (4, 2, [0, 4, 8, 12, 16, 20]),
        (5, 2, [0, 5, 10, 15, 20]),
        (4, 3, list(range(0, 36, 4))),
        (2, 5, list(range(0, 60, 2))),
    ],
)
def test_where_it_pauses(tmp_path: Path, background: bool, every: int, accumulate: int, pauses: list[int]) -> None:
    """At the first micro-batch and every `every`-th; every batch is fetched once, in order, after its own pause."""
    data = Data(every)
    train(tmp_path / "r", data, background=background, accumulate=accumulate)
    assert data.pauses == pauses
    assert [t for what, t in data.events if what == "fetch"] == list(range(12 * accumulate))
    for t, said in data.heard.items():
        assert said == (t // every if every else 0)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("every", [1, 4, 5])
def test_reading_ahead_changes_nothing(tmp_path: Path, every: int, accumulate: int) -> None:
    """A fetch that takes its time, and one ahead of a slow step: the same weights to the last bit."""
    found = []
    for k, (background, slow) in enumerate([(False, 0.0), (True, 0.0), (True, 0.002)]):
        data = Data(every, slow)
        task, _ = train(tmp_path / str(k), data, background=background, accumulate=accumulate)
        found.append(weights(task))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_it_does_read_ahead_within_a_stretch(tmp_path: Path) -> None:
    """While a step is slow the next batches of its stretch are fetched, and none of the next stretch."""
    data, seen = Data(4), dict[int, int]()

    class Slow(Line):
        def training_step(self, x: Tensor) -> dict[str, Tensor]:
            time.sleep(0.03)
            seen[len(seen)] = max(data.heard)
            return super().training_step(x)

    train(tmp_path / "r", data, Slow(), background=True, steps=8)
    assert seen[0] > 0 and seen[4] > 4
    assert all(newest // 4 == t // 4 for t, newest in seen.items())


def test_a_pause_sees_the_weights_that_all_steps_before_it_made(tmp_path: Path) -> None:
    """Those of a run that ends there, though batches were read ahead."""
    task, seen = Line(), dict[int, Tensor]()
    data = Data(4)
    ordinary = data.pause
    data.pause = lambda t: (seen.update({t: weights(task).clone()}), ordinary(t))[1]  # type: ignore[method-assign]
    train(tmp_path / "r", data, task, background=True, steps=12)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    for k in (4, 8):
        short = Line()
        with pytest.raises(Stopped):
            train(tmp_path / str(k), Data(4, at={k - 1: stop}), short)
        assert torch.equal(weights(short), seen[k])


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("accumulate", "stopped"), [(1, 5), (1, 3), (1, 8), (3, 7), (3, 12), (2, 9)])
def test_resumed_in_the_middle_of_a_stretch(tmp_path: Path, background: bool, accumulate: int, stopped: int) -> None:
    """It pauses once where it goes on, so that what is fetched is what it would have been."""
    options = {"accumulate": accumulate, "background": background, "checkpoint_seconds": 1e9}
    whole, results = train(tmp_path / "a", Data(5), **options)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped) as stop_:
        train(tmp_path / "b", Data(5, at={stopped: stop}), **options)
    first = stop_.value.step * accumulate
    assert 0 < stop_.value.step < 12
    data = Data(5)
    again, found = train(Run.open(tmp_path / "b"), data, resume=True, **options)
    assert torch.equal(weights(whole), weights(again)) and found == results
    assert data.pauses == [first, *range((first // 5 + 1) * 5, 12 * accumulate, 5)]
    assert min(data.heard) == first


def test_nothing_left_to_do_pauses_no_more(tmp_path: Path) -> None:
    _, results = train(tmp_path / "r", Data(5))
    data = Data(5)
    _, again = train(Run.open(tmp_path / "r"), data, resume=True)
    assert data.events == [] and again == results


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("at", [0, 5, 10])
def test_a_fault_in_a_pause(tmp_path: Path, background: bool, at: int) -> None:
    """It comes out as it is; what was saved stands, and the run can go on."""
    data = Data(5)
    ordinary = data.pause

    def broken(t: int) -> None:
        if t == at:
            raise SeeallError("the disk is full")
        ordinary(t)

    data.pause = broken  # type: ignore[method-assign]
    options = {"background": background, "checkpoint_seconds": 0.0}
    with pytest.raises(SeeallError, match="the disk is full"):
        in_time(lambda: train(tmp_path / "b", data, **options))
    assert max(data.heard, default=-1) == at - 1
    if at:
        assert checkpoint.load(tmp_path / "b" / "checkpoints" / "last")["step"] == at
    whole, _ = train(tmp_path / "a", Data(5), **options)
    again, _ = train(Run.open(tmp_path / "b"), Data(5), resume=True, **options)
    assert torch.equal(weights(whole), weights(again))


@pytest.mark.parametrize("at", [0, 4, 6])
def test_a_fault_while_reading_ahead(tmp_path: Path, at: int) -> None:
    def fail() -> None:
        raise ZeroDivisionError("in fetch")

    data = Data(5, at={at: fail})
    with pytest.raises(ZeroDivisionError, match="in fetch"):
        in_time(lambda: train(tmp_path / "r", data, background=True))
    assert max(data.heard) == at


@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_during_a_pause_and_during_a_stretch(tmp_path: Path, background: bool) -> None:
    """It leaves after the step under way, with nothing hanging."""
    whole, _ = train(tmp_path / "whole", Data(5))
    for k, at in enumerate(["pause", "fetch"]):
        data = Data(5, at={7: lambda: os.kill(os.getpid(), signal.SIGINT)} if at == "fetch" else None)
        if at == "pause":
            ordinary = data.pause

            def interrupted(t: int, ordinary: Callable[[int], None] = ordinary) -> None:
                if t == 5:
                    os.kill(os.getpid(), signal.SIGINT)
                ordinary(t)

            data.pause = interrupted  # type: ignore[method-assign]

        def run(data: Data = data, k: int = k) -> None:
            with pytest.raises(Stopped) as stop:
                train(tmp_path / str(k), data, background=background)
            assert stop.value.step <= 8 and stop.value.signal == signal.SIGINT

        in_time(run)
        again, _ = train(Run.open(tmp_path / str(k)), Data(5), resume=True, background=background)
        assert torch.equal(weights(whole), weights(again))


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path: Path) -> None:
    """While the loop waits for a batch that is long in coming; the thread that fetches it ends with it."""
    gate = threading.Event()

    def twice() -> None:
        usual = signal.getsignal(signal.SIGINT)
        time.sleep(1)  # by then the loop has taken all other batches
        os.kill(os.getpid(), signal.SIGINT)
        while signal.getsignal(signal.SIGINT) == usual:  # until it was heard
            time.sleep(0.01)
        threading.Timer(0.1, gate.set).start()
        os.kill(os.getpid(), signal.SIGINT)
        gate.wait(10)

    data = Data(5, at={7: twice})
    with pytest.raises(KeyboardInterrupt):
        in_time(lambda: train(tmp_path / "r", data, background=True))
    assert max(data.heard) <= 9


def test_a_notice_is_given_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def notice(means: dict[str, float]) -> str | None:
        seen.append(means)
        return None if len(seen) == 1 else f"far by {means['far']:.6f}"

    with caplog.at_level(logging.WARNING, logger="seeall"):
        train(tmp_path / "r", Data(0), steps=14, notice=notice)
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 14]
    assert [round(m["far"], 6) for m in seen] == [line["far"] for line in lines]  # of an epoch, and of that alone
    assert all(set(m) == {"loss", "far"} for m in seen)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"epoch 2: far by {seen[1]['far']:.6f}"]


def test_a_notice_names_the_epoch_that_was_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="seeall"):
        train(tmp_path / "r", Data(0), steps=3, notice=lambda means: "look here")
    assert [record.getMessage() for record in caplog.records] == ["epoch 1: look here"]


def test_nothing_to_notice_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="seeall"):
        train(tmp_path / "r", Data(0), notice=lambda means: None)
        train(tmp_path / "s", Data(0))
    assert not caplog.records


def test_what_is_judged(tmp_path: Path) -> None:
    """After each evaluation, with the journal and the step, when the figures are already written."""
    seen: list[tuple[int, list[int], bool]] = []
    task = Line()

    def judged(journal: Journal, step: int) -> None:
        lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
        seen.append((step, [line["step"] for line in lines if "bias" in line], task.training))
        journal.scalars(step, {"told": 1.0})

    train(tmp_path / "r", Data(0), task, steps=12, evaluate_every=5, judged=judged)
    assert seen == [(5, [5], True), (10, [5, 10], True), (12, [5, 10, 12], True)]
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "told" in line] == [5, 10, 12]


def test_nothing_is_judged_without_an_evaluation(tmp_path: Path) -> None:
    train(tmp_path / "r", Data(0), judged=lambda journal, step: pytest.fail("there was none"))
