"""Clips some of whose frames have a mask: which layouts are recognised, which frames are known, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.data.motion.masked import by_clip, find_masked
from seeall.types import SeeallError


def clip(frames: Path, masks: Path, names: list[str], masked: set[str], value: int = 1) -> None:
    for folder in (frames, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.new("RGB", (20, 16), (k, 0, 0)).save(frames / f"{name}.png")
        if name in masked:
            mask = np.zeros((16, 20), np.uint8)
            mask[2:8, k : k + 5] = value
            Image.fromarray(mask).save(masks / f"{name}.png")


NAMES = ["8", "9", "10", "11"]


def clips(root: Path, layout: str) -> None:
    for name in ("cat", "dog"):
        if layout == "clips":
            clip(root / name / "frames", root / name / "masks", NAMES, {"8", "10"}, 255)
        elif layout == "davis":
            clip(root / "JPEGImages/480p" / name, root / "Annotations/480p" / name, NAMES, {"8", "10"}, 255)
        elif layout == "folders":
            clip(root / "images" / name, root / "masks" / name, NAMES, {"8", "10"}, 255)
        else:
            part = "train" if name == "cat" else "val"
            clip(root / part / name / "images", root / part / name / "masks", NAMES, {"8", "10"}, 255)


@pytest.mark.parametrize("layout", ["clips", "davis", "folders", "splits"])
def test_layouts(tmp_path: Path, layout: str) -> None:
    clips(tmp_path, layout)
    found = find_masked(str(tmp_path))
    assert list(found.classes) == ["background", "thing"] and len(found) == 8 and len(found.known()) == 4
    for rows in by_clip(found).values():
        assert [Path(found.pictures.ids[row]).stem for row in rows] == NAMES  # 9 comes before 10
        assert [found.notes[row] is not None for row in rows] == [True, False, True, False]
        assert [found.pictures.read(row)[0, 0, 0] for row in rows] == [0, 1, 2, 3]
        assert found.truth(rows[1], 16, 20).semantic is None
        mask = found.truth(rows[2], 16, 20).semantic
        assert mask is not None and mask[2:8, 2:7].all() and mask.sum() == 30
    assert [Path(name).name for name in by_clip(found)] == ["cat", "dog"]
    if layout == "splits":
        assert len(found.split("train")) == 4 and len(found.split("val").known()) == 2
    assert len(find_masked(str(tmp_path), every=4).known()) == 2
    assert [what.partition(":")[0] for _, what in found.repairs] == ["masks of 0 and 255 alone"]


def test_things_that_are_numbered_from_one_lie_before_a_background(tmp_path: Path) -> None:
    """As in DAVIS 2017; masks in a folder of that name may number classes from 0."""
    for layout, first in (("davis", "background"), ("folders", "0")):
        clips(tmp_path / layout, layout)
        for file in (tmp_path / layout).rglob("*.png"):
            if {"Annotations", "masks"} & set(file.parts):
                mask = np.asarray(Image.open(file)).copy()
                mask[10:14, :4] = 2
                Image.fromarray(np.where(mask == 255, 1, mask).astype(np.uint8)).save(file)
        found = find_masked(str(tmp_path / layout))
        assert list(found.classes) == [first, "1", "2"]
    assert list(find_masked(str(tmp_path / "davis"), names="x,y,z").classes) == ["x", "y", "z"]


def test_of_the_synthetic_world() -> None:
    found = find_masked("scenes:n=2,size=32,frames=5", every=3)
    assert [note is not None for note in found.notes] == [True, False, False, True, False] * 2
    assert found.classes[0] == "background"
    assert list(find_masked("scenes:n=1,size=32,frames=2,classes=2", names="no,a,b").classes) == ["no", "a", "b"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    clips(tmp_path / "good", "clips")
    clips(tmp_path / "both", "clips")
    clips(tmp_path / "both/more", "davis")
    (tmp_path / "none").mkdir()
    (tmp_path / "bare/images/a").mkdir(parents=True)
    (tmp_path / "bare/masks").mkdir()
    Image.new("RGB", (20, 16)).save(tmp_path / "bare/images/a/1.png")
    for data, settings, words in (
        ("nowhere", {}, "no such file"), ("none", {}, "no clips with masks"), ("both", {}, "give one of the two"),
        ("good", {"every": 0}, "'every' is 0"), ("bare", {}, "no pictures|none of"),
    ):  # fmt: skip
        with pytest.raises(SeeallError, match=words) as told:
            find_masked(str(tmp_path / data), **settings)
        assert "\n" not in str(told.value)
    for data, words in (
        ("scenes:n=4,size=32", "takes clips"),
        ("scenes:n=1,frames=2,size=32", "names must be as many"),
    ):
        with pytest.raises(SeeallError, match=words):
            find_masked(data, names="a,b")
    with pytest.raises(SeeallError, match="settings of files"):
        find_masked("scenes:n=1,frames=2,size=32", ignore="a")
    mask = tmp_path / "good/cat/masks/8.png"
    Image.new("L", (4, 4)).save(mask)
    with pytest.raises(SeeallError, match="scale either"):
        find_masked(str(tmp_path / "good"))
