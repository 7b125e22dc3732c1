"""Stretches of clips: which frames belong together, what is known of them, and every mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.data import scenes
from seeall.data.annotations.examples import load
from seeall.data.motion.movie import Movie
from seeall.data.motion.stretches import find_stretches, frames_in
from seeall.data.pictures import find
from seeall.types import SeeallError

WORLD = "scenes:n=3,size=48,frames=6,things=1-2,seed=3"


def frames(folder: Path, names: list[int], side: int = 40) -> Path:
    folder.mkdir(parents=True)
    for k in names:
        Image.new("RGB", (side + 8, side), (10 * k, 0, 0)).save(folder / f"f{k}.png")
    return folder


def test_every_frame_is_in_a_stretch_and_each_begins_with_the_last_one_of_the_one_before(tmp_path: Path) -> None:
    frames(tmp_path / "one", list(range(8, 13)))  # f8, f9, f10: in the order of the numbers
    frames(tmp_path / "two", [1, 2, 3])
    found = find_stretches(str(tmp_path), gap=2)
    seen = [[int(f[0, 0, 0]) // 10 for f in found.pictures.read(i)] for i in range(len(found))]
    assert seen == [[8, 9, 10], [10, 11, 12], [1, 2, 3]]
    assert [clip for clip, _ in found.pictures.moments or ()] == ["one", "one", "two"]
    assert found.pictures.ids[1] == "one/f10.png" and found.pictures.root == tmp_path and found.knows == {"frames"}
    long = find_stretches(str(tmp_path), gap=3)
    assert [len(long.pictures.read(i)) for i in range(len(long))] == [4, 2, 3]
    assert found.truth(0, 40, 48).masks is None and load(found, 20)[0].pixels.shape == (3, 3, 20, 24)


def test_what_is_known_of_the_world_is_where_the_last_frame_has_it() -> None:
    world = scenes.parse(WORLD)
    found = find_stretches(WORLD, gap=3)
    assert [(i % 6, j % 6) for i, j in found.notes] == 3 * [(0, 3), (3, 5)]
    for i, (a, b) in enumerate(found.notes):
        truth = found.truth(i, 48, 48)
        there = world.truth(a)
        assert truth.masks is not None and truth.motion is not None and (truth.masks == there.masks).all()
        vectors, visible = scenes.flow.flow(world.scene(a), world.scene(b), 48)
        assert (truth.motion.vectors == vectors).all() and (truth.motion.hidden == ~visible).all()
        assert (found.pictures.read(i)[-1] == world.image(b)).all()


def test_a_video_is_cut_by_its_own_times(tmp_path: Path) -> None:
    movie = Movie(tmp_path / "walk.mp4")
    for k in range(12):
        movie.write(np.full((32, 32, 3), 20 * k, np.uint8), k / 12)
    movie.close()
    found = find_stretches(str(tmp_path / "walk.mp4"), gap=2, fps=4)
    assert [len(found.pictures.read(i)) for i in range(len(found))] == [3, 2]
    said = [round(float(f.mean()) / 20) for f in found.pictures.read(0)]
    assert said == [0, 3, 6]


def test_frames_stand_in_the_order_of_their_clip_and_stills_as_they_are(tmp_path: Path) -> None:
    frames(tmp_path / "c", [9, 10, 8])
    found = frames_in(find(str(tmp_path)))
    assert [Path(name).name for name in found.ids] == ["f8.png", "f9.png", "f10.png"]
    assert found.moments is not None and [clip for clip, _ in found.moments] == ["c"] * 3
    one = find(str(tmp_path / "c/f9.png"))
    assert frames_in(one) is one


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda p: "scenes:n=4,size=32", {}, "no two frames of one clip"),
        (lambda p: str(frames(p / "a", [1]).parent), {}, "no two frames of one clip"),
        (lambda p: WORLD, {"gap": 0}, "'gap' is 0"),
        (lambda p: WORLD, {"fps": 0.0}, "'fps' is 0"),
        (lambda p: str(p / "none"), {}, "no such file"),
    ],
)
def test_mistakes_are_one_line(
    make: Callable[[Path], str], options: dict[str, int], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SeeallError, match=words) as told:
        find_stretches(make(tmp_path), **options)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)


def test_a_video_of_one_frame_is_refused(tmp_path: Path) -> None:
    movie = Movie(tmp_path / "still.mp4")
    movie.write(np.zeros((32, 32, 3), np.uint8), 0)
    movie.close()
    with pytest.raises(SeeallError, match="of one frame"):
        find_stretches(str(tmp_path))
