"""`vectors/`: immutable segments of unit vectors and the ids they belong to, the source of truth.

A row's position is its number in the segments laid end to end. Positions keep their order for ever and change
only when `compact` drops rows; ids ascend with positions, so either is found from the other without a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seeall.index import durable
from seeall.index.manifest import Segment, damaged, unreadable
from seeall.types import SeeallError

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

ROWS = 65_536
"""Most rows of one segment; at 512 dimensions, 128 MiB."""
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
    odd = np.flatnonzero((lengths < _SMALL) | np.isinf(lengths))
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
    normalised: Floats = (x / lengths[:, None]).astype(np.float32)
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
class Rows:
    """The segments of one generation, mapped into memory: no vector is read before it is asked for.

    ids: (N,) int64, the item of every position.
    Raises: SeeallError where a segment is missing or is not of the size that was written.
    """

    def __init__(self, root: Path, segments: Iterable[Segment], dim: int) -> None:
        self.segments = tuple(segments)
        self._dim = dim
        self._blocks: list[Floats] = []
        ids: list[Ids] = [np.empty(0, np.int64)]
        for segment in self.segments:
            ids.append(_load(root, segment.ids_path, (segment.rows,), np.int64, None))
            self._blocks.append(_load(root, segment.vectors_path, (segment.rows, dim), np.float32, "r"))
        self.ids: Ids = np.concatenate(ids)
        self._starts = np.cumsum([0, *(len(block) for block in self._blocks)])

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: Ids) -> Ids:
        """Positions of `ids` (n,), which all have one."""
        return np.searchsorted(self.ids, ids)

    def gather(self, positions: Ids) -> Floats:
        """(n, D) the vectors at `positions` (n,)."""
        found = np.empty((len(positions), self._dim), np.float32)
        where = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(where):
            here = where == number
            found[here] = self._blocks[number][positions[here] - self._starts[number]]
        return found

    def parts(self) -> Iterator[tuple[Segment, Ids, Floats]]:
        """Every segment with its ids (n,) and vectors (n, D)."""
        for segment, start, block in zip(self.segments, self._starts, self._blocks):
            yield segment, self.ids[start : start + len(block)], block

    def blocks(self, keep: Mask, first: int = 0) -> Iterator[tuple[Ids, Floats]]:
        """The rows that `keep` (N,) holds true, from position `first` on, a segment at a time.

        Yields positions (n,) and vectors (n, D).
        """
        for start, block in zip(self._starts, self._blocks):
            chosen = np.flatnonzero(keep[start : start + len(block)])
            chosen = chosen[chosen + start >= first]
            if len(chosen) == len(block):
                yield chosen + start, block
            elif len(chosen):
                yield chosen + start, block[chosen]


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
