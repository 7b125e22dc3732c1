"""Pairs of frames and the flow from the first to the second, in the layouts that data sets of flow come in.

A folder is looked at itself, or its only folder, or `training/`. What a layout is recognised by:

    chairs      NAME_img1.ppm, NAME_img2.ppm, NAME_flow.flo; FlyingChairs_train_val.txt, where there is one, says which
                are to learn from (Dosovitskiy et al. 2015)
    sintel      clean/ and final/ with SCENE/frame_0001.png, flow/SCENE/frame_0001.flo, and, where there are, invalid/
                and occlusions/ (Butler et al. 2012)
    kitti       image_2/000000_10.png and 000000_11.png, or colored_0/ or image_0/; flow_occ/000000_10.png, and
                flow_noc/, which lacks what is hidden (Menze and Geiger 2015)
    middlebury  NAME/frame10.png, frame11.png and flow10.flo, in one folder or in other-data/ and other-gt-flow/
                (Baker et al. 2011)
    manifest    a .csv or .parquet with columns path, next, flow, and, if you like, split

Of the synthetic world, a pair is two frames of a clip.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from seeall.data import keyed, scenes
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.clips import clips
from seeall.data.decode import EXTENSIONS, Pixels, Unreadable, decode
from seeall.data.motion import fields
from seeall.data.motion.fields import Field
from seeall.data.pictures import MANIFESTS, SPLITS, Pictures, manifest_rows
from seeall.data.scenes.flow import flow
from seeall.types import SeeallError

Layout = Literal["auto", "chairs", "sintel", "kitti", "middlebury", "manifest"]
Passes = Literal["both", "clean", "final"]
_GAPS = 0x6A95
_SINTEL_FPS = 24.0


@dataclass(frozen=True)
class Pair:
    """Files, absolute. flow: None where it is not known · noc: as `flow`, without what is hidden · invalid: a mask of
    what is not known · occlusions: of what is hidden · moment: the film that a pair is of, however it is
    rendered, and seconds within it."""

    id: str
    first: str
    second: str
    flow: str | None
    split: str | None = None
    noc: str | None = None
    invalid: str | None = None
    occlusions: str | None = None
    moment: tuple[str, float] | None = None


def find_pairs(data: str, *, layout: Layout = "auto", passes: Passes = "both", gap: str = "1") -> Annotated:
    """The pairs that `data` names, each with its flow; `pictures.read` gives both frames, (2, H, W, 3).

    data: a folder, a manifest, or scenes:… · layout: how it is written down; auto recognises it
    passes: which renderings of Sintel · gap: frames from the first to the second in the synthetic world, a number or,
        as 1-4, the least and the most

    Pairs without flow are left out, and `repairs` names them.

    Raises: SeeallError where it does not exist, files are missing, nothing is recognised, or no pair has flow.
    """
    if data == "scenes" or data.startswith("scenes:"):
        if layout != "auto":
            raise SeeallError(f"{data}: layout is a setting of files, not of the synthetic world")
        return _world(data, gap)
    if gap != "1":
        raise SeeallError(f"{data}: gap is a setting of the synthetic world, not of files")
    root = Path(data).expanduser()
    if not root.exists():
        raise SeeallError(f"{data}: no such file or folder")
    if root.is_file() and root.suffix.lower() not in MANIFESTS:
        raise SeeallError(f"{data}: neither a folder nor a manifest ({', '.join(MANIFESTS)})")
    if root.is_file():
        found = _manifest(root)
    else:
        home, kind = _recognised(root, layout)
        found = _LAYOUTS[kind](home)
        if kind == "sintel":
            found = [pair for pair in found if passes == "both" or pair.id.startswith(f"{passes}/")]
    if not found:
        raise SeeallError(f"{data}: no pairs of frames in it")
    for pair in found:
        for file in (pair.first, pair.second, pair.flow):
            if file is not None and not Path(file).is_file():
                raise SeeallError(f"{file}: no such file, but {data} has the rest of pair {pair.id}")
    if root.is_file():
        bare = [pair.id for pair in found if pair.flow is None]
        found = [pair for pair in found if pair.flow is not None]
        if not found:
            raise SeeallError(f"{data}: no pair in it has flow: name a file for each in the column 'flow'")
    else:
        bare = _without_flow(home, kind, found)
    splits = [pair.split for pair in found]
    moments = [pair.moment for pair in found if pair.moment]
    pictures = Pictures(
        data, [pair.id for pair in found], [(pair.first, pair.second) for pair in found], read_frames,
        splits=splits if any(splits) else None, root=root if root.is_dir() else None,
        moments=moments if len(moments) == len(found) else None,
    )  # fmt: skip
    repairs = [(name, "pair without flow left out: give it one, or take it away") for name in bare]
    return Annotated(pictures, (), frozenset({"flow"}), found, _interpret, repairs)


def pairs_in(pictures: Pictures) -> Pictures:
    """Each picture with the next one of its clip: videos, folders of frames, the synthetic world's clips.

    Raises: SeeallError where no clip has two frames.
    """
    found = clips(pictures)
    rows = [pair for mine in found.rows() for pair in itertools.pairwise(mine)]
    return Pictures(
        pictures.source, [pictures.ids[a] for a, _ in rows], rows,
        lambda key, shortest: frames_of(lambda i: pictures.read(i, shortest), key, pictures.ids.__getitem__),
        root=pictures.root,
        moments=[(found.names[int(found.clip[a])], float(found.seconds[a])) for a, _ in rows],
    )  # fmt: skip


def read_frames(keys: Sequence[Any], shortest: int | None = None) -> Pixels:
    """Frames that are files → (T, H, W, 3) uint8. Raises: Unreadable, also where they are not equally large."""
    return frames_of(lambda key: decode(key, shortest), keys, os.path.basename)


def frames_of(read: Callable[[Any], Pixels], keys: Sequence[Any], name: Callable[[Any], str]) -> Pixels:
    """(T, H, W, 3) what `read` gives for each key. Raises: Unreadable, with the name of the one that is."""
    seen = list[Pixels]()
    for key in keys:
        try:
            seen.append(read(key))
        except Unreadable as fault:
            raise Unreadable(f"{name(key)}: {fault}") from None
    return stacked(seen)


def stacked(frames: Sequence[Pixels]) -> Pixels:
    """T frames (H, W, 3) → (T, H, W, 3). Raises: Unreadable where they are not equally large."""
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) > 1:
        told = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise Unreadable(f"frames of several sizes, {told} px")
    return np.stack(frames)


def _interpret(pair: Pair, height: int, width: int) -> Truth:
    """Raises: SeeallError for a file of flow that is damaged, or of another size than the frames."""
    assert pair.flow is not None  # such pairs are left out
    field = fields.read(pair.flow)
    if field.known.shape != (height, width):
        high, wide = field.known.shape
        raise SeeallError(f"{pair.flow}: {wide} x {high} px, where the frames have {width} x {height}")
    known, hidden = field.known, None
    if pair.invalid is not None:
        known = known & ~_mask(pair.invalid, known.shape)
    if pair.noc is not None:
        hidden = known & ~fields.read(pair.noc).known
    if pair.occlusions is not None:
        hidden = _mask(pair.occlusions, known.shape)
    return Truth(motion=Field(field.vectors, known, hidden))


def _mask(file: str, shape: tuple[int, ...]) -> Any:
    with Image.open(file) as image:
        mask = np.asarray(image.convert("L")) > 0
    if mask.shape != shape:
        raise SeeallError(f"{file}: {mask.shape[1]} x {mask.shape[0]} px, where the flow has {shape[1]} x {shape[0]}")
    return mask


def _recognised(root: Path, layout: str) -> tuple[Path, str]:
    """The folder with the pairs, and its layout."""
    here = [root, *([root / "training"] if (root / "training").is_dir() else [])]
    inside = [part for part in root.iterdir() if part.is_dir() and not part.name.startswith(".")]
    if len(inside) == 1:
        here += [inside[0], inside[0] / "training"]
    for home in here:
        for kind, is_so in _MARKS.items():
            if layout in ("auto", kind) and home.is_dir() and is_so(home):
                return home, kind
    wanted = "as Flying Chairs, Sintel, KITTI or Middlebury have them" if layout == "auto" else f"as {layout} has them"
    raise SeeallError(f"{root}: no pairs of frames with flow in it, {wanted}; or give a .csv with path, next and flow")


def _is_chairs(home: Path) -> bool:
    return any(home.glob("*_flow.flo")) or any((home / "data").glob("*_flow.flo"))


def _is_sintel(home: Path) -> bool:
    return (home / "flow").is_dir() and any((home / name).is_dir() for name in ("clean", "final"))


def _is_kitti(home: Path) -> bool:
    return (home / "flow_occ").is_dir() or (home / "flow_noc").is_dir()


def _is_middlebury(home: Path) -> bool:
    return any(home.glob("*/flow10.flo"))


def _chairs(home: Path) -> list[Pair]:
    data = home if any(home.glob("*_flow.flo")) else home / "data"
    flows = sorted(data.glob("*_flow.flo"))
    listed = [place / "FlyingChairs_train_val.txt" for place in (data, data.parent)]
    splits: list[str | None] = [None] * len(flows)
    if file := next((place for place in listed if place.is_file()), None):
        words = file.read_text(errors="replace").split()
        if len(words) != len(flows) or set(words) - {"1", "2"}:
            raise SeeallError(f"{file}: want 1 or 2 for each of the {len(flows)} pairs, one a line")
        splits = ["train" if word == "1" else "val" for word in words]
    found = []
    for path, split in zip(flows, splits):
        stem = path.name.removesuffix("_flow.flo")
        first, second = (_picture(path.with_name(f"{stem}_img{k}")) for k in (1, 2))
        found.append(Pair(stem, first, second, str(path), split))
    return found


def _sintel(home: Path) -> list[Pair]:
    found = []
    for flow_file in sorted((home / "flow").glob("*/*.flo")):
        scene, stem = flow_file.parent.name, flow_file.stem
        moment = scene, int("".join(filter(str.isdecimal, stem)) or 0) / _SINTEL_FPS
        marks = {
            name: str(file) if (file := home / name / scene / f"{stem}.png").is_file() else None
            for name in ("invalid", "occlusions")
        }
        for render in ("clean", "final"):
            folder = home / render / scene
            if folder.is_dir():
                first, second = (_picture(folder / name) for name in (stem, _next(stem)))
                found.append(Pair(f"{render}/{scene}/{stem}", first, second, str(flow_file), **marks, moment=moment))
    return sorted(found, key=lambda pair: pair.id)


def _kitti(home: Path) -> list[Pair]:
    frames = next((home / n for n in ("image_2", "colored_0", "image_0") if (home / n).is_dir()), home / "image_2")
    occ, noc = home / "flow_occ", home / "flow_noc"
    found = []
    for file in sorted((occ if occ.is_dir() else noc).glob("*.png")):
        visible = str(noc / file.name) if occ.is_dir() and (noc / file.name).is_file() else None
        first, second = (_picture(frames / name) for name in (file.stem, _next(file.stem)))
        found.append(Pair(file.stem, first, second, str(file), noc=visible))
    return found


def _middlebury(home: Path) -> list[Pair]:
    data = home.parent / home.name.replace("gt-flow", "data")
    found = []
    for file in sorted(home.glob("*/flow10.flo")):
        frames = file.parent if any(file.parent.glob("frame10.*")) else data / file.parent.name
        first, second = (_picture(frames / name) for name in ("frame10", "frame11"))
        found.append(Pair(file.parent.name, first, second, str(file)))
    return found


_FIRST = {"chairs": "*_img1.*", "sintel": "*.*", "kitti": "*_10.*", "middlebury": "*/frame10.*"}


def _without_flow(home: Path, kind: str, found: list[Pair]) -> list[str]:
    """First frames beside those of `found` that have a second one, but no flow, as paths below `home`."""
    folders = {Path(pair.first).parents[kind == "middlebury"] for pair in found}
    firsts = {file for folder in folders for file in folder.glob(_FIRST[kind])} - {Path(pair.first) for pair in found}
    return sorted(
        os.path.relpath(file, home) for file in firsts
        if file.suffix.lower() in EXTENSIONS and Path(_picture(file.with_name(_next(file.stem)))).is_file()
    )  # fmt: skip


_MARKS = {"chairs": _is_chairs, "sintel": _is_sintel, "kitti": _is_kitti, "middlebury": _is_middlebury}
_LAYOUTS = {"chairs": _chairs, "sintel": _sintel, "kitti": _kitti, "middlebury": _middlebury}


def _picture(stem: Path) -> str:
    """The picture of that name, whatever its suffix; with .png where there is none, so that it is missed by name."""
    for suffix in (".png", ".ppm", ".jpg", *sorted(EXTENSIONS)):
        if (file := stem.with_name(stem.name + suffix)).is_file():
            return str(file)
    return str(stem) + ".png"


def _next(stem: str) -> str:
    """
    >>> _next("frame_0009"), _next("000012_10")
    ('frame_0010', '000012_11')
    """
    return re.sub(r"\d+$", lambda digits: f"{int(digits[0]) + 1:0{len(digits[0])}d}", stem)


def _manifest(file: Path) -> list[Pair]:
    found = []
    for row in manifest_rows(file):
        if not row.get("next"):
            raise SeeallError(f"{file}: {row['path']} has nothing in the column 'next', which names the second frame")
        files = [str(file.parent / str(row[name])) if row.get(name) else None for name in ("path", "next", "flow")]
        split = SPLITS.get(str(row.get("split")).lower())
        found.append(Pair(str(row["path"]), str(files[0]), str(files[1]), files[2], split))
    return found


def _world(data: str, gap: str) -> Annotated:
    """Every frame of a clip that has another one `gap` frames later, which is drawn by key, and its exact flow."""
    world = scenes.parse(data)
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", gap.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise SeeallError(f"setting 'gap' is {gap!r}: give a number of frames, or the least and the most, as 1-4")
    if world.frames <= low:
        raise SeeallError(f"{data}: flow needs clips of at least {low + 1} frames; write frames={low + 1} or more")
    rows = []
    for i in range(len(world)):
        left = world.frames - 1 - i % world.frames
        if left >= low:
            drawn = low + int(keyed.uniform(world.seed, i, _GAPS, n=1) * (min(high, left) - low + 1))
            rows.append((i, i + drawn))
    pictures = Pictures(
        data, [world.id(a) for a, _ in rows], rows,
        lambda key, _: np.stack([world.image(i) for i in key]), moments=[world.moment(a) for a, _ in rows],
    )  # fmt: skip
    return Annotated(pictures, (), frozenset({"flow"}), rows, functools.partial(_drawn, world=world))


def _drawn(row: tuple[int, int], height: int, width: int, *, world: scenes.Scenes) -> Truth:
    vectors, visible = flow(world.scene(row[0]), world.scene(row[1]), world.size)
    return Truth(motion=Field(vectors, np.ones_like(visible), ~visible))
