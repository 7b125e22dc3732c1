"""The one training loop.

Every step is a function of (seed, t): its pictures, their views, dropout's random numbers, the learning rate. So a
checkpoint needs weights, optimiser and t, and a resumed run equals an uninterrupted one to the last bit on a CPU.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seeall import durable
from seeall.console import bar, log
from seeall.data import keyed
from seeall.data.pixels import background as made_ahead
from seeall.training import checkpoint
from seeall.training.distributed import synchronise_batchnorm
from seeall.training.ema import Average
from seeall.training.engine import Engine
from seeall.training.journal import Journal
from seeall.training.optimisers import cosine, unfuse
from seeall.training.run import Run
from seeall.training.watch import Pace, Watch
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


class _Training:
    """A task, its optimiser and everything a checkpoint holds of them."""

    def __init__(
        self,
        engine: Engine,
        task: nn.Module,
        optimiser: Callable[[nn.Module], torch.optim.Optimizer],
        run: Run,
        ema: float | None,
        clip: float | None,
        compile: bool,
        resume: bool,
    ) -> None:
        task.to(engine.device)
        for tensor in itertools.chain(task.parameters(), task.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
        if engine.world > 1:
            synchronise_batchnorm(task, engine.device)
        self.engine, self.task, self.run = engine, task, run
        self.optimiser = optimiser(task)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.average = Average(task, ema) if ema else None
        self.step, self.results, self.watch = 0, dict[str, float](), Watch(engine)
        self.saved, self.clip = time.monotonic(), clip
        if resume and run.last.exists():
            self._load()
        if clip:
            unfuse(self.optimiser)
        if compile:
            for child in task.children():
                if any(True for _ in child.parameters()):
                    child.compile()
        self._model, self._wrapped = engine.fabric.setup(task, self.optimiser)
        self._model.mark_forward_method("training_step")
        task.train()

    def _load(self) -> None:
        state = checkpoint.load(self.run.last)
        try:
            self.task.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.engine.fabric.strategy.precision.load_state_dict(state["precision"])
            if self.average:
                self.average.load({name: value.to(self.engine.device) for name, value in state["average"].items()})
            self.step, self.results = state["step"], state["results"]
            self.watch.sums, self.watch.count = state["sums"], state["count"]
        except torch.OutOfMemoryError:
            raise
        except (KeyError, RuntimeError, ValueError) as fault:
            why = str(fault).splitlines()[0]
            raise SeeallError(f"{self.run.last}: does not fit the network it should resume: {why}") from None
        log.info("resuming at step %d", self.step)

    def learn(self, batches: Iterable[Any], accumulate: int, *key: int) -> dict[str, Tensor]:
        """One optimiser step over `accumulate` micro-batches; what they told, the mean of it.

        key: of the step's random numbers; every micro-batch has its own of them, and so has every process
        """
        torch.manual_seed(keyed.seed(*key, self.engine.rank))
        self._wrapped.zero_grad(set_to_none=True)
        told: dict[str, Tensor] = {}
        for part, batch in enumerate(batches):
            if part:  # the task may have left the generator where all processes have it
                torch.manual_seed(keyed.seed(*key, self.engine.rank, part))
            several = part + 1 < accumulate and self.engine.world > 1
            with self.engine.fabric.no_backward_sync(self._model, enabled=several):
                with self.engine.fabric.autocast():
                    one = self._model.training_step(batch)
                self.engine.fabric.backward(one["loss"] / accumulate)
            told = {name: told.get(name, 0) + value.detach() / accumulate for name, value in one.items()}
        if self.clip:
            self.engine.fabric.clip_gradients(self._model, self._wrapped, max_norm=self.clip, error_if_nonfinite=False)
        self._wrapped.step()
        return told

    @torch.no_grad()
    def sound(self) -> bool:
        """Whether every weight is a finite number."""
        norms = torch._foreach_norm([p for p in self.task.parameters() if p.numel()])
        return bool(torch.stack([n.float() for n in norms]).isfinite().all())

    def save(self, step: int, best: bool = False) -> None:
        """Write `checkpoints/last`, and with `best` the same as `checkpoints/best`, on the process that writes."""
        self.step, self.saved = step, time.monotonic()
        if not self.run.writes:
            return
        state = {
            "step": step,
            "model": self.task.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "precision": self.engine.fabric.strategy.precision.state_dict(),
            "average": self.average.state if self.average else {},
            "results": self.results,
            "sums": self.watch.sums,
            "count": self.watch.count,
        }
        if best:  # first, so that no `last` ever speaks of a best that is not there
            checkpoint.save(self.run.best, state)
            durable.link(self.run.best, self.run.last)
        else:
            checkpoint.save(self.run.last, state)

    def evaluate(self, step: int, best: str) -> dict[str, float]:
        """The task's own metrics; where `best` among them is better than before, `checkpoints/best` is this step."""
        self.task.eval()
        with self.average.applied(self.task) if self.average else contextlib.nullcontext():
            found: dict[str, float] = self.task.evaluation()  # type: ignore[operator]
        self.task.train()
        name, sign = best.removeprefix("-"), -1 if best.startswith("-") else 1
        before = self.results.get(f"best {name}", -sign * math.inf)
        self.results |= found
        if name in found:
            better = sign * found[name] > sign * before
            self.results[f"best {name}"] = found[name] if better else before
            if better:
                self.save(step, best=True)
        return found

    def recall(self) -> None:
        """The weights of `checkpoints/best`, and how good they were found."""
        state = checkpoint.load(self.run.best)
        self.task.load_state_dict(state["model"])
        if self.average:
            self.average.load({name: value.to(self.engine.device) for name, value in state["average"].items()})
        self.results |= state["results"]

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
    keep: Literal["last", "best"] = "last",
    compile: bool = False,
    resume: bool = False,
    evaluate_every: int = 0,
    best: str = "",
    checkpoint_seconds: float = 60.0,
    pause_every: int = 0,
    pause: Callable[[int], None] = lambda t: None,
    begin: Callable[[Journal], None] = lambda journal: None,
    judged: Callable[[Journal, int], None] = lambda journal, step: None,
    notice: Callable[[dict[str, float]], str | None] = lambda means: None,
    end: Callable[[Journal, int], None] = lambda journal, step: None,
) -> dict[str, float]:
    """Train `task` for `steps` steps, with averaged weights left in it where `ema` is given.

    fetch: micro-batch number → what `task.training_step` takes. Step t is made of micro-batches
        t·accumulate … t·accumulate + accumulate - 1
    optimiser: module → optimiser; its learning rate is scaled by the schedule
    epoch_steps: micro-batches of an epoch, which is over in the step that takes its last one
    samples: pictures a micro-batch, of all processes, for the rate that is shown
    background: fetch ahead in a thread, for data that has to be read
    warmup: share of the steps over which the learning rate rises · clip: largest norm of the gradient
    ema: decay of the average of the weights, which is what is evaluated and left at the end
    keep: which weights are left in `task`: those of the last step, or of the one where `best` was best
    evaluate_every: micro-batches between evaluations, 0 for none, each after the step that takes the last of them
    best: the metric whose highest value is kept, the lowest after a "-"
    checkpoint_seconds: at most so long between checkpoints
    pause: called, before it is fetched, with the first micro-batch and every `pause_every`-th one; nothing is fetched
        ahead of it, so it may change what is fetched. The step before it is always saved
    begin, judged, end: called with the journal before the first step, after an evaluation and after the last step, for
        pictures worth keeping
    notice: mean scalars of an epoch → what is worth a warning, or None

    Returns: mean scalars of the last epoch, and the evaluation of the weights that are left.
    Raises: SeeallError where the loss is no longer finite, or a checkpoint does not fit `task`;
        Stopped after SIGINT or SIGTERM, once everything is saved.
    """
    training = _Training(engine, task, optimiser, run, ema, clip, compile, resume)
    start, watch = training.step, training.watch
    source = _source(fetch, range(start * accumulate, steps * accumulate), background, pause_every, pause)
    pace, warned = Pace(accumulate * samples), False
    journal = Journal(run.path, start=start, writes=run.writes)
    with (
        contextlib.closing(journal), contextlib.closing(source), _Signals() as signals,
        bar("training", steps, start) as progress,
    ):  # fmt: skip
        if not start:
            begin(journal)
        pace.begin()
        for t in range(start, steps):
            lr = training.set_rate(cosine(t, steps, max(1, int(warmup * steps))))
            try:
                some = pace.timed(itertools.islice(source, accumulate))
                told = training.learn(some, accumulate, seed, _DROPOUT, t)
            except torch.OutOfMemoryError as fault:
                raise SeeallError(_too_large(fault, samples, accumulate)) from None
            if training.average:
                training.average.update(task, t)

            done = t + 1
            full = _ends(t, accumulate, epoch_steps)
            over = full or done == steps
            due = _ends(t, accumulate, pause_every) or time.monotonic() - training.saved >= checkpoint_seconds
            due = due or done == steps
            judge = run.writes and evaluate_every > 0 and (_ends(t, accumulate, evaluate_every) or done == steps)
            watch.take(t, told, signals.number > 0)
            if over or due or judge:  # what is saved must be known to be sound
                watch.settle()
            stop, sound = watch.agreed(watch.stop, t), watch.bad is None
            if watch.agreed(watch.bad, t) or (sound and (due or judge or stop) and not training.sound()):
                raise SeeallError(_not_finite(t if sound else watch.bad or 0, accumulate, epoch_steps, lr, run))
            rate, share = pace.step()
            shown = "" if math.isnan(watch.loss) else f"loss {watch.loss:.3f}  "
            progress.update(1, f"{shown}{rate:,.0f} pictures/s  waiting for data {share:.0%}")
            if not sound:  # and every process will know it after one more step
                continue

            if over:
                training.results |= watch.means()
                means = {name: training.results[name] for name in told}
                journal.scalars(done, {**means, "lr": lr, "pictures_per_second": rate, "data_wait": share})
                if (words := notice(means)) and not warned:
                    warned = True
                    log.warning("epoch %d: %s", done * accumulate // epoch_steps + (not full), words)
            if judge:
                journal.scalars(done, training.evaluate(done, best))
                judged(journal, done)
            if stop or due:
                training.save(done)
            if over:
                pace.begin()
            if stop and done < steps:
                if training.average:
                    training.average.swap(task)
                raise Stopped(done, signals.number or signal.SIGTERM)
        if watch.bad is not None:
            raise SeeallError(_not_finite(watch.bad, accumulate, epoch_steps, lr, run))
        if keep == "best" and run.writes and run.best.exists():
            training.recall()
        if training.average:
            training.average.swap(task)
        if run.writes:
            task.eval()
            end(journal, steps)
    return dict(training.results)


def _source(
    fetch: Callable[[int], Any], micro: range, background: bool, every: int, pause: Callable[[int], None]
) -> Generator[Any]:
    """All micro-batches, fetched ahead if `background`, but never across a pause."""
    first = micro.start
    while first < micro.stop:
        until = min(micro.stop, (first // every + 1) * every if every else micro.stop)
        pause(first)
        stretch = range(first, until)
        yield from made_ahead(map(fetch, stretch)) if background else map(fetch, stretch)
        first = until


def _ends(t: int, accumulate: int, every: int) -> bool:
    """Whether step t takes the last of `every` micro-batches, counted from the first of all; never where that is 0."""
    return every > 0 and (t + 1) * accumulate // every > t * accumulate // every


def _too_large(fault: Exception, samples: int, accumulate: int) -> str:
    return (
        f"{samples} pictures at once are too many for this GPU's memory; try a smaller --batch-size, and to keep what "
        f"a step learns from, --set accumulate={2 * accumulate} ({str(fault).partition('. ')[0]})"
    )


def _not_finite(t: int, accumulate: int, epoch_steps: int, lr: float, run: Run) -> str:
    epoch = t * accumulate // epoch_steps + 1
    kept = f"the last good checkpoint is {run.last}" if run.last.exists() else "no checkpoint was written yet"
    return (
        f"the loss is no longer a finite number at step {t + 1} (epoch {epoch}, rate {lr:.2g}); "
        f"{kept}; try a lower --lr, --set clip=1, or --precision 32"
    )
