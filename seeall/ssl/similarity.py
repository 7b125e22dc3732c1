"""Log-sum-exp over the similarities of all pairs of rows, in memory that grows with N and not with N squared.

The similarity matrix is symmetric and is only ever seen tile by tile: a tile above the diagonal is computed
once and serves both its rows and its columns. The forward pass keeps one number a row; the backward pass
computes the tiles again. With s_ij = z_i.z_j / T and g the incoming gradient,

    lse_i    = log sum_{j != i} exp s_ij
    dL/dz_i  = 1/T sum_j W_ij z_j,   W_ij = g_i exp(s_ij - lse_i) + g_j exp(s_ij - lse_j),   W_ii = 0

Where groups are given, only rows of other groups are summed over.

As |s_ij| <= 1/T for rows of length one, the exponentials need no shift unless T is very small: then
W_ij = exp(s_ij) (a_i + a_j) with a = g exp(-lse), one exponential for both terms. Below `1 / UNSHIFTED` the
usual running maximum keeps the sums finite, at the cost of a second exponential a tile.

Who takes part in a row's sum is decided in `_tiles` alone, by -inf in a tile, and both passes follow it. What they are
given is x = z / sqrt(T), so that x x' holds similarities; a temperature that is learnt gets its gradient from there.

Products are float32 or float64 as the rows are. On CUDA the process's own float32 precision applies: TF32
(`torch.set_float32_matmul_precision("high")`) moves a similarity by up to about 0.001 / T.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

UNSHIFTED = 50.0
"""Largest 1/T whose exponentials are taken as they are: exp(±50) times a loss scale is a normal float32."""
CPU_TILE, CUDA_TILE = 2048, 4096
"""Side of a tile in rows; two float32 tiles are 32 and 128 MB. On an idle CPU 512 is a tenth faster, as it fits
the L2 cache; with data workers on the same cores each of its many small steps waits for a thread to be run.
The CPU's was chosen by measurement, CUDA's was not."""


def similarity_logsumexp(
    z: Tensor,
    temperature: float | Tensor,
    *,
    groups: Tensor | None = None,
    tile: int | None = None,
    least: float = 1 / UNSHIFTED,
) -> Tensor:
    """log sum_{j != i} exp(z_i.z_j / T) for every row i; with groups, over the j of other groups alone.

    Memory beyond input, output and gradient: one copy of z and two tiles, while a pass runs.

    Args:
        z: (N, D) float32 or float64, rows of length at most 1.
        temperature: T, above 0; as a tensor, which may be learnt, not below `least`.
        groups: (N,) int64, or None.
        tile: side of a tile in rows; CPU_TILE or CUDA_TILE where left out.

    Returns: (N,), -inf where there is nothing to sum. It can be differentiated once; a second derivative raises
        RuntimeError.
    """
    tile = tile or (CPU_TILE if z.device.type == "cpu" else CUDA_TILE)
    bound = 1 / (least if isinstance(temperature, Tensor) else temperature)
    result: Tensor = _LogSumExp.apply(z / temperature**0.5, groups, bound, tile)
    return result


def memory_logsumexp(z: Tensor, temperature: float | Tensor, groups: Tensor, rows: Tensor, owners: Tensor) -> Tensor:
    """log sum_j exp(z_i.m_j / T) over the rows m (M, D) of other groups, those of m being `owners` (M,); (N,).

    The whole (N, M) matrix is held. -inf where there is nothing to sum, with a gradient of 0.
    """
    s = (z @ rows.T / temperature).masked_fill(groups[:, None] == owners, -math.inf)
    empty = (s == -math.inf).all(1)
    return s.masked_fill(empty[:, None], 0).logsumexp(1).masked_fill(empty, -math.inf)


def log_sum(a: Tensor, b: Tensor) -> Tensor:
    """log(exp a + exp b), with a gradient of 0 where both are -inf; torch's own is NaN there."""
    empty = (a == -math.inf) & (b == -math.inf)
    return torch.logaddexp(a.masked_fill(empty, 0), b.masked_fill(empty, 0)).masked_fill(empty, -math.inf)


def _tiles(x: Tensor, groups: Tensor | None, tile: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Tiles of x x' on and above the diagonal: rows, columns, the tile, and a scratch tile of the same shape.

    Entries that take no part in the sums, j = i or all of i's group, are -inf. The next tile overwrites the buffers.
    """
    n = len(x)
    buffers = x.new_empty(2, min(tile, n) ** 2)
    blocks = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    for k, rows in enumerate(blocks):
        for columns in blocks[k:]:
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            s, scratch = (b[: shape[0] * shape[1]].view(shape) for b in buffers)
            torch.mm(x[rows], x[columns].T, out=s)
            if groups is not None:
                s.masked_fill_(groups[rows, None] == groups[columns], -math.inf)
            elif rows == columns:
                s.fill_diagonal_(-math.inf)
            yield rows, columns, s, scratch


def _plain_sums(x: Tensor, groups: Tensor | None, tile: int) -> Tensor:
    """Row by row log-sum-exp for similarities whose exponentials fit the type."""
    total = x.new_zeros(len(x))
    for rows, columns, s, _ in _tiles(x, groups, tile):
        s.exp_()
        total[rows] += s.sum(1)
        if rows != columns:
            total[columns] += s.sum(0)
    return total.log_()


def _shifted_sums(x: Tensor, groups: Tensor | None, tile: int, bound: float) -> Tensor:
    """The same for any similarities not below -bound: sums of exp(s - peak), peak the largest s so far."""
    total = x.new_zeros(len(x))
    peak = torch.full_like(total, -bound)

    def add(block: slice, s: Tensor, scratch: Tensor) -> None:
        higher = torch.maximum(peak[block], s.amax(1))
        total[block] *= (peak[block] - higher).exp_()
        total[block] += torch.sub(s, higher[:, None], out=scratch).exp_().sum(1)
        peak[block] = higher

    for rows, columns, s, scratch in _tiles(x, groups, tile):
        add(rows, s, scratch)
        if rows != columns:
            add(columns, s.T, scratch.T)
    return total.log_().add_(peak)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: Tensor | None, bound: float, tile: int) -> Tensor:
        plain = bound <= UNSHIFTED
        lse = _plain_sums(x, groups, tile) if plain else _shifted_sums(x, groups, tile, bound)
        ctx.save_for_backward(x, groups, lse)
        ctx.plain, ctx.tile = plain, tile
        return lse

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        x, groups, lse = ctx.saved_tensors
        return _Gradient.apply(x, groups, lse, g, ctx.plain, ctx.tile), None, None, None


class _Gradient(torch.autograd.Function):
    """A node of its own, so that a second derivative raises; `once_differentiable` misses a constant g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: Tensor | None, lse: Tensor, g: Tensor, plain: bool, tile: int) -> Tensor:
        lse = lse.masked_fill(lse == -math.inf, 0)  # an empty sum has nothing to pass on, and -inf would make NaN
        a = g * torch.exp(-lse) if plain else g
        dx = torch.zeros_like(x)
        for rows, columns, s, scratch in _tiles(x, groups, tile):
            if plain:
                w = s.exp_().mul_(torch.add(a[rows, None], a[columns], out=scratch))
            else:
                w = torch.sub(s, lse[columns], out=scratch).exp_().mul_(g[columns])
                w += s.sub_(lse[rows, None]).exp_().mul_(g[rows, None])
            dx[rows].addmm_(w, x[columns])
            if rows != columns:
                dx[columns].addmm_(w.T, x[rows])
        return dx

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        raise RuntimeError("similarity_logsumexp can be differentiated once: it has no second derivative")
