"""FAISS: which index, how it is trained and tuned, and searching it on a CPU or a GPU.

Knows vectors and positions only. Every index answers inner products of unit vectors, which are cosines. A
small collection is searched exactly; a large one through an inverted file (Sivic and Zisserman 2003; Johnson,
Douze and Jégou 2017) whose vectors stay whole: nlist = 4 sqrt(n) cells, of which the nprobe nearest to a query
are read. nprobe is not guessed: it is the smallest that reaches RECALL on the collection itself.

FAISS's own search parameters are passed with each call and never stored, so threads do not disturb each
other. Its GPU indexes ignore selectors without a word: there we ask for more and filter.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, BinaryIO, Literal, NamedTuple, final

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from seeall.console import log
from seeall.types import SeeallError

faiss: Any = _faiss  # its stubs lack the conveniences that its Python layer adds

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Blocks = Callable[[], Iterable[tuple[Ids, Floats]]]
"""Gives all vectors, as often as it is called: positions (n,), ascending, with unit vectors (n, D)."""
Gpu = Literal["auto", "on", "off"]

IVF_FROM = 100_000
"""How many vectors make an inverted file worth its training."""
RECALL = 0.99
_NEIGHBOURS = 10
_QUERIES = 256
"""Vectors that nprobe is tuned with."""
_TRAIN = 64
"""Vectors per cell that the cells are trained on."""
_ITERATIONS = 10
_SEED = 1234
_GPU_MEMORY = 256 << 20
"""Bytes of scratch memory on a GPU, where FAISS would take 1.5 GiB."""
_GPU_MOST = 2048
"""Most neighbours and most probes that a GPU index gives."""
_GPU_SPARE = 64
"""Beside twice as many neighbours as wanted, how many more are asked of a GPU where some are removed."""
_PROCESS = os.getpid()
"""A child forked from this process lacks the threads of its OpenMP, and would wait for them for ever."""
_EQUAL = 1e-6
"""Scores this close are a tie as far as recall is concerned."""


class Tuning(NamedTuple):
    """What training settled: cells, cells read per query, and the recall@10 measured with that."""

    nlist: int
    nprobe: int
    recall: float


def choose(count: int, ivf_from: int = IVF_FROM) -> Literal["flat", "ivf"]:
    """The kind of index for `count` vectors.

    >>> choose(99_999), choose(100_000)
    ('flat', 'ivf')
    """
    return "flat" if count < max(ivf_from, 1) else "ivf"


def train(blocks: Blocks, count: int, dim: int) -> tuple[Any, Tuning]:
    """An inverted file over `count` vectors whose ids are their positions, and its tuning."""
    _mind_the_fork()
    nlist = max(1, min(round(4 * math.sqrt(count)), count // 39))
    log.info("training a FAISS index of %d cells over %d vectors", nlist, count)
    sample = _sample(blocks, count, nlist * _TRAIN)
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(quantizer, dim, nlist, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.spherical = _ITERATIONS, _SEED, True
    index.train(sample)
    for positions, vectors in blocks():
        index.add_with_ids(np.ascontiguousarray(vectors), positions)
    queries = _sample(blocks, count, _QUERIES)
    nprobe, recall = _tune(index, queries, _kth_best(blocks, queries))
    log.info("%d of %d cells are read per query: recall@%d %.4f", nprobe, nlist, _NEIGHBOURS, recall)
    return index, Tuning(nlist, nprobe, recall)


def save(index: Any, file: BinaryIO) -> None:
    """Write `index` into an open file. Raises OSError."""
    try:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    except RuntimeError as error:
        raise OSError(f"FAISS could not write its index: {error}") from error


def load(file: BinaryIO) -> Any:
    """Read an index from an open file. Raises OSError where it is not one that `train` made."""
    file.seek(0)
    try:
        index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
    except RuntimeError as error:
        raise OSError("FAISS cannot read its index") from error
    if not isinstance(index, faiss.IndexIVFFlat):
        raise OSError("it is no inverted file")
    return index


@final
class Engine:
    """A FAISS index ready to search, on a GPU where there is one and it may be used.

    gpu: "auto" uses a GPU if it can, "off" never, "on" must: SeeallError where it cannot.
    """

    def __init__(self, index: Any, *, positions: Ids | None = None, nprobe: int | None = None, gpu: Gpu) -> None:
        self._index, self._positions, self._nprobe = index, positions, nprobe
        self._gpu, self._must = _to_gpu(index, gpu), gpu == "on"
        self._gpu_lock = Lock()

    @classmethod
    def flat(cls, blocks: Blocks, dim: int, gpu: Gpu) -> Engine:
        """Exact search over all of `blocks`."""
        index = faiss.IndexFlatIP(dim)
        positions: list[Ids] = [np.empty(0, np.int64)]
        for where, vectors in blocks():
            index.add(np.ascontiguousarray(vectors))
            positions.append(where)
        return cls(index, positions=np.concatenate(positions), gpu=gpu)

    @classmethod
    def ivf(cls, file: BinaryIO, nprobe: int, gpu: Gpu) -> Engine:
        """Search in a trained file. Raises OSError where it is damaged."""
        return cls(load(file), nprobe=nprobe, gpu=gpu)

    @property
    def count(self) -> int:
        """Vectors in the index."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return int(self._index.d)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU does the work."""
        return self._gpu is not None

    @property
    def inverted(self) -> tuple[Any, int] | None:
        """The inverted file on the CPU, and how many of its cells are read; None for a flat index."""
        return None if self._nprobe is None else (self._index, self._nprobe)

    def search(self, queries: Floats, k: int, alive: Mask | None = None) -> tuple[Ids, Floats]:
        """The k vectors closest to each of `queries` (n, D).

        alive: (N,) bool over all positions; those that are False are not found.

        Returns: positions (n, k), -1 where there are no more, and scores (n, k), best first.
        """
        _mind_the_fork()
        if alive is not None and self._positions is not None:
            alive = alive[self._positions]
        k = min(k, self._index.ntotal if alive is None else int(alive.sum()))
        if not k:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        found = self._search_gpu(self._gpu, queries, k, alive) if self._gpu else None
        places, scores = found or self._search_cpu(queries, k, alive, self._nprobe)
        if self._positions is not None:
            places = np.where(places < 0, -1, self._positions[places])
        return places, scores

    def _search_cpu(self, queries: Floats, k: int, alive: Mask | None, nprobe: int | None) -> tuple[Ids, Floats]:
        """Search; where the cells read hold fewer than k, read twice as many."""
        chosen = None if alive is None else faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
        if nprobe is None:
            params = None if chosen is None else faiss.SearchParameters(sel=chosen)
            scores, places = self._index.search(queries, k, params=params)
            return places, scores
        scores, places = self._index.search(queries, k, params=faiss.SearchParametersIVF(nprobe=nprobe, sel=chosen))
        short = np.flatnonzero((places < 0).any(1))
        if len(short) and nprobe < self._index.nlist:
            more = self._search_cpu(queries[short], k, alive, min(2 * nprobe, self._index.nlist))
            places[short], scores[short] = more
        return places, scores

    def _search_gpu(self, gpu: _OnGpu, queries: Floats, k: int, alive: Mask | None) -> tuple[Ids, Floats] | None:
        """The same on a GPU, which knows no selectors: what is left of more than k, and short rows from the CPU.

        None where it cannot; SeeallError where it must.
        """
        if max(k, self._nprobe or 0) > _GPU_MOST:
            return None
        gone = 0 if alive is None else self._index.ntotal - int(alive.sum())
        asked = min(k + gone, 2 * k + _GPU_SPARE, _GPU_MOST)
        params = faiss.SearchParametersIVF(nprobe=self._nprobe) if self._nprobe else None
        try:
            with self._gpu_lock:
                scores, places = gpu.index.search(queries, asked, params=params)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            if self._must:
                raise SeeallError(f"the GPU cannot search ({reason}): search with gpu='auto' or gpu='off'") from error
            if self._gpu:
                log.warning("searching on the CPU from now on, since the GPU cannot: %s", reason)
            self._gpu = None
            return None
        good = places >= 0
        if alive is not None:
            good &= alive[places]
        order = np.argsort(~good, axis=1, kind="stable")[:, :k]
        short = np.flatnonzero(good.sum(1) < k)
        places, scores = np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)
        if len(short):
            places[short], scores[short] = self._search_cpu(queries[short], k, alive, self._nprobe)
        return places, scores


class _OnGpu(NamedTuple):
    """A copy on the GPU, and the scratch memory that has to live as long."""

    index: Any
    resources: Any


def _to_gpu(index: Any, gpu: Gpu) -> _OnGpu | None:
    if gpu == "off" or not index.ntotal:
        return None
    count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if not count:
        if gpu == "on":
            raise SeeallError("there is no GPU that FAISS can use: search with gpu='auto' or gpu='off'")
        return None
    try:
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(_GPU_MEMORY)
        return _OnGpu(faiss.index_cpu_to_gpu(resources, 0, index), resources)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if gpu == "on":
            raise SeeallError(f"the index does not go onto the GPU: {reason}") from error
        log.warning("searching on the CPU, since the index does not go onto the GPU: %s", reason)
        return None


def _mind_the_fork() -> None:
    """One thread in a forked child; the number is kept for each thread, so it is set at every call."""
    if os.getpid() != _PROCESS:
        faiss.omp_set_num_threads(1)


def _sample(blocks: Blocks, count: int, most: int) -> Floats:
    """At most `most` of the `count` vectors, the same ones each time."""
    chosen = np.sort(np.random.default_rng(_SEED).choice(count, min(most, count), replace=False))
    parts, start = [], 0
    for _, vectors in blocks():
        here = chosen[(chosen >= start) & (chosen < start + len(vectors))] - start
        parts.append(vectors[here])
        start += len(vectors)
    return np.concatenate(parts)


def _kth_best(blocks: Blocks, queries: Floats) -> Floats:
    """(n,) the score of each query's last true neighbour by exact search, the query itself not counted."""
    best = np.full((len(queries), 0), 0, np.float32)
    for _, vectors in blocks():
        most = min(_NEIGHBOURS + 1, len(vectors))
        scores, _ = faiss.knn(queries, np.ascontiguousarray(vectors), most, metric=faiss.METRIC_INNER_PRODUCT)
        best = -np.sort(-np.concatenate([best, scores], 1), axis=1)[:, : _NEIGHBOURS + 1]
    return best[:, -1]


def _tune(index: Any, queries: Floats, wanted: Floats) -> tuple[int, float]:
    """The smallest nprobe, by bisection, whose recall@10 is RECALL, and that recall."""

    def recall(nprobe: int) -> float:
        params = faiss.SearchParametersIVF(nprobe=nprobe)
        scores, _ = index.search(queries, min(_NEIGHBOURS + 1, index.ntotal), params=params)
        # The query finds itself: it is in the collection, and counting it would flatter the figure.
        hits = (scores >= wanted[:, None] - _EQUAL).sum(1) - 1
        return float(hits.mean() / max(scores.shape[1] - 1, 1))

    low, high = 1, index.nlist
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= RECALL else (middle + 1, high)
    return low, recall(low)
