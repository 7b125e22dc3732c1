"""Searching among what a condition lets through: brute force over those rows alone, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seeall.index import selection
from seeall.index.plan import Plan
from seeall.index.segments import unit
from seeall.index.store import Index
from seeall.types import SeeallError

N, DIM, CLUSTERS = 6000, 16, 60
RATES = ["draw < 0.5", "draw < 0.05", "draw < 0.005", "cluster < 30", "cluster < 3", "not cluster < 57 or draw < 0.001"]


def clustered(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, DIM) unit vectors about 60 centres, and the number of each one's centre."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM))
    random = np.random.default_rng(seed)
    cluster = random.integers(0, CLUSTERS, n)
    x = centres[cluster] + 0.7 * random.standard_normal((n, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), cluster


@pytest.fixture(scope="module", params=["exact", "ivf", "ivf-pq", "hnsw"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    x, cluster = clustered(1, N)
    draw = np.random.default_rng(2).random(N)
    root = tmp_path_factory.mktemp("filters") / "index"
    with Index.create(root, dim=DIM, model="m", preprocessing={}, gpu="off", plan=Plan(request.param)) as index:
        notes = [{"draw": str(d), "cluster": int(c)} for d, c in zip(draw, cluster)]  # numbers, and text that reads so
        index.add([f"p{n}" for n in range(5000)], x[:5000], None, notes[:5000])
        index.add([f"p{n}" for n in range(5000, N)], x[5000:], None, notes[5000:])
        index.remove(range(1, 200))
        assert index.info()["structure"] == request.param
        yield index


def brute(index: Index, queries: np.ndarray, k: int, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k best of the items `keep`, in double precision, equal ones by id."""
    rows = np.stack([item.vector for item in index.items(keep.tolist())]).astype(np.float64)
    scores = (unit(queries, DIM).astype(np.float64)[:, None] * rows[None]).sum(-1).clip(-1, 1).astype(np.float32)
    order = np.lexsort((np.broadcast_to(keep, scores.shape), -scores))[:, :k]
    return keep[order], np.take_along_axis(scores, order, 1)


def passing(index: Index, where: str) -> np.ndarray:
    """The same, worked out from the metadata in Python."""
    holds = where.replace("draw", "float(m['draw'])").replace("cluster", "m['cluster']")
    return np.array([i.id for i in index.items(index.ids) if eval(holds, {"m": i.metadata})], np.int64)


@pytest.mark.parametrize("where", RATES)
def test_few_are_searched_exactly(index: Index, where: str) -> None:
    keep, (queries, _) = passing(index, where), clustered(3, 20)
    assert index.select(where).tolist() == keep.tolist() and len(keep)
    k = min(10, len(keep))
    ids, scores = index.search(queries, k, where)
    expected = brute(index, queries, k, keep)
    assert np.array_equal(ids, expected[0]) and np.allclose(scores, expected[1], atol=1e-6)


@pytest.mark.parametrize("where", RATES)
def test_many_are_found_by_the_trained_file_nearly_all(
    index: Index, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is gathered, so that even few rows are looked for in the file; `cluster` leaves whole cells empty."""
    monkeypatch.setattr(selection, "GATHER", (-1, -1))
    keep, (queries, _) = passing(index, where), clustered(4, 200)
    k = min(10, len(keep))
    index.refresh()
    index.search(queries[:1], 1, "id < 0 or id > 0")  # another condition: nothing gathered before is kept
    ids, scores = index.search(queries, k, where)
    expected = brute(index, queries, k, keep)
    assert np.isin(ids, keep).all() and (np.diff(scores) <= 0).all()
    recall = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(ids, expected[0])])
    assert recall == 1 if index.info()["structure"] == "exact" else recall > 0.97


def test_fewer_than_asked_and_none_at_all(index: Index, notes: list[str]) -> None:
    queries, _ = clustered(5, 3)
    ids, scores = index.search(queries, 10, "id in (300, 301, 302)")
    assert ids.shape == scores.shape == (3, 3) and set(ids[0].tolist()) == {300, 301, 302}
    assert "holds for 3 items: 3 neighbours" in notes[-1]
    ids, scores = index.search(queries, 10, "cluster is null")
    assert ids.shape == scores.shape == (3, 0)
    with pytest.raises(SeeallError, match="letter 10"):
        index.search(queries, 10, "cluster =")


def test_a_condition_follows_what_is_written(folder: Path) -> None:
    """The last condition is kept for the next search, and not beyond a change."""
    with Index.create(folder / "i", dim=2, model="m", preprocessing={}, gpu="off") as index:
        index.add(["a", "b"], np.eye(2), ["x", "y"])
        assert index.search([1, 0], 1, "label = 'x'")[0].tolist() == [[1]]
        with Index.open(folder / "i", gpu="off") as other:
            other.add(["c"], [[1.0, 0.1]], ["x"])
            other.remove(["a"])
        assert index.search([1, 0], 1, "label = 'x'")[0].tolist() == [[1]]
        index.refresh()
        assert index.search([1, 0], 1, "label = 'x'")[0].tolist() == [[3]]
