"""What is annotated and yet cannot be learnt: told where some of it is so, refused where all of it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.polygons import area, encode, mask
from seeall.types import SeeallError

INSIDE = {"bbox": [2, 3, 12, 10], "segmentation": [[2, 3, 14, 3, 14, 13, 2, 13]]}
OUTSIDE = {"bbox": [50, 50, 10, 10], "segmentation": [[50, 50, 60, 50, 60, 60]]}
NOWHERE = {"size": [24, 32], "counts": [24 * 32]}


def coco(root: Path, shown: Any, *things: dict[str, Any]) -> str:
    shown.save(root / "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": shown.w, "height": shown.h}]
    annotations = [{"id": k, "image_id": 1, "category_id": 1, "iscrowd": 0, **one} for k, one in enumerate(things)]
    held = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (root / "all.json").write_text(json.dumps(held))
    return str(root)


OUTLINES = ("instance", "segmentation")
ALL = ("detection", *OUTLINES)
CASES = [
    (OUTSIDE, ALL, r"2 x box outside the picture left out, such as in a\.png: cat \(50, 50, 60, 60\) in 32x24 px"),
    ({**INSIDE, "iscrowd": 1}, ALL, r"2 x crowd or difficult thing, not to be learnt, such as in a\.png"),
    ({**INSIDE, "bbox": [2, 3, 0, 10]}, ALL, r"2 x box without width or height left out, such as"),
    ({"segmentation": NOWHERE}, ALL, r"2 x box without width or height left out, such as"),
    ({**INSIDE, "segmentation": NOWHERE}, OUTLINES, r"2 x outline without a pixel in the picture left out, such as"),
    (
        {**INSIDE, "segmentation": encode(np.zeros((24, 32), bool))},
        OUTLINES,
        r"2 x outline without a pixel in the picture left out, such as in a\.png: cat in 32x24 px; mend",
    ),
    ({**INSIDE, "segmentation": OUTSIDE["segmentation"]}, OUTLINES, r"2 x outline without a pixel in the picture"),
    (
        {**INSIDE, "segmentation": [[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]]},
        OUTLINES,
        r"2 x outline without a pixel in the picture left out, such as in a\.png; mend",
    ),
]


@pytest.mark.parametrize(
    ("thing", "task", "words"), [(one, task, words) for one, some, words in CASES for task in some]
)
def test_nothing_that_can_be_learnt(
    tmp_path: Path, three: list[Any], thing: dict[str, Any], task: str, words: str
) -> None:
    with pytest.raises(
        SeeallError, match=f"1 pictures, but nothing annotated in them can be learnt: {words}"
    ) as caught:
        find_annotated(coco(tmp_path, three[0], thing, thing), task)
    assert str(caught.value).endswith("; mend that or annotate more") and "\n" not in str(caught.value)
    annotated = find_annotated(coco(tmp_path, three[0], thing, INSIDE, thing), task)
    truth = annotated.truth(0, 24, 32)
    if task == "segmentation":
        assert truth.semantic is not None and {1} <= set(truth.semantic.ravel().tolist()) <= {0, 1, 255}
    else:
        assert truth.boxes[~truth.crowd].tolist() == [[2, 3, 14, 13]]


def test_every_reason_is_counted(tmp_path: Path, three: list[Any]) -> None:
    crowd = {**INSIDE, "iscrowd": 1}
    words = "1 x thing without an outline left out, 2 x box outside the picture left out, 3 x crowd or difficult"
    boxed = {"bbox": INSIDE["bbox"]}
    with pytest.raises(SeeallError, match=words):
        find_annotated(coco(tmp_path, three[0], crowd, OUTSIDE, crowd, boxed, OUTSIDE, crowd), "instance")


def test_an_empty_outline_is_told(tmp_path: Path, three: list[Any]) -> None:
    data = coco(tmp_path, three[0], INSIDE, {**INSIDE, "segmentation": NOWHERE})
    told = [("a.png", "outline without a pixel in the picture left out: cat in 32x24 px")]
    for task in OUTLINES:
        assert list(find_annotated(data, task).repairs) == told
    annotated = find_annotated(data, "detection")
    assert not annotated.repairs and len(annotated.truth(0, 24, 32).boxes) == 2


@pytest.mark.parametrize("task", ALL)
def test_shares_of_a_picture(tmp_path: Path, three: list[Any], task: str) -> None:
    three[0].save(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 1.1 1.1 1.5 1.1 1.5 1.5\n")
    with pytest.raises(SeeallError, match=r"can be learnt: 1 x box outside the picture left out, such as in images/a"):
        find_annotated(str(tmp_path), task)
    (tmp_path / "labels" / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    assert not find_annotated(str(tmp_path), task).repairs


def test_a_picture_that_cannot_be_measured_counts_as_it_is_annotated(tmp_path: Path, three: list[Any]) -> None:
    data = coco(tmp_path, three[0], INSIDE)
    (tmp_path / "a.png").write_bytes(b"no picture")
    for task in ALL:
        assert len(find_annotated(data, task)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_areas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-8, 40, (int(rng.integers(3, 7)), 2)) for _ in range(int(rng.integers(0, 3)))]
    filled = mask(polygons, 24, 32, "")
    assert area(polygons, 24, 32, "") == filled.sum() == area(encode(filled), 24, 32, "")
