"""What is erased leaves no trace in any file, also where the eraser dies, and whoever reads meanwhile goes on."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seeall.index import skipped
from seeall.index.store import Index
from seeall.types import SeeallError

ROOT = Path(__file__).parents[2]


def everything(root: Path) -> bytes:
    return b"\0".join(p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["steps", "kills"])
def test_no_trace_after_a_death_and_the_next_write(scenario: str, folder: Path) -> None:
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.index.erasures", scenario, folder],
        capture_output=True,
        text=True,
        env=alone,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert seen["old"] >= 1 and seen["new"] >= 1, "the deaths did not reach both sides of the commit"


@pytest.fixture
def root(folder: Path) -> Path:
    with Index.create(folder / "index", dim=4, model="m", preprocessing={}, gpu="off") as index:
        vectors = np.random.default_rng(0).standard_normal((6, 4))
        index.add([f"/p/quendolin-{i}.png" for i in range(6)], vectors, ["quendolin"] * 3 + ["ann"] * 3)
    return folder / "index"


def test_whoever_reads_goes_on_and_the_next_write_removes_what_that_kept(root: Path, notes: list[str]) -> None:
    reader = sqlite3.connect(f"{(root / 'items.sqlite').as_uri()}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM items").fetchone() == (6,)
    with Index.open(root, gpu="off") as index:
        assert index.erase([1, 2, 3]) == 3
        assert any("another process reads" in note for note in notes)
        assert any("traces of what was erased" in note for note in index.notes()) and index.check() == []
        assert reader.execute("SELECT count(*) FROM items").fetchone() == (6,)
        assert b"quendolin-1" in everything(root)
        reader.close()
        index.add(["next"], np.ones((1, 4)))
        assert index.notes() == [] and index.check() == [] and len(index) == 4
        for name in (b"quendolin-0", b"quendolin-1", b"quendolin-2"):
            assert name not in everything(root)
        assert b"quendolin-3" in everything(root)


def test_what_was_deleted_before_and_never_overwritten_goes_too(root: Path) -> None:
    """As an older program has left it in the pages of the database."""
    database = sqlite3.connect(root / "items.sqlite")
    database.execute("PRAGMA secure_delete = OFF")
    database.execute("INSERT INTO items (id, path, metadata, added_generation) VALUES (99, 'hieronymus', '{}', 1)")
    database.commit()
    database.execute("DELETE FROM items WHERE id = 99")
    database.commit()
    database.close()
    assert b"hieronymus" in (root / "items.sqlite").read_bytes()
    with Index.open(root, gpu="off") as index:
        index.erase([1])
        assert index.check() == []
    assert b"hieronymus" not in everything(root)


def test_numbers_are_not_given_again_and_the_rest_is_the_same(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        kept = index.items([4, 5])
        assert index.erase(["/p/quendolin-5.png", 1, 1]) == 2
        assert index.info()["removed"] == 0 and index.ids.tolist() == [2, 3, 4, 5]
        again = index.items([4, 5])
        assert all((a.path, a.label, a.vector.tobytes()) == (b.path, b.label, b.vector.tobytes())
                   for a, b in zip(kept, again))  # fmt: skip
        assert index.add(["new"], np.ones((1, 4))).tolist() == [7]
        assert index.erase(index.ids) == 5 and len(index) == 0 and index.check() == []
    assert b"quendolin" not in everything(root)


def test_what_is_not_there_erases_nothing(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        with pytest.raises(SeeallError, match="'nobody': not in the index"):
            index.erase([1, "nobody"])
        with index.writer() as writer:
            writer.append(["x"], np.ones((1, 4)))
            with pytest.raises(SeeallError, match="before any other change"):
                writer.erase([1])
        assert len(index) == 7 and not (root / "erasing").exists()


def test_lines_of_skipped_pictures_go_with_them(root: Path) -> None:
    skipped.save(root, ("path", "reason"), [("quendolin-1.png", "empty"), ("p/quendolin-2.png", "a, b"), ("z.png", "")])
    with Index.open(root, gpu="off") as index:
        index.erase([1, 2])
        assert skipped.lines(root) == [{"path": "p/quendolin-2.png", "reason": "a, b"}, {"path": "z.png", "reason": ""}]
        index.erase([3])
        skipped.forget(root, lambda line: True)
        assert not (root / "skipped.csv").exists()
        (root / "skipped.csv").write_bytes(b'path,reason\n"a\0b\n')
        index.erase([4])


def test_an_erasing_index_is_an_index(root: Path) -> None:
    """One whose eraser died may be replaced."""
    (root / "erasing").touch()
    with Index.create(root, dim=2, model="m", preprocessing={}, overwrite=True, gpu="off") as index:
        index.add(["a"], np.ones((1, 2)))
        assert len(index) == 1 and index.notes() == []
