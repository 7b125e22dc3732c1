"""Words that every room shares: errors, the batch, the contracts.

Shapes are written with these letters everywhere:

    B  pictures in a batch        V  views of one picture       N  B x V, rows of a batch of views
    C  channels                   H, W  height and width, px    S  side of a square picture, px
    D  embedding dimension        K  classes, or neighbours     T  frames of a clip

Knows no torch, so that the command line can import it in no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class SeeallError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what to do.

    The command prints it without a traceback and leaves with exit code 2.
    """


class _Views(TypedDict):
    views: Tensor
    groups: Tensor
    pictures: int
    key: int


class Batch(_Views, total=False):
    """What a training step receives.

    views: (N, 3, S, S) float, normalised, all first views before all second ones; groups: (N,) int64, equal where
    samples belong together; pictures: B; key: a seed for what is drawn while the step is taken; sounds: (B, samples)
    float, heard with the pictures, if there are any.
    """

    sounds: Tensor


class Task(Protocol):
    """What the training loop trains; also an `nn.Module`."""

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        """One forward pass. The result holds `loss`, a scalar, and any scalars worth a curve."""
        ...

    def evaluation(self) -> dict[str, float]:
        """Metrics on held-back data, by flat name; empty where there is nothing to measure."""
        ...
