"""Skipping what has not changed: maps are kept from frame to frame, and made anew only where the picture differs.

A block of the picture has changed where it differs by more than `threshold` from the frame *from which its maps were
made*, which may be long past: against the frame before, what drifts slowly would never be noticed. Changed blocks are
grown by `halo`, since maps see beyond the block; the rectangles around them, grown by `halo` once more so that maps are
right up to their rims, are cut out along the coarsest stride and seen alone, and their insides replace what was kept.
Where that would be most of the picture, all of it is seen.

With threshold 0 and a halo as wide as half the receptive field this is the network itself. It is not with a smaller
one, nor for a network in which everything sees everything: squeeze-and-excitation (MobileNetV3) averages over what it
is shown, which is then the rectangle. A ViT is refused.

A camera that moves changes everything: there is nothing to skip in clips of DAVIS 2017 (car-shadow, cows, libby) at
240 px. Maps can be moved along by whole cells only, of the coarsest stride where all are to fit, and that saves nothing
there; for what is said of each pixel see `video.keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from seeall.backbones.contract import Backbone, average
from seeall.heads.video.regions import CELL, Box, area, boxes, differing, grown, joined
from seeall.types import SeeallError

_PROBE = 64


class Unchanged(Exception):
    """Nothing has changed since the last frame, and who looks has asked to be told so."""


@final
class Reuse:
    """Maps of the frames of a clip, made anew where they have to be.

    see: x (1, 3, H, W) → maps (1, Cᵢ, ⌈H/sᵢ⌉, ⌈W/sᵢ⌉), in evaluation mode · strides: of the maps · std: what pixels
    were divided by when they were normalised · align: what the edges of rectangles are multiples of, px
    threshold: the difference of pixels in [0, 1], the mean of a cell of 8 px a side, above which a block has changed
    block: side of a block, px; `align` where not given · halo: px · most: the share of the picture above which all of
    it is seen

    Raises: SeeallError for settings out of bounds.
    """

    def __init__(
        self,
        see: Callable[[Tensor], list[Tensor]],
        strides: Sequence[int],
        std: Sequence[float],
        align: int,
        *,
        threshold: float = 0.03,
        block: int | None = None,
        halo: int = 32,
        most: float = 0.7,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise SeeallError(f"setting 'threshold' is {threshold}: choose from 0 to 1, the range of pixels")
        unit = int(np.lcm(align, CELL))
        self.block = unit if block is None else block
        if self.block < 1 or self.block % unit:
            raise SeeallError(f"setting 'block' is {block}: choose a multiple of {unit} px")
        if halo < 0:
            raise SeeallError(f"setting 'halo' is {halo}: choose 0 px or more")
        self.see, self.strides, self.align, self.threshold, self.most = see, tuple(strides), align, threshold, most
        self.halo = -(-halo // self.block)
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        self.seen = self.shown = 0
        """Pixels that the network has seen, and those of all frames."""
        self._frame: Tensor | None = None
        self._maps: list[Tensor] = []

    def forget(self) -> None:
        """Another clip begins."""
        self._frame, self._maps = None, []

    @property
    def share(self) -> float:
        """Pixels that the network has seen, of those of all frames; rims of rectangles count."""
        return self.seen / max(1, self.shown)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[list[Tensor], bool]:
        """x: (1, 3, H, W) normalised → the maps, and whether any of them has changed. They are not to be written to."""
        height, width = x.shape[2:]
        self.shown += height * width
        kept = self._frame
        if kept is None or kept.shape != x.shape or kept.device != x.device:
            return self._whole(x), True
        self.std = self.std.to(x.device)
        changed = differing(x * self.std, kept * self.std, self.block) > self.threshold
        if not changed.any():
            return self._maps, False
        rows, columns = changed.shape
        anew = [grown(box, self.halo, columns, rows) for box in boxes(changed)]
        anew = joined(anew, self.halo, columns, rows)
        crops = [self._pixels(grown(box, self.halo, columns, rows), width, height) for box in anew]
        if sum(map(area, crops)) >= self.most * height * width:
            return self._whole(x), True
        self._maps, self._frame = [one.clone() for one in self._maps], kept.clone()
        for box, crop in zip(anew, crops):
            self._paste(x, self._pixels(box, width, height), crop)
        return self._maps, True

    def _pixels(self, box: Box, width: int, height: int) -> Box:
        left, top, right, bottom = (self.block * side for side in box)
        return left, top, min(right, width), min(bottom, height)

    def _whole(self, x: Tensor) -> list[Tensor]:
        self.seen += x.shape[2] * x.shape[3]
        self._frame, self._maps = x.clone(), self.see(x)
        return self._maps

    def _paste(self, x: Tensor, inside: Box, crop: Box) -> None:
        """See `crop`, and keep what is `inside`."""
        assert self._frame is not None
        self.seen += area(crop)
        left, top, right, bottom = inside
        self._frame[..., top:bottom, left:right] = x[..., top:bottom, left:right]
        maps = self.see(x[..., crop[1] : crop[3], crop[0] : crop[2]])
        for kept, one, stride in zip(self._maps, maps, self.strides):
            x0, y0, x1, y1 = left // stride, top // stride, -(-right // stride), -(-bottom // stride)
            dx, dy = crop[0] // stride, crop[1] // stride
            kept[..., y0:y1, x0:x1] = one[..., y0 - dy : y1 - dy, x0 - dx : x1 - dx]


@final
class Reusing(nn.Module):
    """A backbone, in evaluation mode, under the contract of backbones, for the frames of a clip one after the other.

    With `tell`, it raises `Unchanged` instead where nothing has changed. settings: of `Reuse`

    Raises: SeeallError for a backbone of one stage, a ViT, in which every map sees the whole picture.
    """

    def __init__(self, backbone: Backbone, *, tell: bool = False, **settings: Any) -> None:
        super().__init__()
        if len(backbone.strides) < 2:
            raise SeeallError("a backbone of one stage, as a ViT is, sees the whole picture at once: nothing to reuse")
        self.backbone, self.tell = backbone.eval(), tell
        self.channels, self.strides, self.embed_dim = backbone.channels, backbone.strides, backbone.embed_dim
        self.inputs, self.preprocessing = backbone.inputs, backbone.preprocessing
        self.reuse = Reuse(
            backbone.stages, backbone.strides, backbone.preprocessing["std"], max(backbone.strides), **settings
        )
        self._averages = _averages(backbone)

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: (B, 3, H, W) float, normalised, B frames in their order → the map of every stage."""
        rows = [self._maps(one) for one in torch.split(x, 1)]
        return rows[0] if len(rows) == 1 else [torch.cat(maps) for maps in zip(*rows)]

    def _maps(self, x: Tensor) -> list[Tensor]:
        maps, changed = self.reuse(x)
        if self.tell and not changed:
            raise Unchanged
        return maps

    def check_embedding(self) -> None:
        """Raises SeeallError where the embedding is not the mean of the last map."""
        if not self._averages:
            raise SeeallError("reuse needs a backbone whose embedding is the mean of its last map, as a ResNet's is")

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) float, normalised → (B, embed_dim), of the maps that are kept.

        Raises: SeeallError as `check_embedding`.
        """
        self.check_embedding()
        return average(self.stages(x)[-1])


@torch.no_grad()
def _averages(backbone: Backbone) -> bool:
    """Whether the embedding is the mean of the last map."""
    x = torch.rand(1, 3, _PROBE, _PROBE, generator=torch.Generator().manual_seed(0)).to(next(backbone.parameters()))
    return torch.allclose(backbone(x), average(backbone.stages(x)[-1]), atol=1e-5)


@final
class ReusingNetwork(nn.Module):
    """A network that names pixels, whole: its backbone and its decoder see what has changed and nothing else.

    network: x (B, 3, H, W) normalised → logits (B, K, H, W), in evaluation mode, on `backbone`. Where a side is not a
    multiple of the coarsest stride, maps are enlarged a little more in the whole picture than in a rectangle that does
    not reach from edge to edge, and what is pasted is off by less than a cell. With `tell`, it raises `Unchanged` where
    nothing has changed.

    Raises: SeeallError for a backbone of one stage.
    """

    def __init__(self, network: nn.Module, backbone: Backbone, *, tell: bool = False, **settings: Any) -> None:
        super().__init__()
        if len(backbone.strides) < 2:
            raise SeeallError("a backbone of one stage, as a ViT is, sees the whole picture at once: nothing to reuse")
        self.network, self.tell = network.eval(), tell
        std = backbone.preprocessing["std"]
        self.reuse = Reuse(lambda x: [network(x)], (1,), std, max(backbone.strides), **settings)

    def forward(self, x: Tensor) -> Tensor:
        """The logits, of B frames in their order."""
        logits = []
        for one in torch.split(x, 1):
            (scores,), changed = self.reuse(one)
            if self.tell and not changed:
                raise Unchanged
            logits.append(scores)
        return torch.cat(logits)
