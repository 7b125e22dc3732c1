"""Detecting blood cells: our detectors beside torchvision's own, and what a one-stage detector learns from negatives.

    python benchmarks/cells.py BCCD [--what peers|negatives] [--epochs 12] [--seeds 1] [--image-size 160] [--json FILE]

BCCD is a folder in Pascal VOC's layout with the splits train (205 pictures), val (87) and test (72). ResNet-18 from
nothing, the same steps, batches, rates and augmentation for all. `peers`: RetinaNet and Faster R-CNN beside what
torchvision builds over its own ResNet-18 and pyramid. RetinaNet learns later than Faster R-CNN and wants
--lr 1e-3 --batch-size 4 in a budget as small as this. `negatives`: RetinaNet with each way to learn from them. AP50 on
the test pictures, and how many false positives there are at a score of one half.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from seeall.backbones.contract import Backbone
from seeall.console import log
from seeall.heads.about import About
from seeall.heads.examine import examine
from seeall.heads.finetune import finetune
from seeall.metrics.detection import counts

WIDTH, HIDDEN = 128, 256
"""Channels of pyramids and of the second stage: less than usual, for a CPU, and the same for all."""
OURS = ("model.anchors=fit", f"width={WIDTH}")


def their_faster_rcnn(backbone: Backbone, classes: int, about: About) -> nn.Module:
    """torchvision's, with its own backbone, all of it trained; anchors in proportion to the size of the pictures."""
    sizes = tuple((round(s * about.image_size / 800),) for s in (32, 64, 128, 256, 512))
    return FasterRCNN(
        _pyramid([1, 2, 3, 4], LastLevelMaxPool()),
        min_size=about.image_size, max_size=8 * about.image_size, _skip_resize=True,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        box_head=TwoMLPHead(WIDTH * 7**2, HIDDEN), box_predictor=FastRCNNPredictor(HIDDEN, classes + 1),
    )  # fmt: skip


def their_retinanet(backbone: Backbone, classes: int, about: About) -> nn.Module:
    """The same of its one-stage detector, with its own anchors, of 32 px and more: smaller ones would go to strides so
    large that they step over cells.
    """
    return RetinaNet(
        _pyramid([2, 3, 4], LastLevelP6P7(WIDTH, WIDTH)), classes,
        min_size=about.image_size, max_size=8 * about.image_size, _skip_resize=True,
    )  # fmt: skip


def _pyramid(stages: list[int], extra: ExtraFPNBlock) -> BackboneWithFPN:
    channels = {f"layer{k}": 64 * 2 ** (k - 1) for k in stages}
    names = {name: str(k) for k, name in enumerate(channels)}
    return BackboneWithFPN(resnet18(), names, list(channels.values()), WIDTH, extra)


PEERS: dict[str, dict[str, Any]] = {
    "faster-rcnn": {"model": "faster-rcnn", "set": (*OURS, f"hidden={HIDDEN}")},
    "faster-rcnn, theirs": {"model": "cells:their_faster_rcnn"},
    "retinanet": {"model": "retinanet", "set": OURS},
    "retinanet, theirs": {"model": "cells:their_retinanet"},
}
NEGATIVES: dict[str, dict[str, Any]] = {
    f"retinanet, {how}": {"model": "retinanet", "set": (*OURS, f"negatives={how}", "every=2")}
    for how in ("plain", "focal", "mining", "bootstrap")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bccd", type=Path)
    parser.add_argument("--what", choices=("peers", "negatives"), default="peers")
    parser.add_argument("--only", default="", help="the ways that begin so")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    sys.modules["cells"] = sys.modules[__name__]
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="cells-") as scratch:
        for name, way in (PEERS if args.what == "peers" else NEGATIVES).items():
            if not name.startswith(args.only):
                continue
            rows[name] = []
            for seed in range(args.seeds):
                start = time.monotonic()
                out = Path(scratch) / "run"
                finetune(
                    str(args.bccd), out, task="detection", start="none", backbone="resnet18", epochs=args.epochs,
                    image_size=args.image_size, lr=args.lr, batch_size=args.batch_size, seed=seed, overwrite=True,
                    **{**way, "set": (*way.get("set", ()), *args.set)},
                )  # fmt: skip
                seconds = time.monotonic() - start
                judged = examine(out, str(args.bccd))
                found = [p.found for p in judged.predictions if p.found is not None]
                rows[name].append(
                    {**judged.figures, **counts(found, judged.truths, judged.recipe.classes), "s": seconds}
                )
            tell(name, rows[name])
            if args.json:
                args.json.write_text(json.dumps(rows))


def tell(name: str, found: list[dict[str, float]]) -> None:
    words = []
    for key in ("mAP50", "mAP", "AP50/RBC", "AP50/WBC", "AP50/Platelets", "false_positives", "missed", "s"):
        values = [one[key] for one in found]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        words.append(f"{key} {statistics.mean(values):.1f}{spread}")
    print(f"{name:<22}" + "  ".join(words), flush=True)


if __name__ == "__main__":
    main()
