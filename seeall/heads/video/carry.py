"""Masks for the frames of a clip that have none, from those that have one: by flow, or by likeness of features.

By flow, a frame takes from the nearest frame with a mask, and where that tells it nothing from the nearest one on the
other side; what neither tells stays unknown. By likeness, from the last frame with a mask before it, or where there is
none from the first one after it, backwards; every pixel is told something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from seeall.backbones import load as backbones
from seeall.backbones.contract import Backbone
from seeall.data.annotations.examples import fitted
from seeall.data.annotations.truth import IGNORE, Annotated
from seeall.data.decode import Pixels, Unreadable
from seeall.data.scenes import parse
from seeall.data.scenes.flow import flow as true_flow
from seeall.heads import build
from seeall.heads.video.affinity import follow
from seeall.heads.video.warp import Between, chain, moved
from seeall.training.embed import Normalise
from seeall.types import SeeallError

Mask = NDArray[np.uint8]
"""(H, W) a class for each pixel, or IGNORE."""
Carry = Callable[[Sequence[int], Mapping[int, Mask], int], dict[int, Mask]]
"""Frames of a clip in their order, the masks of some, how far they reach, frames → masks of frames that had none."""
TRUE = "true"


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How masks are carried by likeness; see `affinity.follow`.

    side: shorter side of frames as the backbone sees them, px · stride: of the stage whose features are compared, px
    last: frames before that count besides the first · near: places that things may move by between frames
    most: places that are asked, those most like · temperature: the lower, the more the likest ones count

    Raises: SeeallError for values out of bounds.
    """

    side: int = 240
    stride: int = 8
    last: int = 4
    near: float = 12.0
    most: int = 10
    temperature: float = 0.07

    def __post_init__(self) -> None:
        for name, least in (("side", 16), ("stride", 1), ("last", 0), ("most", 1)):
            if getattr(self, name) < least:
                raise SeeallError(f"setting {name!r} is {getattr(self, name)}: choose {least} or more")
        for name in ("near", "temperature"):
            if not getattr(self, name) > 0:
                raise SeeallError(f"setting {name!r} is {getattr(self, name)}: choose a number above 0")


def carrier(source: str, annotated: Annotated, how: Likeness | None = None) -> Carry:
    """What carries masks from frame to frame of `annotated`.

    source: a run of flow; a run or file with a backbone; or "true", the exact flow of the synthetic world

    Raises: SeeallError where it is none of these.
    """
    if source == TRUE:
        return by_flow(_exact(annotated))
    if _task(source) == "flow":
        return by_flow(_said(build.load(source)[0], annotated))
    return by_likeness(backbones.load(source), annotated, how or Likeness())


def by_flow(between: Between) -> Carry:
    """between: rows of two frames → the flow from one to the other."""

    def carry(rows: Sequence[int], masks: Mapping[int, Mask], reach: int) -> dict[int, Mask]:
        found: dict[int, tuple[int, Mask]] = {}
        for order in (list(rows), list(rows)[::-1]):
            places = [k for k, row in enumerate(order) if row in masks]
            for start, end in zip(places, [*places[1:], len(order)]):
                span = order[start : min(end, start + 1 + reach)]
                for far, (row, where, known) in enumerate(chain(span, between), start=1):
                    mask = moved(masks[span[0]], where, known)
                    found[row] = _joined(found[row], (far, mask)) if row in found else (far, mask)
        return {row: mask for row, (_, mask) in sorted(found.items())}

    return carry


def _joined(one: tuple[int, Mask], other: tuple[int, Mask]) -> tuple[int, Mask]:
    """The mask of the nearer frame, filled with the farther one's."""
    near, far = sorted((one, other), key=lambda told: told[0])
    return near[0], np.where(near[1] == IGNORE, far[1], near[1])


def by_likeness(backbone: Backbone, annotated: Annotated, how: Likeness) -> Carry:
    """Raises: SeeallError where no stage of the backbone is as fine as that."""
    if how.stride not in backbone.strides:
        there = ", ".join(map(str, backbone.strides))
        raise SeeallError(f"setting 'stride' is {how.stride}: the stages of this backbone have {there}")
    stage, classes = backbone.strides.index(how.stride), len(annotated.classes)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    backbone.eval().to(device)
    normalise = Normalise(backbone.preprocessing["mean"], backbone.preprocessing["std"]).to(device)

    @torch.no_grad()
    def see(row: int) -> Tensor:
        x = _frame(annotated, row)[None].to(device)
        shape = fitted(x.shape[2], x.shape[3], how.side)
        return backbone.stages(normalise(F.interpolate(x, shape, mode="bilinear", antialias=True)))[stage][0].cpu()

    def carry(rows: Sequence[int], masks: Mapping[int, Mask], reach: int) -> dict[int, Mask]:
        order = list(rows)
        places = [k for k, row in enumerate(order) if row in masks]
        spans = [order[start:end] for start, end in zip(places, [*places[1:], len(order)])]
        if places and places[0]:
            spans.append(order[: places[0] + 1][::-1])
        found: dict[int, Mask] = {}
        for span in spans:
            found.update(
                follow(
                    span[: reach + 1], masks[span[0]], classes, see, last=how.last, near=how.near, most=how.most,
                    temperature=how.temperature,
                )
            )  # fmt: skip
        return dict(sorted(found.items()))

    return carry


def _task(source: str) -> str | None:
    """The task of a run with a head; None where there is none."""
    if Path(source).is_dir() and not (Path(source) / build.HEAD_FILE).exists():
        return None
    try:
        return build.describe(source).task
    except SeeallError:
        return None


def _exact(annotated: Annotated) -> Between:
    source = annotated.pictures.source
    if source != "scenes" and not source.startswith("scenes:"):
        raise SeeallError(f"the true flow is known of the synthetic world alone, not of {source}: give a run of flow")
    world = parse(source)
    keys: Sequence[Any] = annotated.pictures.keys
    return lambda a, b: true_flow(world.scene(keys[a]), world.scene(keys[b]), world.size)[0]


def _said(head: nn.Module, annotated: Annotated) -> Between:
    """Flow between frames, by a head."""

    def between(a: int, b: int) -> NDArray[np.float32]:
        pair = torch.stack([_frame(annotated, a), _frame(annotated, b)])
        flow: NDArray[np.float32] = head.predict([pair])[0].flow  # type: ignore[operator]
        return flow

    return between


def _frame(annotated: Annotated, row: int) -> Tensor:
    """(3, H, W) uint8. Raises: SeeallError where it cannot be read."""
    try:
        pixels: Pixels = annotated.pictures.read(row)
    except Unreadable as fault:
        raise SeeallError(
            f"{annotated.pictures.source}: {annotated.pictures.ids[row]}: {fault}; a clip needs all its frames"
        ) from None
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
