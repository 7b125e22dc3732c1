"""Naming what happens in a clip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.data.annotations.examples import Examples, fitted
from seeall.heads.action.augment import taken
from seeall.heads.classification import named_right
from seeall.heads.feed import HeadBatch
from seeall.heads.prediction import Answer, Prediction, evaluate
from seeall.training.embed import Normalise
from seeall.types import SeeallError


@final
class Action(nn.Module):
    """The head of `--task action`: clips are seen as windows of some frames, their middle square.

    network: (B, 3, T, H, W) normalised → logits (B, K); one with a method `learn` has a way of its own to gradients, as
    `video/sideways.py` has · frames: of a window, in a row
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
        if frames < (least := getattr(network, "least", 1)):
            raise SeeallError(f"setting 'frames' is {frames}: so many parts need clips of {least} frames or more")
        self.network, self.normalise, self.size, self.smoothing = network, normalise, size, smoothing
        self.classes, self.frames, self.views = tuple(classes), frames, views
        self.held: Examples | None = None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]:
        """Cross-entropy, and the share of the batch that is named right."""
        x = self._seen(torch.stack([example.pixels for example in batch["examples"]]))
        targets = torch.tensor([example.truth.label for example in batch["examples"]], device=x.device)

        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits.float(), targets, label_smoothing=self.smoothing)

        if learn := getattr(self.network, "learn", None):
            cost, logits = learn(x, loss)
        else:
            logits = self.network(x)
            cost = loss(logits)
        return {"loss": cost, "right": (logits.argmax(1) == targets).float().mean()}

    def _seen(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) uint8 → what the network takes."""
        x: Tensor = self.normalise(clips.to(self.normalise.mean.device).flatten(0, 1))
        return x.view(*clips.shape[:2], *x.shape[1:]).transpose(1, 2)

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
            scores = self.network(self._seen(windows)).float().softmax(1).mean(0)
            found.append(Prediction(scores=scores.cpu().numpy()))
        return found

    def judge(self, answers: Iterable[Answer]) -> dict[str, float]:
        """`top1`; `top5` where there are more than 5 classes; `recall/NAME` of each class that occurs."""
        return named_right(self.classes, answers)


def _scaled(clip: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(clip, (height, width), mode="bilinear", antialias=True)
