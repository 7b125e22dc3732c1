"""Pascal VOC: boxes, splits, what is mended and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seeall.data.annotations.layouts import find_annotated
from seeall.types import SeeallError


def xml(things: list[tuple[str, Any]], size: tuple[int, int] = (24, 32), extra: str = "") -> str:
    """things: (name, (xmin, ymin, xmax, ymax)) as written."""
    objects = "".join(
        f"<object><name>{name}</name>{extra}<bndbox>"
        + "".join(f"<{key}>{v}</{key}>" for key, v in zip(("xmin", "ymin", "xmax", "ymax"), box))
        + "</bndbox></object>"
        for name, box in things
    )
    return f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{objects}</annotation>"


def write(root: Path, three: list[Any], base: int = 1) -> Path:
    (root / "Annotations").mkdir(parents=True)
    for shown in three:
        shown.save(root / "JPEGImages" / f"{shown.stem}.png")
        things = [
            (name, (x0 + base, y0 + base, x1, y1)) for (name, _), (x0, y0, x1, y1) in zip(shown.things, shown.boxes())
        ]
        (root / "Annotations" / f"{shown.stem}.xml").write_text(xml(things, (shown.h, shown.w)))
    return root


def test_what_is_true(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    write(tmp_path / "outer" / "VOC", three)
    (tmp_path / "outer" / "LICENSE").touch()
    annotated = find_annotated(str(tmp_path), "detection")
    same(annotated)
    assert annotated.pictures.splits is None and not annotated.repairs and annotated.knows == {"boxes"}


def test_a_coordinate_of_0_says_that_all_count_from_0(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three, base=0)
    (tmp_path / "Annotations" / "c.xml").write_text(xml([("cat", (0, 0, 5, 5))], (16, 16)))
    annotated = find_annotated(str(tmp_path), "detection")
    assert annotated.truth(0, 24, 32).boxes.tolist() == [list(map(float, box)) for box in three[0].boxes()]


def test_splits_and_difficult_things(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("a\nb\n")
    (lists / "test.txt").write_text("b 1\nc -1\n")
    (tmp_path / "Annotations" / "a.xml").write_text(xml([("cat", (2, 3, 14, 13))], extra="<difficult>1</difficult>"))
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.pictures.splits or ()) == ["train", "test", "test"]
    assert list(annotated.repairs) == [("b", "listed in two splits: train and test, taken as test")]
    assert annotated.split("train").truth(0, 24, 32).crowd.tolist() == [True]


@pytest.mark.parametrize("flag", ["", "  1", " -1"])
def test_splits_of_names_with_spaces(tmp_path: Path, three: list[Any], flag: str) -> None:
    for shown, stem in zip(three, ("cell", "cell 1", "cell 2")):
        shown.stem = stem
    write(tmp_path, three)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"cell{flag}\ncell 1\n")
    (lists / "test.txt").write_text(f"cell 2{flag}\n")
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.pictures.splits or ()) == ["train", "train", "test"] and not annotated.repairs
    (tmp_path / "SegmentationClass").mkdir()
    for shown in three:
        Image.fromarray(shown.semantic()).save(tmp_path / "SegmentationClass" / f"{shown.stem}.png")
    annotated = find_annotated(str(tmp_path), "segmentation", names="background,cat,dog")
    assert list(annotated.pictures.splits or ()) == ["train", "train", "test"]


def test_names_choose_and_order(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    assert list(find_annotated(str(tmp_path), "detection", names="dog,cat").classes) == ["dog", "cat"]
    assert (
        len(find_annotated(str(tmp_path), "detection", names=",".join(["cat", "dog", *map(str, range(200))])).classes)
        == 202
    )
    (tmp_path / "mine.txt").write_text("dog\n")
    only = find_annotated(str(tmp_path), "detection", names=str(tmp_path / "mine.txt"))
    assert only.truth(0, 24, 32).classes.tolist() == [0]
    assert [what for _, what in only.repairs] == ["class not among names left out: cat, 1 things"]
    with pytest.raises(SeeallError, match=r"no class is called 'dgo'; did you mean dog\?"):
        find_annotated(str(tmp_path), "detection", names="cat,dgo")
    with pytest.raises(SeeallError, match="'cat' is there twice"):
        find_annotated(str(tmp_path), "detection", names="cat,cat")


@pytest.mark.parametrize(
    ("box", "words", "left"),
    [
        ((-4, 5, 10, 10), "box partly outside the picture clipped: cat (-5, 4, 10, 10) in 32x24 px", [0, 4, 10, 10]),
        (
            (20, 20, 33, 30),
            "box partly outside the picture clipped: cat (19, 19, 33, 30) in 32x24 px",
            [19, 19, 32, 24],
        ),
        ((5, 5, 5, 9), "box without width or height left out: cat (5, 4, 5, 9) in 32x24 px", None),
        ((40, 5, 50, 9), "box outside the picture left out: cat (39, 4, 50, 9) in 32x24 px", None),
        ((10, 9, 3, 4), "box whose corners are the wrong way round, swapped: (10, 9, 3, 4)", [2, 3, 10, 9]),
    ],
)
def test_boxes_that_are_mended(tmp_path: Path, three: list[Any], box: Any, words: str, left: list[int] | None) -> None:
    write(tmp_path, three)
    (tmp_path / "Annotations" / "a.xml").write_text(xml([("cat", box)]))
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.repairs) == [("JPEGImages/a.png", words)]
    assert annotated.truth(0, 24, 32).boxes.tolist() == ([] if left is None else [left])


def test_pictures_without_annotation_and_other_sizes(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "Annotations" / "c.xml").unlink()
    (tmp_path / "Annotations" / "b.xml").write_text(xml([("dog", (1, 1, 5, 5))], (20, 30)))
    assert list(find_annotated(str(tmp_path), "detection").repairs) == [
        ("JPEGImages/c.png", "picture without annotation taken as empty: no Annotations/c.xml"),
        ("JPEGImages/b.png", "another size in the annotation: 30x20 px, taken as 20x30 px"),
    ]


def test_a_picture_that_is_turned_by_its_camera(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 32)).save(tmp_path / "JPEGImages" / "a.jpg", exif=exif)
    (tmp_path / "JPEGImages" / "a.png").unlink()
    annotated = find_annotated(str(tmp_path), "detection")
    assert annotated.pictures.read(0).shape == (24, 32, 3) and not annotated.repairs


def test_missing_pictures(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    for k in range(30):
        three[2].save(tmp_path / "JPEGImages" / f"d{k}.png")
        (tmp_path / "Annotations" / f"d{k}.xml").write_text(xml([], (16, 16)))
    (tmp_path / "JPEGImages" / "d0.png").unlink()
    annotated = find_annotated(str(tmp_path), "detection")
    assert len(annotated) == 32
    assert list(annotated.repairs) == [
        ("Annotations/d0.xml", "picture missing, its annotation left out: JPEGImages/d0.jpg")
    ]
    (tmp_path / "JPEGImages" / "d1.png").unlink()
    with pytest.raises(SeeallError, match=r"2 of 33 annotated pictures are missing, such as JPEGImages/d0\.jpg"):
        find_annotated(str(tmp_path), "detection")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation><object>", r"a\.xml: broken XML: .*; write it again"),
        (xml([("cat", ("x", 1, 2, 3))]), r"a\.xml: xmin is 'x', want a number of px; mend it"),
        (xml([("cat", (1, 1, "nan", 3))]), r"a\.xml: xmax is 'nan'"),
        (xml([("", (1, 1, 2, 3))]), r"a\.xml: an object without name"),
        ("<annotation><object><name>cat</name></object></annotation>", r"a\.xml: an object without bndbox"),
    ],
)
def test_what_cannot_be_mended(tmp_path: Path, three: list[Any], text: str, words: str) -> None:
    write(tmp_path, three)
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(SeeallError, match=words) as caught:
        find_annotated(str(tmp_path), "detection")
    assert "\n" not in str(caught.value)


def test_nothing_to_learn(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, [three[2]])
    with pytest.raises(SeeallError, match="1 pictures, but nothing is annotated"):
        find_annotated(str(tmp_path), "detection")
    (tmp_path / "JPEGImages" / "c.png").unlink()
    (tmp_path / "Annotations" / "c.xml").unlink()
    with pytest.raises(SeeallError, match="Pascal VOC without pictures"):
        find_annotated(str(tmp_path), "detection")


def test_other_tasks(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    write(tmp_path, three)
    for task in ("instance", "segmentation", "classification"):
        with pytest.raises(SeeallError, match=f"is Pascal VOC, which serves --task detection, not {task}"):
            find_annotated(str(tmp_path), task)
    (tmp_path / "SegmentationClass").mkdir()
    for shown in three:
        mask = Image.fromarray(shown.semantic(), mode="P")
        mask.putpalette([3, 5, 7] * 256)
        mask.save(tmp_path / "SegmentationClass" / f"{shown.stem}.png")
    same(find_annotated(str(tmp_path), "segmentation", names="background,cat,dog"))
    usual = find_annotated(str(tmp_path), "segmentation")
    assert len(usual.classes) == 21 and usual.knows == {"semantic"}
    three[0].save(tmp_path / "JPEGImages" / "a.jpg")
    for task in ("detection", "segmentation"):
        repairs = find_annotated(str(tmp_path), task).repairs
        assert list(repairs) == [("JPEGImages/a.png", "file of the same name left out: a.jpg is taken")]
    border = three[0].semantic()
    border[:2] = 255
    mask = Image.fromarray(border, mode="P")
    mask.putpalette([3, 5, 7] * 256)
    mask.save(tmp_path / "SegmentationClass" / "a.png")
    semantic = find_annotated(str(tmp_path), "segmentation").truth(0, 24, 32).semantic
    assert semantic is not None and np.array_equal(semantic, border)


def test_blood_cells(real: Callable[[str], Path]) -> None:
    annotated = find_annotated(str(real("bccd")), "detection")
    assert len(annotated) == 364 and list(annotated.classes) == ["Platelets", "RBC", "WBC"]
    assert [len(annotated.split(name)) for name in ("train", "val", "test")] == [205, 87, 72]
    assert len(annotated.repairs) == 2 and all("without width or height" in what for _, what in annotated.repairs)
    sizes = {annotated.pictures.read(i).shape for i in range(0, 364, 40)}
    assert sizes == {(480, 640, 3)}
    assert sum(len(annotated.truth(i, 480, 640).boxes) for i in range(364)) == 4886
