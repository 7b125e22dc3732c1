"""Layouts of pairs of frames with flow, each written as its data set has it, and what can be wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.data import scenes
from seeall.data.decode import Unreadable
from seeall.data.motion import fields
from seeall.data.motion.pairs import find_pairs
from seeall.types import SeeallError

REAL = Path(os.environ.get("SEEALL_DATA", "../shared/data")) / "middlebury"
SIZE = (6, 8)


def frame(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def mask(path: Path, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SIZE, np.uint8)
    pixels[0, 1] = value
    Image.fromarray(pixels).save(path)


def field(path: Path, value: float, known: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields.write(path, np.full((*SIZE, 2), value, np.float32), known)


def chairs(root: Path) -> None:
    for k in (1, 2, 3):
        for n in (1, 2):
            frame(root / "data" / f"0000{k}_img{n}.ppm", 10 * k + n)
        field(root / "data" / f"0000{k}_flow.flo", k)
    (root / "FlyingChairs_train_val.txt").write_text("1\n1\n2\n")


def sintel(root: Path) -> None:
    for render in ("clean", "final"):
        for k in (9, 10, 11):
            frame(root / "training" / render / "alley" / f"frame_{k:04d}.png", k)
    for k in (9, 10):
        field(root / "training/flow/alley" / f"frame_{k:04d}.flo", k)
        mask(root / "training/invalid/alley" / f"frame_{k:04d}.png")
        mask(root / "training/occlusions/alley" / f"frame_{k:04d}.png")


def kitti(root: Path) -> None:
    noc = np.ones(SIZE, np.bool_)
    noc[2] = False
    for k in (0, 1):
        for n in (10, 11):
            frame(root / "training/image_2" / f"{k:06d}_{n}.png", 10 * k + n)
        field(root / "training/flow_occ" / f"{k:06d}_10.png", k + 0.25)
        field(root / "training/flow_noc" / f"{k:06d}_10.png", k + 0.25, noc)


def middlebury(root: Path) -> None:
    for name in ("Grove", "Urban"):
        for n in (10, 11):
            frame(root / "other-data" / name / f"frame{n}.png", n)
        field(root / "other-gt-flow" / name / "flow10.flo", 2)


def manifest(root: Path) -> None:
    for k in (1, 2):
        frame(root / f"{k}.png", k)
    field(root / "f.flo", 3)
    (root / "list.csv").write_text("path,next,flow,split\n1.png,2.png,f.flo,train\n2.png,1.png,f.flo,test\n")


LAYOUTS: dict[str, tuple[Callable[[Path], None], str, list[str], list[str | None] | None]] = {
    "chairs": (chairs, "", ["00001", "00002", "00003"], ["train", "train", "val"]),
    "sintel": (
        sintel, "", [f"{r}/alley/frame_{k:04d}" for r in ("clean", "final") for k in (9, 10)], None,
    ),
    "kitti": (kitti, "", ["000000_10", "000001_10"], None),
    "middlebury": (middlebury, "other-gt-flow", ["Grove", "Urban"], None),
    "manifest": (manifest, "list.csv", ["1.png", "2.png"], ["train", "test"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_each_layout_is_recognised(kind: str, tmp_path: Path) -> None:
    write, inside, ids, splits = LAYOUTS[kind]
    write(tmp_path)
    found = find_pairs(str(tmp_path / inside))
    assert found.pictures.ids == ids and found.pictures.splits == splits and found.knows == {"flow"}
    frames, truth = found.pictures.read(0), found.truth(0, *SIZE)
    assert frames.shape == (2, *SIZE, 3) and (frames[0] != frames[1]).any()
    assert truth.motion is not None and truth.motion.vectors.shape == (*SIZE, 2)
    assert found.pictures.fingerprint() == find_pairs(str(tmp_path / inside)).pictures.fingerprint()


@pytest.mark.parametrize(
    ("kind", "lost", "frames"),
    [
        ("chairs", "data/00002_flow.flo", ["00002_img1.ppm"]),
        ("sintel", "training/flow/alley/frame_0010.flo", [f"{r}/alley/frame_0010.png" for r in ("clean", "final")]),
        ("kitti", "training/flow_occ/000000_10.png", ["image_2/000000_10.png"]),
        ("middlebury", "other-gt-flow/Grove/flow10.flo", ["../other-data/Grove/frame10.png"]),
    ],
)
def test_pairs_without_flow_are_left_out_by_name(kind: str, lost: str, frames: list[str], tmp_path: Path) -> None:
    write, inside, ids, _ = LAYOUTS[kind]
    write(tmp_path)
    (tmp_path / "FlyingChairs_train_val.txt").unlink(missing_ok=True)
    assert not find_pairs(str(tmp_path / inside)).repairs
    (tmp_path / lost).unlink()
    found = find_pairs(str(tmp_path / inside))
    assert len(found) == len(ids) - len(frames)
    assert [name.removeprefix("data/") for name, _ in found.repairs] == frames
    assert all(what == "pair without flow left out: give it one, or take it away" for _, what in found.repairs)


def test_rows_of_a_manifest_without_flow_are_left_out_by_name(tmp_path: Path) -> None:
    manifest(tmp_path)
    listed = tmp_path / "list.csv"
    listed.write_text("path,next,flow\n1.png,2.png,\n2.png,1.png,f.flo\n")
    found = find_pairs(str(listed))
    assert found.pictures.ids == ["2.png"] and found.knows == {"flow"} and found.truth(0, *SIZE).motion is not None
    assert list(found.repairs) == [("1.png", "pair without flow left out: give it one, or take it away")]
    for text in ("path,next,flow\n1.png,2.png,\n", "path,next\n1.png,2.png\n"):
        listed.write_text(text)
        with pytest.raises(SeeallError, match=r"list\.csv: no pair in it has flow: .* column 'flow'"):
            find_pairs(str(listed))


def test_what_is_hidden_and_what_is_not_known(tmp_path: Path) -> None:
    sintel(tmp_path / "s")
    motion = find_pairs(str(tmp_path / "s")).truth(0, *SIZE).motion
    assert motion is not None and motion.hidden is not None
    assert not motion.known[0, 1] and motion.known.sum() == motion.known.size - 1
    assert motion.hidden[0, 1] and motion.hidden.sum() == 1
    kitti(tmp_path / "k")
    motion = find_pairs(str(tmp_path / "k")).truth(1, *SIZE).motion
    assert motion is not None and motion.hidden is not None and motion.known.all()
    assert motion.hidden[2].all() and motion.hidden.sum() == SIZE[1] and (motion.vectors == 1.25).all()


def test_one_rendering_of_sintel(tmp_path: Path) -> None:
    sintel(tmp_path)
    assert {pid.split("/")[0] for pid in find_pairs(str(tmp_path), passes="final").pictures.ids} == {"final"}


@pytest.mark.skipif(not REAL.is_dir(), reason="Middlebury is not there")
def test_middlebury_as_it_is() -> None:
    found = find_pairs(str(REAL))
    zero = {}
    for i, name in enumerate(found.pictures.ids):
        motion = found.truth(i, *found.pictures.read(i).shape[1:3]).motion
        assert motion is not None
        zero[name] = float(np.linalg.norm(motion.vectors, axis=2)[motion.known].mean())
    assert zero == pytest.approx({"Dimetrodon": 2.06, "Grove2": 3.09, "RubberWhale": 1.26}, abs=0.01)


def test_the_synthetic_world() -> None:
    found = find_pairs("scenes:n=3,size=32,frames=5", gap="2-3")
    world = scenes.parse("scenes:n=3,size=32,frames=5")
    assert len(found) == 3 * 3
    gaps = [b - a for a, b in found.pictures.keys]
    assert set(gaps) == {2, 3} and all(a // 5 == b // 5 for a, b in found.pictures.keys)
    a, b = found.pictures.keys[0]
    assert (found.pictures.read(0)[0] == world.image(a)).all() and (found.pictures.read(0)[1] == world.image(b)).all()
    truth = find_pairs("scenes:n=3,size=32,frames=5").truth(0, 32, 32).motion
    assert truth is not None and (truth.vectors == world.flow(0).vectors).all()
    assert truth.hidden is not None and (truth.hidden == ~world.flow(0).visible).all()


def _bad(folder: Path) -> None:
    for name in ("sizes", "flow", "second", "list"):
        chairs(folder / name)
    frame(folder / "sizes/data/00002_img2.ppm", 1, (4, 4))
    fields.write(folder / "flow/data/00001_flow.flo", np.ones((3, 3, 2), np.float32))
    (folder / "second/data/00002_img2.ppm").unlink()
    (folder / "list/FlyingChairs_train_val.txt").write_text("1\n")
    (folder / "nothing").mkdir()
    frame(folder / "a.png", 0)
    (folder / "a.csv").write_text("path,next\na.png,\n")


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        ("second", {}, "00002_img2.png: no such file"), ("list", {}, "want 1 or 2 for each of the 3"),
        ("nothing", {}, "no pairs of frames"), ("missing", {}, "no such file or folder"),
        ("a.png", {}, "neither a folder nor a manifest"), ("a.csv", {}, "column 'next'"),
        ("sizes", {"layout": "kitti"}, "as kitti has them"), ("sizes", {"gap": "2"}, "gap is a setting of the"),
        ("scenes:n=2,size=32", {}, "write frames=2"), ("scenes:n=2,size=32,frames=3", {"gap": "3"}, "frames=4"),
        ("scenes:n=2,size=32,frames=3", {"gap": "x"}, "setting 'gap'"),
        ("scenes:n=2,size=32,frames=3", {"layout": "kitti"}, "layout is a setting of files"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(data: str, settings: dict[str, str], words: str, tmp_path: Path) -> None:
    _bad(tmp_path)
    with pytest.raises(SeeallError, match=words) as told:
        find_pairs(data if data.startswith("scenes") else str(tmp_path / data), **settings)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)


def test_sizes_that_differ(tmp_path: Path) -> None:
    _bad(tmp_path)
    with pytest.raises(Unreadable, match="several sizes, 4 x 4 and 8 x 6"):
        find_pairs(str(tmp_path / "sizes")).pictures.read(1)
    found = find_pairs(str(tmp_path / "flow"))
    with pytest.raises(SeeallError, match="3 x 3 px, where the frames have 8 x 6"):
        found.truth(0, *SIZE)
