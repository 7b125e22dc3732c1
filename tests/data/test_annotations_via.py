"""The VGG Image Annotator: both versions, every shape, what is mended and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seeall.data.annotations.layouts import find_annotated
from seeall.types import SeeallError


def polygon(corners: Any, **attributes: Any) -> dict[str, Any]:
    xs, ys = (list(values) for values in zip(*corners))
    shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    return {"shape_attributes": shape, "region_attributes": attributes}


def told(three: list[Any], version: int = 2) -> dict[str, Any]:
    held = {}
    for shown in three:
        regions: Any = [polygon(corners, kind=name) for name, corners in shown.things]
        if version == 1:
            regions = {str(k): region for k, region in enumerate(regions)}
        held[f"{shown.stem}.png99"] = {"filename": f"{shown.stem}.png", "size": 99, "regions": regions}
    return held


def write(root: Path, three: list[Any], held: Any, where: str = "") -> Path:
    for shown in three:
        shown.save(root / where / f"{shown.stem}.png")
    (root / where / "via_region_data.json").write_text(json.dumps(held))
    return root


@pytest.mark.parametrize("task", ["detection", "instance", "segmentation"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_is_true(tmp_path: Path, three: list[Any], same: Callable[[Any], None], task: str, version: int) -> None:
    held: Any = told(three, min(version, 2))
    write(tmp_path, three, {"_via_settings": {}, "_via_img_metadata": held} if version == 3 else held)
    annotated = find_annotated(str(tmp_path), task)
    same(annotated)
    assert not annotated.repairs


def test_splits_and_no_attribute(tmp_path: Path, three: list[Any]) -> None:
    for split, some in (("train", three[:1]), ("val", three[1:])):
        held = told(some)
        for one in held.values():
            for region in one["regions"]:
                region["region_attributes"] = {}
        write(tmp_path, some, held, split)
    annotated = find_annotated(str(tmp_path), "instance")
    assert list(annotated.classes) == ["thing"] and list(annotated.pictures.splits or ()) == ["train", "val", "val"]
    assert list(annotated.pictures.ids) == ["train/a.png", "val/b.png", "val/c.png"]
    assert list(find_annotated(str(tmp_path), "instance", names="balloon").classes) == ["balloon"]
    with pytest.raises(SeeallError, match="no attribute to tell 2 classes by; give one name"):
        find_annotated(str(tmp_path), "instance", names="a,b")


@pytest.mark.parametrize(
    ("shape", "box", "area"),
    [
        ({"name": "rect", "x": 2, "y": 3, "width": 10, "height": 6}, [2, 3, 12, 9], 60),
        ({"name": "circle", "cx": 12, "cy": 12, "r": 6}, [6, 6, 18, 18], 36 * np.pi),
        ({"name": "ellipse", "cx": 12, "cy": 12, "rx": 8, "ry": 4}, [4, 8, 20, 16], 32 * np.pi),
        ({"name": "ellipse", "cx": 12, "cy": 12, "rx": 8, "ry": 4, "theta": np.pi / 2}, [8, 4, 16, 20], 32 * np.pi),
        ({"name": "polyline", "all_points_x": [2, 12, 12], "all_points_y": [2, 2, 12]}, [2, 2, 12, 12], 50),
    ],
)
def test_shapes(tmp_path: Path, three: list[Any], shape: Any, box: list[int], area: float) -> None:
    held = told(three)
    held["a.png99"]["regions"] = [{"shape_attributes": shape, "region_attributes": {"kind": "cat"}}]
    truth = find_annotated(str(write(tmp_path, three, held)), "instance").truth(0, 24, 32)
    assert np.allclose(truth.boxes, [box], atol=0.05)
    assert truth.masks is not None and abs(truth.masks.sum() - area) < 0.13 * area


def test_which_attribute_is_the_class(tmp_path: Path, three: list[Any]) -> None:
    held = told(three)
    held["a.png99"]["regions"][0]["region_attributes"] = {"kind": "cat", "class": "lion", "type": {"x": True}}
    held["a.png99"]["regions"][1]["region_attributes"] = {"class": {"wolf": False, "fox": True}}
    write(tmp_path, three, held)
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.classes) == ["fox", "lion"]
    assert list(annotated.repairs) == [("b.png", "region without a class left out: its attribute 'class' is empty")]
    held["a.png99"]["regions"][0]["region_attributes"] = {"kind": "cat", "colour": "red"}
    held["a.png99"]["regions"][1]["region_attributes"] = {}
    write(tmp_path, three, held)
    with pytest.raises(SeeallError, match="which attribute is the class: colour, kind"):
        find_annotated(str(tmp_path), "detection")


def test_points_and_what_lies_outside(tmp_path: Path, three: list[Any]) -> None:
    held = told(three)
    held["a.png99"]["regions"] = [
        {"shape_attributes": {"name": "point", "cx": 1, "cy": 2}, "region_attributes": {"kind": "cat"}},
        polygon([(-5, 2), (6, 2), (6, 8), (-5, 8)], kind="cat"),
        polygon([(50, 2), (60, 2), (60, 8)], kind="cat"),
    ]
    annotated = find_annotated(str(write(tmp_path, three, held)), "instance")
    assert [what.partition(": ")[0] for _, what in annotated.repairs] == [
        "point left out", "box partly outside the picture clipped", "box outside the picture left out",
    ]  # fmt: skip
    truth = annotated.truth(0, 24, 32)
    assert truth.boxes.tolist() == [[0, 2, 6, 8]] and truth.masks is not None and truth.masks.sum() == 36


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ({"shape_attributes": {"name": "blob"}, "region_attributes": {}}, r"a\.png: a region of shape 'blob'; want"),
        (
            {"shape_attributes": {"name": "rect", "x": "1", "y": 2, "width": 3, "height": 4}},
            "'1' among its coordinates",
        ),
        ({"shape_attributes": {"name": "circle", "cx": float("nan"), "cy": 2, "r": 3}}, "nan among its coordinates"),
        ({"shape_attributes": {"name": "polygon", "all_points_x": [1], "all_points_y": []}}, "do not go together"),
    ],
)
def test_what_cannot_be_mended(tmp_path: Path, three: list[Any], region: Any, words: str) -> None:
    held = told(three[:1])
    held["a.png99"]["regions"] = [{"region_attributes": {}, **region}]
    with pytest.raises(SeeallError, match=words):
        find_annotated(str(write(tmp_path, three[:1], held)), "detection")


def test_pictures_that_are_missing_or_there_twice(tmp_path: Path, three: list[Any]) -> None:
    held = told(three)
    write(tmp_path, three, held | {"again": held["a.png99"]})
    with pytest.raises(SeeallError, match=r"a\.png is listed twice"):
        find_annotated(str(tmp_path), "detection")
    write(tmp_path, three, held)
    (tmp_path / "c.png").unlink()
    with pytest.raises(SeeallError, match=r"1 of 3 annotated pictures are missing, such as c\.png"):
        find_annotated(str(tmp_path), "detection")


def test_balloons(real: Callable[[str], Path]) -> None:
    annotated = find_annotated(str(real("balloon")), "instance")
    assert [len(annotated.split(name)) for name in ("train", "val")] == [61, 13] and not annotated.repairs
    things = 0
    for i in range(0, len(annotated), 6):
        height, width = annotated.pictures.read(i).shape[:2]
        truth = annotated.truth(i, height, width)
        things += len(truth.boxes)
        assert truth.masks is not None and truth.masks.any((1, 2)).all()
    assert things > 20
