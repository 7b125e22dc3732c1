"""What is tried out again and again while a head learns, and changes what it learns from.

What a trial gives is kept in a file, so that a run that is resumed learns from just what it would have learnt from.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from seeall import durable
from seeall.data.annotations.examples import Example
from seeall.training.engine import Engine


class Trial(ABC):
    """every: micro-batches between two of them · folder: where what they gave is kept · name: its files begin so."""

    def __init__(self, engine: Engine, every: int, folder: Path, name: str) -> None:
        self.engine, self.every, self.folder, self.name = engine, every, folder, name

    def pause(self, first: int) -> None:
        """Try before micro-batch `first`, or recall what this gave before. Before the first stretch there is none.

        One process tries, and tells the others.
        """
        stretch = first // self.every
        if stretch:
            self.take(self.engine.everyone(self._found(stretch) if self.engine.rank == 0 else None)[0])

    def _found(self, stretch: int) -> Any:
        if self._file(stretch).exists():
            return json.loads(self._file(stretch).read_text())
        if self._file(stretch - 1).exists():  # what a run that is resumed within a trial no longer knows
            self.take(json.loads(self._file(stretch - 1).read_text()))
        found = self.attempt()
        self.folder.mkdir(exist_ok=True)
        durable.save(self._file(stretch), lambda out: out.write(json.dumps(found).encode()))
        return found

    def _file(self, stretch: int) -> Path:
        return self.folder / f"{self.name}-{stretch * self.every}.json"

    @abstractmethod
    def attempt(self) -> Any:
        """Try the head, which is left learning, and say what that gives, as JSON can hold it."""

    @abstractmethod
    def take(self, found: Any) -> None:
        """From now on, what `attempt` has given holds."""

    @abstractmethod
    def __call__(self, example: Example, row: int) -> Example:
        """What is learnt from in place of example number `row`."""
