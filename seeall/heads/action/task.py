"""Naming what happens in a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.data.annotations.examples import Examples, fitted
from seeall.data.annotations.truth import Truth
from seeall.heads.action.augment import taken
from seeall.heads.classification import named_right
from seeall.heads.feed import HeadBatch
from seeall.heads.prediction import Prediction, evaluate
from seeall.training.embed import Normalise
from seeall.types import SeeallError


@final
class Action(nn.Module):
    """The head of `--task action`: clips are seen as windows of some frames, their middle square.

    network: (B, 3, T, H, W) normalised → logits (B, K) · frames: of a window, in a row
    views: windows of a clip that are looked at, evenly spread; what is said is the mean · smoothing: of the labels
    """

    def __init__(
        self, network: nn.Module, normalise: Normalise, size: int, classes: Sequence[str], *, frames: int = 16,
        views: int = 3, smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= smoothing < 1:
            raise SeeallError(f"setting 'smoothing' is {smoothing}: choose a share from 0 and below 1")
        for name, value in (("frames", frames), ("views", views)):
            if value < 1:
                raise SeeallError(f"setting {name!r} is {value}: choose 1 or more")
        self.network, self.normalise, self.size, self.smoothing = network, normalise, size, smoothing
        self.classes, self.frames, self.views = tuple(classes), frames, views
        self.held: Examples | None = None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]:
        """Cross-entropy, and the share of the batch that is named right."""
        logits = self._see(torch.stack([example.pixels for example in batch["examples"]])).float()
        targets = torch.tensor([example.truth.label for example in batch["examples"]], device=logits.device)
        right = (logits.argmax(1) == targets).float().mean()
        return {"loss": F.cross_entropy(logits, targets, label_smoothing=self.smoothing), "right": right}

    def _see(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) uint8 → logits."""
        x = self.normalise(clips.to(self.normalise.mean.device).flatten(0, 1)).unflatten(0, clips.shape[:2])
        logits: Tensor = self.network(x.transpose(1, 2))
        return logits

    def evaluation(self) -> dict[str, float]:
        """As `judge`, of the clips held back."""
        return evaluate(self, self.held)

    @torch.no_grad()
    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """pictures: (T, 3, H, W) uint8 each → a probability for each class."""
        found = []
        for clip in pictures:
            height, width = fitted(clip.shape[-2], clip.shape[-1], self.size)
            small = clip if clip.shape[-2:] == (height, width) else _scaled(clip, height, width)
            top, left = (height - self.size) // 2, (width - self.size) // 2
            square = small[..., top : top + self.size, left : left + self.size]
            views = min(self.views, max(1, len(clip) - self.frames + 1))
            places = [k / (views - 1) if views > 1 else 0.5 for k in range(views)]
            windows = torch.stack([taken(square, self.frames, place) for place in places])
            scores = self._see(windows).float().softmax(1).mean(0)
            found.append(Prediction(scores=scores.cpu().numpy()))
        return found

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> dict[str, float]:
        """`top1`; `top5` where there are more than 5 classes; `recall/NAME` of each class that occurs."""
        return named_right(self.classes, predictions, truths)


def _scaled(clip: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(clip, (height, width), mode="bilinear", antialias=True)
