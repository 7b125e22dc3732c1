"""Finding things: a box, a class and a score for each, and a mask where the network draws one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from seeall.data.annotations.examples import Examples
from seeall.data.annotations.truth import MISTAKEN, Truth
from seeall.heads.feed import HeadBatch
from seeall.heads.prediction import Prediction, by_shape, evaluate, filled
from seeall.metrics.detection import Found, detection

_SURE = 0.5
"""Where a mask is as likely as not."""


@final
class Detection(nn.Module):
    """The head of `--task detection` and `--task instance`.

    network: one of torchvision's detectors · first: the number it gives the first class, 1 where 0 is the background
    masks: whether it draws masks
    """

    def __init__(self, network: nn.Module, classes: Sequence[str], first: int, masks: bool) -> None:
        super().__init__()
        self.network, self.classes, self.first, self.masks = network, tuple(classes), first, masks
        self.held: Examples | None = None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]:
        """The sum of the network's losses, and each of them."""
        device = next(self.parameters()).device
        pictures = [example.pixels.to(device).float() / 255 for example in batch["examples"]]
        told = self.network(pictures, [self._target(example.truth, device) for example in batch["examples"]])
        parts = {name.removeprefix("loss_"): value for name, value in told.items()}
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def _target(self, truth: Truth, device: torch.device) -> dict[str, Tensor]:
        """As torchvision wants it, without crowds."""
        sizes = truth.boxes[:, 2:] - truth.boxes[:, :2]
        whole = ~truth.crowd & (sizes > 0).all(1)
        rows = np.flatnonzero(whole & (truth.classes != MISTAKEN))
        target = {
            "boxes": torch.from_numpy(truth.boxes[rows].astype(np.float32)),
            "labels": torch.from_numpy(truth.classes[rows] + self.first),
            "mistaken": torch.from_numpy(truth.boxes[whole & (truth.classes == MISTAKEN)].astype(np.float32)),
        }
        if self.masks:
            assert truth.masks is not None
            target["masks"] = torch.from_numpy(np.ascontiguousarray(truth.masks[rows]).astype(np.uint8))
        return {name: value.to(device) for name, value in target.items()}

    def evaluation(self) -> dict[str, float]:
        """As `judge`, of the pictures held back."""
        return evaluate(self, self.held)

    @torch.no_grad()
    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """Things, the surest first, at the pictures' own sizes."""
        device, found = next(self.parameters()).device, dict[int, Prediction]()
        for rows in by_shape(
            pictures
        ):  # beside larger ones, a picture would be filled up, and be another to the network
            told: list[dict[str, Any]] = self.network([filled(pictures[i]).to(device).float() / 255 for i in rows])
            for i, one in zip(rows, told):
                found[i] = Prediction(found=self._found(one, pictures[i].shape[1], pictures[i].shape[2]))
        return [found[i] for i in range(len(pictures))]

    def _found(self, told: dict[str, Tensor], height: int, width: int) -> Found:
        one = {name: value.cpu() for name, value in told.items()}
        boxes = one["boxes"].float().numpy().clip(0, np.array([width, height, width, height], np.float32))
        there = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Found(
            boxes=boxes[there],
            scores=one["scores"].float().numpy()[there],
            classes=(one["labels"] - self.first).numpy()[there],
            masks=(one["masks"][:, 0, :height, :width] >= _SURE).numpy()[there] if self.masks else None,
        )

    def judge(self, predictions: Sequence[Prediction], truths: Sequence[Truth]) -> dict[str, float]:
        """`mAP`, `mAP50`, …, `AP/NAME`, of boxes; for networks that draw masks, of masks, and `box_mAP`,
        `box_mAP50`.
        """
        found = [p.found for p in predictions if p.found is not None]
        told = detection(found, truths, self.classes)
        if not self.masks:
            return told
        boxes = {f"box_{name}": told[name] for name in ("mAP", "mAP50") if name in told}
        return detection(found, truths, self.classes, masks=True) | boxes
