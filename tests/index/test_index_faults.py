"""Disks that refuse, files that are lost, processes that fork: one line each, and never a wrong answer."""

import contextlib
import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from seeall.index import items, segments, store
from seeall.index.plan import Plan
from seeall.index.search import Searcher
from seeall.index.store import Index
from seeall.types import SeeallError

DIM = 4
EYE = np.eye(DIM, dtype=np.float32)


def begin(path: Path, **settings: object) -> Index:
    return Index.create(path, dim=DIM, model="m", preprocessing={}, gpu="off", **settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with begin(tmp_path / "index") as index:
        index.add(["a", "b", "c"], EYE[:3])
    return tmp_path / "index"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    with begin(tmp_path / "index", plan=Plan(exact_below=300)) as index:
        index.add([f"{n}" for n in range(400)], random.standard_normal((400, DIM)))
    return tmp_path / "index"


def test_compacting_comes_first(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        index.remove(["a"])
        with pytest.raises(SeeallError, match="compacted before any other change"), index.writer() as writer:
            writer.append(["d"], EYE[3:])
            writer.compact()
        with index.writer() as writer:
            assert writer.compact() == 1
            writer.append(["d"], EYE[3:])
        assert len(index) == 3 and index.check() == []


@pytest.mark.parametrize("how", ["append", "remove"])
def test_disk_error_that_the_caller_swallows(how: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "ROWS", 2)

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with Index.open(root, gpu="off") as index:
        with pytest.raises(SeeallError, match="nothing of this commit is kept"), index.writer() as writer:
            if how == "append":
                (root / "vectors").rename(root / "aside")
                with contextlib.suppress(SeeallError):
                    writer.append(["d", "e", "f"], EYE[:3])
                (root / "aside").rename(root / "vectors")
            else:
                with monkeypatch.context() as patch, contextlib.suppress(SeeallError):
                    patch.setattr(items.Items, "retire", refuse)
                    writer.remove(["a"])
        assert index.ids.tolist() == [1, 2, 3] and index.check() == []
        index.add(["d"], EYE[3:])
        assert len(index) == 4


@pytest.mark.parametrize("name", ["manifest.json", "items.sqlite", "vectors/000001.npy", "vectors/000001.ids.npy"])
def test_what_cannot_be_read_is_not_called_damaged(name: str, root: Path) -> None:
    (root / name).rename(root / "aside")
    (root / name).mkdir()
    with pytest.raises(SeeallError, match=f"cannot be read: {name}") as error:
        Index.open(root)
    assert "damaged" not in str(error.value)


def test_too_many_open_files_and_a_locked_database(root: Path) -> None:
    opened = sqlite3.OperationalError("unable to open database file")
    for fault in (opened, sqlite3.OperationalError("database is locked"), sqlite3.ProgrammingError("closed")):
        assert "damaged" not in str(items._fault(root, fault))
    assert "damaged" in str(items._fault(root, sqlite3.DatabaseError("file is not a database")))
    assert "damaged" in str(items._fault(root, sqlite3.OperationalError("no such table: items")))


def test_closed_index(root: Path) -> None:
    index = Index.open(root, gpu="off")
    index.search(EYE, 1)
    index.close()
    index.close()
    assert index._searcher is None
    for asked in (lambda: index.get("a"), lambda: index.search(EYE, 1), lambda: len(index), index.refresh):
        with pytest.raises(SeeallError, match="is closed: open it again"):
            asked()


def test_folders_lost_in_copying(root: Path) -> None:
    (root / "index").rmdir()
    with Index.open(root, gpu="off") as index:
        assert index.notes() == [] and index.check() == []
        index.add(["d"], EYE[3:])
        assert len(index) == 4 and (root / "index").is_dir()
        index.remove(index.ids.tolist())
        index.compact()
    (root / "vectors").rmdir()
    with Index.open(root, gpu="off") as index:
        assert index.notes() == []
        index.add(["e"], EYE[:1])
        assert len(index) == 1 and index.check() == []


def test_leftovers_that_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "vectors" / ".nfs0000001").touch()
    (root / "vectors" / "000077.npy").touch()
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "000077.npy":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with Index.open(root, gpu="off") as index:
        index.add(["d"], EYE[3:])
        assert len(index) == 4 and len(index.notes()) == 1 and (root / "vectors" / ".nfs0000001").exists()


@pytest.mark.parametrize("how", ["missing", "cut", "zeros", "other"])
def test_trained_file_is_done_without(how: str, trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = trained / "index" / "00000001.faiss"
    raw = path.read_bytes()
    queries = np.random.default_rng(1).standard_normal((5, DIM))
    with Index.open(trained, gpu="off") as index:
        wanted = index.search(queries, 7)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": raw[:5000], "zeros": bytes(len(raw)), "other": raw[:4] + raw[2000:]}[how])
    with Index.open(trained, gpu="off") as index:
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(index.search(queries, 7), wanted))
        assert "searching without it" in caplog.text
        (line,) = index.check()
        assert "index/00000001.faiss" in line and "compact the index to rebuild it" in line
        index.add(["new"], EYE[:1])
        assert index.check() == [] and index.notes() == []
        assert not Searcher(index._snapshot, "off").damaged
    assert [p.name for p in (trained / "index").iterdir()] == ["00000002.faiss"]


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_trained_file_that_nobody_has_missed(how: str, trained: Path) -> None:
    path = trained / "index" / "00000001.faiss"
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:5000])
    with Index.open(trained, gpu="off") as index:
        index.add(["new"], EYE[:1])
        assert index.check() == [] and index.info()["structure"] == "ivf"


def test_compacting_reads_every_byte_of_the_trained_file(trained: Path) -> None:
    path = trained / "index" / "00000001.faiss"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with Index.open(trained, gpu="off") as index:
        assert "compact the index to rebuild it" in index.check()[0]
        assert index.compact() == 0 and index.check() == []


def test_sound_trained_file_is_not_built_again(trained: Path) -> None:
    with Index.open(trained, gpu="off") as index:
        assert index.compact() == 0 and index.info()["generation"] == 1


def test_lock_that_the_disk_does_not_know(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with Index.open(root, gpu="off") as index:
        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(SeeallError, match="cannot lock .*No locks available") as error:
            index.remove(["a"])
        assert "another process" not in str(error.value)


def test_numbers_beyond_all_bounds(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        for huge in (10**20, -(10**20), 2**63):
            assert huge not in index
            with pytest.raises(SeeallError, match=f"{huge} is not in the index"):
                index.get(huge)
            with pytest.raises(SeeallError, match=f"{huge}: not in the index"):
                index.remove([huge])
        with pytest.raises(SeeallError, match="hold NaN or infinity, the first is number 2"):
            index.add(["d", "e"], np.stack([EYE[0], EYE[1], EYE[2] * np.nan]))


def test_lengths_that_float32_cannot_hold() -> None:
    small = np.array([[3e-50, 4e-50, 0, 0], [3e-200, 0, 4e-200, 0], [3e200, 4e200, 0, 0], [3, 4, 0, 0]])
    expected = np.array([[0.6, 0.8, 0, 0], [0.6, 0, 0.8, 0], [0.6, 0.8, 0, 0], [0.6, 0.8, 0, 0]], np.float32)
    assert np.allclose(segments.unit(small, 4), expected, atol=1e-7)
    tiny = np.full((1, 4), 1e-45, np.float32)
    assert np.allclose(segments.unit(tiny, 4), 0.5) and tiny[0, 0] == np.float32(1e-45)
    with pytest.raises(SeeallError, match="zeros only"):
        segments.unit(np.zeros((1, 4)), 4)


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    plan = Plan(exact_below=0)
    assert plan.candidates(0, 4) == ("exact",) and plan.candidates(1, 4) == ("ivf",)
    with begin(tmp_path / "index", plan=plan) as index:
        index.add(["a", "b"], EYE[:2])
        assert index.search(EYE[:1], 1)[0].tolist() == [[1]]
        index.remove(["a", "b"])
        assert index.search(EYE[:1], 1)[0].shape == (1, 0) and index.check() == []
        index.compact()
        assert index.check() == []


@pytest.mark.parametrize("query", [items._REMOVED, items._BACK])
def test_removed_items_are_found_by_their_index(query: str, root: Path) -> None:
    with contextlib.closing(sqlite3.connect(root / "items.sqlite")) as db:
        plan = " ".join(str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query}", (1,) * query.count("?")))
    assert "SEARCH items USING INDEX items_removed (removed_generation" in plan.replace("COVERING ", "")
    assert "SCAN" not in plan


def test_refresh_while_the_searcher_is_built(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def slow(*given: object) -> Searcher:
        begun.set()
        time.sleep(0.2)
        return Searcher(*given)

    with Index.open(root, gpu="off") as index, Index.open(root, gpu="off") as other:
        other.add(["d"], EYE[3:])
        other.remove(["a"])
        monkeypatch.setattr(store, "Searcher", slow)
        thread = threading.Thread(target=lambda: index.search(EYE, 3))
        thread.start()
        assert begun.wait(20) and index.refresh()
        thread.join()
        assert sorted(index.search(EYE, 3)[0][0].tolist()) == [2, 3, 4]


def test_many_threads_beside_changes(root: Path) -> None:
    stop, faults = threading.Event(), []

    def ask(index: Index) -> None:
        try:
            while not stop.is_set():
                ids, scores = index.search(EYE[:1], 2)
                assert ids[0, 0] == 1 and scores[0, 0] == 1
                assert index.get("a").vector[0] == 1 and "a" in index
        except Exception as fault:
            faults.append(fault)

    with Index.open(root, gpu="off") as index:
        threads = [threading.Thread(target=ask, args=(index,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(15):
            index.add([f"x{n}"], EYE[1:2])
            index.remove([f"x{n}"])
            index.refresh()
        index.compact()
        stop.set()
        for thread in threads:
            thread.join()
        assert not faults


FORKED = """
import os, signal, sys
import numpy as np
from seeall.index.store import Index
from seeall.types import SeeallError
x = np.random.default_rng(0).standard_normal((20000, 32))
draft = Index.create(sys.argv[1] + "/draft", dim=32, model="m", preprocessing={}, gpu="off")
with Index.create(sys.argv[1] + "/index", dim=32, model="m", preprocessing={}, gpu="off") as index:
    index.add([str(n) for n in range(20000)], x)
    wanted = index.search(x[:300], 5)
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        for ask in (lambda: index.search(x[:300], 5), lambda: index.get(1), lambda: index.add(["a"], x[:1])):
            try:
                ask()
            except SeeallError as error:
                assert "open the index" in str(error) or "open it again in this process" in str(error), error
            else:
                os._exit(1)
        index.close(), draft.close()
        with Index.open(sys.argv[1] + "/index", gpu="off") as again:
            found = again.search(x[:300], 5)
        os._exit(0 if all((a == b).all() for a, b in zip(found, wanted)) else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert index.check() == [] and draft.path.is_dir()
"""


def test_forked_child_opens_the_index_again(folder: Path) -> None:
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED, folder], capture_output=True, text=True, env=threads, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
