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


class Trial(ABC):
    """every: micro-batches between two of them · folder: where what they gave is kept · name: its files begin so."""

    def __init__(self, every: int, folder: Path, name: str) -> None:
        self.every, self.folder, self.name = every, folder, name

    def pause(self, first: int) -> None:
        """Try before micro-batch `first`, or recall what this gave before. Before the first stretch there is none."""
        if first < self.every:
            return
        file = self.folder / f"{self.name}-{first // self.every * self.every}.json"
        if file.exists():
            self.take(json.loads(file.read_text()))
            return
        found = self.attempt()
        self.folder.mkdir(exist_ok=True)
        durable.save(file, lambda out: out.write(json.dumps(found).encode()))
        self.take(found)

    @abstractmethod
    def attempt(self) -> Any:
        """Try the head, which is left learning, and say what that gives, as JSON can hold it."""

    @abstractmethod
    def take(self, found: Any) -> None:
        """From now on, what `attempt` has given holds."""

    @abstractmethod
    def __call__(self, example: Example, row: int) -> Example:
        """What is learnt from in place of example number `row`."""
