"""`ssl index export` beside `ssl embed`, and `ssl index merge` beside a dictionary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from seeall import cli
from seeall.index.known import files
from seeall.index.stamps import Stamp
from seeall.index.store import Index

Ssl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def index(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("transfer") / "photos.index"
    assert cli.run(["index", "build", str(folder), "--run", str(run), "--out", str(out), "--quiet"]) == 0
    return out


def test_export_is_what_embed_writes(ssl: Ssl, index: Path, run: Path, folder: Path, tmp_path: Path) -> None:
    assert ssl("embed", run, folder, "--out", tmp_path / "z", "--quiet")[0] == 0
    code, out, err = ssl("index", "export", index, "--out", tmp_path / "x.npy", "--json")
    assert code == 0, err
    assert json.loads(out) == {"pictures": 48, "dim": 1024, "files": [f"{tmp_path}/x.npy", f"{tmp_path}/x.parquet"]}
    mine, theirs = np.load(tmp_path / "x.npy"), np.load(tmp_path / "z.npy")
    assert mine.dtype == np.float32
    assert np.allclose(mine, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-5)
    a, b = (pyarrow.parquet.read_table(tmp_path / f"{n}.parquet") for n in "xz")
    assert a.column_names == b.column_names == ["id", "label"] and a["label"].equals(b["label"])
    assert a["id"].to_pylist() == [str(folder / name) for name in b["id"].to_pylist()]
    code, _, err = ssl("index", "export", index, "--out", tmp_path / "x")
    assert code == 2 and "x.npy is already there" in err
    assert ssl("index", "export", index, "--out", tmp_path / "x", "--overwrite", "--quiet")[0] == 0


def make(root: Path, paths: list[str], seed: int, model: str = "m", **words: list) -> dict[str, tuple]:
    """An index, and what it should hold."""
    vectors = np.random.default_rng(seed).standard_normal((len(paths), 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    extra = root.with_name("model.bin")
    extra.write_text("weights")
    with Index.create(root, dim=5, model=model, preprocessing={"a": 1}, files={"model.bin": extra}, gpu="off") as index:
        ids = index.add(paths, vectors, words.get("labels"), words.get("metadata"))
        with index.writer() as writer:
            writer.stamp({int(ids[0]): Stamp(seed, 2, "x")})
    labels, metadata = (words.get(w) or [None] * len(paths) for w in ("labels", "metadata"))
    return {p: (v, la, me or {}) for p, v, la, me in zip(paths, vectors, labels, metadata)}


def test_export_of_metadata(ssl: Ssl, tmp_path: Path) -> None:
    notes = [{"year": 2020, "größe": 1.5}, None, {"year": "x", "id": "mine", "label": 3}]
    expected = make(tmp_path / "i", ["a", "ü", "c\udc80"], 1, labels=["cat", None, "dog"], metadata=notes)
    assert ssl("index", "export", tmp_path / "i", "--out", tmp_path / "x", "--quiet")[0] == 0
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pydict() == {
        "id": ["a", "ü", "c\\udc80"], "label": ["cat", None, "dog"],
        "größe": ["1.5", "", ""], "year": ["2020", "", "x"],
    }  # fmt: skip
    assert np.allclose(np.load(tmp_path / "x.npy"), np.stack([v for v, _, _ in expected.values()]), atol=1e-6)


def test_merge_is_a_union_in_which_the_last_wins(ssl: Ssl, tmp_path: Path) -> None:
    one = make(tmp_path / "1", [f"p{n}" for n in range(9000)], 1)
    two = make(tmp_path / "2", [f"p{n}" for n in range(5000, 6000)], 2, labels=["two"] * 1000)
    three = make(tmp_path / "3", ["p5001", "q"], 3, metadata=[{"n": 3}, {"n": 4}])
    with Index.open(tmp_path / "1") as index:
        index.remove(["p0"])
    del one["p0"]
    code, out, err = ssl("index", "merge", tmp_path / "all", *(tmp_path / n for n in "123"), "--json")
    assert code == 0, err
    facts, expected = json.loads(out), {**one, **two, **three}
    assert (facts["count"], facts["left_out"], facts["generation"]) == (9000, 1001, 1)
    with Index.open(tmp_path / "all", gpu="off") as index:
        assert index.check() == [] and (tmp_path / "all" / "model.bin").read_text() == "weights"
        for item in index.items(index.ids):
            vector, label, metadata = expected.pop(item.path)
            assert np.allclose(item.vector, vector, atol=1e-6) and (item.label, item.metadata) == (label, metadata)
        stamps = {path: found[1] for path, found in files(index, ["p1", "p5000", "p5001", "q"]).items()}
    assert not expected and stamps == {"p1": None, "p5000": (2, 2, "x"), "p5001": (3, 2, "x"), "q": None}


def test_merge_refuses(ssl: Ssl, tmp_path: Path) -> None:
    make(tmp_path / "1", ["a"], 1)
    make(tmp_path / "2", ["b"], 2, model="other")
    code, _, err = ssl("index", "merge", tmp_path / "all", tmp_path / "1", tmp_path / "2")
    assert code == 2 and "was made with model other, not m" in err and not (tmp_path / "all").exists()
    assert ssl("index", "merge", tmp_path / "all", tmp_path / "1", "--quiet")[0] == 0
    code, _, err = ssl("index", "merge", tmp_path / "all", tmp_path / "1")
    assert code == 2 and "--overwrite replaces it" in err
    shutil.copytree(tmp_path / "1", tmp_path / "copy")
    assert ssl("index", "merge", tmp_path / "1", tmp_path / "1", tmp_path / "copy", "--overwrite", "--quiet")[0] == 0
    with Index.open(tmp_path / "1") as index:
        assert len(index) == 1 and index.check() == []
    code, _, err = ssl("index", "merge", tmp_path / "new", tmp_path / "nowhere")
    assert code == 2 and "there is no index at" in err
