"""Naming what a whole picture shows: a linear layer on the embedding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.data.annotations.examples import Examples
from seeall.heads.feed import HeadBatch
from seeall.heads.prediction import Answer, Prediction, evaluate
from seeall.training.embed import Normalise, square
from seeall.types import SeeallError


@final
class Linear(nn.Module):
    """x (B, 3, H, W) normalised → logits (B, K).

    dropout: share of the embedding that is left out while learning
    """

    def __init__(self, backbone: Backbone, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise SeeallError(f"setting 'dropout' is {dropout}: choose a share from 0 and below 1")
        self.backbone, self.dropout = backbone, nn.Dropout(dropout)
        self.score = nn.Linear(backbone.embed_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        scores: Tensor = self.score(self.dropout(self.backbone(x)))
        return scores


@final
class Classification(nn.Module):
    """The head of `--task classification`: pictures are seen as their middle square.

    smoothing: of the labels, which then are 1 - smoothing sure (Szegedy et al. 2016, arXiv:1512.00567, section 7)
    """

    def __init__(
        self, network: nn.Module, normalise: Normalise, size: int, classes: Sequence[str], *, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise SeeallError(f"setting 'smoothing' is {smoothing}: choose a share from 0 and below 1")
        self.network, self.normalise, self.size, self.smoothing = network, normalise, size, smoothing
        self.classes = tuple(classes)
        self.held: Examples | None = None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]:
        """Cross-entropy, and the share of the batch that is named right."""
        logits = self._see([example.pixels for example in batch["examples"]]).float()
        targets = torch.tensor([example.truth.label for example in batch["examples"]], device=logits.device)
        right = (logits.argmax(1) == targets).float().mean()
        return {"loss": F.cross_entropy(logits, targets, label_smoothing=self.smoothing), "right": right}

    def _see(self, pictures: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.network(self.shown(pictures))
        return logits

    def shown(self, pictures: Sequence[Tensor]) -> Tensor:
        """What the network sees of pictures."""
        x = torch.stack([square(picture.permute(1, 2, 0).numpy(), self.size) for picture in pictures])
        normalised: Tensor = self.normalise(x.to(self.normalise.mean.device))
        return normalised

    def evaluation(self) -> dict[str, float]:
        """As `judge`, of the pictures held back."""
        return evaluate(self, self.held)

    @torch.no_grad()
    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """A probability for each class."""
        return self.read(self._see(pictures))

    @torch.no_grad()
    def read(self, logits: Tensor, size: Sequence[int] = ()) -> list[Prediction]:
        """What the network's logits say of pictures, whatever their size."""
        return [Prediction(scores=row) for row in logits.float().softmax(1).cpu().numpy()]

    def judge(self, answers: Iterable[Answer]) -> dict[str, float]:
        """`top1`; `top5` where there are more than 5 classes; `recall/NAME` of each class that occurs."""
        return named_right(self.classes, answers)


def named_right(classes: Sequence[str], answers: Iterable[Answer]) -> dict[str, float]:
    """How often the true class is the likeliest, or one of the five likeliest where there are more than five; and of
    each class that occurs.
    """
    said = [(prediction.scores, truth.label) for prediction, truth in answers if prediction.scores is not None]
    scores, targets = np.stack([one for one, _ in said]), np.array([label for _, label in said])
    own = scores[np.arange(len(targets)), targets][:, None]
    place = (~(scores < own)).sum(1) - 1  # what is as likely comes first: to say the same of all is to know nothing
    found = {"top1": 100 * float((place < 1).mean())}
    if len(classes) > 5:
        found["top5"] = 100 * float((place < 5).mean())
    for i, name in enumerate(classes):
        if (targets == i).any():
            found[f"recall/{name}"] = 100 * float((place[targets == i] < 1).mean())
    return found
