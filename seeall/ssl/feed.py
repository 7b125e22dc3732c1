"""Step → batch: which pictures, their views on the device, who belongs together, and what was heard with them."""

from __future__ import annotations

import torch
from torch import Tensor

from seeall.data import keyed
from seeall.data.pixels import Store
from seeall.data.sampler import Sampler
from seeall.ssl.positives.belonging import Belonging
from seeall.ssl.positives.views import views as by_views
from seeall.ssl.task import Pretraining
from seeall.ssl.views import Views
from seeall.training.embed import squares
from seeall.training.journal import Journal
from seeall.types import Batch

MAPPED = 300
"""Pictures in TensorBoard's map of embeddings."""
SHEET = 8
"""Pictures on the sheet of views."""
_DRAWS = 0xD3A


class Feed:
    """Micro-batch number → views on the device.

    belonging: who belongs together; views of one picture, where not given
    """

    def __init__(
        self,
        store: Store,
        views: Views,
        sampler: Sampler,
        task: Pretraining,
        size: int,
        seed: int,
        device: torch.device,
        belonging: Belonging | None = None,
    ) -> None:
        self.store, self.views, self.sampler, self.task = store, views, sampler, task
        self.size, self.seed, self.device = size, seed, device
        self.belonging = belonging or by_views(store.pictures, seed)

    @property
    def waits(self) -> bool:
        """Whether there is something to wait for, so that fetching ahead helps: files, or the CPU beside a GPU."""
        return self.store.resident == "files" or (self.store.resident == "memory" and self.device.type == "cuda")

    def cut(self, rows: Tensor, epoch: int) -> Tensor:
        """Views in [0, 1] of these pictures, all first ones before all second ones."""
        boxes, flips = self.views.boxes(self.seed, epoch, rows, self.store.sizes[rows])
        cuts = self.store.crop(rows, boxes, flips, self.size).to(self.device, non_blocking=True)
        return self.views.photometric(cuts, self.seed, epoch, rows)

    def fetch(self, t: int) -> Batch:
        """What `training_step` takes. A row's group has the same number on every process."""
        epoch, rows = self.sampler(t)
        groups = self.belonging.groups(epoch)[rows].repeat(self.views.views)
        # composed batches may take a picture several times in an epoch, though never twice at once
        visit = t if self.sampler.order else epoch
        batch: Batch = {
            "views": self.task.normalise(self.cut(rows, visit)),
            "groups": groups.to(self.device, non_blocking=True),
            "pictures": len(rows),
            "key": keyed.seed(self.seed, _DRAWS, t),
        }
        if self.belonging.hear:
            batch["sounds"] = self.belonging.hear(rows, epoch).to(self.device, non_blocking=True)
        return batch

    def show(self, journal: Journal) -> None:
        """A sheet of pictures' views, a column each, so that one can see what is learnt from."""
        _, rows = self.sampler(0)
        rows = rows[:SHEET]
        x = (self.cut(rows, 0) * 255).round().to(torch.uint8).cpu()
        grid = x.view(self.views.views, len(rows), 3, self.size, self.size)
        journal.picture("views", grid.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2), 0)

    def map(self, journal: Journal, step: int) -> None:
        """The embeddings of some pictures, for TensorBoard's projector."""
        some = self.store.pictures.limit(MAPPED, self.seed)
        read = [part for part in squares(some, self.size) if part[0]]
        if not read:
            return
        pixels = torch.cat([part for _, part, _ in read])
        labels = [some.labels[row] for rows, _, _ in read for row in rows] if some.labels else None
        journal.embedding(self.task.see(pixels), labels, pixels / 255, step)
