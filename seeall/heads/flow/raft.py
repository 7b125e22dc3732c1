"""RAFT (Teed and Deng 2020, arXiv:2003.12039), torchvision's. It has encoders of its own and takes no backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_large, raft_small

from seeall.heads.about import About
from seeall.types import SeeallError

_GAMMA, _MOST = 0.8, 400.0
_MULTIPLE, _LEAST = 8, 128
_WEIGHTS = {"small": "C_T_V2", "large": "C_T_SKHT_V2"}


@final
class RAFT(nn.Module):
    """Frames (B, 3, H, W) each, normalised → flows from the first to the second, px, the last guess first.

    size: small or large · updates: times that the guess is corrected · published: begin with torchvision's weights

    Raises: SeeallError for published weights that are not there and cannot be fetched.
    """

    def __init__(
        self, about: About, *, size: Literal["small", "large"] = "small", updates: int = 12, published: bool = False
    ) -> None:
        super().__init__()
        self.preprocessing = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        self.updates = updates
        weights = _WEIGHTS[size] if published and not about.again else None
        try:
            self.network = (raft_small if size == "small" else raft_large)(weights=weights)
        except OSError as fault:
            raise SeeallError(f"published weights of raft_{size} cannot be fetched: {fault}") from None

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """(B, 2, H, W), after each update."""
        height, width = first.shape[-2:]
        below, right = (max(_LEAST, -(-side // _MULTIPLE) * _MULTIPLE) - side for side in (height, width))
        one, other = (F.pad(x, (0, right, 0, below), mode="replicate") for x in (first, second))
        guesses = self.network(one, other, num_flow_updates=self.updates)
        return [guess[..., :height, :width] for guess in reversed(guesses)]

    @staticmethod
    def cost(flows: Sequence[Tensor], true: Tensor, known: Tensor) -> Tensor:
        """Σᵢ γ^(n - i) · the mean absolute difference of guess i, where the flow is known and below 400 px."""
        counts = (known & (true.square().sum(1).sqrt() < _MOST))[:, None].to(true.dtype)
        total = true.new_zeros(())
        for k, flow in enumerate(flows):
            total = total + _GAMMA**k * ((flow - true).abs() * counts).sum() / (2 * counts.sum()).clamp(min=1)
        return total
