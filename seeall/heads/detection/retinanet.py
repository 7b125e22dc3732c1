"""RetinaNet (Lin et al. 2017, arXiv:1708.02002): one stage, torchvision's, over any backbone.

Departures from torchvision: what the many negatives cost is a setting (`negatives.py`); the pyramid starts at `finest`;
anchors may be fitted to the data; BatchNorm is what the backbone has. The convolutions before scores and boxes begin
with He's weights: theirs, of a standard deviation of 0.01, let a hundredth of what enters through, and the head begins
to learn hundreds of steps later.
"""

from __future__ import annotations

import functools
from typing import Literal, final

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from seeall.backbones.contract import Backbone
from seeall.data.annotations.examples import LONGEST
from seeall.heads.about import About
from seeall.heads.detection.anchors import fit, generator, usual
from seeall.heads.detection.crowds import covered
from seeall.heads.detection.negatives import COSTS, Negatives, Scoring
from seeall.heads.detection.pyramid import Pyramid, check
from seeall.types import SeeallError

_MORE, _EACH, _SCALE, _MISTAKEN = 2, 9, 4.0, 0.5


@final
class _Retina(RetinaNet):  # type: ignore[misc]
    """torchvision's, which also tells its head which anchors lie where it was mistaken before, and which in a crowd."""

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        for truth, here in zip(targets, anchors):
            mistaken = truth.get("mistaken")
            if mistaken is not None and len(mistaken):
                truth["hard"] = (box_iou(mistaken, here) >= _MISTAKEN).any(0)
            truth["idle"] = covered(here, truth["crowd"])
        found: dict[str, Tensor] = super().compute_loss(targets, head_outputs, anchors)
        return found


def retinanet(
    backbone: Backbone,
    classes: int,
    about: About,
    *,
    negatives: Negatives = "focal",
    alpha: float = 0.25,
    gamma: float = 2.0,
    ratio: float = 3.0,
    every: int = 5,
    anchors: Literal["usual", "fit"] = "usual",
    width: int = 256,
    finest: int = 8,
    score: float = 0.05,
    nms: float = 0.5,
    most: int = 100,
) -> RetinaNet:
    """A detector of things of `classes` classes, numbered from 0.

    negatives: see `negatives.py` · alpha, gamma: of the focal loss, with negatives=focal alone
    ratio: negatives a positive, with negatives=mining and bootstrap · every: epochs between two trials, with
    negatives=bootstrap; where the negatives are others, these say nothing
    anchors: 9 a place, usual or fitted to the boxes · width: channels of the pyramid · finest: its smallest stride, px
    score: the least that counts as found · nms: the overlap above which the weaker of two boxes goes
    most: found in a picture

    Raises: SeeallError for settings out of bounds, or too few boxes to fit anchors to.
    """
    check(score, nms, most)
    if ratio <= 0 or gamma < 0 or not 0 < alpha < 1:
        raise SeeallError(
            f"setting 'ratio' is {ratio}, 'gamma' {gamma}, 'alpha' {alpha}: choose above 0, 0 or more, 0 to 1"
        )
    if every < 1:
        raise SeeallError(f"setting 'every' is {every}: choose 1 epoch or more")
    about.every = every if negatives == "bootstrap" else None
    pyramid = Pyramid(backbone, width, finest, LastLevelP6P7(width, width), _MORE)
    if about.anchors is None and anchors == "fit" and about.boxes is not None:
        about.anchors = fit(about.boxes(), pyramid.strides, _EACH, scale=_SCALE)
    about.anchors = about.anchors or usual(pyramid.strides, scale=_SCALE, octaves=_EACH // 3)
    made = generator(about.anchors)
    head = RetinaNetHead(width, _EACH, classes)
    settings = {"focal": {"alpha": alpha, "gamma": gamma}, "plain": {}}.get(negatives, {"ratio": ratio})
    head.classification_head = Scoring(width, _EACH, classes, functools.partial(COSTS[negatives], **settings))
    for layer in (*head.classification_head.conv.modules(), *head.regression_head.conv.modules()):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return _Retina(
        pyramid, classes, anchor_generator=made, head=head, min_size=about.image_size, max_size=LONGEST *
        about.image_size, image_mean=list(backbone.preprocessing["mean"]),
        image_std=list(backbone.preprocessing["std"]), score_thresh=score, nms_thresh=nms, detections_per_img=most,
    _skip_resize=True, )  # fmt: skip
