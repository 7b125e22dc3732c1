"""Naming every pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.data.annotations.examples import Examples, fitted
from seeall.data.annotations.truth import IGNORE
from seeall.heads.feed import HeadBatch
from seeall.heads.prediction import Answer, Prediction, by_shape, evaluate, filled, full
from seeall.heads.segmentation.losses import SegmentationLoss
from seeall.metrics.segmentation import confusion, segmentation
from seeall.training.embed import Normalise


@final
class Segmentation(nn.Module):
    """The head of `--task segmentation`.

    network: x (B, 3, H, W) normalised → logits (B, K, H, W) · size: shorter side of pictures, px, as the network sees
    them
    """

    def __init__(
        self, network: nn.Module, normalise: Normalise, size: int, classes: Sequence[str], loss: SegmentationLoss
    ) -> None:
        super().__init__()
        self.network, self.normalise, self.size, self.loss = network, normalise, size, loss
        self.classes = tuple(classes)
        self.held: Examples | None = None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]:
        """The loss and its parts. Pictures of several sizes are filled up, on the right and below, with nothing."""
        device = self.normalise.mean.device
        pixels = [example.pixels for example in batch["examples"]]
        shape = [max(p.shape[k] for p in pixels) for k in (1, 2)]
        x = torch.zeros(len(pixels), 3, *shape, device=device).to(memory_format=torch.channels_last)
        target = torch.full((len(pixels), *shape), IGNORE, dtype=torch.int64)
        for i, example in enumerate(batch["examples"]):
            height, width = example.pixels.shape[1:]
            assert example.truth.semantic is not None
            x[i, :, :height, :width] = self.normalise(example.pixels[None].to(device))[0]
            target[i, :height, :width] = torch.from_numpy(np.ascontiguousarray(example.truth.semantic))
        told: dict[str, Tensor] = self.loss(self.network(x), target.to(device), batch["epoch"])
        return told

    def evaluation(self) -> dict[str, float]:
        """As `judge`, of the pictures held back."""
        return evaluate(self, self.held)

    @torch.no_grad()
    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """A class for each pixel."""
        found: dict[int, Prediction] = {}
        for rows in by_shape(pictures):
            some = [pictures[i] for i in rows]
            found |= zip(rows, self.read(self.network(self.shown(some)), some[0].shape[1:]))
        return [found[i] for i in range(len(pictures))]

    @torch.no_grad()
    def shown(self, pictures: Sequence[Tensor]) -> Tensor:
        """What the network sees of pictures of one size."""
        x = filled(torch.stack(list(pictures)).to(self.normalise.mean.device))
        height, width = x.shape[2:]
        if (small := fitted(height, width, self.size)) != (height, width):
            x = F.interpolate(x, small, mode="bilinear", antialias=True)
        normalised: Tensor = self.normalise(x)
        return normalised

    @torch.no_grad()
    def read(self, logits: Tensor, size: Sequence[int]) -> list[Prediction]:
        """What its logits say of pictures of that height and width."""
        height, width = size
        said = _likeliest(logits.float(), torch.Size(full(height, width)))[:, :height, :width]
        return [Prediction(semantic=classes) for classes in said.cpu().numpy()]

    def judge(self, answers: Iterable[Answer]) -> dict[str, float]:
        """`mIoU`, `pixel_accuracy`, `class_accuracy`, `iou/NAME`, of all pixels together."""
        return segmentation(self.confusion(answers), self.classes)

    def confusion(self, answers: Iterable[Answer]) -> Tensor:
        """(K, K) pixels, rows by truth, columns by prediction."""
        total = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64)
        for prediction, truth in answers:
            assert prediction.semantic is not None and truth.semantic is not None
            said, true = (torch.from_numpy(part.astype(np.int64)) for part in (prediction.semantic, truth.semantic))
            total += confusion(said, true, len(self.classes))
        return total


def _likeliest(logits: Tensor, shape: torch.Size) -> Tensor:
    """(B, K, h, w) → (B, *shape) uint8: the class whose logit is the highest once they are enlarged, one at a time."""
    if logits.shape[2:] == shape:
        return logits.argmax(1).to(torch.uint8)

    def enlarged(k: int) -> Tensor:
        return F.interpolate(logits[:, k : k + 1], shape, mode="bilinear", align_corners=False)[:, 0]

    highest = enlarged(0)
    said = torch.zeros_like(highest, dtype=torch.uint8)
    for k in range(1, logits.shape[1]):
        one = enlarged(k)
        said[one > highest] = k
        torch.maximum(highest, one, out=highest)
    return said
