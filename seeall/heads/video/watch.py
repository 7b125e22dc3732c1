"""A head that watches a clip: frames in, predictions out, by one of the ways in which that costs less.

What these ask of a head is `network`, and `shown` and `read` where frames are to overlap.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.catalog import SEMANTIC, STILL
from seeall.heads.prediction import Prediction
from seeall.heads.video.keys import Keyed
from seeall.heads.video.parallel import Parallel
from seeall.heads.video.skip import Reuse, Reusing, ReusingNetwork, Unchanged
from seeall.types import SeeallError

Way = Callable[[Iterable[Tensor]], Iterator[Prediction]]
"""Frames of one clip, (3, H, W) uint8 each, of one size → a prediction for each, in their order."""


@final
class Reused:
    """A head that reuses what it has seen where frames are alike.

    Of a network that names pixels all is made anew where something has changed and nowhere else; of others the maps
    of the backbone. With `keys`, such a network sees one of so many frames, and what it says moves along between. Where
    nothing has changed at all, the last prediction stands. The head's network is wrapped, and is no longer of use for
    anything else. settings: of `Reuse`, or of `Keyed`

    Raises: SeeallError for a task that is not about single pictures, a network without a backbone, or one that nothing
    can be kept of; with `keys`, for a task that does not name pixels.
    """

    def __init__(self, head: Any, task: str, *, keys: int = 1, **settings: Any) -> None:
        self.reuse: Reuse | Keyed
        if keys > 1 and task not in SEMANTIC:
            raise SeeallError(f"--keys is for heads that name pixels; this one is for {task}")
        place, backbone = _backbone(head.network, task)
        if keys > 1:
            self.reuse = head.network = Keyed(head.network, backbone.preprocessing["std"], every=keys, **settings)
        elif task in SEMANTIC:
            head.network = ReusingNetwork(head.network, backbone, tell=True, **settings)
            self.reuse = head.network.reuse
        else:
            kept = Reusing(backbone, tell=True, **settings)
            if task == "classification":
                kept.check_embedding()
            place.backbone, self.reuse = kept, kept.reuse
        self.head = head
        self.again = 0
        """Predictions that were given again."""

    def __call__(self, frames: Iterable[Tensor]) -> Iterator[Prediction]:
        """See `Way`."""
        self.reuse.forget()
        said: Prediction | None = None
        for frame in frames:
            try:
                (said,) = self.head.predict([frame])
            except Unchanged:
                self.again += 1
            assert said is not None
            yield said

    def facts(self) -> dict[str, Any]:
        """What has been saved."""
        return {"computed": round(self.reuse.share, 4), "reused": self.again}


def _backbone(network: nn.Module, task: str) -> tuple[nn.Module, Backbone]:
    """The backbone, and the module that has it."""
    if task in (*STILL, *SEMANTIC):
        for module in network.modules():
            if isinstance(getattr(module, "backbone", None), Backbone):
                return module, module.backbone  # type: ignore[return-value]
    raise SeeallError(f"--reuse is for heads that see one picture with a backbone; this one is for {task}")


@final
class Ahead:
    """A head whose network works on several frames at once, `parts` of them; what it says is the same.

    settings: of `Parallel`

    Raises: SeeallError for a task whose network is more than one tensor in and one out.
    """

    def __init__(self, head: Any, task: str, parts: int, **settings: Any) -> None:
        if task not in ("classification", *SEMANTIC):
            raise SeeallError(f"--ahead is for heads of classification and segmentation; this one is for {task}")
        self.head, self.run = head, Parallel(head.network, parts=parts, **settings)

    def __call__(self, frames: Iterable[Tensor]) -> Iterator[Prediction]:
        """See `Way`."""
        sizes = collections.deque[tuple[int, ...]]()

        def shown() -> Iterator[Tensor]:
            for frame in frames:
                sizes.append(tuple(frame.shape[1:]))
                yield self.head.shown([frame])

        for logits in self.run(shown()):
            (said,) = self.head.read(logits, sizes.popleft())
            yield said

    def facts(self) -> dict[str, Any]:
        """How."""
        return {"parts": self.run.parts}


@final
class Watch:
    """One of the ways, and what it did.

    frames: so many were seen · seconds: that took, reading them included
    """

    def __init__(self, way: Reused | Ahead) -> None:
        self.way, self.frames, self.seconds = way, 0, 0.0

    def __call__(self, frames: Iterable[Tensor]) -> Iterator[Prediction]:
        """See `Way`."""
        said, start = self.way(frames), time.perf_counter()
        for one in said:
            self.seconds += time.perf_counter() - start
            self.frames += 1
            yield one
            start = time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """By name."""
        return {**self.way.facts(), "frames_per_second": round(self.frames / max(self.seconds, 1e-9), 2)}


def watching(head: Any, task: str, *, reuse: float = 0.0, keys: int = 1, ahead: int = 1) -> Watch | None:
    """reuse: the threshold of `Reuse`, or 0 · keys: the network sees one of so many frames, see `Keyed`
    ahead: parts of `Parallel`, or 1 → how clips are watched, if specially.

    Raises: SeeallError where a head cannot, or both are asked for.
    """
    if ahead > 1 and (reuse or keys > 1):
        asked = f"--reuse {reuse:g}" if reuse else f"--keys {keys}"
        raise SeeallError(f"{asked} and --ahead {ahead}: what was seen is kept of one frame at a time; choose one")
    if reuse or keys > 1:
        return Watch(Reused(head, task, keys=keys, threshold=reuse))
    return Watch(Ahead(head, task, ahead)) if ahead > 1 else None
