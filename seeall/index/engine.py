"""Searching a FAISS structure on a CPU or a GPU.

Knows vectors and positions only. Every structure answers inner products of unit vectors, which are cosines. A large
file is mapped into memory, not read: it is open at once, and what is never looked at is never loaded.

FAISS's own search parameters are passed with each call and never stored, so threads do not disturb each other. Its
GPU structures ignore selectors without a word: there we ask for more and filter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, final

import faiss as _faiss
import numpy as np

from seeall.console import log
from seeall.index.gpus import Copies, Gpu, place
from seeall.index.plan import LINKS
from seeall.index.segments import Floats, Ids, Mask
from seeall.index.structures import Effort, answer, proposals
from seeall.index.threads import suited
from seeall.types import SeeallError

faiss: Any = _faiss  # its stubs lack the conveniences that its Python layer adds

Blocks = Callable[[], Iterable[tuple[Ids, Floats]]]
"""Gives all vectors, as often as it is called: positions (n,), ascending, with unit vectors (n, D)."""

_GPU_MOST = 2048
"""Most neighbours and most probes that a GPU index gives."""
_GPU_SPARE = 64
"""Beside twice as many neighbours as wanted, how many more are asked of a GPU where some are removed."""
_MAPPED = 32 << 20
"""Bytes from which a file is mapped and not read: walking a small graph takes a tenth longer when it is mapped."""


def save(index: Any, file: BinaryIO) -> None:
    """Write `index` into an open file. Raises OSError."""
    try:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    except RuntimeError as error:
        raise OSError(f"FAISS could not write its index: {error}") from error


def load(file: BinaryIO) -> Any:
    """An index from an open file; a large one is mapped into memory where the system lets it. Raises OSError."""
    file.seek(0)
    held = Path(f"/proc/self/fd/{file.fileno()}")  # the file may have lost its name since it was opened
    try:
        if os.fstat(file.fileno()).st_size > _MAPPED and held.exists():
            return faiss.read_index(str(held), faiss.IO_FLAG_MMAP_IFC)
        return faiss.read_index(faiss.PyCallbackIOReader(file.read))
    except RuntimeError as error:
        raise OSError("FAISS cannot read its index") from error


@final
class Engine:
    """A FAISS index ready to search, on a GPU where there is one and it may be used.

    gpu: "auto" uses a GPU if it can, "off" never, "on" must: SeeallError where it cannot.
    """

    def __init__(
        self, index: Any, *, positions: Ids | None = None, search: Mapping[str, float] | None = None, gpu: Gpu
    ) -> None:
        self._index, self._positions, self._effort = index, positions, dict(search or {})
        self._gpus, self._must = place(index, gpu), gpu == "on"
        self._kept: _Those | None = None
        self._owner: Any = None

    @classmethod
    def exact(cls, blocks: Blocks, dim: int, gpu: Gpu) -> Engine:
        """Comparing with all of `blocks`, which are copied into memory."""
        index = faiss.IndexFlatIP(dim)
        positions: list[Ids] = [np.empty(0, np.int64)]
        for where, vectors in blocks():
            index.add(np.ascontiguousarray(vectors))
            positions.append(where)
        return cls(index, positions=np.concatenate(positions), gpu=gpu)

    @classmethod
    def trained(cls, file: BinaryIO, search: Mapping[str, float], gpu: Gpu) -> Engine:
        """A structure from its file, with the effort it takes. Raises OSError where it is damaged."""
        index = load(file)
        if not isinstance(index, faiss.IndexIDMap):
            return cls(index, search=search, gpu=gpu)
        inner, number = faiss.downcast_index(index.index), index.id_map.size()  # GPUs take no map
        positions = faiss.rev_swig_ptr(index.id_map.data(), number) if number else np.empty(0, np.int64)
        engine = cls(inner, positions=positions, search=search, gpu=gpu)
        engine._owner = index
        return engine

    @property
    def count(self) -> int:
        """Vectors in the index."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return int(self._index.d)

    @property
    def precise(self) -> bool:
        """Whether FAISS's own scores are those of whole vectors."""
        return "factor" not in self._effort

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU does the work."""
        return self._gpus is not None

    @property
    def inverted(self) -> tuple[Any, int] | None:
        """The inverted file on the CPU, and how many of its cells are read; None for any other structure."""
        return (self._index, int(self._effort["nprobe"])) if "nprobe" in self._effort else None

    @property
    def walks(self) -> bool:
        """Whether it is a graph, which leads to what is near and not to what fulfils a condition."""
        return "efSearch" in self._effort

    def proposals(self, k: int, spare: int) -> int:
        """How many to propose where k are wanted: `spare` more, or a few times as many where they are codes."""
        return max(k + spare, proposals(k, self._effort))

    def search(self, queries: Floats, k: int, alive: Mask | None = None, spare: int = 0) -> tuple[Ids, Floats]:
        """The k vectors closest to each of `queries` (n, D), as the structure sees them.

        alive: (N,) bool over all positions; those that are False are not found. spare: see `proposals`.

        Returns: positions (n, m), -1 where there are no more, and FAISS's own scores (n, m), best first.
        """
        those = None if alive is None else self._those(alive)
        number = self._index.ntotal if those is None else those.number
        most = min(self.proposals(k, spare), number)
        if not most:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        found = self._search_gpus(self._gpus, queries, most, those) if self._gpus else None
        places, scores = found or self._search_cpu(queries, most, those, self._effort)
        if self._positions is not None:
            places = np.where(places < 0, -1, self._positions[places])
        return places, scores

    def _those(self, alive: Mask) -> _Those:
        """What FAISS has to know of a mask, kept as long as the same one is asked for."""
        kept = self._kept
        if kept is None or kept.alive is not alive:
            here = alive if self._positions is None else alive[self._positions]
            selector = faiss.IDSelectorBitmap(np.packbits(here, bitorder="little"))
            self._kept = kept = _Those(alive, here, int(here.sum()), selector)
        return kept

    def _search_cpu(self, queries: Floats, k: int, those: _Those | None, effort: Effort) -> tuple[Ids, Floats]:
        """Search; where so much effort finds fewer than k, take twice as much."""
        with suited(len(queries) * self.dim * self._compared(effort)):
            scores, places = answer(self._index, queries, k, effort, those and those.selector)
        short = np.flatnonzero((places < 0).any(1))
        more = self._more(effort)
        if len(short) and more != effort:
            places[short], scores[short] = self._search_cpu(queries[short], k, those, more)
        return places, scores

    def _compared(self, effort: Effort) -> float:
        """About how many vectors a query is compared with."""
        if "nprobe" in effort:
            cells = self._index.nlist
            return float(cells + effort["nprobe"] * self._index.ntotal / cells)
        return LINKS * effort["efSearch"] if "efSearch" in effort else float(self._index.ntotal)

    def _more(self, effort: Effort) -> Effort:
        """Twice the effort, as far as there is more to look at."""
        most = {"nprobe": getattr(self._index, "nlist", 1), "efSearch": self._index.ntotal}
        return {name: min(2 * value, most[name]) if name in most else value for name, value in effort.items()}

    def _search_gpus(self, gpus: Copies, queries: Floats, k: int, those: _Those | None) -> tuple[Ids, Floats] | None:
        """The same on a GPU, which knows no selectors: what is left of more than k, and short rows from the CPU.

        None where it cannot; SeeallError where it must.
        """
        nprobe = int(self._effort.get("nprobe", 0))
        if max(k, nprobe) > _GPU_MOST:
            return None
        gone = 0 if those is None else self._index.ntotal - those.number
        asked = min(k + gone, 2 * k + _GPU_SPARE, _GPU_MOST, self._index.ntotal)
        params = faiss.SearchParametersIVF(nprobe=nprobe) if nprobe else None
        try:
            scores, places = gpus.search(queries, asked, params)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            if self._must:
                raise SeeallError(f"the GPU cannot search ({reason}): search with gpu='auto' or gpu='off'") from error
            if self._gpus:
                log.warning("searching on the CPU from now on, since the GPU cannot: %s", reason)
            self._gpus = None
            return None
        good = places >= 0
        if those is not None:
            good &= those.here[places]
        order = np.argsort(~good, axis=1, kind="stable")[:, :k]
        short = np.flatnonzero(good.sum(1) < k)
        places, scores = np.take_along_axis(np.where(good, places, -1), order, 1), np.take_along_axis(scores, order, 1)
        if len(short):
            places[short], scores[short] = self._search_cpu(queries[short], k, those, self._effort)
        return places, scores


class _Those(NamedTuple):
    """Of a mask over positions: itself, that over the numbers in FAISS's index, how many are true, FAISS's selector."""

    alive: Mask
    here: Mask
    number: int
    selector: Any
