"""FAISS behind the index: inverted files against exact search, ties, removal, and a GPU where there is one."""

from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from seeall.index import engine
from seeall.index.gpus import Copies
from seeall.index.plan import Plan
from seeall.index.segments import Living, Stack
from seeall.index.store import Index
from seeall.index.structures import build
from seeall.index.threads import suited
from seeall.types import SeeallError

DIM = 16


def clustered(seed: int, n: int) -> np.ndarray:
    """Unit vectors (n, DIM) around 40 centres, as embeddings lie."""
    random = np.random.default_rng(seed)
    x = np.random.default_rng(0).standard_normal((40, DIM))[random.integers(0, 40, n)]
    x = (x + 0.4 * random.standard_normal((n, DIM))).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def recall(index: Index, vectors: dict[int, np.ndarray], queries: np.ndarray, k: int) -> float:
    known, rows = np.array(list(vectors)), np.stack(list(vectors.values()))
    ids, _ = index.search(queries, k)
    true = known[np.argsort(-(queries @ rows.T), axis=1)[:, :k]]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(ids.tolist(), true.tolist())]))


def test_inverted_file_through_its_life(tmp_path: Path) -> None:
    x, queries = clustered(1, 3600), clustered(2, 100)
    with Index.create(
        tmp_path / "i", dim=DIM, model="m", preprocessing={}, gpu="off", plan=Plan(exact_below=3000)
    ) as index:
        index.add([f"{n}" for n in range(2999)], x[:2999])
        assert index.info()["structure"] == "exact" and recall(index, dict(enumerate(x[:2999], 1)), queries, 10) == 1
        index.add([f"{n}" for n in range(2999, 3100)], x[2999:3100])
        alive = dict(enumerate(x[:3100], 1))
        info = index.info()
        assert info["structure"] in ("ivf", "ivf-pq") and info["recall@10"] >= 0.99
        assert recall(index, alive, queries, 10) > 0.97

        # What comes later is found by exact search beside the file, and what went is not found.
        index.add([f"{n}" for n in range(3100, 3300)], x[3100:3300])
        gone = index.search(queries, 1)[0][:50, 0]
        index.remove(set(gone.tolist()))
        alive |= dict(enumerate(x[3100:3300], 3101))
        alive = {i: v for i, v in alive.items() if i not in set(gone.tolist())}
        assert len(list((tmp_path / "i" / "index").iterdir())) == 1
        assert not np.isin(index.search(queries, 20)[0], gone).any()
        assert recall(index, alive, queries, 10) > 0.97
        newest = index.search(x[3290:3300], 1)
        assert newest[0][:, 0].tolist() == list(range(3291, 3301)) and np.allclose(newest[1], 1)

        # As many as there are, although few cells are read.
        everything, _ = index.search(queries[:2], len(index))
        assert all(sorted(row) == sorted(alive) for row in everything.tolist())
        assert index.check() == []

        before = (tmp_path / "i" / "index").iterdir().__next__().name
        index.compact()
        assert (tmp_path / "i" / "index").iterdir().__next__().name != before
        assert recall(index, alive, queries, 10) > 0.97 and index.check() == []
        index.remove(index.ids[:300].tolist())
        assert index.info()["structure"] == "exact" and not list((tmp_path / "i" / "index").iterdir())


def test_ties_are_ordered_by_id_alone_and_in_batches(tmp_path: Path) -> None:
    x = clustered(3, 300)
    x[50:120] = x[50]
    with Index.create(tmp_path / "i", dim=DIM, model="m", preprocessing={}, gpu="off") as index:
        index.add([f"{n}" for n in range(300)], x)
        for n in (1, 40):
            ids, scores = index.search(np.repeat(x[50:51], n, 0), 10)
            assert (ids == np.arange(51, 61)).all() and (scores == scores[0, 0]).all()
        index.remove([53, 51])
        assert index.search(x[50:51], 3)[0].tolist() == [[52, 54, 55]]


def test_scores_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    x = clustered(4, 500)
    with Index.create(tmp_path / "i", dim=DIM, model="m", preprocessing={}, gpu="off") as index:
        index.add([f"{n}" for n in range(500)], x)
        ids, scores = index.search(x[:64], 9)
        for n in range(0, 64, 7):
            one_id, one_score = index.search(x[n], 9)
            assert (one_id[0] == ids[n]).all() and (one_score[0] == scores[n]).all()


def test_a_batch_is_compared_by_products_of_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 128_000)
    with Index.create(tmp_path / "i", dim=DIM, model="m", preprocessing={}, gpu="off") as index:
        index.add(["a", "b"], clustered(4, 2))
        index.search(clustered(4, 2), 1)
    assert faiss.cvar.distance_compute_blas_threshold == 2048  # 16 queries of 128 dimensions
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 20)  # whoever wants less may have it
    with suited(1):
        assert faiss.cvar.distance_compute_blas_threshold == 20


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="there is a GPU")
def test_gpu_that_is_not_there(tmp_path: Path) -> None:
    with Index.create(tmp_path / "i", dim=DIM, model="m", preprocessing={}, gpu="on") as index:
        index.add(["a"], clustered(0, 1))
        with pytest.raises(SeeallError, match="no GPU"):
            index.search(clustered(0, 1), 1)


def test_numbers_are_put_to_what_a_gpu_takes(tmp_path: Path) -> None:
    """Exact search that won against others is in a file of numbered vectors; FAISS moves it without the numbers."""
    x, numbers = clustered(5, 300), np.arange(300)[::-1] * 2
    flat = faiss.IndexIDMap(faiss.IndexFlatIP(DIM))
    flat.add_with_ids(x, numbers)
    with (tmp_path / "f").open("w+b") as file:
        engine.save(flat, file)
        made = engine.Engine.trained(file, {}, "off")
    del flat
    assert isinstance(made._index, faiss.IndexFlatIP) and made.count == 300 and made.dim == DIM
    assert (made.search(x, 1)[0][:, 0] == numbers).all()
    alive = np.zeros(600, bool)
    alive[numbers[:7]] = True
    assert sorted(made.search(x[:1], 9, alive)[0][0]) == sorted(numbers[:7])
    with (tmp_path / "g").open("w+b") as file:
        engine.save(faiss.IndexIDMap(faiss.IndexFlatIP(DIM)), file)
        assert engine.Engine.trained(file, {}, "off").search(x[:1], 1)[0].shape == (1, 0)


def on_a_gpu(gpu: str, search: object = None) -> tuple[engine.Engine, engine.Engine]:
    """An engine on the CPU, and one for which FAISS's index on the CPU stands in for that on a GPU."""
    x = clustered(8, 4000)
    built = build(Living(Stack([x], DIM), np.ones(4000, bool)), Plan(structure="ivf"))
    ours, theirs = (engine.Engine(built.index, search=built.search, gpu="off") for _ in range(2))
    theirs._gpus = Copies([SimpleNamespace(search=search or built.index.search)])
    theirs._must = gpu == "on"
    return ours, theirs


@pytest.mark.parametrize(("k", "gone"), [(1, 0), (10, 30), (10, 3000), (500, 3000), (2100, 10)])
def test_gpu_knows_no_selectors(k: int, gone: int) -> None:
    queries, alive, asked = clustered(9, 40), np.ones(4000, bool), []
    alive[np.random.default_rng(0).permutation(4000)[:gone]] = False
    ours, theirs = on_a_gpu("auto")
    (copy,) = theirs._gpus._copies
    search = copy.search
    copy.search = lambda q, k, params: asked.append(k) or search(q, k, params=params)
    for expected, found in zip(ours.search(queries, k, alive), theirs.search(queries, k, alive)):
        assert (expected == found).mean() > 0.99
    assert asked == ([min(k + gone, 2 * k + 64)] if k < 1000 else [])
    theirs._effort = {"nprobe": 3000}
    theirs.search(queries, k, alive)
    assert len(asked) <= 1, "a GPU reads 2048 cells at most"


def test_gpu_that_fails_while_searching(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Error in somewhere:\nout of memory")

    queries = clustered(9, 4)
    ours, theirs = on_a_gpu("auto", fail)
    for _ in range(2):
        assert (ours.search(queries, 3)[0] == theirs.search(queries, 3)[0]).all()
    assert caplog.text.count("out of memory") == 1 and not theirs.on_gpu
    with pytest.raises(SeeallError, match="the GPU cannot search .out of memory.: search with gpu='auto'"):
        on_a_gpu("on", fail)[1].search(queries, 3)


@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("copies", [2, 3])
def test_copies_share_the_queries(number: int, copies: int) -> None:
    ours, theirs = on_a_gpu("on")
    asked: list[int] = []

    def answer(queries: np.ndarray, k: int, params: object) -> object:
        asked.append(len(queries))
        return ours._index.search(queries, k, params=params)

    theirs._gpus = Copies([SimpleNamespace(search=answer) for _ in range(copies)])
    queries = clustered(9, number)
    for expected, found in zip(ours.search(queries, 10), theirs.search(queries, 10)):
        assert (expected == found).all()
    assert sum(asked) == number and len(asked) == (copies if number >= copies else 1)


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() < 2, reason="fewer than two GPUs")
@pytest.mark.parametrize("room", [True, False])
def test_several_gpus_answer_like_the_cpu(room: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = clustered(9, 40)
    ours, _ = on_a_gpu("off")
    if not room:

        def full(*_: object) -> None:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
    theirs = engine.Engine(ours._index, search=ours._effort, gpu="on")
    assert len(theirs._gpus._copies) == (faiss.get_num_gpus() if room else 1)
    for expected, found in zip(ours.search(queries, 10), theirs.search(queries, 10)):
        assert (expected == found).mean() > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="no GPU")
@pytest.mark.parametrize("structure", ["ivf", "exact", "hnsw"])
def test_gpu_answers_like_the_cpu(structure: str, tmp_path: Path) -> None:
    x, queries = clustered(6, 4000), clustered(7, 50)
    with Index.create(tmp_path / "i", dim=DIM, model="m", preprocessing={}, gpu="off", plan=Plan(structure)) as cpu:
        cpu.add([f"{n}" for n in range(4000)], x)
        cpu.remove(list(range(1, 100)))
        if structure == "hnsw":
            with Index.open(tmp_path / "i", gpu="on") as gpu, pytest.raises(SeeallError, match="on a CPU alone"):
                gpu.search(queries, 1)
            return
        with Index.open(tmp_path / "i", gpu="on") as gpu:
            assert gpu._search_engine().on_gpu
            for k in (1, 10, 2500):
                for ours, theirs in zip(cpu.search(queries, k), gpu.search(queries, k)):
                    assert (ours == theirs).mean() > 0.99
