"""`vectors/`: immutable segments of unit vectors and the ids they belong to, the source of truth.

A row's position is its number in the segments laid end to end. Positions keep their order for ever and change
only when `compact` drops rows; ids ascend with positions, so either is found from the other without a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, final

import faiss as _faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from seeall.index import durable
from seeall.index.manifest import Segment, damaged, unreadable
from seeall.index.threads import suited
from seeall.types import SeeallError

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

faiss: Any = _faiss  # its stubs lack what its Python layer adds

ROWS = 65_536
"""Most rows of one segment; at 512 dimensions, 128 MiB."""
_LARGE = float(np.finfo(np.float32).max)
_LOW, _SIGN = 0xFFFFFFFF, 0x7FFFFFFF
_SMALL = 1e-30
"""Lengths below this are not measured in float32, whose smallest numbers have few digits."""


def unit(vectors: ArrayLike, dim: int, names: Sequence[object] | None = None) -> Floats:
    """`vectors` (n, D) as float32 of length one; a single (D,) becomes (1, D).

    Raises: SeeallError for another shape, NaN, infinity or a vector of zeros, which has no direction.
    """
    given = np.atleast_2d(np.asarray(vectors))
    if given.ndim != 2 or given.shape[1] != dim:
        raise SeeallError(f"vectors of shape {given.shape} do not fit an index of {dim} dimensions")
    with np.errstate(over="ignore", under="ignore"):
        x = np.asarray(given, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
    odd = np.flatnonzero((lengths < _SMALL) | (lengths > _LARGE))
    if len(odd):  # too small or too large for float32, but not for what was given
        scaled = given[odd].astype(np.float64)
        largest = np.abs(scaled).max(1, keepdims=True)
        scaled /= np.where((largest > 0) & np.isfinite(largest), largest, 1)
        x = x.copy()
        x[odd], lengths[odd] = scaled, np.sqrt(np.einsum("nd,nd->n", scaled, scaled))
    for wrong, what in ((~np.isfinite(lengths), "NaN or infinity"), (lengths == 0, "zeros only")):
        if wrong.any():
            first = int(np.argmax(wrong))
            name = f"number {first}" if names is None or first >= len(names) else repr(names[first])
            raise SeeallError(f"{int(wrong.sum())} of {len(x)} vectors hold {what}, the first is {name}")
    normalised: Floats = x / lengths.astype(np.float32)[:, None]
    return normalised


def write(root: Path, number: int, ids: Ids, vectors: Floats) -> Segment:
    """Put one segment on disk: ids (n,) and unit vectors (n, D). Raises OSError."""
    plan = Segment(f"{number:06d}", len(ids), "", "")
    return Segment(
        plan.name,
        plan.rows,
        durable.write(root / plan.vectors_path, lambda file: np.save(file, vectors)),
        durable.write(root / plan.ids_path, lambda file: np.save(file, ids)),
    )


@final
class Stack:
    """Vectors in arrays laid end to end, a position for each. parts: (n, D) float32 each, mapped or in memory."""

    def __init__(self, parts: Sequence[Floats], dim: int) -> None:
        self.parts, self.dim = parts, dim
        sizes = [len(part) for part in parts]
        self.starts = np.cumsum([0, *sizes])
        kind = np.int16 if len(parts) < 1 << 15 else np.int32
        self._homes = np.append(np.repeat(np.arange(len(parts), dtype=kind), sizes), kind(-1))
        """The part of every position; its last number, which is that of -1, is none."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def gather(self, positions: Ids) -> Floats:
        """(n, D) the vectors at `positions` (n,)."""
        found = np.empty((len(positions), self.dim), np.float32)
        where = self._homes[positions]
        for number in np.unique(where):
            here = where == number
            found[here] = self.parts[number][positions[here] - self.starts[number]]
        return found

    def products(self, queries: Floats, positions: Ids) -> Floats:
        """(n, m) float32 cosines of unit `queries` (n, D) with the rows at `positions` (n, m), -inf where negative.

        Each is summed by itself, so it does not depend on what else is asked; none is above one.
        """
        n, m = positions.shape
        wanted = positions.ravel()
        found = np.full(n * m, -np.inf, np.float32)
        where = self._homes[wanted]
        order = np.argsort(where, kind="stable")
        ends = np.searchsorted(where[order], np.arange(-1, len(self.parts)), side="right")
        queries, rows = np.ascontiguousarray(queries), order // m
        with suited(n * m * self.dim):
            for part, start, first, last in zip(self.parts, self.starts, ends, ends[1:]):
                if first < last:
                    here, products = order[first:last], np.empty(last - first, np.float32)
                    given = (queries, rows[first:last], part, wanted[here] - start)
                    pointers = [faiss.swig_ptr(array) for array in (*given, products)]
                    faiss.pairwise_indexed_inner_product(self.dim, len(here), *pointers)
                    found[here] = products.clip(-1, 1)
        return found.reshape(n, m)

    def blocks(self, keep: Mask, first: int = 0) -> Iterator[tuple[Ids, Floats]]:
        """The rows that `keep` (N,) holds true, from position `first` on, a part at a time.

        Yields positions (n,) and vectors (n, D).
        """
        for start, part in zip(self.starts, self.parts):
            chosen = np.flatnonzero(keep[start : start + len(part)])
            chosen = chosen[chosen + start >= first]
            if len(chosen) == len(part):
                yield chosen + start, part
            elif len(chosen):
                yield chosen + start, part[chosen]


def ordered(places: Ids, scores: Floats, k: int) -> tuple[Ids, Floats]:
    """The k best of `places` (n, m) by `scores` (n, m), equal ones by place; -1 and -inf, what was not found, last.

    A score's bits, turned so that they ascend as it falls, and the place below them are one number to sort.

    >>> ordered(np.array([[7, 3, -1, 5]]), np.array([[0.5, 0.5, -np.inf, 0.75]], np.float32), 3)
    (array([[5, 3, 7]]), array([[0.75, 0.5 , 0.5 ]], dtype=float32))
    """
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # adding 0 makes -0 the same as 0
    keys = (-np.where(bits < 0, bits ^ _SIGN, bits) << 32) | (places & _LOW)
    keys.sort(axis=1)
    low = keys[:, :k] & _LOW
    best = -(keys[:, :k] >> 32)
    falling: Floats = np.where(best < 0, best ^ _SIGN, best).astype(np.int32).view(np.float32)
    found: Ids = np.where(low == _LOW, -1, low)
    return found, falling


@final
class Living:
    """Those rows of a stack that `alive` (N,) holds true: what a structure is built from."""

    def __init__(self, stack: Stack, alive: Mask) -> None:
        self._stack, self._alive = stack, alive
        self.dim, self.gather, self.products = stack.dim, stack.gather, stack.products

    def __len__(self) -> int:
        return int(self._alive.sum())

    def blocks(self) -> Iterator[tuple[Ids, Floats]]:
        """Positions (n,), ascending, with vectors (n, D)."""
        return self._stack.blocks(self._alive)


@final
class Rows:
    """The segments of one generation, mapped into memory: no vector is read before it is asked for.

    ids: (N,) int64, the item of every position; stack: its vectors.
    Raises: SeeallError where a segment is missing or is not of the size that was written.
    """

    def __init__(self, root: Path, segments: Iterable[Segment], dim: int) -> None:
        self.segments = tuple(segments)
        parts: list[Floats] = []
        ids: list[Ids] = [np.empty(0, np.int64)]
        for segment in self.segments:
            ids.append(_load(root, segment.ids_path, (segment.rows,), np.int64, None))
            parts.append(_load(root, segment.vectors_path, (segment.rows, dim), np.float32, "r"))
        self.ids: Ids = np.concatenate(ids)
        self.stack = Stack(parts, dim)
        self.gather, self.blocks, self.products = self.stack.gather, self.stack.blocks, self.stack.products

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: Ids) -> Ids:
        """Positions of `ids` (n,), which all have one."""
        return np.searchsorted(self.ids, ids)

    def segmented(self) -> Iterator[tuple[Segment, Ids, Floats]]:
        """Every segment with its ids (n,) and vectors (n, D)."""
        for segment, start, part in zip(self.segments, self.stack.starts, self.stack.parts):
            yield segment, self.ids[start : start + len(part)], part


def _load(root: Path, name: str, shape: tuple[int, ...], kind: type, mode: Literal["r"] | None) -> Any:
    try:
        array = np.load(root / name, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise damaged(root, f"{name} is missing") from None
    except OSError as error:
        raise unreadable(root, name, error) from None
    except (ValueError, EOFError) as error:
        raise damaged(root, f"{name}: {error}") from None
    if array.shape != shape or array.dtype != kind:
        raise damaged(root, f"{name} holds {array.dtype} {array.shape}, not {np.dtype(kind)} {shape}")
    return array
