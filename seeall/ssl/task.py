"""What pretraining trains: a backbone, a projector and an objective; a teacher or ears, where there are any."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.metrics.knn import knn_accuracy
from seeall.training.distributed import gather, hold
from seeall.training.embed import Normalise, features
from seeall.types import Batch

COLLAPSED = 0.1
"""The spread below which embeddings are called all alike."""
DROPPING = frozenset({"StochasticDepth", "DropPath", "DropBlock2d", "PatchDropout"})
"""Classes of torchvision and timm, which is an extra, that leave paths, blocks or patches out by chance."""
LINE = (0.4, 2.0)
"""The spread and the dimensions below which, together, they are called the same."""


class Pretraining(nn.Module):
    """The task that the loop trains.

    An objective with an attribute `momentum` is taught: a copy of backbone and projector, which keeps that share of its
    weights at each micro-batch and takes the rest from those that learn, sees the same views, and what it says is the
    objective's third argument. Its BatchNorm is over the batch, as the learner's is; but dropout and stochastic depth,
    which would be noise in what is to be matched, let everything through in it.

    ears: sound (B, samples) → z (B, D), or None
    monitor: pixels (n, 3, S, S) uint8 and targets (n,) of some labelled pictures to watch, or None
    monitored: their features (n, D) at the last evaluation, or None before there was one
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        objective: nn.Module,
        normalise: Normalise,
        ears: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.objective, self.normalise = backbone, head, objective, normalise
        self.ears = ears
        self.momentum: float | None = getattr(objective, "momentum", None)
        if self.momentum is not None:
            self.teacher = nn.Sequential(copy.deepcopy(backbone), copy.deepcopy(head)).requires_grad_(False)
            for part in self.teacher.modules():
                if _drops(part):
                    hold(part)
        self.monitor: tuple[Tensor, Tensor] | None = None
        self.monitored: Tensor | None = None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """views (N, 3, S, S), groups (N,) → the objective's loss and scalars over the rows of all processes.

        Besides, of rows of length one: `spread`, how far they lie apart, and `dimensions`, over how many directions.
        """
        z, groups = self.projector(self.backbone(batch["views"])), batch["groups"]
        if self.ears is not None:
            heard = self.ears(batch["sounds"])
            z, groups = torch.cat([z, heard]), torch.cat([groups, groups[: len(heard)]])
        copies = len(z) // batch["pictures"]
        z, groups = _of_all(z, copies), _of_all(groups, copies)
        taught = (_of_all(self._teach(batch["views"]), copies),) if self.momentum is not None else ()
        torch.manual_seed(batch["key"])  # what an objective draws is the same on every process
        told: dict[str, Tensor] = self.objective(z, groups, *taught)
        return told | {"spread": spread(z.detach()), "dimensions": dimensions(z.detach())}

    @torch.no_grad()
    def _teach(self, views: Tensor) -> Tensor:
        """What the teacher makes of the views, once it has taken in the last step."""
        assert self.momentum is not None
        learner = nn.Sequential(self.backbone, self.projector)
        for kept, new in zip(self.teacher.parameters(), learner.parameters(), strict=True):
            kept.lerp_(new, 1 - self.momentum)
        z: Tensor = self.teacher(views)
        return z

    def evaluation(self) -> dict[str, float]:
        """`knn20`, percent, of a third of the monitored pictures among the rest; {} where none have labels."""
        if self.monitor is None:
            return {}
        pixels, targets = self.monitor
        z = self.monitored = self.see(pixels)
        third = len(z) // 3
        accuracy = knn_accuracy(
            z[third:], targets[third:], z[:third], targets[:third], k=20, classes=int(targets.max()) + 1
        )
        return {"knn20": 100 * accuracy}

    def see(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 → features (n, D) float32 on the CPU."""
        device = next(self.parameters()).device
        return torch.cat([features(self.backbone, self.normalise, part, device) for part in torch.split(pixels, 256)])


def _drops(part: nn.Module) -> bool:
    """Whether it leaves something out by chance in training: torch's dropout, or torchvision's or timm's, by name."""
    return isinstance(part, nn.modules.dropout._DropoutNd) or type(part).__name__ in DROPPING


def spread(z: Tensor) -> Tensor:
    """(N, D) of any length → how far rows lie apart: about 1 all over the sphere, 0 where all are alike."""
    return F.normalize(z.float(), dim=1).var(0, correction=0).sum().sqrt()


def dimensions(z: Tensor) -> Tensor:
    """(N, D) of any length → (sum of variances)² / sum of squared ones, along the axes of rows of length one.

    From 1, where rows differ along one axis, to D, where they do so evenly along all: the participation ratio.
    """
    z = F.normalize(z.float(), dim=1)
    z = z - z.mean(0)
    products = z @ z.T if len(z) < z.shape[1] else z.T @ z
    return products.trace().square() / products.square().sum().clamp(min=1e-20)


def _of_all(x: Tensor, copies: int) -> Tensor:
    """The rows of all processes in the order in which one process would have them: all first views, then all second."""
    rows = gather(x)
    if len(rows) == len(x) or copies == 1:
        return rows
    by_process = rows.view(len(rows) // len(x), copies, -1, *x.shape[1:])
    return by_process.transpose(0, 1).flatten(0, 2)


def collapsed(told: dict[str, float]) -> str | None:
    """What to say where embeddings have become all alike; None where they have not.

    Behind a last BatchNorm rows keep some spread, but along one axis alone.
    """
    apart, over = told.get("spread", 1.0), told.get("dimensions", math.inf)
    if apart >= COLLAPSED and not (apart < LINE[0] and over < LINE[1]):
        return None
    return (
        f"all embeddings are nearly alike (spread {apart:.3f}, of about 1): this is a collapse, and nothing "
        "is learnt; try a lower --lr, another --negatives (semihard rather than hard), or another --objective"
    )
