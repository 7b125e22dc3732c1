"""What a check of annotated pictures finds, and the drawing of what is in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seeall.data.annotations.check import check, sheet
from seeall.data.annotations.draw import draw, palette
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Truth
from seeall.data.motion.actions import find_actions
from seeall.data.motion.pairs import find_pairs
from seeall.types import SeeallError


def yolo(root: Path, split: str, shown: Any, text: str) -> None:
    shown.save(root / split / "images" / f"{shown.stem}.png")
    (root / split / "labels").mkdir(exist_ok=True)
    (root / split / "labels" / f"{shown.stem}.txt").write_text(text)


@pytest.fixture
def odd(tmp_path: Path, three: list[Any]) -> Path:
    """A set with everything odd in it that ends no training."""
    yolo(tmp_path, "train", three[0], "0 0.5 0.5 0.5 0.5\n0 1.0 0.5 0.5 0.5\n0 0.5 0.5 0 0.1\n1 0.5 0.5 0.1 0.2\n")
    yolo(tmp_path, "train", three[1], "0 0.5 0.5 0.25 0.25")
    yolo(tmp_path, "test", three[2], "")
    shutil.copy(tmp_path / "train/images/a.png", tmp_path / "test/images/d.png")
    shutil.copy(tmp_path / "train/images/b.png", tmp_path / "train/images/e.png")
    (tmp_path / "train" / "images" / "f.png").write_bytes((tmp_path / "train/images/a.png").read_bytes()[:-200])
    (tmp_path / "classes.txt").write_text("cat\ndog\ncow\n")
    return tmp_path


def test_findings(odd: Path) -> None:
    found = check(find_annotated(str(odd), "detection"))
    assert found.pictures == {"train": 4, "test": 2} and found.unit == "things"
    assert {name: kind.count for name, kind in found.kinds.items()} == {
        "picture without annotation taken as empty": 3,
        "box partly outside the picture clipped": 1,
        "box without width or height left out": 1,
        "same picture in test and train": 1,
        "same picture twice": 1,
        "picture cannot be read": 1,
        "picture with nothing in it": 3,
        "class never seen": 4,
    }
    assert {split: part.tolist() for split, part in found.balance.items()} == {"train": [3, 1, 0], "test": [0, 0, 0]}
    assert len(found.sizes) == 4 and np.isclose(found.sizes.max(), 0.5)
    assert found.kinds["picture cannot be read"].examples[0][0] == "train/images/f.png"
    text = "\n".join(found.lines())
    assert "6 pictures (train 4, test 2), 3 classes" in text and "75.00%" in text and "3 x picture with nothing" in text
    assert json.loads(json.dumps(found.facts()))["balance"]["train"] == [3, 1, 0]


def test_nothing_odd() -> None:
    for task, unit in (
        ("classification", "pictures"), ("detection", "things"), ("instance", "things"), ("segmentation", "pixels"),
    ):  # fmt: skip
        found = check(find_annotated("scenes:n=16,size=32,identities=16", task))
        assert found.unit == unit and found.lines()[-1] == "nothing odd found" and not found.kinds
        assert found.pictures == {"all": 16}
    assert int(found.balance["all"].sum()) == 16 * 32 * 32


def test_examples_are_few_and_settings_are_passed_on(odd: Path) -> None:
    for k in range(9):
        shutil.copy(odd / "test/images/c.png", odd / f"test/images/g{k}.png")
    found = check(find_annotated(str(odd), "detection", names="a,b"))
    assert list(found.annotated.classes) == ["a", "b"]
    assert found.kinds["same picture twice"].count == 10 and len(found.kinds["same picture twice"].examples) == 5
    with pytest.raises(SeeallError, match="class 1, but names are given for 0 to 0"):
        check(find_annotated(str(odd), "detection", names="a"))


def test_a_sheet(odd: Path) -> None:
    annotated = find_annotated(str(odd), "detection")
    paper = sheet(annotated, range(len(annotated)))
    assert paper.width == 3 * 480 + 4 * 8 and paper.height > 480
    many = sheet(find_annotated("scenes:n=20,size=24", "segmentation"), range(20))
    assert many.size == (4 * 480 + 5 * 8, 3 * 480 + 4 * 8)
    unreadable = [i for i, id in enumerate(annotated.pictures.ids) if id.endswith("f.png")]
    with pytest.raises(SeeallError, match="none of the pictures chosen for the sheet can be read"):
        sheet(annotated, unreadable)


def test_a_sheet_among_the_data_is_refused(
    odd: Path, ssl: Callable[..., tuple[int, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    (odd / "sub").mkdir()
    for name in ("sheet.png", "sub/sheet.png"):
        code, out, err = ssl("data", "check", odd, "--task", "detection", "--sheet", odd / name)
        assert code == 2 and out == "" and "sheet.png lies inside the data folder" in err
        assert not (odd / name).exists()
    outside = tmp_path_factory.mktemp("outside") / "sheet.png"
    assert ssl("data", "check", odd, "--task", "detection", "--sheet", outside)[0] == 0 and outside.exists()


def test_motion(ssl: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for k, (name, length) in enumerate((("run/x", 12), ("run/y", 1), ("walk/x", 6))):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for t in range(length):
            Image.new("RGB", (40, 36), (9 * t, k, 0)).save(tmp_path / "clips" / name / f"{t}.png")
    found = check(find_actions(str(tmp_path / "clips"), frames_fps=8))
    assert sorted(found.frames) == [1, 6, 12] and found.balance["all"].tolist() == [2, 1]
    assert {name: kind.count for name, kind in found.kinds.items()} == {"clip of one frame, in which nothing moves": 1}
    assert found.lines()[0] == "3 clips (all 3), 2 classes"

    world = find_pairs("scenes:n=3,size=48,frames=3")
    found = check(world)
    true = [world.truth(i, 48, 48).motion for i in range(len(world))]
    assert np.allclose(found.speeds, [np.sqrt((field.vectors**2).sum(2)).mean() for field in true if field])
    assert found.lines()[0] == "6 pairs (all 6)" and found.lines()[-1] == "nothing odd found"

    sheet_file = tmp_path / "sheet.png"
    for task, data in (
        ("flow", "scenes:n=3,size=48,frames=3"),
        ("action", str(tmp_path / "clips")),
        ("video-segmentation", "scenes:n=2,size=48,frames=3"),
    ):
        code, out, err = ssl("data", "check", data, "--task", task, "--sheet", sheet_file, "--overwrite", "--json")
        assert code == 0, err
        assert json.loads(out)["pictures"]["all"] == {"flow": 6, "action": 3, "video-segmentation": 6}[task]
        with Image.open(sheet_file) as saved:
            assert saved.width > 480


def test_drawing() -> None:
    grey = np.full((120, 160, 3), 128, np.uint8)
    masks = np.zeros((1, 120, 160), bool)
    masks[0, 40:80, 50:110] = True
    box = np.array([[50, 40, 110, 80]], np.float32)
    truth = Truth(boxes=box, classes=np.array([1]), crowd=np.array([False]), masks=masks)
    drawn = draw(grey, truth, ["cat", "dog"], np.array([0.93]))
    assert drawn.shape == grey.shape and drawn.dtype == np.uint8 and (grey == 128).all()
    changed = (drawn != grey).any(2)
    assert changed[40:80, 50:110].all() and not changed[82:].any() and not changed[:, 112:].any()
    boxed = draw(grey, Truth(boxes=box, classes=np.array([1]), crowd=np.array([False])), ["cat", "dog"])
    assert (boxed[45:75, 60:100] == 128).all() and (boxed[60, 50] == palette(2)[1]).all()
    semantic = np.zeros((120, 160), np.uint8)
    semantic[:60] = 1
    semantic[100:] = 255
    drawn = draw(grey, Truth(semantic=semantic), ["background", "sky"])
    assert (drawn[:58] != 128).any(2).all() and (drawn[62:98] == 128).all() and (drawn[102:] == 128).all()
    labelled = draw(grey, Truth(label=0), ["cat"], np.array([0.5]))
    assert (labelled[0, 0] == palette(1)[0]).all() and (labelled[60:] == 128).all()


def test_drawing_on_the_smallest_and_the_emptiest() -> None:
    for h, w in ((1, 1), (3, 200), (16, 16)):
        box = np.array([[0, 0, w, h]], np.float32)
        truth = Truth(
            boxes=box, classes=np.array([0]), crowd=np.array([True]), masks=np.ones((1, h, w), bool),
            semantic=np.zeros((h, w), np.uint8), label=0,
        )  # fmt: skip
        assert draw(np.zeros((h, w, 3), np.uint8), truth, ["x"], np.array([1.0])).shape == (h, w, 3)
        assert not draw(np.zeros((h, w, 3), np.uint8), Truth(), ["x"]).any()


def test_colours_are_unlike_each_other() -> None:
    colours = palette(254).astype(int)
    assert len({tuple(c) for c in colours.tolist()}) > 240 and len(palette(0)) == 0
    first = colours[:16]
    assert min(np.abs(a - b).sum() for i, a in enumerate(first) for b in first[:i]) > 60


def test_what_is_drawn_can_be_saved(tmp_path: Path) -> None:
    sheet(find_annotated("scenes:n=2,size=32", "instance"), [0, 1]).save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        assert saved.mode == "RGB"
