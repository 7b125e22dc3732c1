"""Saying where every pixel goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from seeall.data.annotations.examples import Examples
from seeall.heads.feed import HeadBatch
from seeall.heads.flow.refine import enlarged
from seeall.heads.prediction import Answer, Prediction, by_shape, evaluate
from seeall.metrics.flow import flow
from seeall.training.embed import Normalise


@final
class Flow(nn.Module):
    """The head of `--task flow`.

    network: frames (B, 3, H, W) twice, normalised → flows, px, finest or last first; its `cost` says what they cost
    size: side of the windows that are learnt from, px
    """

    def __init__(self, network: nn.Module, normalise: Normalise, size: int) -> None:
        super().__init__()
        self.network, self.normalise, self.size = network, normalise, size
        self.held: Examples | None = None

    def training_step(self, batch: HeadBatch) -> dict[str, Tensor]:
        """The loss, and the end-point error of the batch, px."""
        device = self.normalise.mean.device
        frames = torch.stack([example.pixels for example in batch["examples"]]).to(device)
        motions = [example.truth.motion for example in batch["examples"]]
        vectors = np.stack([motion.vectors for motion in motions if motion is not None])
        true = torch.from_numpy(vectors).permute(0, 3, 1, 2).to(device)
        known = torch.from_numpy(np.stack([motion.known for motion in motions if motion is not None])).to(device)
        flows = self.network(self.normalise(frames[:, 0]), self.normalise(frames[:, 1]))
        with torch.no_grad():
            errors = (enlarged(flows[0].float(), true.shape[2:]) - true).square().sum(1).sqrt()
            epe = (errors * known).sum() / known.sum().clamp(min=1)
        return {"loss": self.network.cost([f.float() for f in flows], true, known), "EPE": epe}  # type: ignore[operator]

    def evaluation(self) -> dict[str, float]:
        """As `judge`, of the pairs held back."""
        return evaluate(self, self.held)

    @torch.no_grad()
    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """pictures: (2, 3, H, W) uint8 each → flow (H, W, 2), px, looked at as large as they are."""
        found: dict[int, Prediction] = {}
        for rows in by_shape(pictures):
            frames = torch.stack([pictures[i] for i in rows]).to(self.normalise.mean.device)
            said = self.network(self.normalise(frames[:, 0]), self.normalise(frames[:, 1]))[0].float()
            vectors = enlarged(said, frames.shape[-2:]).permute(0, 2, 3, 1).cpu().numpy()
            for i, one in zip(rows, vectors):
                found[i] = Prediction(flow=np.ascontiguousarray(one))
        return [found[i] for i in range(len(pictures))]

    def judge(self, answers: Iterable[Answer]) -> dict[str, float]:
        """`EPE`, `EPE/0-10` and so on, `Fl`, and `zero`, px and percent; see `metrics.flow`."""
        return flow(
            (said.flow, truth.motion.vectors, truth.motion.known, truth.motion.hidden)
            for said, truth in answers
            if said.flow is not None and truth.motion is not None
        )
