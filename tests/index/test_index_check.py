"""`check` finds any byte that changed, and says nothing about an index that is whole."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from seeall.index.plan import Plan
from seeall.index.store import Index
from seeall.types import SeeallError

DIM = 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    with Index.create(
        tmp_path / "index", dim=DIM, model="m", preprocessing={}, gpu="off", plan=Plan(exact_below=300)
    ) as index:
        index.add([f"{n}" for n in range(400)], random.standard_normal((400, DIM)))
        index.remove(["7"])
        assert index.check() == [] and index.notes() == []
    return tmp_path / "index"


def problems(root: Path) -> str:
    with Index.open(root, gpu="off") as index:
        return " | ".join(index.check())


@pytest.mark.parametrize("name", ["vectors/000001.npy", "vectors/000001.ids.npy", "index/00000001.faiss"])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_one_changed_bit(name: str, place: float, root: Path) -> None:
    raw = bytearray((root / name).read_bytes())
    raw[int(len(raw) * place)] ^= 1
    (root / name).write_bytes(raw)
    assert f"{name} is not what was written" in problems(root)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE items SET label = 'x' WHERE id = 3", "their checksum differs"),
        ("UPDATE items SET path = 'x' WHERE id = 3", "their checksum differs"),
        ("DELETE FROM items WHERE id = 3", "398 items where the manifest has 399"),
        ("UPDATE items SET removed_generation = 1 WHERE id = 3", "398 items where the manifest has 399"),
        ("UPDATE items SET id = 1000 WHERE id = 400", "not every item has one row"),
    ],
)
def test_changed_items(change: str, words: str, root: Path) -> None:
    with sqlite3.connect(root / "items.sqlite") as db:
        db.execute(change)
    db.close()
    assert words in problems(root)


def test_broken_database(root: Path) -> None:
    db = sqlite3.connect(root / "items.sqlite")
    db.execute("PRAGMA journal_mode = DELETE")
    db.close()
    raw = bytearray((root / "items.sqlite").read_bytes())
    raw[-3000:] = b"\xaa" * 3000
    (root / "items.sqlite").write_bytes(raw)
    assert "items.sqlite: " in problems(root)
    raw[5000:] = b"\xaa" * len(raw[5000:])
    (root / "items.sqlite").write_bytes(raw)
    with pytest.raises(SeeallError, match=r"damaged \(items.sqlite: database disk image is malformed\)"):
        problems(root)


def test_leftovers_are_notes_and_go_with_the_next_commit(root: Path) -> None:
    for name in ("vectors/000009.npy", "vectors/000002.npy.tmp", "index/00000009.faiss", "manifest.json.tmp"):
        (root / name).write_bytes(b"half")
    with Index.open(root, gpu="off") as index:
        assert index.check() == [] and len(index.notes()) == 4
        index.remove(["8"])
        assert index.check() == [] and index.notes() == []
