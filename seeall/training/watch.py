"""What the loop reads while it runs: the scalars of every step, and the time that it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from seeall.training.engine import Engine


class Watch:
    """The scalars of each step, the same on every process. On a GPU they are read one step late, from memory that
    they were copied to meanwhile, so that the host never waits for the step under way.

    stop, bad: the first step at which somebody asked to stop, and at which the loss was no finite number
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.loss = engine, math.nan
        self.stop: int | None = None
        self.bad: int | None = None
        self.sums: dict[str, float] = {}
        self.count = 0
        self._pending: tuple[int, list[str], Tensor, Any] | None = None

    def take(self, t: int, told: dict[str, Tensor], stop: bool) -> None:
        """Take in what step t told, and whether this process was asked to stop."""
        values = torch.stack([v.detach().float() for v in told.values()])
        values = torch.cat([values, values.new_full((1,), float(stop))])
        if self.engine.world > 1:
            torch.distributed.all_reduce(values)
            values /= self.engine.world
        late, arrived = self._pending, None
        if values.device.type == "cuda":
            on_host = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            values, arrived = on_host, torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._pending = (t, list(told), values, arrived)
        if arrived is None:
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
        found = {name: total / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return found

    def agreed(self, what: int | None, t: int) -> bool:
        """Whether every process knows by now of something that was first seen at step `what`.

        A process that had to settle early knows it one step before the others, and must not leave without them.
        """
        return what is not None and (self.engine.world == 1 or t > what)

    def _read(self, t: int, names: list[str], values: Tensor, arrived: Any) -> None:
        if arrived is not None:
            arrived.synchronize()
        *numbers, stop = values.tolist()
        for name, number in zip(names, numbers):
            self.sums[name] = self.sums.get(name, 0.0) + number
        self.count += 1
        self.loss = numbers[names.index("loss")]
        if stop > 0 and self.stop is None:
            self.stop = t
        if not math.isfinite(self.loss) and self.bad is None:
            self.bad = t


class Pace:
    """Pictures a second, and the share of the time that is spent waiting for data, since `begin`.

    samples: pictures a step
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def begin(self) -> None:
        """Count from here: what came before, an evaluation or a start, is no training."""
        self._began, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same, the time that each takes to come counted as waiting."""
        asked = time.perf_counter()
        for batch in batches:
            self._waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def step(self) -> tuple[float, float]:
        """One step is over: rate and share."""
        self._steps += 1
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        return self._steps * self.samples / elapsed, self._waited / elapsed
