"""A FAISS structure on the GPUs of this machine.

Each GPU holds all of it, and takes its share of the queries (replicas); where one has no room for that, each holds a
part, and answers every query (shards). FAISS's own replicas take no search parameters with a call, so ours are a thread
for each GPU. Exact search and inverted files of whole vectors go there; graphs and codes stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Literal, final

import faiss as _faiss
import numpy as np

from seeall.console import log
from seeall.index.segments import Floats, Ids
from seeall.types import SeeallError

faiss: Any = _faiss

Gpu = Literal["auto", "on", "off"]

_MEMORY = 256 << 20
"""Bytes of scratch memory on each GPU, where FAISS would take 1.5 GiB."""


@final
class Copies:
    """Structures on GPUs, which answer alike; `kept` has to live as long: their scratch memory."""

    def __init__(self, copies: Sequence[Any], kept: Any = None) -> None:
        self._copies, self._kept, self._lock = copies, kept, Lock()
        self._pool = ThreadPoolExecutor(len(copies)) if len(copies) > 1 else None

    def search(self, queries: Floats, k: int, params: Any = None) -> tuple[Floats, Ids]:
        """FAISS's own scores and positions, (n, k) each, for `queries` (n, D). Raises RuntimeError."""
        with self._lock:
            if self._pool is None or len(queries) < len(self._copies):
                scores, places = self._copies[0].search(queries, k, params=params)
                return scores, places
            shares = np.array_split(queries, len(self._copies))
            asked = [
                self._pool.submit(copy.search, share, k, params=params) for copy, share in zip(self._copies, shares)
            ]
            found = [answer.result() for answer in asked]
        return np.concatenate([scores for scores, _ in found]), np.concatenate([places for _, places in found])


def place(index: Any, gpu: Gpu) -> Copies | None:
    """`index` on the GPUs there are; None where there are none or it does not go there, and need not.

    Raises: SeeallError where it must (`gpu` is "on") and does not.
    """
    if gpu == "off" or not index.ntotal:
        return None
    count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if not count:
        if gpu == "on":
            raise SeeallError("there is no GPU that FAISS can use: search with gpu='auto' or gpu='off'")
        return None
    if not isinstance(index, (faiss.IndexFlatIP, faiss.IndexIVFFlat)):
        if gpu == "on":
            raise SeeallError(
                "FAISS searches this structure on a CPU alone: `ssl index tune` the index to exact or ivf,"
                " or search with gpu='auto' or gpu='off'"
            )
        return None
    try:
        return _placed(index, count)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if gpu == "on":
            raise SeeallError(f"the index does not go onto the GPU: {reason}") from error
        log.warning("searching on the CPU, since the index does not go onto the GPU: %s", reason)
        return None


def _placed(index: Any, count: int) -> Copies:
    resources = [faiss.StandardGpuResources() for _ in range(count)]
    for each in resources:
        each.setTempMemory(_MEMORY)
    try:
        return Copies([faiss.index_cpu_to_gpu(each, n, index) for n, each in enumerate(resources)], resources)
    except RuntimeError:
        if count == 1:
            raise
    log.info("no GPU has room for the whole index: each of %d holds a part", count)
    options = faiss.GpuMultipleClonerOptions()
    options.shard, options.shard_type = True, 1  # of an inverted file, every `count`-th vector
    return Copies([faiss.index_cpu_to_gpu_multiple_py(resources, index, options, list(range(count)))], resources)
