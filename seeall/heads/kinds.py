"""What differs from task to task: how data are found and changed, and what is best."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Annotated
from seeall.data.motion.pairs import find_pairs
from seeall.heads.augment import Augment
from seeall.heads.feed import Augmentation
from seeall.heads.flow.augment import FlowAugment


@dataclass(frozen=True, kw_only=True)
class Kind:
    """find: data → pictures and their truth, with settings by its signature · augment: settings → what examples go
    through · best: the metric whose highest value decides which checkpoint is the best, the lowest after a "-"
    batch: pictures a step · backbone: the usual one
    own_size: whether pictures are judged as large as they are, and learnt from in windows; else all are scaled
    """

    find: Callable[..., Annotated]
    augment: Callable[..., Augmentation]
    best: str
    batch: int = 8
    backbone: str = "resnet18"
    own_size: bool = False


def _still(task: str, best: str, batch: int = 8) -> Kind:
    return Kind(find=functools.partial(find_annotated, task=task), augment=Augment, best=best, batch=batch)


KINDS: Mapping[str, Kind] = {
    "classification": _still("classification", "top1", 32),
    "detection": _still("detection", "mAP"),
    "instance": _still("instance", "mAP"),
    "segmentation": _still("segmentation", "mIoU"),
    "flow": Kind(find=find_pairs, augment=FlowAugment, best="-EPE", backbone="flownet", own_size=True),
}


def find(task: str, data: str, **settings: Any) -> Annotated:
    """What `data` name for `task`."""
    return KINDS[task].find(data, **settings)
