"""Pictures with masks: values, colours, what is ignored, what is mended and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seeall.data.annotations.layouts import find_annotated
from seeall.types import SeeallError

COLOURS = {0: (0, 0, 0), 1: (200, 10, 0), 2: (0, 0, 255)}


def write(root: Path, three: list[Any], mode: str = "L", where: str = "{}", name: str = "{}.png") -> Path:
    for shown in three:
        shown.save(root / where.format("images") / f"{shown.stem}.png")
        semantic = shown.semantic()
        if mode == "RGB":
            values: Any = np.array([COLOURS[k] for k in range(3)], np.uint8)[semantic]
        else:
            values = semantic.astype(np.uint16) if mode == "I;16" else semantic
        file = root / where.format("masks") / name.format(shown.stem)
        file.parent.mkdir(parents=True, exist_ok=True)
        mask = Image.fromarray(values)
        if mode == "P":
            mask.putpalette([9, 9, 9] * 256)
        mask.save(file)
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_what_is_true(tmp_path: Path, three: list[Any], same: Callable[[Any], None], mode: str) -> None:
    annotated = find_annotated(str(write(tmp_path, three, mode)), "segmentation")
    same(annotated)
    assert not annotated.repairs and annotated.knows == {"semantic"} and annotated.pictures.splits is None
    for task in ("detection", "instance", "classification"):
        with pytest.raises(SeeallError, match=f"is pictures and masks, which serves --task segmentation, not {task}"):
            find_annotated(str(tmp_path), task)


def test_colours(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    write(tmp_path, three, "RGB")
    with pytest.raises(SeeallError, match="a mask in colours; say which is what by --set colours=FILE"):
        find_annotated(str(tmp_path), "segmentation")
    lines = ["0 0 0\tbackground", "200 10 0 cat", "0, 0, 255, dog", "1 1 1 a cow, never seen"]
    (tmp_path / "label_colors.txt").write_text("\n".join(lines))
    assert list(find_annotated(str(tmp_path), "segmentation").classes)[3] == "a cow, never seen"
    (tmp_path / "mine.txt").write_text("\n".join(lines[:3]))
    same(find_annotated(str(tmp_path), "segmentation", colours=str(tmp_path / "mine.txt")))
    (tmp_path / "mine.txt").write_text("\n".join(lines[:2]))
    with pytest.raises(SeeallError, match=r"a\.png: colour 0 0 255 has no name; add it to the colours"):
        find_annotated(str(tmp_path), "segmentation", colours=str(tmp_path / "mine.txt"))
    (tmp_path / "mine.txt").write_text("300 0 0 sky")
    with pytest.raises(SeeallError, match=r"mine\.txt, line 1: '300 0 0 sky'; want red, green, blue"):
        find_annotated(str(tmp_path), "segmentation", colours=str(tmp_path / "mine.txt"))


def test_splits_and_templates(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    write(tmp_path / "a", three[:1], where="train/{}")
    write(tmp_path / "a", three[1:], where="test/{}")
    annotated = find_annotated(str(tmp_path / "a"), "segmentation")
    assert list(annotated.pictures.ids) == ["test/images/b.png", "test/images/c.png", "train/images/a.png"]
    assert list(annotated.pictures.splits or ()) == ["test", "test", "train"]
    write(tmp_path / "b", three[:1], where="{}/train")
    write(tmp_path / "b", three[1:], where="{}/val")
    assert list(find_annotated(str(tmp_path / "b"), "segmentation").pictures.splits or ()) == ["train", "val", "val"]
    write(tmp_path / "c", three, name="{}_L.png")
    with pytest.raises(SeeallError, match=r"none of 3 pictures has a mask; looked for .*masks/a\.png"):
        find_annotated(str(tmp_path / "c"), "segmentation")
    same(find_annotated(str(tmp_path / "c"), "segmentation", masks="masks/{stem}_L.png"))
    with pytest.raises(SeeallError, match="say where the picture's name goes"):
        find_annotated(str(tmp_path / "c"), "segmentation", masks="masks/x.png")


def test_what_is_ignored(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    for ignore in ("cat", "1"):
        annotated = find_annotated(str(tmp_path), "segmentation", ignore=ignore)
        assert list(annotated.classes) == ["background", "dog"]
        semantic = annotated.truth(0, 24, 32).semantic
        assert semantic is not None
        was = three[0].semantic()
        assert (semantic[was == 1] == 255).all() and (semantic[was == 2] == 1).all() and not semantic[was == 0].any()
    with pytest.raises(SeeallError, match=r"no class is called 'cta'; did you mean cat\?"):
        find_annotated(str(tmp_path), "segmentation", ignore="cta")


def put(root: Path, value: int, size: tuple[int, int] = (24, 32)) -> None:
    values = np.zeros(size, np.uint8)
    values[3:5, 3:5] = value
    Image.fromarray(values).save(root / "masks" / "a.png")


def test_values_beyond_the_classes(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    for value in (3, 255):
        put(tmp_path, value)
        annotated = find_annotated(str(tmp_path), "segmentation")
        assert list(annotated.repairs) == [
            (str(tmp_path), f"value beyond the classes ignored: {value}, in 1 of 3 masks")
        ]
        semantic = annotated.truth(0, 24, 32).semantic
        assert semantic is not None and (semantic[3:5, 3:5] == 255).all() and not semantic[5:].any()
    put(tmp_path, 7)
    with pytest.raises(SeeallError, match=r"a\.png: value 7 is no class, which are 0 to 2; name it .* ignore=7"):
        find_annotated(str(tmp_path), "segmentation")
    assert not find_annotated(str(tmp_path), "segmentation", ignore="7").repairs
    put(tmp_path, 1)
    annotated = find_annotated(str(tmp_path), "segmentation")
    put(tmp_path, 7)
    with pytest.raises(SeeallError, match="value 7 was not there before"):
        annotated.truth(0, 24, 32)


def test_without_names(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "classes.txt").unlink()
    assert list(find_annotated(str(tmp_path), "segmentation").classes) == ["0", "1", "2"]
    for shown in three:
        Image.fromarray(np.where(shown.semantic() > 0, 255, 0).astype(np.uint8)).save(
            tmp_path / "masks" / f"{shown.stem}.png"
        )
    annotated = find_annotated(str(tmp_path), "segmentation")
    assert list(annotated.classes) == ["background", "thing"]
    words = "masks of 0 and 255 alone: taken as two classes, background and thing"
    assert list(annotated.repairs) == [(str(tmp_path), words)]
    semantic = annotated.truth(0, 24, 32).semantic
    assert semantic is not None and (semantic == (three[0].semantic() > 0)).all()


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("listed", [True, False])
def test_one_name_is_the_thing(tmp_path: Path, three: list[Any], high: int, listed: bool) -> None:
    write(tmp_path, three)
    (tmp_path / "classes.txt").unlink()
    if listed:
        (tmp_path / "classes.txt").write_text("cell\n")
    for shown in three:
        values = (shown.semantic() > 0).astype(np.uint8) * high
        Image.fromarray(values).save(tmp_path / "masks" / f"{shown.stem}.png")
    annotated = find_annotated(str(tmp_path), "segmentation", names=None if listed else "cell")
    assert list(annotated.classes) == ["background", "cell"]
    words = f"masks of 0 and {high} alone: taken as two classes, background and cell"
    assert list(annotated.repairs) == [(str(tmp_path), words)]
    semantic = annotated.truth(0, 24, 32).semantic
    assert semantic is not None and (semantic == (three[0].semantic() > 0)).all()
    ignored = find_annotated(str(tmp_path), "segmentation", names="cell", ignore=str(high))
    assert list(ignored.classes) == ["cell"]


def test_values_far_apart(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "classes.txt").unlink()
    for shown in three:
        values = np.array([0, 128, 255], np.uint8)[shown.semantic()]
        Image.fromarray(values).save(tmp_path / "masks" / f"{shown.stem}.png")
    with pytest.raises(SeeallError, match=r"a\.png: values 0, 128, 255 are too far apart to be classes; say what"):
        find_annotated(str(tmp_path), "segmentation")
    (tmp_path / "mine.txt").write_text("0 0 0 background\n128 128 128 cat\n255 255 255 dog\n")
    annotated = find_annotated(str(tmp_path), "segmentation", colours=str(tmp_path / "mine.txt"))
    semantic = annotated.truth(0, 24, 32).semantic
    assert semantic is not None and (semantic == three[0].semantic()).all()
    assert list(find_annotated(str(tmp_path), "segmentation", ignore="128").classes) == ["0"]
    for shown in three:
        values = np.array([0, 3, 8], np.uint8)[shown.semantic()]
        Image.fromarray(values).save(tmp_path / "masks" / f"{shown.stem}.png")
    assert len(find_annotated(str(tmp_path), "segmentation").classes) == 9


def test_masks_and_pictures_that_do_not_go_together(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    put(tmp_path, 1, (24, 30))
    with pytest.raises(SeeallError, match=r"a\.png: the mask is 30x24 px, its picture images/a\.png 32x24 px; scale"):
        find_annotated(str(tmp_path), "segmentation")
    (tmp_path / "masks" / "a.png").write_bytes(b"what")
    with pytest.raises(SeeallError, match=r"a\.png: cannot be read as a mask"):
        find_annotated(str(tmp_path), "segmentation")
    (tmp_path / "masks" / "a.png").unlink()
    annotated = find_annotated(str(tmp_path), "segmentation")
    assert list(annotated.repairs) == [
        ("images/a.png", "picture without a mask left out: give it one, or take it away")
    ]
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(SeeallError, match="1 of 2 annotated pictures are missing, such as images/b"):
        find_annotated(str(tmp_path), "segmentation")


def test_files_that_differ_in_their_suffix_alone(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    three[0].save(tmp_path / "images" / "a.tif")
    Image.fromarray(three[1].semantic()).save(tmp_path / "masks" / "b.tif")
    annotated = find_annotated(str(tmp_path), "segmentation")
    assert list(annotated.pictures.ids) == ["images/a.png", "images/b.png", "images/c.png"]
    assert list(annotated.repairs) == [
        ("images/a.tif", "file of the same name left out: a.png is taken"),
        ("masks/b.tif", "file of the same name left out: b.png is taken"),
    ]


def test_a_mask_stored_as_jpeg(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "masks" / "a.png").unlink()
    Image.fromarray(three[0].semantic() * 40).save(tmp_path / "masks" / "a.jpg", quality=50)
    with pytest.raises(SeeallError, match=r"a\.jpg: value .* \(JPEG changes values: store masks as PNG\)"):
        find_annotated(str(tmp_path), "segmentation")


def test_streets(real: Callable[[str], Path]) -> None:
    annotated = find_annotated(str(real("camvid")), "segmentation")
    assert [len(annotated.split(name)) for name in ("train", "val", "test")] == [367, 101, 233]
    assert len(annotated.classes) == 11 and annotated.classes[0] == "sky"
    assert [what for _, what in annotated.repairs] == ["value beyond the classes ignored: 11, in 700 of 701 masks"]
    semantic = annotated.truth(0, 360, 480).semantic
    assert semantic is not None and set(np.unique(semantic).tolist()) <= {*range(11), 255}
