"""How alike the places of one map and the places near by of another are (FlowNetC, arXiv:1504.06852, equation 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def correlate(first: Tensor, second: Tensor, reach: int, step: int) -> Tensor:
    """c(x, o) = ⟨first(x), second(x + o)⟩ / C for offsets o of -reach to reach in both directions, every `step`-th.

    Patches have one position, as in the paper; beyond the edge there are zeros.

    first, second: (B, C, H, W)
    Returns: (B, (2 ⌊reach / step⌋ + 1)², H, W), offsets row by row from the top left.
    """
    far = reach // step
    edge = far * step
    padded = F.pad(second, (edge, edge, edge, edge))
    height, width = first.shape[-2:]
    scaled = first / first.shape[1]
    alike = [
        (scaled * padded[..., y : y + height, x : x + width]).sum(1)
        for y in range(0, 2 * edge + 1, step)
        for x in range(0, 2 * edge + 1, step)
    ]
    return torch.stack(alike, 1)
