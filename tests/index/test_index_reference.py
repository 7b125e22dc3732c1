"""Whatever is done to an index, it answers like a dict and a matrix product."""

import json
from pathlib import Path

import numpy as np
import pytest

from seeall.index import segments
from seeall.index.store import Index

DIM = 6


class Reference:
    """Path → (id, unit vector, label, metadata), and brute force in double precision.

    The index scores in single precision: what is closer together than 1e-6 may stand in either order.
    """

    def __init__(self) -> None:
        self.items: dict[str, tuple[int, np.ndarray, str | None, dict]] = {}

    def scores(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids (m,), ascending, and the cosines (n, m) of `queries` with them."""
        stored = sorted((i, v) for i, v, _, _ in self.items.values())
        single = queries.astype(np.float32).astype(np.float64)
        unit = single / np.sqrt((single * single).sum(1, keepdims=True))
        rows = np.stack([v for _, v in stored]).astype(np.float64)
        return np.array([i for i, _ in stored]), (unit @ rows.T).clip(-1, 1)


def same(index: Index, truth: Reference, queries: np.ndarray) -> None:
    assert len(index) == len(truth.items)
    assert index.ids.tolist() == sorted(i for i, *_ in truth.items.values())
    for item in index.items(list(truth.items)):
        expected = truth.items[item.path]
        assert (item.id, item.label, item.metadata) == (expected[0], expected[2], expected[3])
        assert np.allclose(item.vector, expected[1], atol=1e-6)
    if truth.items:
        k = min(7, len(truth.items))
        ids, scores = index.search(queries, k)
        known, cosines = truth.scores(queries)
        assert np.allclose(scores, -np.sort(-cosines, 1)[:, :k], atol=1e-6)
        assert np.allclose(scores, np.take_along_axis(cosines, np.searchsorted(known, ids), 1), atol=1e-6)
        assert all(len(set(row)) == k for row in ids.tolist())
        assert ((np.diff(scores) < 0) | (np.diff(ids) > 0)).all(), "best first, and ties by id"


@pytest.mark.parametrize("seed", range(3))
def test_random_changes(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "ROWS", 16)
    random = np.random.default_rng(seed)
    # Few distinct vectors, so that ties are everywhere; exactly representable, so that they are exact.
    pool = random.integers(-1, 2, (12, DIM)).astype(np.float32) + np.float32(0.5)
    truth, used = Reference(), set()
    index = Index.create(folder / "index", dim=DIM, model="m", preprocessing={}, gpu="off")
    for step in range(30):
        kind = random.choice(["add", "add", "add", "remove", "compact", "reopen", "stream"])
        if kind in ("add", "stream") or step == 0:
            with index.writer() as writer:
                for part in range(4 if kind == "stream" else 1):
                    names = random.choice(15, random.integers(1, 9), replace=False)
                    paths = [f"{part if kind == 'stream' else '-'}/{n}.jpg" for n in names]
                    rows = pool[random.integers(0, len(pool), len(paths))]
                    labels = [None if n % 2 else f"class {n}" for n in names]
                    notes = [{"step": step, "n": int(n)} for n in names]
                    ids = writer.append(paths, rows * random.uniform(0.1, 9), labels, notes)
                    assert not used & set(ids.tolist()), "an id was used twice"
                    used |= set(ids.tolist())
                    for i, path, row, label, note in zip(ids.tolist(), paths, rows, labels, notes):
                        truth.items[path] = (i, (row / np.linalg.norm(row)), label, note)
        elif kind == "remove" and truth.items:
            gone = random.choice(list(truth.items), min(len(truth.items), 5), replace=False).tolist()
            assert index.remove([p if n % 2 else truth.items[p][0] for n, p in enumerate(gone)]) == len(gone)
            for path in gone:
                del truth.items[path]
        elif kind == "compact":
            index.compact()
            assert index.info()["removed"] == 0
        elif kind == "reopen":
            index.close()
            index = Index.open(folder / "index", gpu="off")
        with Index.open(folder / "index", gpu="off") as reader:
            # The reference keeps what was stored: normalisation in float32 is the index's own.
            for item in reader.items(list(truth.items)):
                i, _, label, note = truth.items[item.path]
                truth.items[item.path] = (i, item.vector, label, note)
            same(reader, truth, random.standard_normal((3, DIM)))
            same(index, truth, pool[:3])
        assert index.check() == [] and index.notes() == []
    index.close()


def test_many_small_commits_leave_few_segments(folder: Path) -> None:
    with Index.create(folder / "index", dim=DIM, model="m", preprocessing={}, gpu="off") as index:
        for n in range(70):
            index.add([f"{n}"], np.eye(DIM)[n % DIM : n % DIM + 1])
        manifest = json.loads((folder / "index" / "manifest.json").read_text())
        assert len(manifest["segments"]) <= 8
        assert index.ids.tolist() == list(range(1, 71)) and index.check() == []
