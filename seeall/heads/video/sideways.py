"""Sideways (Malinowski, Świrszcz, Carreira and Pătrăucean 2020, arXiv:2001.06232): a network that learns from a video
while it streams through, all its parts at work at every tick.

Part i of n, H_i, has at tick t the input h_{i-1}^{t-1}, what the part before gave at the tick before, and gives
h_i^t = H_i(h_{i-1}^{t-1}, θ_i). Gradients come back as slowly: part i takes the pseudo-gradient that part i + 1 sent at
tick t - 1, the last one that of the loss of what it gives at t, and multiplies it with the Jacobians where it is now
(section 3.2):

    g_i^t   = g_{i+1}^{t-1} ∂H_i/∂h (h_{i-1}^{t-1}, θ_i)      which goes to part i - 1
    Δθ_i   += g_{i+1}^{t-1} ∂H_i/∂θ (h_{i-1}^{t-1}, θ_i)

Nothing is kept of the frame that a gradient is of: that one is 2 (n - i) frames older than what the gradient meets. On
a still clip it makes no difference, and with one part this is backpropagation, frame by frame.

Clips are learnt from one by one: a clip of T frames is T ticks, parameters change after them. While the pipeline fills
there is nothing to learn: the loss counts from the first frame that has come through, at tick n, and part i meets its
first gradient at tick 2n - i. Departure: as later parts meet more gradients, each part's sum is divided by how many it
has met, where one number for all would make the first parts slow; so on a still clip the gradients are the true ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.heads.about import About
from seeall.heads.action.networks import PerFrame
from seeall.heads.video.cut import Part, cut
from seeall.types import SeeallError

Loss = Callable[[Tensor], Tensor]


@final
class Sideways(nn.Module):
    """`per-frame`, learnt sideways. x (B, 3, T, H, W) normalised → logits (B, K), the mean of what is said of frames.

    parts: into how many the network is cut; 1 for backpropagation · threads: whether the parts work side by side, each
    on a core · dropout: share of the embedding that is left out while learning

    Raises: SeeallError for a network that cannot be cut so, or whose parts draw random numbers in threads.
    """

    def __init__(
        self, backbone: Backbone, classes: int, about: About, *, parts: int = 2, threads: bool = False,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frame = PerFrame(backbone, classes, dropout=dropout)
        self.parts, self.threads, self.size = parts, threads, about.image_size
        self.least = 2 * parts - 1
        """Frames after which every part has met a gradient."""
        self._cut: dict[tuple[int, ...], list[Part]] = {}
        if not about.again:
            self.check_parts()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cut": {}}  # a copy is cut anew, as parts belong to one network

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        scores: Tensor = self.frame(x)
        return scores

    def check_parts(self) -> None:
        """Raises SeeallError where the parts cannot learn as they are now: one is frozen, or order would matter."""
        self._parts(torch.empty(2, 3, 1, self.size, self.size, device="meta"))

    def learn(self, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """x: (B, 3, T, H, W) normalised · loss: logits of a frame, (B, K) → a number

        Returns: the mean loss of the frames that have come through, whose gradient is Sideways'; the mean of their
        logits, (B, K). Raises: SeeallError for clips shorter than `least`, and as `check_parts`.
        """
        if x.shape[2] < self.least:
            raise SeeallError(f"{self.parts} parts need clips of {self.least} frames or more, not {x.shape[2]}")
        if torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16:
            raise SeeallError("sideways has gradients before they are scaled: choose --precision bf16 or 32, not fp16")
        if self.threads and torch.distributed.is_available() and torch.distributed.is_initialized():
            raise SeeallError("setting 'threads' is for one process: leave it out, or choose --devices 1")
        frames = torch.split(x, 1, 2)
        told = sideways(self._parts(frames[0]), frames, loss, threads=self.threads)
        return told.loss(), torch.stack(told.outputs).mean(0)

    def _parts(self, frame: Tensor) -> list[Part]:
        """The parts for a frame of each clip, (B, 3, 1, H, W)."""
        if (found := self._cut.get(frame.shape)) is None:
            found = self._cut[frame.shape] = cut(self.frame, frame, self.parts)
        for k, part in enumerate(found, 1):
            if not any(p.requires_grad for p in part.parameters):
                raise SeeallError(f"part {k} of {self.parts} is frozen: choose fewer parts, or freeze less")
        if self.threads and sum(part.draws for part in found) > 1:
            raise SeeallError(
                "several parts of this network draw random numbers, which threads would mix: choose threads=off"
            )
        return found


@final
@dataclass(frozen=True)
class Told:
    """What a clip has taught.

    outputs: of each frame that has come through · losses: theirs, so that their sum is the mean
    gradients: of parameters; of those that the loss does not depend on there are none
    """

    outputs: list[Tensor]
    losses: list[Tensor]
    gradients: dict[nn.Parameter, Tensor]

    def loss(self) -> Tensor:
        """The mean loss, whose backward pass gives the gradients, times what comes to it."""
        taught: Tensor = _Taught.apply(torch.stack(self.losses).sum(), [*self.gradients.values()], *self.gradients)
        return taught


def sideways(parts: Sequence[Part], frames: Sequence[Tensor], loss: Loss, *, threads: bool = False) -> Told:
    """One clip. frames: T tensors that the first part takes, one a tick, T ≥ 2n - 1 · loss: of what the last part gives

    With `threads` the parts work side by side, each in a thread of its own, which has one core.
    """
    n = len(parts)
    counted = len(frames) - n + 1
    stations = [_Station(part, first=i == 0) for i, part in enumerate(parts)]
    ahead, back = dict[int, list[Tensor]](), dict[int, list[Tensor | None]]()  # what part i takes, and meets
    outputs, losses = list[Tensor](), list[Tensor]()
    with _workers(n if threads else 0, frames[0].device) as at_once:
        for frame in frames:
            ahead[0] = [frame]
            busy = sorted(ahead)
            ends = {n - 1: lambda y: loss(y) / counted}
            done = at_once([partial(stations[i].tick, ahead[i], back.get(i), ends.get(i)) for i in busy])
            ahead = {i + 1: given for i, (given, _) in zip(busy, done)}
            back = {i - 1: met for i, (_, met) in zip(busy, done) if met is not None}
            if n in ahead:
                outputs += ahead.pop(n)
                losses.append(stations[-1].lost)
    return Told(outputs, losses, _gathered(stations))


@final
class _Station:
    """A part at work. sums: of its parameters' gradients · met: how many ticks they are of · lost: the last loss"""

    def __init__(self, part: Part, first: bool) -> None:
        self._part, self._first = part, first
        self.learnt = [p for p in part.parameters if p.requires_grad]
        self.sums: list[Tensor | None] = [None] * len(self.learnt)
        self.met, self.lost = 0, torch.zeros(())

    def tick(
        self, given: list[Tensor], met: list[Tensor | None] | None, loss: Loss | None
    ) -> tuple[list[Tensor], list[Tensor | None] | None]:
        """given: from the part before · met: from the part behind, the pseudo-gradients of what it was given · loss: of
        the last part, which makes its own

        Returns: what the part gives, and the pseudo-gradients for the part before, where there are any.
        """
        if met is None and loss is None:
            with torch.no_grad():
                return self._part(given), None
        given = [x.detach().requires_grad_(x.is_floating_point() and not self._first) for x in given]
        ends = gives = self._part(given)
        if loss is not None:
            ends = [loss(gives[0])]
            self.lost, met = ends[0].detach(), [torch.ones_like(ends[0])]
        assert met is not None
        pairs = [(y, g) for y, g in zip(ends, met) if y.requires_grad and g is not None]
        asked = [*(x for x in given if x.requires_grad), *self.learnt]
        found = list(torch.autograd.grad([y for y, _ in pairs], asked, [g for _, g in pairs], allow_unused=True))
        sent = [found.pop(0) if x.requires_grad else None for x in given]
        self.sums = [self._sum(old, new) for old, new in zip(self.sums, found)]
        self.met += 1
        return [y.detach() for y in gives], sent

    def _sum(self, old: Tensor | None, new: Tensor | None) -> Tensor | None:
        if old is None or new is None:
            return new if old is None else old
        return old + new if self.met == 1 else old.add_(new)  # the first one may be somebody else's too


def _gathered(stations: Sequence[_Station]) -> dict[nn.Parameter, Tensor]:
    """Parameter → gradient: each part's sum as if it had met as many as the last one."""
    gathered: dict[nn.Parameter, Tensor] = {}
    for station in stations:
        weight = stations[-1].met / station.met
        for p, found in zip(station.learnt, station.sums):
            if found is not None:
                found = found if weight == 1 else weight * found
                gathered[p] = gathered[p] + found if p in gathered else found
    return gathered


class _Taught(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *coming: Tensor) -> Any:
        return (None, None, *(coming[0] * gradient for gradient in ctx.gradients))


Jobs = Sequence[Callable[[], Any]]


@contextmanager
def _workers(count: int, device: torch.device) -> Iterator[Callable[[Jobs], list[Any]]]:
    """What does some jobs, in so many threads where `count` is not 0, in the precision that is set here.

    Casts of weights are not kept from tick to tick: one of a tick without gradients has none.
    """
    precision = partial(
        torch.autocast, device.type, dtype=torch.get_autocast_dtype(device.type),
        enabled=torch.is_autocast_enabled(device.type), cache_enabled=False,
    )  # fmt: skip

    def one(job: Callable[[], Any]) -> Any:
        with precision():
            return job()

    if not count:
        yield lambda jobs: [one(job) for job in jobs]
        return
    threads = torch.get_num_threads()

    def begin() -> None:
        torch.set_num_threads(1)
        if device.type == "cuda":
            torch.cuda.set_device(device)

    try:
        with ThreadPoolExecutor(count, initializer=begin) as pool:
            yield lambda jobs: list(pool.map(one, jobs))
    finally:
        torch.set_num_threads(threads)  # of threads still to come; this one has kept its own
