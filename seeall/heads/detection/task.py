"""Finding things: a box, a class and a score for each, and a mask where the network draws one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.roi_heads import paste_masks_in_image

from seeall.data.annotations.examples import Examples
from seeall.data.annotations.truth import MISTAKEN, Truth
from seeall.heads.feed import HeadBatch
from seeall.heads.prediction import Answer, Prediction, by_shape, evaluate, filled
from seeall.metrics.detection import Found, Masks, detection

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
        """As torchvision wants it; besides, (·, 4) xyxy, px, where it was mistaken, and crowds."""
        whole = (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(1)
        mistaken = truth.classes == MISTAKEN
        rows = np.flatnonzero(whole & ~truth.crowd & ~mistaken)
        target = {
            "boxes": torch.from_numpy(truth.boxes[rows].astype(np.float32)),
            "labels": torch.from_numpy(truth.classes[rows] + self.first),
            "mistaken": torch.from_numpy(truth.boxes[whole & ~truth.crowd & mistaken].astype(np.float32)),
            "crowd": torch.from_numpy(truth.boxes[whole & truth.crowd].astype(np.float32)),
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
            x = [filled(pictures[i]).to(device).float() / 255 for i in rows]
            for i, one in zip(rows, _looked(self.network, x)):
                found[i] = Prediction(found=self._found(one, x[0].shape[1:], pictures[i].shape[1:]))
        return [found[i] for i in range(len(pictures))]

    def _found(self, told: dict[str, Tensor], seen: Sequence[int], size: Sequence[int]) -> Found:
        """seen: height and width with what was filled up · size: without"""
        one = {name: told[name].cpu() for name in ("boxes", "scores", "labels")}
        boxes = one["boxes"].float().numpy().clip(0, np.array([*size[::-1]] * 2, np.float32))
        there = (boxes[:, 2:] > boxes[:, :2]).all(1)
        drawn = None
        if self.masks:
            height, width = size
            each = (_mask(told, int(k), seen)[:height, :width] for k in np.flatnonzero(there))
            drawn = Masks.pack(((one >= _SURE).cpu().numpy() for one in each), height, width)
        return Found(
            boxes=boxes[there],
            scores=one["scores"].float().numpy()[there],
            classes=(one["labels"] - self.first).numpy()[there],
            masks=drawn,
        )

    def judge(self, answers: Iterable[Answer]) -> dict[str, float]:
        """`mAP`, `mAP50`, …, `AP/NAME`, of boxes; for networks that draw masks, of masks, and `box_mAP`,
        `box_mAP50`.
        """
        pairs = [(said.found, _slim(truth, self.masks)) for said, truth in answers if said.found is not None]
        found, truths = [said for said, _ in pairs], [truth for _, truth in pairs]
        told = detection(found, truths, self.classes)
        if not self.masks:
            return told
        boxes = {f"box_{name}": told[name] for name in ("mAP", "mAP50") if name in told}
        return detection(found, truths, self.classes, masks=True) | boxes


def _slim(truth: Truth, masks: bool) -> Truth:
    """As small as it can be kept: with masks as run lengths, or without."""
    if not masks or truth.masks is None:
        return dataclasses.replace(truth, masks=None)
    drawn: Any = Masks.pack(truth.masks, *truth.masks.shape[1:])
    return dataclasses.replace(truth, masks=drawn)


def _looked(network: Any, x: list[Tensor]) -> list[dict[str, Any]]:
    """As `network(x)`; of torchvision's Mask R-CNN, `small` instead of `masks`, (M, 1, h, w) as it draws them in boxes.

    It would paste all of them into pictures of float32: 5 GB for 100 things in 12 megapixels.
    """
    told: list[dict[str, Any]]
    if type(network) is not MaskRCNN:
        told = network(x)
        return told
    images, _ = network.transform(x)
    maps = network.backbone(images.tensors)
    maps = maps if isinstance(maps, dict) else {"0": maps}
    proposals, _ = network.rpn(images, maps)
    told, _ = network.roi_heads(maps, proposals, images.image_sizes)
    masks = [one.pop("masks") for one in told]
    told = network.transform.postprocess(told, images.image_sizes, [tuple(one.shape[1:]) for one in x])
    return [one | {"small": small} for one, small in zip(told, masks)]


def _mask(told: dict[str, Tensor], k: int, size: Sequence[int]) -> Tensor:
    """(H, W) probabilities of thing k."""
    if "masks" in told:
        return told["masks"][k, 0]
    pasted: Tensor = paste_masks_in_image(told["small"][k : k + 1], told["boxes"][k : k + 1], tuple(size))
    return pasted[0, 0]
