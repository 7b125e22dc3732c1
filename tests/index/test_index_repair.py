"""`repair` makes again what follows from vectors and items, to the bit where that is known, and names the rest."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seeall import cli
from seeall.index import segments
from seeall.index.durable import Lock
from seeall.index.manifest import FORMAT
from seeall.index.plan import Plan
from seeall.index.repair import repair
from seeall.index.store import Index
from seeall.types import SeeallError
from tests.index.formats import older

DIM = 8
Content = list[tuple[int, str, bytes]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three segments, removed items that are still in one and others that were forgotten, a trained file, a copy."""
    monkeypatch.setattr(segments, "ROWS", 256)
    (tmp_path / "extra").write_text("weights")
    files = {"model.bin": tmp_path / "extra"}
    x = np.random.default_rng(0).standard_normal((600, DIM))
    with Index.create(
        tmp_path / "index", dim=DIM, model="m", preprocessing={}, files=files, gpu="off", plan=Plan(exact_below=300)
    ) as index:
        index.add([f"{n}" for n in range(600)], x)
        index.remove([f"{n}" for n in range(20, 30)])
        index.compact()
        index.add(["new"], x[:1])
        index.remove(["7"])
        assert index.check() == []
    return tmp_path / "index"


def content(root: Path) -> Content:
    with Index.open(root, gpu="off") as index:
        assert index.check() == [] and index.notes() == []
        return [(i.id, i.path, i.vector.tobytes()) for i in index.items(index.ids)]


def run_sql(root: Path, script: str) -> None:
    db = sqlite3.connect(root / "items.sqlite")
    db.executescript(script)
    db.close()


def flip(path: Path, place: float) -> None:
    raw = bytearray(path.read_bytes())
    raw[int(len(raw) * place)] ^= 1
    path.write_bytes(raw)


def trained(root: Path) -> Path:
    return root / json.loads((root / "manifest.json").read_text())["projection"]["path"]


def ids_of(root: Path, number: int) -> Path:
    return (
        root / "vectors" / (json.loads((root / "manifest.json").read_text())["segments"][number]["name"] + ".ids.npy")
    )


def lose_a_row_of_an_index(root: Path) -> None:
    """As a bit that changed in the database's own index of paths: the table is whole."""
    run_sql(root, "PRAGMA journal_mode = DELETE")
    raw = (root / "items.sqlite").read_bytes()
    db = sqlite3.connect(root / "items.sqlite")
    page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_items_1'").fetchone()[0]
    size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    start = (page - 1) * size
    changed = bytearray(raw[start : start + size])
    place = re.search(rb"[0-9]{3}", changed).start()  # a path in a cell of the root page
    changed[place : place + 3] = b"XXX"
    (root / "items.sqlite").write_bytes(raw[:start] + changed + raw[start + size :])


REPAIRABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "trained file missing": (lambda root: trained(root).unlink(), "is trained again"),
    "trained file damaged": (lambda root: flip(trained(root), 0.5), "is trained again"),
    "ids missing": (lambda root: ids_of(root, 0).unlink(), "is written again"),
    "ids damaged": (lambda root: flip(ids_of(root, 1), 0.9), "is written again"),
    "last ids damaged": (lambda root: flip(ids_of(root, -1), 0.99), "is written again"),
    "no index of the removed": (lambda root: run_sql(root, "DROP INDEX items_removed"), "its indexes are made again"),
    "index of paths damaged": (lose_a_row_of_an_index, "its indexes are made again"),
    "left by a killed writer": (
        lambda root: (root / "vectors" / "000099.npy").write_bytes(b"half"), "000099.npy is removed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", REPAIRABLE)
def test_what_can_be_made_again_is(damage: str, root: Path) -> None:
    before, (harm, words) = content(root), REPAIRABLE[damage]
    harm(root)
    done, left = repair(root)
    assert left == [] and len(done) == 1 and words in done[0]
    assert content(root) == before and repair(root) == ([], [])


def test_all_of_it_at_once(root: Path) -> None:
    before = content(root)
    some = [
        "trained file damaged",
        "ids missing",
        "last ids damaged",
        "no index of the removed",
        "left by a killed writer",
    ]
    for name in some:
        REPAIRABLE[name][0](root)
    done, left = repair(root)
    assert left == [] and len(done) == len(some) and content(root) == before


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda root: flip(root / "model.bin", 0.5), "model.bin is not what was written"),
        (lambda root: (root / "model.bin").unlink(), "model.bin is missing"),
        (lambda root: flip(next((root / "vectors").glob("*[0-9].npy")), 0.5), "is not what was written"),
        (lambda root: next((root / "vectors").glob("*[0-9].npy")).unlink(), "is missing"),
        (lambda root: run_sql(root, "UPDATE items SET label = 'x' WHERE id = 3"), "their checksum differs"),
        (lambda root: (root / "items.sqlite").write_bytes(b"nonsense" * 5000), "items.sqlite"),
        (lambda root: (root / "items.sqlite").unlink(), "items.sqlite"),
    ],
)
def test_what_cannot_is_named(harm: Callable[[Path], object], words: str, root: Path) -> None:
    trained(root).unlink()
    harm(root)
    _, left = repair(root)
    assert left and all("\n" not in line for line in left) and words in " | ".join(left)


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(root).unlink()
    flip(root / "model.bin", 0.5)
    assert cli.run(["index", "check", str(root), "--repair", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (problem,), (note,) = found["problems"], found["notes"]
    assert problem.startswith("cannot be repaired: model.bin") and note.startswith("repaired: index/")
    (root / "model.bin").write_text("weights")
    assert cli.run(["index", "check", str(root), "--repair"]) == 0
    assert capsys.readouterr().out == "clean\n"


def test_nobody_repairs_beside_a_writer(root: Path) -> None:
    lock = Lock(root / "lock")
    with pytest.raises(SeeallError, match="is being written by another process"):
        repair(root)
    lock.close()


def test_format_1_is_brought_to_today(root: Path) -> None:
    before = content(root)
    older(root, 1)
    with Index.open(root, gpu="off") as index:
        assert len(index) == len(before)
    done, left = repair(root)
    assert left == [] and done == [f"manifest.json is brought from format 1 to format {FORMAT}"]
    after = json.loads((root / "manifest.json").read_text())
    assert after["format"] == FORMAT and len(after["uuid"]) == 32
    assert after["projection"]["bytes"] == trained(root).stat().st_size and content(root) == before


@pytest.mark.parametrize("version", [0, 99])
def test_other_formats_are_named(version: int, root: Path) -> None:
    raw = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**raw, "format": version}))
    for attempt in (lambda: Index.open(root), lambda: repair(root)):
        with pytest.raises(SeeallError, match=f"format {version}"):
            attempt()
