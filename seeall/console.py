"""What a person sees while something runs: notes and bars on standard error. Knows no torch.

Notes are records of the logger "seeall"; the command decides how loud it is. A bar is drawn only on a
terminal; elsewhere a line is printed every tenth of the way, so that a log stays readable.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("seeall")


class Bar:
    """Progress of one long piece of work. `update` moves it on; `words`, in which {rate} is steps
    a second, replaces what stands behind it."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done, self.words = label, total, done, ""
        self._start, self._first, self._shown = time.monotonic(), done, done * 10 // max(total, 1)

    def update(self, steps: int = 1, words: str | None = None) -> None:
        """Move on by `steps`."""
        self.done += steps
        self.words = self.words if words is None else words.format(rate=self.rate)
        tenth = self.done * 10 // max(self.total, 1)
        if tenth > self._shown:
            self._shown = tenth
            log.info("%s %d of %d  %s", self.label, self.done, self.total, self.words)

    @property
    def rate(self) -> float:
        """Steps a second since the bar began."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)


class _RichBar(Bar):
    """The same, drawn on a terminal."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(label, total, done)
        self.rich = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TimeRemainingColumn(compact=True), TextColumn("{task.fields[words]}"),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self.rich.add_task(label, total=total, completed=done, words="")

    def update(self, steps: int = 1, words: str | None = None) -> None:
        self.done += steps
        self.words = self.words if words is None else words.format(rate=self.rate)
        self.rich.update(self._task, completed=self.done, words=self.words)


@contextmanager
def bar(label: str, total: int, done: int = 0) -> Iterator[Bar]:
    """A bar for `total` steps of which `done` are behind us."""
    if log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
        drawn = _RichBar(label, total, done)
        with drawn.rich:
            yield drawn
    else:
        yield Bar(label, total, done)
