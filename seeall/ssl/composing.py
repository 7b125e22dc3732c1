"""Batches composed of neighbours: all pictures are looked at now and then, and what was found is kept on disk."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from seeall import durable
from seeall.console import log
from seeall.data.pixels import Store, stretches
from seeall.data.sampler import Order
from seeall.ssl.negatives.neighbours import Neighbours, Search, compose
from seeall.ssl.positives.belonging import Belonging
from seeall.ssl.task import Pretraining
from seeall.training.engine import Engine

_BATCH = 256


class Composed:
    """Epoch → rows, as `data.sampler.Order`; the same as `before` until pictures have been looked at.

    epoch_steps: micro-batches of an epoch · folder: where the tables are kept · before: the order of the first epochs
    """

    def __init__(
        self,
        how: Neighbours,
        search: Search,
        belonging: Belonging,
        store: Store,
        task: Pretraining,
        engine: Engine,
        *,
        size: int,
        seed: int,
        epoch_steps: int,
        folder: Path,
        before: Order,
    ) -> None:
        self.how, self.search, self.belonging, self.store, self.task = how, search, belonging, store, task
        self.engine, self.size, self.seed, self.folder, self.before = engine, size, seed, folder, before
        self.every = how.every * epoch_steps
        self._table: Tensor | None = None
        self._made: tuple[int, Tensor] = (-1, torch.empty(0))

    def __call__(self, epoch: int) -> Tensor:
        """(n,) int64 rows."""
        if self._table is None:
            return self.before(epoch)
        if self._made[0] != epoch:
            together, groups = self.belonging.together, self.belonging.groups(epoch)
            rows = compose(
                self._table, groups, beside=self.how.beside, together=together, seed=self.seed, epoch=epoch
            )  # fmt: skip
            self._made = (epoch, rows)
        return self._made[1]

    def pause(self, t: int) -> None:
        """Before micro-batch t: find the table that its epoch goes by; look and search where there is none yet."""
        turn = t // self.every
        if not turn:
            return
        file = self.folder / f"neighbours-{turn}.safetensors"
        kept = self.engine.everyone(_read(file))[0]
        if kept is not None:
            self._table = kept
            return
        if t % self.every:
            log.warning("%s is missing or damaged: made anew, so the run is not quite what it would have been", file)
        vectors = self._look()
        self._table = self.engine.everyone(self.how.table(self.search, vectors) if self.engine.rank == 0 else None)[0]
        assert self._table is not None
        if self.engine.rank == 0:
            file.parent.mkdir(exist_ok=True)
            content = save({"rows": self._table.contiguous()})
            durable.save(file, lambda out: out.write(content))
            for old in self.folder.glob("neighbours-*.safetensors"):  # a checkpoint may go back to the last but one
                if int(re.sub(r"\D", "", old.stem)) < turn - 1:
                    old.unlink()

    def _look(self) -> Tensor:
        """Features (n, D) of all pictures, by the backbone as it is, each process seeing its share."""
        n, world, rank = len(self.store), self.engine.world, self.engine.rank
        share = range(n * rank // world, n * (rank + 1) // world)
        self.task.eval()
        found = []
        for part in stretches(len(share), _BATCH):
            found.append(self.task.see(self.store.middle(torch.tensor(part) + share.start, self.size)))
        self.task.train()
        return torch.cat(self.engine.everyone(torch.cat(found)))


def _read(file: Path) -> Tensor | None:
    """A table that was kept; None where there is none, or it is damaged."""
    try:
        rows: Tensor = load_file(file)["rows"]
    except (SafetensorError, KeyError, OSError):
        return None
    return rows
