"""The one training loop.

Every step is a function of (seed, t): its pictures, their views, dropout's random numbers, the learning rate. So a
checkpoint needs weights, optimiser and t, and a resumed run equals an uninterrupted one to the last bit on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seeall.console import bar, log
from seeall.data import keyed
from seeall.data.pixels import background as made_ahead
from seeall.training import checkpoint
from seeall.training.distributed import synchronise_batchnorm
from seeall.training.ema import Average
from seeall.training.engine import Engine
from seeall.training.journal import Journal
from seeall.training.optimisers import cosine
from seeall.training.run import Run
from seeall.types import SeeallError

_DROPOUT = 0xD409


class Stopped(Exception):
    """Training was asked to stop, and has saved. `signal` is the number that asked."""

    def __init__(self, step: int, signal: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.signal = step, signal


class _Signals:
    """SIGINT and SIGTERM, remembered until the step is over. A second one takes its usual effect."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: Any) -> None:
        self.number = number
        self._restore()
        log.warning("stopping after this step; once more stops at once, without saving")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *_: object) -> None:
        self._restore()


class _Watch:
    """The scalars of each step, the same on every process. On a GPU they are read one step late, so that the
    host never waits for the step under way."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.loss, self.stop = engine, math.nan, False
        self._pending: tuple[int, list[str], Tensor] | None = None
        self._sums: dict[str, float] = {}
        self._count = 0

    def take(self, t: int, told: dict[str, Tensor], stop: bool) -> None:
        """Take in what step t told, and whether this process was asked to stop."""
        values = torch.stack([v.detach().float() for v in told.values()] + [torch.tensor(float(stop)).to(told["loss"])])
        if self.engine.world > 1:
            values = self.engine.fabric.all_reduce(values, reduce_op="mean")
        late, self._pending = self._pending, (t, list(told), values)
        if values.device.type == "cpu":
            self.settle()
        elif late:
            self._read(*late)

    def settle(self) -> None:
        """Read what is still pending."""
        if self._pending:
            late, self._pending = self._pending, None
            self._read(*late)

    def means(self) -> dict[str, float]:
        """Mean of each scalar since the last call."""
        self.settle()
        found = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return found

    def _read(self, t: int, names: list[str], values: Tensor) -> None:
        *numbers, stop = values.tolist()
        self.stop = self.stop or stop > 0
        for name, number in zip(names, numbers):
            self._sums[name] = self._sums.get(name, 0.0) + number
        self._count += 1
        self.loss = numbers[names.index("loss")]
        if not math.isfinite(self.loss):
            raise _NotFinite(t)


class _NotFinite(Exception):
    """The loss of step `args[0]` is NaN or infinite."""


class _Training:
    """A task, its optimiser and everything a checkpoint holds of them."""

    def __init__(
        self,
        engine: Engine,
        task: nn.Module,
        optimiser: Callable[[nn.Module], torch.optim.Optimizer],
        run: Run,
        ema: float | None,
        resume: bool,
    ) -> None:
        task.to(engine.device).to(memory_format=torch.channels_last)
        if engine.world > 1:
            synchronise_batchnorm(task, engine.device)
        self.engine, self.task, self.run = engine, task, run
        self.optimiser = optimiser(task)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.average = Average(task, ema) if ema else None
        self.step, self.results = 0, dict[str, float]()
        self.saved = time.monotonic()
        if resume and run.last.exists():
            self._load()

    def _load(self) -> None:
        state = checkpoint.load(self.run.last)
        try:
            self.task.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.engine.fabric.strategy.precision.load_state_dict(state["precision"])
            if self.average:
                self.average.load({name: value.to(self.engine.device) for name, value in state["average"].items()})
            self.step, self.results = state["step"], state["results"]
        except (KeyError, RuntimeError, ValueError) as fault:
            why = str(fault).splitlines()[0]
            raise SeeallError(f"{self.run.last}: does not fit the network it should resume: {why}") from None
        log.info("resuming at step %d", self.step)

    def save(self, step: int) -> None:
        """Write `checkpoints/last` on the process that writes."""
        self.step, self.saved = step, time.monotonic()
        if self.run.writes:
            state = {
                "step": step,
                "model": self.task.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "precision": self.engine.fabric.strategy.precision.state_dict(),
                "average": self.average.state if self.average else {},
                "results": self.results,
            }
            checkpoint.save(self.run.last, state)

    def evaluate(self, step: int, best: str) -> dict[str, float]:
        """The task's own metrics; where `best` among them is the highest so far, `checkpoints/best` is this step."""
        self.task.eval()
        with self.average.applied(self.task) if self.average else contextlib.nullcontext():
            found: dict[str, float] = self.task.evaluation()  # type: ignore[operator]
        self.task.train()
        highest = self.results.get(f"best {best}", -math.inf)
        self.results = dict(found)
        if best in found:
            self.results[f"best {best}"] = max(found[best], highest)
            if found[best] > highest:
                self.save(step)
                self.run.best.unlink(missing_ok=True)
                os.link(self.run.last, self.run.best)
        return found

    def set_rate(self, factor: float) -> float:
        """Scale every learning rate; returns that of the first group."""
        for group, rate in zip(self.optimiser.param_groups, self.rates):
            group["lr"] = rate * factor
        return float(self.rates[0] * factor)


def fit(
    engine: Engine,
    task: nn.Module,
    fetch: Callable[[int], Any],
    optimiser: Callable[[nn.Module], torch.optim.Optimizer],
    run: Run,
    *,
    steps: int,
    epoch_steps: int,
    samples: int,
    seed: int = 0,
    background: bool = False,
    warmup: float = 0.1,
    accumulate: int = 1,
    clip: float | None = None,
    ema: float | None = None,
    compile: bool = False,
    resume: bool = False,
    evaluate_every: int = 0,
    best: str = "",
    checkpoint_seconds: float = 60.0,
    begin: Callable[[Journal], None] = lambda journal: None,
    end: Callable[[Journal, int], None] = lambda journal, step: None,
) -> dict[str, float]:
    """Train `task` for `steps` steps, with averaged weights left in it where `ema` is given.

    fetch: micro-batch number → what `task.training_step` takes. Step t is made of micro-batches
        t·accumulate … t·accumulate + accumulate - 1
    optimiser: module → optimiser; its learning rate is scaled by the schedule
    samples: pictures a micro-batch, of all processes, for the rate that is shown
    background: fetch ahead in a thread, for data that has to be read
    warmup: share of the steps over which the learning rate rises · clip: largest norm of the gradient
    ema: decay of the average of the weights, which is what is evaluated and left at the end
    evaluate_every: steps between evaluations, 0 for none · best: the metric whose highest value is kept
    checkpoint_seconds: at most so long between checkpoints
    begin, end: called with the journal before the first step and after the last, for pictures worth keeping

    Returns: mean scalars of the last epoch and the last evaluation.
    Raises: SeeallError where the loss is no longer finite, or a checkpoint does not fit `task`;
        Stopped after SIGINT or SIGTERM, once everything is saved.
    """
    training = _Training(engine, task, optimiser, run, ema, resume)
    start = training.step
    if compile:
        for child in task.children():
            child.compile()
    model, wrapped = engine.fabric.setup(task, training.optimiser)
    model.mark_forward_method("training_step")
    task.train()
    watch, results = _Watch(engine), dict(training.results)
    micro = range(start * accumulate, steps * accumulate)
    source = made_ahead(map(fetch, micro)) if background else map(fetch, micro)
    waited, began = 0.0, time.monotonic()
    rate, share = 0.0, 0.0
    journal = Journal(run.path, start=start, writes=run.writes)
    with contextlib.closing(journal), _Signals() as signals, bar("training", steps, start) as progress:
        if not start:
            begin(journal)
        for t in range(start, steps):
            torch.manual_seed(keyed.seed(seed, _DROPOUT, t, engine.rank))
            lr = training.set_rate(cosine(t, steps, max(1, int(warmup * steps))))
            wrapped.zero_grad(set_to_none=True)
            told: dict[str, Tensor] = {}  # the mean over the micro-batches
            for part in range(accumulate):
                asked = time.perf_counter()
                batch = next(source)
                waited += time.perf_counter() - asked
                several = part + 1 < accumulate and engine.world > 1
                with engine.fabric.no_backward_sync(model, enabled=several):
                    one = model.training_step(batch)
                    engine.fabric.backward(one["loss"] / accumulate)
                told = {name: told.get(name, 0) + value.detach() / accumulate for name, value in one.items()}
            if clip:
                engine.fabric.clip_gradients(model, wrapped, max_norm=clip)
            wrapped.step()
            if training.average:
                training.average.update(task, t)
            done = t + 1
            over = done % epoch_steps == 0 or done == steps
            due = done == steps or time.monotonic() - training.saved >= checkpoint_seconds
            try:
                watch.take(t, told, signals.number > 0)
                if watch.stop or over or due:  # what is saved must be known to be sound
                    watch.settle()
            except _NotFinite as fault:
                raise SeeallError(_not_finite(fault.args[0], epoch_steps, lr, run)) from None
            elapsed = max(time.monotonic() - began, 1e-9)
            rate, share = (done - start) * accumulate * samples / elapsed, waited / elapsed
            progress.update(1, f"loss {watch.loss:.3f}  {rate:,.0f} pictures/s  waiting for data {share:.0%}")
            if over:
                means = watch.means()
                results |= means
                journal.scalars(done, {**means, "lr": lr, "pictures_per_second": rate, "data_wait": share})
            if evaluate_every and run.writes and (done % evaluate_every == 0 or done == steps):
                journal.scalars(done, training.evaluate(done, best))
                results |= training.results
            if watch.stop or due:
                training.save(done)
            if watch.stop and done < steps:
                raise Stopped(done, signals.number or signal.SIGTERM)
        if training.average:
            training.average.swap(task)
        if run.writes:
            task.eval()
            end(journal, steps)
    return results


def _not_finite(t: int, epoch_steps: int, lr: float, run: Run) -> str:
    kept = f"the last good checkpoint is {run.last}" if run.last.exists() else "no checkpoint was written yet"
    return (
        f"the loss is no longer a finite number at step {t + 1} (epoch {t // epoch_steps + 1}, rate {lr:.2g}); "
        f"{kept}; try a lower --lr, --set clip=1, or --precision 32"
    )
