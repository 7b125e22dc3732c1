"""What a crowd covers is nothing to learn from: neither a thing, nor the background that a place without a thing is.

So it is left out where a detector's anchors and proposals are told what they are, unless a thing is there as well.
torchvision's two stages do not know crowds; they are the same here but for this.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

COVERED = 0.5
"""The least share of a box's own area that a crowd has in common with it, for the box to be the crowd's."""
Target = dict[str, Tensor]
"""What is in a picture, as `Detection` tells its network: boxes (M, 4), labels (M,), crowd (C, 4), …; xyxy, px."""


def covered(boxes: Tensor, crowds: Tensor) -> Tensor:
    """boxes (N, 4), crowds (C, 4), xyxy, px → (N,) bool: which boxes a crowd covers, by COVERED or more."""
    boxes, crowds = boxes.float(), crowds.float()
    low = torch.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return ((high - low).clamp(min=0).prod(2) >= COVERED * areas[:, None]).any(1)


@final
class Proposing(RegionProposalNetwork):  # type: ignore[misc]
    """The first stage: an anchor without a thing that a crowd covers is no background."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """For each picture, labels (A,) of 1 for a thing, 0 for none and -1 for what does not count; boxes (A, 4)."""
        labels: list[Tensor]
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, here, truth in zip(labels, anchors, targets):
            label[(label == 0) & covered(here, truth["crowd"])] = -1.0
        return labels, boxes


@final
class Naming(RoIHeads):  # type: ignore[misc]
    """The second stage: a proposal without a thing that a crowd covers is not looked at while it learns."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """What is found, and losses where there are targets: zeros where nothing is left to learn from."""
        if targets is not None:
            proposals = [self._counted(boxes, truth) for boxes, truth in zip(proposals, targets)]
        found: list[dict[str, Tensor]]
        losses: dict[str, Tensor]
        found, losses = super().forward(features, proposals, image_shapes, targets)
        if targets is not None and not any(map(len, proposals)) and not any(len(truth["boxes"]) for truth in targets):
            losses = {name: value.nan_to_num() for name, value in losses.items()}  # means of nothing
        return found, losses

    def _counted(self, proposals: Tensor, truth: Target) -> Tensor:
        """Those that no crowd covers, and those that are matched to a thing or nearly so."""
        idle = covered(proposals, truth["crowd"])
        if len(truth["boxes"]):
            idle &= (box_iou(truth["boxes"], proposals) < self.proposal_matcher.low_threshold).all(0)
        return proposals[~idle]


def heed(network: FasterRCNN) -> FasterRCNN:
    """`network` itself, its parameters what they were, whose two stages heed crowds from now on."""
    first: Any = network.rpn
    second: Any = network.roi_heads
    network.rpn = Proposing(
        first.anchor_generator, first.head, *_thresholds(first), first._pre_nms_top_n, first._post_nms_top_n,
        first.nms_thresh, first.score_thresh,
    )  # fmt: skip
    network.roi_heads = Naming(
        second.box_roi_pool, second.box_head, second.box_predictor, *_thresholds(second), second.box_coder.weights,
        second.score_thresh, second.nms_thresh, second.detections_per_img,
        second.mask_roi_pool, second.mask_head, second.mask_predictor,
    )  # fmt: skip
    return network


def _thresholds(stage: Any) -> tuple[float, float, int, float]:
    """The IoU from which it is a thing, below which it is none; how many are learnt from, how many of these things."""
    match, draw = stage.proposal_matcher, stage.fg_bg_sampler
    return match.high_threshold, match.low_threshold, draw.batch_size_per_image, draw.positive_fraction
