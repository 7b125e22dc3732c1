"""How FAISS works: with how many threads, and how many comparisons at a time.

Its threads wait for each other at the end of every step, and where other work keeps a core busy that takes a hundred
times as long as a small search. So what is small is done by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss as _faiss

faiss: Any = _faiss

_PROCESS = os.getpid()
"""A child forked from this process lacks the threads of its OpenMP, and would wait for them for ever."""
_SMALL = 1 << 19
"""Multiplications that one thread does before two could be woken and joined."""
_TOGETHER = 1 << 11
"""Numbers in all queries, sixteen of 128 dimensions, from which products of matrices compare them with many vectors
at a time. FAISS 1.15 itself begins at 128,000; up to there a query takes two to eight times as long."""


@contextmanager
def suited(multiplications: float) -> Iterator[None]:
    """Meanwhile this thread's calls use one thread for so little work, and as many as otherwise for more.

    The number is kept for each thread that calls. A forked child has one for good. What is done by products of
    matrices is one setting for all who use FAISS in this process.
    """
    if faiss.cvar.distance_compute_blas_threshold > _TOGETHER:
        faiss.cvar.distance_compute_blas_threshold = _TOGETHER
    if os.getpid() != _PROCESS:
        faiss.omp_set_num_threads(1)
    many = faiss.omp_get_max_threads()
    if multiplications > _SMALL or many == 1:
        yield
        return
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(many)
