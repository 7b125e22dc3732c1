"""How much a picture looks like a person of whom there are a few pictures.

All rules work on unit vectors, and no network is trained for them. With x the picture's vector and v those of person p:

    best         max over v of x·v
    mean         x·m, m being the mean of the v, scaled to length one
    classifier   best, less what a linear classifier holds against p:  best_p(x) - w (max_q r_q(x) - r_p(x))

where r is ridge regression from all enrolled vectors onto who they are (one-hot, both less their means), whose
strength is a share of the vectors' mean square. So the nearest pictures say whether it is anybody at all, which a
classifier that knows nobody else is bad at, and the classifier helps to say who. It takes one picture a person, and
is worked out when a gallery is opened, so nothing of it is kept. With one person it is `best`.

Scores are in double precision, rounded to multiples of 2⁻²⁰: the same for a picture alone or among others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from seeall.catalog import suggest
from seeall.index.segments import Floats, Ids
from seeall.types import SeeallError

RULES = ("best", "mean", "classifier")
LEVELS = 1 << 20
"""Steps of a score from 0 to 1."""
_WEIGHT, _STRENGTH = 0.1, 0.3
"""w and the ridge's strength: chosen on ten people of ORL of whom no figure is reported."""
_ROWS, _QUERIES = 4096, 1024
"""Vectors compared at a time."""
Doubles = NDArray[np.float64]


def check(rule: str) -> str:
    """The name of a rule. Raises SeeallError for any other."""
    if rule not in RULES:
        raise SeeallError(f"--score {rule}: {suggest(rule, RULES)}")
    return rule


@final
class Scorer:
    """vectors: (n, D) of length one; people: n names; rule: one of RULES.

    names: the P people, ascending.
    """

    def __init__(self, vectors: Floats, people: Sequence[str], rule: str) -> None:
        self.names = sorted(set(people))
        place = {name: i for i, name in enumerate(self.names)}
        owner = np.array([place[name] for name in people], np.int64)
        order = np.argsort(owner, kind="stable")
        self._owner, self._vectors, self._rule = owner[order], vectors[order], check(rule)
        self._linear = _ridge(self._vectors, self._owner, len(self.names)) if rule == "classifier" else None
        self._means = _means(self._vectors, self._owner, len(self.names)) if rule == "mean" else None

    def __call__(self, queries: Floats) -> Doubles:
        """(m, D) of length one → (m, P)."""
        scores: Doubles = np.empty((len(queries), len(self.names)))
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            scores[part] = self._score(queries[part].astype(np.float64))
        return np.round(scores * LEVELS) / LEVELS

    def _score(self, x: Doubles) -> Doubles:
        if self._means is not None:
            return x @ self._means.T
        best = _best(x, self._vectors, self._owner, len(self.names))
        if self._linear is not None and len(self.names) > 1:
            weights, bias = self._linear
            said = x @ weights + bias
            best -= _WEIGHT * (said.max(1, keepdims=True) - said)
        return best


def _best(x: Doubles, vectors: Floats, owner: Ids, people: int) -> Doubles:
    """The highest product with any vector of each person; owner: (n,) ascending."""
    found = np.full((len(x), people), -np.inf)
    for start in range(0, len(vectors), _ROWS):
        here = owner[start : start + _ROWS]
        first = np.flatnonzero(np.diff(here, prepend=-1))
        products = x @ vectors[start : start + _ROWS].T.astype(np.float64)
        columns = here[first]
        found[:, columns] = np.maximum(found[:, columns], np.maximum.reduceat(products, first, axis=1))
    return found


def _means(vectors: Floats, owner: Ids, people: int) -> Doubles:
    """(P, D) of length one; of zeros where the vectors of a person cancel out."""
    sums = _sums(vectors.astype(np.float64), owner, people)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means: Doubles = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    return means


def _ridge(vectors: Floats, owner: Ids, people: int) -> tuple[Any, Any]:
    """Weights (D, P) and bias (P,) of the regression, by whichever of its two forms is smaller."""
    centre, share = vectors.mean(0, dtype=np.float64), np.bincount(owner, minlength=people) / len(owner)
    x = vectors - centre
    strength = max(_STRENGTH * float(np.square(x).sum()) / len(x), 1e-12)
    if len(x) < x.shape[1]:
        wanted = np.eye(people)[owner] - share
        weights = x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), wanted)
    else:
        wanted = _sums(x, owner, people).T  # which is xᵀ times the same, as the rows of x add up to nothing
        weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), wanted)
    return weights, share - centre @ weights


def _sums(rows: Doubles, owner: Ids, people: int) -> Doubles:
    """(P, D): the sum of each person's rows; owner: (n,) ascending, everybody in it."""
    first = np.searchsorted(owner, np.arange(people))
    sums: Doubles = np.add.reduceat(rows, first, axis=0)
    return sums
