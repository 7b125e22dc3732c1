"""Saying where keypoints are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.data.annotations.examples import Examples
from seeall.heads.feed import HeadBatch
from seeall.heads.keypoints.augment import squeezed
from seeall.heads.prediction import Answer, Pointed, Prediction, by_shape, evaluate, filled
from seeall.metrics.keypoints import Tracked, keypoints
from seeall.training.embed import Normalise


@final
class Keypoints(nn.Module):
    """The head of `--task keypoints`.

    network: x (B, 3, S, S), normalised → points (B, K, 2) in [-1, 1], strength (B, K); `rebuilt` is what it learns by
    size: side of the square that pictures are squeezed to, px
    """

    def __init__(self, network: nn.Module, normalise: Normalise, size: int) -> None:
        super().__init__()
        self.network, self.normalise, self.size = network, normalise, size
        self.held: Examples | None = None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]:
        """The mean squared error of the target, and that of the source in its place, as they are normalised."""
        frames = torch.stack([example.pixels for example in batch["examples"]]).to(self.normalise.mean.device)
        source, target = (self.normalise(frames[:, k]) for k in (0, 1))
        drawn = self.network.rebuilt(source, target)  # type: ignore[operator]
        return {"loss": F.mse_loss(drawn.float(), target), "copied": F.mse_loss(source, target)}

    def evaluation(self) -> dict[str, float]:
        """As `judge`, of what was held back."""
        return evaluate(self, self.held)

    @torch.no_grad()
    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """pictures: (3, H, W) or, for the frames of a clip, (T, 3, H, W) uint8 each → keypoints, px."""
        found: dict[int, Prediction] = {}
        for rows in by_shape(pictures):
            x = filled(torch.stack([pictures[i] for i in rows]).to(self.normalise.mean.device))
            height, width = x.shape[-2:]
            lead, (high, wide) = x.shape[:-3], pictures[rows[0]].shape[-2:]
            seen = self.normalise(squeezed(x.reshape(-1, *x.shape[-3:]), self.size))
            said, strength = self.network(seen)
            at = (said.float() + 1) / 2 * said.new_tensor([width, height], dtype=torch.float32)
            at = torch.minimum(at, at.new_tensor([wide, high])).clamp(min=0)
            points = torch.cat([at, strength.float()[..., None]], 2)
            costs: list[tuple[float | None, float | None]] = [(None, None)] * len(rows)
            if len(lead) > 1 and lead[1] > 1:
                costs = self._costs(seen.view(*lead, *seen.shape[1:]))
            parts = points.view(*lead, *points.shape[1:]).cpu().numpy()
            for i, one, (rebuilt, copied) in zip(rows, parts, costs):
                found[i] = Prediction(keypoints=Pointed(one, rebuilt, copied))
        return [found[i] for i in range(len(pictures))]

    def _costs(self, clips: Tensor) -> list[tuple[float | None, float | None]]:
        """(B, T, 3, S, S) → of each, what drawing the last frame, and copying the first one, costs."""
        source, target = clips[:, 0], clips[:, -1]
        drawn = self.network.rebuilt(source, target).float()  # type: ignore[operator]
        both = [(one - target).square().mean((1, 2, 3)).tolist() for one in (drawn, source)]
        return list(zip(*both))

    def judge(self, answers: Iterable[Answer]) -> dict[str, float]:
        """`MSE` of drawing, and `MSE/copied` of copying; where it is known what moves, as `metrics.keypoints` says."""
        costs = list[tuple[float, float]]()

        def tracked() -> Iterator[Tracked]:
            for prediction, truth in answers:
                if (said := prediction.keypoints) is None:
                    continue
                if said.rebuilt is not None and said.copied is not None:
                    costs.append((said.rebuilt, said.copied))
                if (motion := truth.motion) and motion.hidden is not None and truth.masks is not None:
                    first, last = (said.points[frame, :, :2] for frame in (0, -1))
                    yield Tracked(first, last, motion.vectors, motion.known & ~motion.hidden, truth.masks)

        told = keypoints(tracked())
        return (dict(zip(("MSE", "MSE/copied"), np.array(costs).mean(0).tolist())) if costs else {}) | told
