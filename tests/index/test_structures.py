"""Every FAISS structure against exact search: what is promised of it holds for vectors that it has never seen."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from seeall.index import cells, engine, structures
from seeall.index.plan import STRUCTURES, Plan, amount
from seeall.index.segments import Living, Stack
from seeall.index.store import Index
from seeall.index.structures import answer, build, proposals
from seeall.types import SeeallError

DIM = 16


def clustered(seed: int, n: int, dim: int = DIM, spread: float = 0.6) -> np.ndarray:
    """Unit vectors (n, dim) around 40 centres."""
    random = np.random.default_rng(seed)
    x = np.random.default_rng(0).standard_normal((40, dim))[random.integers(0, 40, n)]
    x = (x + spread * random.standard_normal((n, dim))).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def begun(folder: Path, plan: Plan, dim: int = DIM) -> Index:
    return Index.create(folder / "i", dim=dim, model="m", preprocessing={}, gpu="off", plan=plan)


def found(index: Index, known: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int = 10) -> float:
    """recall@k; scores are of the ids they stand with, best first, never above one."""
    ids, scores = index.search(queries, k)
    cosines = queries.astype(np.float64) @ rows.astype(np.float64).T
    assert np.abs(np.take_along_axis(cosines, np.searchsorted(known, ids), 1) - scores).max() < 1e-5
    assert scores.max() <= 1 and (np.diff(scores) <= 0).all()
    true = known[np.argsort(-cosines, axis=1)[:, :k]]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(ids.tolist(), true.tolist())]))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_through_its_life(structure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, queries = clustered(1, 4000), clustered(2, 200)
    names = [f"{n}" for n in range(4000)]
    least = 1.0 if structure.startswith("exact") else 0.97
    with begun(tmp_path, Plan(structure=structure)) as index:
        index.add(names[:999], x[:999])
        assert index.info()["structure"] == "exact" and found(index, index.ids, x[:999], queries) == 1
        index.add(names[999:3600], x[999:3600])
        info = index.info()
        assert info["structure"] == structure and found(index, index.ids, x[:3600], queries) >= least
        if structure != "exact":
            assert info["recall@10"] >= 0.99 and info["queries_per_second"] > 0

        index.add(names[3600:], x[3600:])  # a few more and a few less than the file was built of
        gone = index.search(queries, 1)[0][:50, 0]
        index.remove(set(gone.tolist()))
        keep = ~np.isin(np.arange(1, 4001), gone)
        assert found(index, index.ids, x[keep], queries) >= least - 0.01
        assert not np.isin(index.search(queries, 20)[0], gone).any()
        everything, _ = index.search(queries[:2], len(index))
        assert all(sorted(row) == index.ids.tolist() for row in everything.tolist())
        one = [index.search(query, 5) for query in queries[:9]]
        assert all((np.concatenate(a) == b).all() for a, b in zip(zip(*one), index.search(queries[:9], 5)))
        index.compact()
        assert found(index, index.ids, x[keep], queries) >= least and index.check() == []
    monkeypatch.setattr(engine, "_MAPPED", 0)
    with Index.open(tmp_path / "i", gpu="off") as index:
        assert index.info()["structure"] == structure and found(index, index.ids, x[keep], queries) >= least


@pytest.mark.parametrize("dim", [7, 10])
@pytest.mark.parametrize("structure", ["ivf-pq", "exact-int8"])
def test_codes_of_odd_dimensions(structure: str, dim: int, tmp_path: Path) -> None:
    x = clustered(1, 1500, dim)
    with begun(tmp_path, Plan(structure=structure), dim) as index:
        index.add([f"{n}" for n in range(1500)], x)
        assert found(index, index.ids, x, clustered(2, 100, dim)) > 0.96


def test_equal_vectors_in_every_structure(tmp_path: Path) -> None:
    x = clustered(3, 1500)
    x[200:215] = x[200]
    for structure in STRUCTURES:
        with begun(tmp_path / structure, Plan(structure=structure)) as index:
            index.add([f"{n}" for n in range(1500)], x)
            for n in (1, 40):
                ids, scores = index.search(np.repeat(x[200:201], n, 0), 10)
                assert (ids == np.arange(201, 211)).all() and (scores == scores[0, 0]).all(), structure


@pytest.mark.parametrize("recall", [0.9, 0.95, 0.99, 1.0])
def test_recall_is_what_was_asked_for(recall: float) -> None:
    x, queries = clustered(4, 6000, spread=0.9), clustered(5, 400, spread=0.9)
    living = Living(Stack([x[:2500], x[2500:]], DIM), np.ones(6000, bool))
    built = build(living, Plan(structure="ivf", recall=recall))
    cosines = queries @ x.T
    true = np.argsort(-cosines, axis=1)[:, :10]
    params = faiss.SearchParametersIVF(nprobe=built.search["nprobe"])
    places = built.index.search(queries, 10, params=params)[1]
    measured = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places.tolist(), true.tolist())])
    assert built.recall >= recall and measured >= recall - 0.02
    assert recall == 1 or built.search["nprobe"] < built.index.nlist


def test_memory_decides(tmp_path: Path) -> None:
    assert Plan(memory=600_000).candidates(5000, 128) == ("exact-int8",)
    assert Plan(recall=0.9, memory=700_000).candidates(5000, 128) == ("ivf-pq",)
    x = clustered(6, 3000, 64)
    with begun(tmp_path, Plan(recall=0.95, memory=3000 * 60), 64) as index:
        index.add([f"{n}" for n in range(3000)], x)
        info = index.info()
        assert info["structure"] == "ivf-pq" and info["bytes_per_vector"] < 100
        index.tune(Plan(structure="hnsw"))
        assert index.info()["structure"] == "hnsw" and index.check() == []
        index.tune(Plan())
        assert index.info()["structure"] == "exact" and index.check() == []
        generation = index.info()["generation"]
        index.tune(Plan())
        assert index.info()["generation"] == generation


@pytest.mark.parametrize(
    ("text", "bytes"), [("3000", 3000), ("2GB", 2e9), ("1.5 gb", 1.5e9), ("64MiB", 1 << 26), (None, None)]
)
def test_amounts_of_memory(text: str | None, bytes: int | None) -> None:
    assert amount(text) == bytes


@pytest.mark.parametrize("text", ["", "much", "2 apples", "-1GB", "GB"])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(SeeallError, match="500MB or 2GB"):
        amount(text)


def test_cells_are_counted_as_a_search_would() -> None:
    """What `cells` foretells, from true neighbours and centroids alone, is what FAISS then needs."""
    x, queries = clustered(7, 9000), clustered(8, 300)
    near = x[np.argsort(-(queries @ x.T), axis=1)[:, :10]]
    trials = cells.Trials(lambda n: x[:n], 9000, queries, near, 0.95)
    whole, coded = cells.Cost(1, 0), cells.Cost(0.1, 50)
    chosen, fewer = trials.choose([whole, coded])
    built = build(Living(Stack([x], DIM), np.ones(9000, bool)), Plan(structure="ivf", recall=0.9444))
    assert len(chosen.centroids) in cells.numbers(9000) and abs(built.search["nprobe"] - chosen.nprobe) <= 2
    homes = np.argmax(x @ chosen.centroids.T, axis=1)
    first = np.argsort(-(queries @ chosen.centroids.T), axis=1)[:, : chosen.nprobe]
    read = np.mean([np.isin(homes, row).sum() for row in first])
    assert abs(chosen.cost(whole) - len(chosen.centroids) / 5 - read) < 0.05 * read
    assert len(fewer.centroids) <= len(chosen.centroids) and fewer.cost(coded) <= chosen.cost(coded)
    every = [trials.learn(number) for number in cells.numbers(9000)]
    assert chosen.cost(whole) <= min(some.cost(whole) for some in every)


def test_no_more_are_scored_again_than_are_needed() -> None:
    """The factor of codes is the least whose proposals hold the neighbours of other queries too."""
    x, queries = clustered(9, 8000, 32), clustered(10, 500, 32)
    living = Living(Stack([x[:5000], x[5000:]], 32), np.ones(8000, bool))
    built = build(living, Plan(structure="ivf-pq", recall=0.95))
    true = np.argsort(-(queries @ x.T), axis=1)[:, :10]

    def recall(m: int) -> float:
        places = answer(built.index, queries, m, built.search)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places.tolist(), true.tolist())]))

    m = proposals(10, built.search)
    assert m == round(10 * built.search["factor"]) and abs(recall(m) - built.recall) < 0.02
    assert recall(m) >= 0.94 and recall(max(10, m - 10)) < 0.95
    assert built.index.by_residual


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"structure": "tree"}, "choose from auto, exact"), ({"recall": 0.0}, "0.95"), ({"recall": 95}, "0.95"),
     ({"memory": 0}, "choose more")],
)  # fmt: skip
def test_plans_that_make_no_sense(wrong: dict, words: str) -> None:
    with pytest.raises(SeeallError, match=words):
        Plan(**wrong)


def test_what_is_slower_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes look quickest by count and are too coarse here, so whole vectors are tried after all."""
    random = np.random.default_rng(11)
    x = random.standard_normal((6000, 64)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    living = Living(Stack([x], 64), np.ones(6000, bool))
    monkeypatch.setattr(structures, "_FACTOR", 1)
    monkeypatch.setitem(structures._COSTS, "ivf-pq", cells.Cost(1e-3, 0))
    monkeypatch.setattr(Plan, "candidates", lambda *_: ("ivf", "ivf-pq"))
    assert build(living, Plan(recall=0.9)).structure == "ivf"
    monkeypatch.setattr(structures, "_FACTOR", 32)
    assert build(living, Plan(recall=0.9)).structure == "ivf-pq"
