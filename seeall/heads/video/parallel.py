"""Depth-parallel execution: the parts of a network work on different frames at once, a thread each.

Carreira, Patraucean, Mazare, Zisserman and Osindero 2018, "Massively Parallel Video Networks" (arXiv:1806.03863),
section 3.1: at tick t part p works on what part p - 1 made at tick t - 1, so that as many frames are under way as there
are parts, and a tick takes as long as the dearest part does. Connections that jump over parts are the trouble:

    wait=True    they wait for what they are to be joined with. The result of each frame is exactly that of the network,
                 `parts` ticks after the frame came, as many as there are parts: throughput, with the latency it had.
    wait=False   "predictive", sections 3.1 and 3.3: every part takes the newest value of all that it asks for. There
                 is a result at each tick, one tick after its frame, which mixes maps of up to `parts` frames: the
                 coarse ones, far down the network, are the oldest. Less latency, and wrong by what has moved since.

Departures: no network is trained for it, any network will do as it is; parts are cut by cost (see `operations`), not by
layers; with wait=False the first frame of a clip goes through all parts at once, so that there is something to begin
with. With wait=True no tick is kept: a part begins a frame as soon as the part before it is done with it. With
wait=False all parts keep ticks together, so that what comes out does not depend on which thread is faster.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, final

import torch
from torch import Tensor, nn

from seeall.data.pixels import cores
from seeall.heads.video.operations import FRAME, Part, cut, traced
from seeall.types import SeeallError

Worker = tuple[ThreadPoolExecutor, Part]
"""A thread, and the part that it works on."""


@final
class Parallel:
    """A network, in evaluation mode, over the frames of clips.

    parts: how many work at once · wait: whether connections that jump over parts wait, see above
    threads: of each part; the cores shared out where not given

    Raises: SeeallError for fewer than one part; when called, for a network that cannot be cut.
    """

    def __init__(self, network: nn.Module, *, parts: int = 2, wait: bool = True, threads: int | None = None) -> None:
        if parts < 1:
            raise SeeallError(f"a network is cut in 1 part or more, not {parts}")
        self.network, self.parts, self.wait = network, parts, wait
        self.threads = threads or max(1, cores() // parts)
        self._shape: torch.Size | None = None
        self._cut: list[Part] = []

    def cut(self, frame: Tensor) -> list[Part]:
        """The parts for frames of this shape; there are fewer than asked for where there are fewer operations."""
        if frame.shape != self._shape:
            self._cut, self._shape = cut(traced(self.network, frame), frame, self.parts), frame.shape
        return self._cut

    def __call__(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """frames: of one clip, (B, 3, H, W) each, of one shape → the result of each, in their order.

        With `wait` the result of a frame comes when parts - 1 more have been asked for, or there are no more.
        """
        coming = iter(frames)
        first = next(coming, None)
        if first is None:
            return
        parts = self.cut(first)
        before = torch.get_num_threads()
        try:
            with contextlib.ExitStack() as stack:
                pools = [
                    stack.enter_context(ThreadPoolExecutor(1, "part", torch.set_num_threads, (self.threads,)))
                    for _ in parts
                ]
                workers, clip = list(zip(pools, parts)), _alike(itertools.chain([first], coming), first.shape)
                yield from _waiting(workers, clip) if self.wait else _newest(workers, clip)
        finally:
            torch.set_num_threads(before)


def _alike(frames: Iterable[Tensor], shape: torch.Size) -> Iterator[Tensor]:
    for frame in frames:
        if frame.shape != shape:
            sizes = " after ".join("{2} x {3} px".format(*one) for one in (frame.shape, shape))
            raise SeeallError(f"the frames of a clip are of one size, not {sizes}; make it two clips")
        yield frame


def _waiting(workers: Sequence[Worker], frames: Iterator[Tensor]) -> Iterator[Tensor]:
    under_way: deque[Future[dict[str, Any]]] = deque()
    (result,) = workers[-1][1].gives
    for frame in frames:
        done: Future[dict[str, Any]] | None = None
        for pool, part in workers:
            done = pool.submit(_after, done, part, {FRAME: frame})
        assert done is not None
        under_way.append(done)
        if len(under_way) == len(workers):
            yield under_way.popleft().result()[result]
    for done in under_way:
        yield done.result()[result]


def _after(before: Future[dict[str, Any]] | None, part: Part, frame: dict[str, Any]) -> dict[str, Any]:
    """What is known of a frame after this part."""
    known = before.result() if before else frame
    return known | part(known)


def _newest(workers: Sequence[Worker], frames: Iterator[Tensor]) -> Iterator[Tensor]:
    values: dict[str, Any] = {}
    (result,) = workers[-1][1].gives
    for frame in frames:
        values[FRAME] = frame
        together = [workers] if len(values) > 1 else [[worker] for worker in workers]
        for some in together:
            for given in [pool.submit(part, dict(values)) for pool, part in some]:
                values |= given.result()
        yield values[result]
