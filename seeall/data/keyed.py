"""Randomness that is a function of its key: (seed, epoch, index, …) and nothing else.

No generator has a state that a worker, a rank or a resumed run could get wrong: the n-th number of a key is
found by hashing, so it is the same whoever asks and in whatever order. The hash is SplitMix64's finaliser
(Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), folded over the parts of the
key. int64 arithmetic wraps around in torch on every device, so CPU and GPU agree bit for bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX2 = 0x94D049BB133111EB - (1 << 64)


def _shift(x: Tensor, n: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def bits(*parts: int | Tensor) -> Tensor:
    """64 random bits for a key whose parts are whole numbers or int64 tensors that broadcast together."""
    device = next((p.device for p in parts if isinstance(p, Tensor)), torch.device("cpu"))
    x = torch.zeros((), dtype=torch.int64, device=device)
    for part in parts:
        value = part if isinstance(part, Tensor) else torch.tensor(part, dtype=torch.int64, device=device)
        x = _mix((x ^ value) * _GOLDEN + _GOLDEN)
    return x


def uniform(*parts: int | Tensor, n: int) -> Tensor:
    """(…, n) float32 in [0, 1), 24 random bits each.

    >>> uniform(0, 1, torch.tensor([7, 8]), n=3).shape
    torch.Size([2, 3])
    """
    base = bits(*parts)
    counter = torch.arange(n, device=base.device)
    return _shift(bits(base[..., None], counter), 40).to(torch.float32) * 2.0**-24


def normal(*parts: int | Tensor, n: int) -> Tensor:
    """(…, n) float32, standard normal (Box and Muller 1958)."""
    u = uniform(*parts, n=2 * n)
    radius = torch.sqrt(-2 * torch.log1p(-u[..., :n]))
    return radius * torch.cos(2 * math.pi * u[..., n:])


def seed(*parts: int) -> int:
    """One non-negative seed for a library that has a generator of its own."""
    return int(bits(*parts)) & ((1 << 63) - 1)


def permutation(n: int, *parts: int) -> Tensor:
    """(n,) int64: the numbers 0 to n - 1 in an order that is a function of the key."""
    return torch.argsort(bits(*parts, torch.arange(n)), stable=True)
