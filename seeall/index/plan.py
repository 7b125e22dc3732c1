"""What an index is asked to be, and which FAISS structures could be that.

exact                    every vector is compared with; nothing is missed
exact-fp16, exact-int8   the same in a half and a quarter of the memory: proposals, scored again from the vectors
ivf                      cells (Sivic and Zisserman 2003), the nearest of which are read; vectors are whole
ivf-pq                   the same with four-bit codes, fast to scan (André, Kermarrec and Le Scouarnec 2015), a
                         sixteenth of the memory: proposals, scored again
hnsw                     a graph to walk (Malkov and Yashunin 2018); vectors are whole
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import final

from seeall.types import SeeallError

EXACT = ("exact", "exact-fp16", "exact-int8")
STRUCTURES = (*EXACT, "ivf", "ivf-pq", "hnsw")
AUTO = "auto"
EXACT_BELOW = 100_000
"""Vectors below which nothing is missed, unless a recall is asked for."""
RECALL = 0.99
"""Of the true ten nearest, from there on."""
SMALL = 1_000
"""Vectors below which search is exact whatever is asked for: there is nothing to gain."""
LINKS = 32
"""Most of each vector in the graph, M of the paper; twice as many in its lowest layer."""
GRAPH_MOST = 2_000_000
"""Vectors from which a graph, which takes ten times as long to build as cells, is not tried unless it is named."""
EXACT_MOST = 50_000
"""Vectors from which exact search, which many queries at a time make cheap, is not tried where some may be missed."""
_ROOM = 0.5
"""Share of the machine's memory that a structure takes at most where no limit is given."""
_ID = 8


@final
@dataclass(frozen=True)
class Plan:
    """How an index is to be searched.

    structure: "auto", or one of STRUCTURES.
    recall: of the true ten nearest, how many are to be found, in (0, 1]. Given, search is made as fast as that
        allows at any size; None is exact search below `exact_below` vectors, and RECALL from there on.
    memory: bytes that the structure may take, None for half of what the machine has. The vectors themselves stay on
        disk, and are mapped into memory as they are read.

    Raises: SeeallError for a name, recall or limit that makes no sense.
    """

    structure: str = AUTO
    recall: float | None = None
    memory: int | None = None
    exact_below: int = EXACT_BELOW

    def __post_init__(self) -> None:
        if self.structure not in (AUTO, *STRUCTURES):
            raise SeeallError(f"structure {self.structure!r}: choose from {', '.join((AUTO, *STRUCTURES))}")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise SeeallError(f"a recall of {self.recall}: choose more than 0 and at most 1, such as 0.95")
        if self.memory is not None and self.memory < 1:
            raise SeeallError(f"a memory limit of {self.memory} bytes holds nothing: choose more")

    @property
    def target(self) -> float:
        """The recall to be reached."""
        return RECALL if self.recall is None else self.recall

    def candidates(self, count: int, dim: int) -> tuple[str, ...]:
        """The structures that `count` vectors of `dim` dimensions could be in, those that are quick to build first.

        One that is named needs no trying; of exact ones the most precise that fits is taken.

        >>> Plan().candidates(99_999, 128), Plan().candidates(10**6, 128), Plan(recall=0.95).candidates(5000, 128)
        (('exact',), ('ivf', 'ivf-pq', 'hnsw'), ('ivf', 'ivf-pq', 'hnsw', 'exact'))
        >>> Plan(memory=10**11).candidates(10**7, 128), Plan("hnsw").candidates(10**7, 128)
        (('ivf', 'ivf-pq'), ('hnsw',))
        >>> Plan(recall=1, memory=200_000_000).candidates(10**6, 128)
        ('exact-int8',)
        """
        if count < min(SMALL, max(self.exact_below, 1)):
            return EXACT[:1]
        if self.structure != AUTO:
            return (self.structure,)
        if self.target == 1 or (self.recall is None and count < self.exact_below):
            fitting = [name for name in EXACT if not self.memory or count * bytes_each(name, dim) <= self.memory]
            return (fitting[0] if fitting else EXACT[-1],)
        room = self.memory or _memory() * _ROOM
        others = STRUCTURES[len(EXACT) :] if count >= SMALL else ("ivf",)
        if count > GRAPH_MOST:
            others = tuple(name for name in others if name != "hnsw")
        if SMALL <= count <= EXACT_MOST:
            others += EXACT[:1]
        return tuple(name for name in others if count * bytes_each(name, dim) <= room) or ("ivf-pq",)


def bytes_each(structure: str, dim: int) -> float:
    """About how many bytes of memory a vector of `dim` dimensions takes, its number included.

    >>> [bytes_each(name, 128) for name in STRUCTURES]
    [512, 264, 136, 520, 40.0, 788]
    """
    return {
        "exact": 4 * dim,
        "exact-fp16": 2 * dim + _ID,
        "exact-int8": dim + _ID,
        "ivf": 4 * dim + _ID,
        "ivf-pq": codes(dim) / 2 + _ID,
        "hnsw": 4 * dim + 4 * (2 * LINKS + 1) + _ID + 8,
    }[structure]


def codes(dim: int) -> int:
    """How many four-bit codes stand for a vector: one for two dimensions, where that divides them.

    >>> codes(128), codes(7)
    (64, 7)
    """
    return dim // 2 if dim % 2 == 0 else dim


def amount(text: str | None) -> int | None:
    """Bytes, from a number with or without a unit: B, KB, MB, GB, TB, and KiB to TiB. None stays None.

    Raises: SeeallError for anything else.

    >>> amount("2GB"), amount("1.5 MiB")
    (2000000000, 1572864)
    """
    if text is None:
        return None
    known = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b)?\s*", text, re.IGNORECASE)
    if not known:
        raise SeeallError(f"{text!r} is no amount of memory: write 500MB or 2GB")
    number, unit, binary = known.groups()
    power = " kmgt".index((unit or " ").lower())
    return int(float(number) * (1024 if binary else 1000) ** power)


def _memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
