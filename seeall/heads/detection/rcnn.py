"""Two stages, torchvision's, over any backbone: proposals first, then what each is and where exactly.

Faster R-CNN (Ren et al. 2015, arXiv:1506.01497) and Mask R-CNN (He et al. 2017, arXiv:1703.06870), with a feature
pyramid. Departures from torchvision: fewer proposals are kept and learnt from (`proposals`, `sampled`), since on a CPU
their heads would take most of the time; the pyramid starts at `finest`; anchors may be fitted to the data; BatchNorm
is what the backbone has; the scale of each map is known, and not guessed from the first pictures; crowds are heeded
(`crowds.py`).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from seeall.backbones.contract import Backbone
from seeall.data.annotations.examples import LONGEST
from seeall.heads.about import About
from seeall.heads.detection.anchors import fit, generator, usual
from seeall.heads.detection.crowds import heed
from seeall.heads.detection.pyramid import Pyramid, check

_EACH, _SCALE, _WINDOW = 3, 8.0, 7


def faster_rcnn(
    backbone: Backbone,
    classes: int,
    about: About,
    *,
    anchors: Literal["usual", "fit"] = "usual",
    width: int = 256,
    hidden: int = 1024,
    finest: int = 4,
    proposals: int = 500,
    sampled: int = 128,
    score: float = 0.05,
    nms: float = 0.5,
    most: int = 100,
) -> FasterRCNN:
    """A detector of things of `classes` classes, numbered from 1; 0 is the background.

    anchors: 3 a place, usual or fitted to the boxes · width: channels of the pyramid · hidden: of the second stage
    finest: smallest stride of the pyramid, px · proposals: kept of the first stage
    sampled: of these, how many of a picture are learnt from · score: the least that counts as found
    nms: the overlap above which the weaker of two boxes goes · most: found in a picture

    Raises: SeeallError where there are too few boxes to fit anchors to.
    """
    return heed(FasterRCNN(**_parts(**locals())))


def mask_rcnn(
    backbone: Backbone,
    classes: int,
    about: About,
    *,
    anchors: Literal["usual", "fit"] = "usual",
    width: int = 256,
    hidden: int = 1024,
    finest: int = 4,
    proposals: int = 500,
    sampled: int = 128,
    score: float = 0.05,
    nms: float = 0.5,
    most: int = 100,
    mask_width: int = 256,
) -> MaskRCNN:
    """The same, with a mask for each thing. mask_width: channels of what draws it; see `faster_rcnn` for the rest."""
    settings = {name: value for name, value in locals().items() if name != "mask_width"}
    parts = _parts(**settings)
    network = MaskRCNN(
        mask_roi_pool=_pool(parts["backbone"], 2 * _WINDOW),
        mask_head=MaskRCNNHeads(width, (mask_width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(mask_width, mask_width, classes + 1),
        **parts,
    )
    return heed(network)


def _parts(
    backbone: Backbone, classes: int, about: About, *, anchors: str, width: int, hidden: int, finest: int,
    proposals: int, sampled: int, score: float, nms: float, most: int,
) -> dict[str, Any]:  # fmt: skip
    check(score, nms, most)
    pyramid = Pyramid(backbone, width, finest, LastLevelMaxPool(), 1)
    if about.anchors is None and anchors == "fit" and about.boxes is not None:
        about.anchors = fit(about.boxes(), pyramid.strides, _EACH, scale=_SCALE)
    about.anchors = about.anchors or usual(pyramid.strides, scale=_SCALE, octaves=_EACH // 3)
    return {
        "backbone": pyramid,
        "min_size": about.image_size,
        "max_size": LONGEST * about.image_size,
        "image_mean": list(backbone.preprocessing["mean"]),
        "image_std": list(backbone.preprocessing["std"]),
        "_skip_resize": True,
        "rpn_anchor_generator": generator(about.anchors),
        "rpn_pre_nms_top_n_train": 2 * proposals,
        "rpn_pre_nms_top_n_test": 2 * proposals,
        "rpn_post_nms_top_n_train": proposals,
        "rpn_post_nms_top_n_test": proposals,
        "box_roi_pool": _pool(pyramid, _WINDOW),
        "box_head": TwoMLPHead(width * _WINDOW**2, hidden),
        "box_predictor": FastRCNNPredictor(hidden, classes + 1),
        "box_batch_size_per_image": sampled,
        "box_score_thresh": score,
        "box_nms_thresh": nms,
        "box_detections_per_img": most,
    }


def _pool(pyramid: Pyramid, side: int) -> MultiScaleRoIAlign:
    """Boxes → (N, width, side, side), cut out of the backbone's maps.

    torchvision takes a map's scale to be its height by that of the first pictures it sees, which have not been filled
    up as the map has: of a picture of 40 px, which becomes 64, a stride of 4 is taken for one of 2.
    """
    strides = pyramid.strides[: len(pyramid.used)]
    pool = MultiScaleRoIAlign([str(k) for k in range(len(strides))], side, sampling_ratio=2)
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = initLevelMapper(round(math.log2(strides[0])), round(math.log2(strides[-1])))
    return pool
