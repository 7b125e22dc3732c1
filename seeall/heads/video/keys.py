"""Every few frames the network looks; between, what it said moves along with the picture.

Deep Feature Flow (Zhu, Xiong, Dai, Yuan and Wei 2017, arXiv:1611.07715) carries features from key frames to the others
by a network for flow, which has to be learnt and costs time. Here logits are carried, from frame to frame, by matching
windows (`video.match`), by whole pixels and with nothing to learn: some 7 ms at 240 px, where a U-Net over ResNet-18
takes 140. What comes into view between keys is taken for what was near it, until the next one.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from seeall.heads.video.match import lay, look
from seeall.heads.video.regions import CELL, differing
from seeall.heads.video.skip import Unchanged
from seeall.types import SeeallError


@final
class Keyed(nn.Module):
    """A network that names pixels, for the frames of a clip one after the other.

    network: x (1, 3, H, W) normalised → logits (1, K, H, W), in evaluation mode · std: what pixels were divided by
    every: the network sees one of so many frames · threshold: the difference of pixels in [0, 1], the mean of a cell of
    8 px a side, up to which a frame is the one before again: `Unchanged` is raised instead

    Raises: SeeallError for settings out of bounds.
    """

    def __init__(self, network: nn.Module, std: list[float], *, every: int, threshold: float = 0.0) -> None:
        super().__init__()
        if every < 2:
            raise SeeallError(f"setting 'every' is {every}: choose 2 frames or more")
        if not 0 <= threshold <= 1:
            raise SeeallError(f"setting 'threshold' is {threshold}: choose from 0 to 1, the range of pixels")
        self.network, self.every, self.threshold = network.eval(), every, threshold
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        self.seen = self.shown = 0
        """Frames that the network has seen, and all."""
        self.forget()

    def forget(self) -> None:
        """Another clip begins."""
        self._before: Tensor | None = None
        self._logits = torch.empty(0)
        self._moved = 0

    @property
    def share(self) -> float:
        """Of all frames, those that the network has seen."""
        return self.seen / max(1, self.shown)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The logits of the next frame."""
        self.shown += 1
        frame, before = x * self.std.to(x.device), self._before
        if before is not None and (before.shape != frame.shape or before.device != frame.device):
            before = None
        if before is not None and differing(frame, before, CELL).max() <= self.threshold:
            raise Unchanged
        if before is not None and self._moved < self.every - 1:
            self._moved, self._logits = self._moved + 1, look(self._logits, lay(frame, before))
        else:
            self._moved, self._logits, self.seen = 0, self.network(x), self.seen + 1
        self._before = frame
        return self._logits
