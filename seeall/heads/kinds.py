"""What differs from task to task: how data are found and changed, and what is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Annotated
from seeall.data.motion.actions import clips_in, find_actions
from seeall.data.motion.masked import find_masked
from seeall.data.motion.pairs import find_pairs, pairs_in
from seeall.data.motion.stretches import find_stretches, frames_in
from seeall.data.pictures import Pictures, find
from seeall.data.video import RATE
from seeall.heads.action.augment import ClipAugment
from seeall.heads.augment import Augment
from seeall.heads.feed import Augmentation
from seeall.heads.flow.augment import FlowAugment
from seeall.heads.keypoints.augment import PairAugment
from seeall.heads.video.spread import spread


def single(pictures: Pictures) -> Pictures:
    """The pictures, one by one."""
    return pictures


def as_it_is(learnt: Annotated, whole: Annotated) -> Annotated:
    """What is learnt from, and no more."""
    return learnt


@dataclass(frozen=True, kw_only=True)
class Kind:
    """finder: data, and `also` → pictures and their truth, with settings by its signature
    augment: settings → what examples go through; `told`, settings of the head and of `finder`, come first
    best: the metric whose highest value decides which checkpoint is the best, the lowest after a "-"
    batch: pictures a step · backbone: the usual one
    own_size: whether pictures are judged as large as they are, and learnt from in windows; else all are scaled
    looks_at: pictures without a truth → what a head is asked about · rate: frames a second that are taken of a video
    pace: the setting of `finder` and `looks_at` that says how many, where a head is to see as many as it learnt from
    spread: what is learnt from, and all there is → all that can be learnt from, with settings by its signature
    """

    finder: Callable[..., Annotated]
    augment: Callable[..., Augmentation]
    best: str
    batch: int = 8
    backbone: str = "resnet18"
    own_size: bool = False
    looks_at: Callable[..., Pictures] = single
    rate: float = RATE
    pace: str = ""
    spread: Callable[..., Annotated] = as_it_is
    told: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def find(self, data: str, **settings: Any) -> Annotated:
        """What `data` names, for this task."""
        return self.finder(data, *self.also, **settings)

    def look(self, data: str, rate: float | None) -> Pictures:
        """What a head is asked about that `data` names. rate: frames a second; None takes the usual ones."""
        rate = rate or self.rate
        return self.looks_at(find(data, rate=rate), **{self.pace: rate} if self.pace else {})


def _still(task: str, best: str, batch: int = 8) -> Kind:
    return Kind(finder=find_annotated, also=(task,), augment=Augment, best=best, batch=batch)


KINDS: Mapping[str, Kind] = {
    "classification": _still("classification", "top1", 32),
    "detection": _still("detection", "mAP"),
    "instance": _still("instance", "mAP"),
    "segmentation": _still("segmentation", "mIoU"),
    "video-segmentation": Kind(finder=find_masked, augment=Augment, best="mIoU", spread=spread),
    "action": Kind(
        finder=find_actions, augment=ClipAugment, best="top1", looks_at=clips_in, pace="fps", told=("frames", "sees")
    ),
    "flow": Kind(
        finder=find_pairs,
        augment=FlowAugment,
        best="-EPE",
        backbone="flownet",
        own_size=True,
        looks_at=pairs_in,
        rate=math.inf,
    ),
    "keypoints": Kind(
        finder=find_stretches,
        augment=PairAugment,
        best="-MSE",
        batch=16,
        backbone="plain",
        looks_at=frames_in,
        rate=math.inf,
    ),
}
