"""Measures of detection against explicit loops, torchmetrics and hand-made cases."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval import mask
from pytest import approx
from torchmetrics.detection import MeanAveragePrecision

from seeall.data.annotations.truth import Truth
from seeall.metrics.detection import Found, Masks, confused, counts, curves, detection

NAMES = ["cat", "dog", "hat", "owl"]
THRESHOLDS = [0.5 + 0.05 * i for i in range(10)]
SIZES = {"": (0, 1e10), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, 1e10)}
H, W = 120, 160
Scene = tuple[list[Found], list[Truth]]
Iou = Callable[[Any, int, Any, int], float]


def filled(boxes: Any) -> Any:
    """Boxes as masks with their lower right corners cut off."""
    y, x = np.mgrid[:H, :W] + 0.5
    masks = [
        (x > a) & (x < c) & (y > b) & (y < d) & ((x - a) / (c - a) + (y - b) / (d - b) < 1.6) for a, b, c, d in boxes
    ]
    return np.array(masks, dtype=bool).reshape(-1, H, W)


def thing(
    boxes: Any, classes: Sequence[int], crowd: Sequence[bool] | None = None, masks: bool = False, **more: Any
) -> Any:
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    given = {"boxes": boxes, "classes": np.asarray(classes, np.int64), "masks": filled(boxes) if masks else None}
    if "scores" in more:
        return Found(**given, scores=np.asarray(more["scores"], np.float32))
    return Truth(**given, crowd=np.asarray(crowd if crowd is not None else [False] * len(boxes), bool))


def scene(seed: int, *, crowds: bool = False, ties: bool = False, masks: bool = False, pictures: int = 6) -> Scene:
    """Finds near things, doubles, finds elsewhere, wrong classes; a picture without finds and one without things.

    Class 3 is found and never there.
    """
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for i in range(pictures):
        m = 0 if i == 1 else int(rng.integers(2, 7))
        corner = rng.uniform(0, 60, (m, 2))
        boxes = np.concatenate([corner, corner + rng.choice([8, 20, 45, 55], (m, 1)) * rng.uniform(0.6, 1, (m, 2))], 1)
        classes = rng.integers(0, 3, m)
        crowd = rng.random(m) < 0.3 if crowds else np.zeros(m, bool)
        truths.append(thing(boxes, classes, crowd, masks))
        near = np.repeat(boxes, 2, 0) + rng.normal(0, 2.5, (2 * m, 4)) if m else np.zeros((0, 4))
        far = rng.uniform(0, 60, (3, 2))
        guess = np.concatenate([near, np.concatenate([far, far + rng.uniform(5, 50, (3, 2))], 1)])
        guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2] + 2)
        kinds = np.concatenate([np.repeat(classes, 2), rng.integers(0, 4, 3)])
        wrong = rng.random(len(kinds)) < 0.2
        kinds[wrong] = rng.integers(0, 4, wrong.sum())
        scores = rng.integers(1, 5, len(kinds)) / 4 if ties else rng.random(len(kinds))
        keep = rng.random(len(kinds)) < (0 if i == 2 else 0.8)
        found.append(thing(guess[keep], kinds[keep], masks=masks, scores=scores[keep]))
    return found, truths


def box_iou(f: Found, d: int, t: Truth, g: int) -> float:
    (ax, ay, bx, by), (cx, cy, dx, dy) = f.boxes[d].tolist(), t.boxes[g].tolist()
    both = max(0, min(bx, dx) - max(ax, cx)) * max(0, min(by, dy) - max(ay, cy))
    area = (bx - ax) * (by - ay)
    return both / (area if t.crowd[g] else area + (dx - cx) * (dy - cy) - both)


def mask_iou(f: Found, d: int, t: Truth, g: int) -> float:
    a, b = f.masks[d], t.masks[g]
    return (a & b).sum() / (a.sum() if t.crowd[g] else (a | b).sum())


def box_area(part: Any, i: int) -> float:
    a, b, c, d = part.boxes[i].tolist()
    return (c - a) * (d - b)


def mask_area(part: Any, i: int) -> float:
    return float(part.masks[i].sum())


def matched(
    found: list[Found], truths: list[Truth], c: int, iou: float, size: tuple[float, float], masks: bool, most: int
) -> tuple[list[tuple[float, bool]], int]:
    """(score, right or wrong) of the finds of class c that count, and how many things there are to find."""
    overlap, area = (mask_iou, mask_area) if masks else (box_iou, box_area)
    judged, total = [], 0
    for f, t in zip(found, truths):
        things = [g for g in range(len(t.boxes)) if t.classes[g] == c]
        aside = {g for g in things if t.crowd[g] or not size[0] <= area(t, g) <= size[1]}
        total += len(things) - len(aside)
        finds = [d for d in range(len(f.boxes)) if f.classes[d] == c]
        taken: set[int] = set()
        for d in sorted(finds, key=lambda d, f=f: -f.scores[d])[:most]:
            choice = None
            for group in ([g for g in things if g not in aside], [g for g in things if g in aside]):
                free = [g for g in group if (g not in taken or t.crowd[g]) and overlap(f, d, t, g) >= iou]
                if free and choice is None:
                    choice = max(free, key=lambda g, d=d, f=f, t=t: (overlap(f, d, t, g), g))
            if choice is not None:
                taken.add(choice)
            if choice in aside or (choice is None and not size[0] <= area(f, d) <= size[1]):
                continue
            judged.append((float(f.scores[d]), choice is not None))
    return sorted(judged, key=lambda pair: -pair[0]), total


def average_precision(judged: list[tuple[float, bool]], total: int) -> float:
    """The best precision at 101 recalls or beyond."""
    points, right = [], 0
    for n, (_, good) in enumerate(judged, 1):
        right += good
        points.append((right / total, right / n))
    heights = [max([p for r, p in points if r >= k / 100 - 1e-12], default=0.0) for k in range(101)]
    return sum(heights) / 101


def mean(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values)


def loop(found: list[Found], truths: list[Truth], *, masks: bool = False, most: int = 100) -> dict[str, float]:
    result: dict[str, float] = {}
    for label, size in SIZES.items():
        ap: dict[tuple[int, float], float] = {}
        recall = []
        for c in range(len(NAMES)):
            for iou in THRESHOLDS:
                judged, total = matched(found, truths, c, iou, size, masks, most)
                if total:
                    ap[c, iou] = average_precision(judged, total)
                    recall.append(sum(good for _, good in judged) / total)
        if not ap:
            continue
        result[f"mAP{label}"] = mean(list(ap.values()))
        if not label:
            result["mAR"] = mean(recall)
            for name, iou in (("mAP50", THRESHOLDS[0]), ("mAP75", THRESHOLDS[5])):
                result[name] = mean([v for (_, i), v in ap.items() if i == iou])
            for c in {c for c, _ in ap}:
                result[f"AP/{NAMES[c]}"] = mean([v for (k, _), v in ap.items() if k == c])
                result[f"AP50/{NAMES[c]}"] = 100 * ap[c, 0.5]
    return result


def torchmetrics(found: list[Found], truths: list[Truth], *, masks: bool = False) -> dict[str, float]:
    """With thresholds in float64, as COCO has them: by default theirs are rounded, and a recall of 3/10 falls short."""
    judge = MeanAveragePrecision(
        iou_type="segm" if masks else "bbox",
        backend="faster_coco_eval",
        class_metrics=True,
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    both = []
    for parts in (found, truths):
        rows = []
        for part in parts:
            row = {"boxes": torch.tensor(part.boxes), "labels": torch.tensor(part.classes)}
            row |= {"masks": torch.tensor(part.masks)} if masks else {}
            row |= {"scores": torch.tensor(part.scores)} if isinstance(part, Found) else {}
            row |= {"iscrowd": torch.tensor(part.crowd).long()} if isinstance(part, Truth) else {}
            rows.append(row)
        both.append(rows)
    judge.update(*both)
    out = judge.compute()
    names = {"mAP": "map", "mAP50": "map_50", "mAP75": "map_75", "mAR": "mar_100"}
    names |= {f"mAP_{size}": f"map_{size}" for size in ("small", "medium", "large")}
    each = zip(out["classes"].tolist(), out["map_per_class"].tolist())
    result = {ours: 100 * float(out[theirs]) for ours, theirs in names.items()}
    result |= {f"AP/{NAMES[c]}": 100 * ap for c, ap in each}
    return {name: value for name, value in result.items() if value >= 0}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("crowds", "ties"), [(False, False), (True, False), (False, True), (True, True)])
def test_agrees_with_the_loop_and_torchmetrics(masks: bool, crowds: bool, ties: bool) -> None:
    for seed in range(2):
        found, truths = scene(seed, crowds=crowds, ties=ties, masks=masks)
        ours = detection(found, truths, NAMES, masks=masks)
        assert ours == approx(loop(found, truths, masks=masks), abs=1e-6)
        if masks:  # theirs leaves out pictures without a thing, whatever was found there
            found, truths = zip(*((f, t) for f, t in zip(found, truths) if len(t.boxes)))
            ours = detection(found, truths, NAMES, masks=True)
        theirs = torchmetrics(found, truths, masks=masks)
        assert {name: value for name, value in ours.items() if "AP50/" not in name} == approx(theirs, abs=1e-4)
        assert 5 < ours["mAP"] < 95
        assert "AP/owl" not in ours


def test_only_so_many_finds_of_a_class_count() -> None:
    found, truths = scene(3)
    for most in (1, 2, 100):
        assert detection(found, truths, NAMES, most=most) == approx(loop(found, truths, most=most), abs=1e-6)


def test_sizes_that_are_not_there_are_left_out() -> None:
    truth = thing([[0, 0, 100, 100], [0, 0, 10, 10]], [0, 1])
    measures = detection([thing(truth.boxes, truth.classes, scores=[0.5, 0.5])], [truth], NAMES)
    assert set(measures) == {"mAP", "mAP50", "mAP75", "mAP_small", "mAP_large", "mAR", "AP/cat", "AP50/cat"} | {
        "AP/dog", "AP50/dog",
    }  # fmt: skip


@pytest.mark.parametrize("masks", [False, True])
def test_perfect_empty_and_mixed_up(masks: bool) -> None:
    _, truths = scene(0, masks=masks)
    spread = [thing([[30 * i, 0, 30 * i + 20, 20 + i] for i in range(3)], [0, 1, 2], masks=masks), truths[1]]
    same = [Found(boxes=t.boxes, classes=t.classes, scores=np.ones(len(t.boxes)), masks=t.masks) for t in truths]
    assert set(detection(same, truths, NAMES, masks=masks).values()) == {100}
    nothing = [Found()] * len(truths)
    measures = detection(nothing, truths, NAMES, masks=masks)
    assert set(measures.values()) == {0}
    assert measures == loop(nothing, truths, masks=masks)
    mixed = [
        Found(boxes=t.boxes, classes=(t.classes + 1) % 3, scores=np.ones(len(t.boxes)), masks=t.masks) for t in spread
    ]
    measures = detection(mixed, spread, NAMES, masks=masks)
    assert set(measures.values()) == {0}
    assert measures == loop(mixed, spread, masks=masks)


def test_without_things_there_is_nothing_to_measure() -> None:
    found, truths = scene(0)
    crowd = [dataclasses.replace(t, crowd=np.ones(len(t.boxes), bool)) for t in truths]
    for nothing in ([Truth()] * len(found), crowd):
        assert detection(found, nothing, NAMES) == {}
        assert curves(found, nothing, NAMES) == {}
    assert detection([], [], NAMES) == {}
    assert counts([], [], NAMES) == {"true_positives": 0, "false_positives": 0, "missed": 0}
    assert confused([], [], NAMES).tolist() == [[0] * 5] * 5


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    detection(*scene(0, masks=True), NAMES, masks=True)
    assert capfd.readouterr() == ("", "")


def test_what_a_crowd_covers_is_neither_right_nor_wrong() -> None:
    truth = thing([[0, 0, 100, 100], [0, 0, 20, 20], [100, 100, 120, 120]], [0, 0, 1], [True, False, False])
    inside = thing([[0, 0, 20, 20], [50, 50, 60, 60], [70, 10, 80, 30]], [0, 0, 0], scores=[0.9, 0.95, 0.8])
    assert detection([inside], [truth], NAMES)["AP/cat"] == 100
    recall, precision, scores = curves([inside], [truth], NAMES)["cat"]
    assert (recall.tolist(), precision.tolist(), scores.tolist()) == ([1], [1], approx([0.9]))
    assert counts([inside], [truth], NAMES) == {"true_positives": 1, "false_positives": 0, "missed": 1}
    want = np.zeros((5, 5), int)
    want[0, 0] = want[1, 4] = 1
    assert confused([inside], [truth], NAMES).tolist() == want.tolist()
    other = dataclasses.replace(inside, classes=np.ones(3, np.int64))
    assert counts([other], [truth], NAMES)["false_positives"] == 3  # a crowd of cats excuses no dog


def test_an_iou_of_a_half_is_found() -> None:
    truth, found = thing([[0, 0, 10, 10]], [0]), thing([[0, 0, 10, 5]], [0], scores=[1])
    measures = detection([found], [truth], NAMES)
    assert (measures["mAP50"], measures["mAP75"], measures["mAP"]) == (100, 0, approx(10))
    assert counts([found], [truth], NAMES)["true_positives"] == 1
    assert counts([found], [truth], NAMES, iou=0.51)["true_positives"] == 0
    assert confused([found], [truth], NAMES)[0, 0] == 1


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_things_as_near_the_last_is_taken(turned: bool) -> None:
    """As COCO does: whether the second find gets its thing depends on the order of the truth."""
    boxes = [[0, 0, 10, 10], [0, 4, 10, 14]]
    truth = thing(boxes[::-1] if turned else boxes, [0, 0])
    found = thing([[0, 2, 10, 12], [0, 0, 10, 10]], [0, 0], scores=[0.9, 0.8])
    right = 1 if turned else 2
    assert counts([found], [truth], NAMES) == {
        "true_positives": right,
        "false_positives": 2 - right,
        "missed": 2 - right,
    }
    assert (detection([found], [truth], NAMES)["mAP50"] == 100) == (right == 2)


@pytest.mark.parametrize(("crowds", "ties"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_curves_and_counts_agree_with_the_loop(iou: float, crowds: bool, ties: bool) -> None:
    for seed in range(3):
        found, truths = scene(seed, crowds=crowds, ties=ties)
        lines = curves(found, truths, NAMES, iou=iou)
        right, wrong, things = 0, 0, 0
        for c, name in enumerate(NAMES):
            judged, total = matched(found, truths, c, iou, SIZES[""], False, 1000)
            right += sum(good for score, good in judged if score >= 0.5)
            wrong += sum(not good for score, good in judged if score >= 0.5)
            things += total
            if not total:
                assert name not in lines
                continue
            recall, precision, scores = lines[name]
            assert scores.tolist() == sorted({score for score, _ in judged}, reverse=True)
            for r, p, s in zip(recall, precision, scores, strict=True):
                kept = [good for score, good in judged if score >= s]
                assert (r, p) == (sum(kept) / total, sum(kept) / len(kept))
            if not ties and iou == 0.5:
                points = list(zip(recall, precision))
                ap = mean([max([p for r, p in points if r >= k / 100], default=0) for k in range(101)])
                assert ap == approx(detection(found, truths, NAMES)[f"AP50/{name}"])
        want = {"true_positives": right, "false_positives": wrong, "missed": things - right}
        assert counts(found, truths, NAMES, iou=iou) == want


@pytest.mark.parametrize(("crowds", "ties"), [(False, False), (True, True)])
def test_confusion_agrees_with_the_loop(crowds: bool, ties: bool) -> None:
    for seed in range(5):
        found, truths = scene(seed, crowds=crowds, ties=ties)
        for score, iou in ((0.5, 0.5), (0.0, 0.3), (2.0, 0.5)):
            want = [[0] * 5 for _ in range(5)]
            for f, t in zip(found, truths):
                finds = {d for d in range(len(f.boxes)) if f.scores[d] >= score}
                things = {g for g in range(len(t.boxes)) if not t.crowd[g]}
                while True:
                    pairs = [(box_iou(f, d, t, g), f.scores[d], d, g) for d in finds for g in things]
                    best = max(pairs, default=(0.0, 0, 0, 0))
                    if best[0] < iou:
                        break
                    _, _, d, g = best
                    want[t.classes[g]][f.classes[d]] += 1
                    finds.remove(d)
                    things.remove(g)
                for d in finds:
                    crowd = [g for g in range(len(t.boxes)) if t.crowd[g]]
                    if all(box_iou(f, d, t, g) < iou for g in crowd):
                        want[4][f.classes[d]] += 1
                for g in things:
                    want[t.classes[g]][4] += 1
            matrix = confused(found, truths, NAMES, score=score, iou=iou)
            assert matrix.tolist() == want
            assert matrix[:4].sum() == sum((~t.crowd).sum() for t in truths)


def test_the_nearest_goes_first_and_of_equals_the_surest() -> None:
    truth = thing([[0, 0, 10, 10], [50, 0, 60, 10]], [0, 1])
    boxes = [[0, 0, 10, 8], [0, 0, 10, 10], [50, 0, 60, 10], [50, 0, 60, 10]]
    found = thing(boxes, [0, 1, 0, 1], scores=[0.9, 0.6, 0.6, 0.7])
    want = np.zeros((5, 5), int)
    want[0, 1] = want[1, 1] = 1  # the cat as a dog, by the better box; the dog as a dog
    want[4, 0] = 2
    assert confused([found], [truth], NAMES).tolist() == want.tolist()


def test_what_does_not_fit_is_refused() -> None:
    found, truths = scene(0, masks=True)
    with pytest.raises(ValueError, match="pictures"):
        detection(found[1:], truths, NAMES)
    for measure in (detection, curves, counts, confused):
        with pytest.raises(ValueError, match="names"):
            measure(found, truths, NAMES[:2])
    bare = [dataclasses.replace(f, masks=None) for f in found]
    with pytest.raises(ValueError, match="no masks"):
        detection(bare, truths, NAMES, masks=True)
    other = [dataclasses.replace(f, masks=f.masks[:, 1:]) for f in found]
    with pytest.raises(ValueError, match="different sizes"):
        detection(other, truths, NAMES, masks=True)
    with pytest.raises(ValueError, match="scores"):
        Found(boxes=np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="masks"):
        Found(masks=np.zeros((1, 3, 3), bool))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 8), (30, 41)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_masks_are_packed_as_coco_packs_them(size: tuple[int, int], share: float) -> None:
    values = np.random.default_rng(0).random((4, *size)) < share
    values[0, :, : size[1] // 2] = True
    packed = Masks.pack(values, *size)
    assert packed.runs == mask.encode(np.asfortranarray(values.transpose(1, 2, 0), np.uint8))
    assert packed.shape == values.shape and len(packed) == 4 and packed.areas == values.sum((1, 2)).tolist()
    assert np.array_equal(np.asarray(packed), values) and np.array_equal(list(packed), values)
    assert packed[1].dtype == np.bool_ and np.array_equal(packed[-1], values[-1])
    for rows in (np.array([True, False, True, False]), np.array([3, 0]), slice(1, 3), [2]):
        assert isinstance(packed[rows], Masks) and np.array_equal(np.asarray(packed[rows]), values[rows])
    assert np.array_equal(packed[..., ::-1], values[..., ::-1])
    nothing = packed[np.zeros(4, bool)]
    assert nothing.shape == (0, *size) and np.asarray(nothing).shape == (0, *size) and nothing.areas == []


def test_packed_masks_measure_as_others_do_and_are_small() -> None:
    found, truths = scene(3, masks=True)
    packed = [dataclasses.replace(f, masks=Masks.pack(f.masks, *f.masks.shape[1:])) for f in found]  # type: ignore[union-attr]
    assert detection(packed, truths, NAMES, masks=True) == detection(found, truths, NAMES, masks=True)
    large = np.zeros((1000, 1000), bool)
    large[200:700, 300:900] = True
    assert len(pickle.dumps(Masks.pack([large] * 20, 1000, 1000))) < 20 * large.nbytes / 500
