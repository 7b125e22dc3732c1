"""Crowds are not learnt as background: against loops over anchors, proposals and pixels, and against torchvision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from seeall.backbones.load import build as build_backbone
from seeall.data.annotations.examples import Example
from seeall.data.annotations.truth import Truth
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.augment import Augment, _window
from seeall.heads.detection.crowds import COVERED, covered

SIZE = 96
SMALL: dict[str, dict[str, Any]] = {
    "retinanet": {"width": 16, "negatives": "plain"},
    "faster-rcnn": {"width": 16, "hidden": 16, "proposals": 40, "sampled": 64},
    "mask-rcnn": {"width": 16, "hidden": 16, "proposals": 40, "sampled": 64, "mask_width": 16},
}
THINGS = [[4.0, 6, 40, 44], [60, 60, 92, 90]]
CROWDS = [[30.0, 10, 96, 70], [0, 70, 50, 96]]
Boxes = list[list[float]]


def head_of(model: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    task, made = "instance" if model == "mask-rcnn" else "detection", SMALL[model] | settings
    recipe = build.Recipe(task, model, ("a", "b"), SIZE, "shufflenet_v2_x0_5", {}, {"model": made})
    return build.assemble(recipe, build_backbone("shufflenet_v2_x0_5")[0], About(SIZE)).train()


def truth_of(things: Boxes, crowds: Boxes) -> Truth:
    boxes = np.array(things + crowds, np.float32).reshape(-1, 4)
    masks = np.zeros((len(boxes), SIZE, SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int).tolist()):
        mask[y0:y1, x0:x1] = True
    crowd = np.array([False] * len(things) + [True] * len(crowds), bool)
    return Truth(boxes=boxes, classes=np.arange(len(boxes)) % 2, crowd=crowd, masks=masks)


def step(head: Any, *truths: Truth) -> dict[str, Tensor]:
    """What a step tells of pictures that are always the same, with draws that are always the same."""
    drawn = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (len(truths), 3, SIZE, SIZE), dtype=torch.uint8, generator=drawn)
    examples = [Example(*one) for one in zip(pixels, truths)]
    torch.manual_seed(1)
    told: dict[str, Tensor] = head.training_step({"examples": examples, "epoch": 0, "rows": [*range(len(truths))]})
    return told


def shared(a: list[float], b: list[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def area(a: list[float]) -> float:
    return (a[2] - a[0]) * (a[3] - a[1])


def iou(a: list[float], b: list[float]) -> float:
    return shared(a, b) / (area(a) + area(b) - shared(a, b))


def crowded(box: list[float], crowds: Boxes) -> bool:
    return any(shared(box, crowd) / area(box) >= COVERED for crowd in crowds)


def labels_of(boxes: Boxes, things: Boxes, crowds: Boxes, high: float, low: float, best: bool) -> list[int]:
    """A box at a time: 1 a thing, 0 background, -1 what does not count. best: each thing has the nearest boxes too."""
    table = [[iou(box, thing) for thing in things] for box in boxes]
    nearest = [max(row[m] for row in table) for m in range(len(things))]
    labels = []
    for box, row in zip(boxes, table):
        if max(row, default=0) >= high or (best and any(v > n - 1e-6 for v, n in zip(row, nearest))):
            labels.append(1)
        elif max(row, default=0) >= low or crowded(box, crowds):
            labels.append(-1)
        else:
            labels.append(0)
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_what_a_crowd_covers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 20, (60, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], 1).tolist()
    for crowds in (boxes[:3], []):
        told = covered(torch.tensor(boxes[3:]), torch.tensor(crowds).reshape(-1, 4))
        assert told.tolist() == [crowded(box, crowds) for box in boxes[3:]]


@pytest.mark.parametrize(("things", "crowds"), [(THINGS, CROWDS), ([], CROWDS), (THINGS, []), ([], [])])
def test_anchors_of_the_first_stage(things: Boxes, crowds: Boxes) -> None:
    rpn = head_of("faster-rcnn").network.rpn
    maps = [torch.zeros(1, 16, -(-SIZE // stride), -(-SIZE // stride)) for stride in (4, 8, 16, 32, 64)]
    anchors = rpn.anchor_generator(ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)]), maps)
    target = {"boxes": torch.tensor(things).reshape(-1, 4), "crowd": torch.tensor(crowds).reshape(-1, 4)}
    (labels,), _ = rpn.assign_targets_to_anchors(anchors, [target])
    wanted = labels_of(anchors[0].tolist(), things, crowds, 0.7, 0.3, best=True)
    assert labels.tolist() == wanted
    assert {*wanted} >= {0} | ({1} if things else set()) | ({-1} if crowds else set())


@pytest.mark.parametrize("model", ["faster-rcnn", "mask-rcnn"])
@pytest.mark.parametrize(("things", "crowds"), [(THINGS, CROWDS), ([], CROWDS), (THINGS, [])])
def test_proposals_of_the_second_stage(model: str, things: Boxes, crowds: Boxes) -> None:
    """All that count are looked at, for there are fewer than `sampled` of each kind; things are proposals as well."""
    heads, seen = head_of(model).network.roi_heads, list[Tensor]()
    heads.box_roi_pool.register_forward_pre_hook(lambda _, given: seen.append(given[1][0]))
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, SIZE, (30, 2, 2)).round(2)
    near = [[x0 + dx, y0 + dx, x1, y1] for x0, y0, x1, y1 in THINGS for dx in (0.0, 2.0, 3.0, 9.0, 16.0)]
    proposals = [[*box.min(0).tolist(), *(box.max(0) + 1).tolist()] for box in corners] + near
    target = {
        "boxes": torch.tensor(things).reshape(-1, 4), "labels": torch.ones(len(things), dtype=torch.int64),
        "crowd": torch.tensor(crowds).reshape(-1, 4), "masks": torch.ones(len(things), SIZE, SIZE, dtype=torch.uint8),
    }  # fmt: skip
    maps = {str(k): torch.rand(1, 16, -(-SIZE // s), -(-SIZE // s)) for k, s in enumerate((4, 8, 16, 32))}
    _, losses = heads(maps, [torch.tensor(proposals)], [(SIZE, SIZE)], [target])
    labels = labels_of(proposals + things, things, crowds, 0.5, 0.5, best=False)
    wanted = [box for box, label in zip(proposals + things, labels) if label != -1]
    assert len(wanted) > 5 and (len(wanted) < len(labels)) is bool(crowds)
    torch.testing.assert_close(seen[0], torch.tensor(wanted))
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(("things", "crowds"), [(THINGS, CROWDS), ([], CROWDS), (THINGS, []), ([], [])])
def test_scores_of_one_stage(things: Boxes, crowds: Boxes) -> None:
    """Cross-entropy over the anchors that count, for each thing's anchor one."""
    head, said = head_of("retinanet"), dict[str, Any]()
    head.network.head.register_forward_hook(lambda _, given, out: said.update(logits=out["cls_logits"][0]))
    head.network.anchor_generator.register_forward_hook(lambda _, given, out: said.update(anchors=out[0]))
    told = step(head, truth_of(things, crowds))
    anchors = said["anchors"].tolist()
    labels, total = labels_of(anchors, things, crowds, 0.5, 0.4, best=True), 0.0
    for box, label, logits in zip(anchors, labels, said["logits"].detach().double()):
        if label != -1:
            wanted = torch.zeros(2, dtype=torch.float64)
            if label:
                wanted[max(range(len(things)), key=lambda m: iou(box, things[m])) % 2] = 1
            total += float(F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum"))
    assert float(told["classification"].detach()) == pytest.approx(total / max(1, labels.count(1)), rel=1e-4)


@pytest.mark.parametrize("negatives", ["focal", "plain", "mining", "bootstrap"])
def test_no_way_of_choosing_negatives_chooses_a_crowd(negatives: str) -> None:
    """Whatever the scores of anchors in a crowd, the loss and its gradient are the same."""
    told = []
    for sure in (-20.0, 20.0):
        head = head_of("retinanet", negatives=negatives)

        def changed(_: nn.Module, given: Any, out: Any, head: Any = head, sure: float = sure) -> Any:
            idle = [crowded(box, CROWDS) for box in head.anchors]
            out["cls_logits"] = torch.where(torch.tensor(idle)[None, :, None], sure, out["cls_logits"])
            return out

        boxes = list[Any]()
        head.network.anchor_generator.register_forward_hook(lambda _, given, out, boxes=boxes: boxes.append(out[0]))
        with torch.no_grad():
            step(head, truth_of([], CROWDS))
        head.anchors = boxes[0].tolist()
        head.network.head.register_forward_hook(changed)
        told.append(float(step(head, truth_of([], CROWDS))["classification"].detach()))
    assert told[0] == told[1] > 0


@pytest.mark.parametrize("model", SMALL)
def test_a_picture_full_of_a_crowd_teaches_something_finite(model: str) -> None:
    head, full = head_of(model), truth_of([], [[0, 0, SIZE, SIZE]])
    told = step(head, full, full)
    assert all(torch.isfinite(value) for value in told.values()), told
    told["loss"].backward()
    bare = [name for name, p in head.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert [name for name in bare if "classifier.0" not in name] == []
    parts = {"faster-rcnn": ["classifier", "box_reg"], "mask-rcnn": ["classifier", "box_reg", "mask"]}.get(model, [])
    assert all(float(told[name].detach()) == 0 for name in parts)
    assert 0 < float(told["loss"].detach()) < float(step(head, truth_of([], []), truth_of([], []))["loss"].detach())


@pytest.mark.parametrize("model", ["faster-rcnn", "mask-rcnn"])
def test_without_crowds_two_stages_are_torchvisions(model: str) -> None:
    head = head_of(model)
    peer = copy.deepcopy(head)
    peer.network.rpn.__class__, peer.network.roi_heads.__class__ = RegionProposalNetwork, RoIHeads
    truths = truth_of(THINGS, []), truth_of([], [])
    own, theirs = step(head, *truths), step(peer, *truths)
    assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)
    assert list(head.network.state_dict()) == list(peer.network.state_dict())
    pictures = [torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)]
    one, two = (h.eval().predict(pictures)[0].found for h in (head, peer))
    np.testing.assert_array_equal(one.boxes, two.boxes)


@pytest.mark.parametrize("seed", range(8))
def test_what_stays_in_a_window(seed: int) -> None:
    """Pixel by pixel: a quarter of the thing or of the window, and of a crowd anything."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, SIZE, (40, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 1], 1)
    crowd = rng.random(40) < 0.4
    truth = Truth(boxes=boxes.astype(np.float32), classes=np.arange(40), crowd=crowd)
    h, w = (int(v) for v in rng.integers(8, 130, 2))
    top, left = (round(float(u) * (SIZE - side)) for u, side in zip(rng.random(2), (h, w)))
    kept = []
    for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        inside = sum(top <= y < top + h and left <= x < left + w for y in range(y0, y1) for x in range(x0, x1))
        enough = 4 * inside >= (x1 - x0) * (y1 - y0) or 4 * inside >= h * w
        if inside and (crowd[k] or enough):
            kept.append(k)
    _, seen = _window(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), truth, (top, left, h, w))
    assert seen.classes.tolist() == kept and seen.crowd.tolist() == crowd[kept].tolist()
    assert (seen.boxes >= 0).all() and (seen.boxes[:, 2:] > seen.boxes[:, :2]).all()


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("crowd", [True, False])
def test_a_window_inside_a_thing_is_the_thing(crowd: bool, drawn: bool) -> None:
    whole = [[0.0, 0, SIZE, SIZE]]
    truth = truth_of([], whole) if crowd else truth_of(whole, [])
    truth = truth if drawn else Truth(boxes=truth.boxes, classes=truth.classes, crowd=truth.crowd)
    example = Example(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), truth)
    for k in range(20):
        seen = Augment(crop_min=0.2, crop_max=0.4)(example, SIZE, 0, 0, k).truth
        assert seen.crowd.tolist() == [crowd]
        np.testing.assert_allclose(seen.boxes, whole, atol=1e-4)
