"""One index takes another's place: readers, writers and bystanders beside `--overwrite`."""

import json
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seeall.index import check, draft, durable, snapshot
from seeall.index import manifest as manifests
from seeall.index.plan import Plan
from seeall.index.store import Index
from seeall.types import SeeallError
from tests.index.formats import older, rewrite

DIM = 4
EYE = np.eye(DIM, dtype=np.float32)


def begin(path: Path, **settings: Any) -> Index:
    return Index.create(path, dim=DIM, model="m", preprocessing={}, gpu="off", **settings)


def make(path: Path, name: str = "a", n: int = 3, **settings: Any) -> Path:
    with begin(path, **settings) as index:
        index.add([f"{name}{i}" for i in range(n)], EYE[:n] if name == "a" else EYE[1 : n + 1])
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "index")


def first_time(work: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """`then`, with `work` done before its first call."""
    done = []

    def call(*given: Any, **named: Any) -> Any:
        if not done:
            done.append(work())
        return then(*given, **named)

    return call


@pytest.mark.parametrize("step", ["Items", "Rows"])
def test_reader_beside_overwrite(step: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same generation, files of the same names and sizes: only the uuid tells."""
    other = make(tmp_path / f".index.tmp-{secrets.token_hex(4)}", "b")
    swap = first_time(lambda: durable.exchange(other, root), getattr(snapshot, step))
    monkeypatch.setattr(snapshot, step, swap)
    with Index.open(root, gpu="off") as index:
        items = index.items(index.ids)
        assert [i.path for i in items] == ["b0", "b1", "b2"]
        assert index._snapshot.manifest == manifests.Manifest.read(root)
        assert np.array_equal(np.stack([i.vector for i in items]), EYE[1:])


def test_check_beside_overwrite(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make(tmp_path / f".index.tmp-{secrets.token_hex(4)}", "b")
    monkeypatch.setattr(check, "_files", first_time(lambda: durable.exchange(other, root), check._files))
    assert check.problems(root) == []


def test_reader_and_check_beside_a_steady_writer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit between any two steps, which also tidies the files of the one before away."""
    with Index.open(root, gpu="off") as writer:
        numbers = iter(range(1000))

        def after(work: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any) -> Any:
                found = work(*given)
                with monkeypatch.context() as patch:
                    patch.setattr(snapshot, "Rows", rows)
                    patch.setattr(check, "Snapshot", snapshot.Snapshot)
                    writer.add([f"x{next(numbers)}" for _ in range(4)], EYE)
                return found

            return call

        rows = snapshot.Rows
        monkeypatch.setattr(snapshot, "Rows", after(rows))
        with Index.open(root, gpu="off") as index:
            assert "x0" not in index and len(index) == 3
        monkeypatch.setattr(check, "_items", after(check._items))
        assert check.problems(root) == []
        old = root / "vectors" / json.loads((root / "manifest.json").read_text())["segments"][0]["name"]
        old = old.with_suffix(".npy")
        raw = bytearray(old.read_bytes())
        raw[-1] ^= 1
        old.write_bytes(raw)
        assert "is not what was written" in check.problems(root)[0]


def test_writer_of_an_index_that_was_replaced(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        make(root, "b", overwrite=True)
        for change in (lambda: index.add(["c"], EYE[:1]), lambda: index.remove(["a0"]), index.compact, index.refresh):
            with pytest.raises(SeeallError, match="was replaced since it was opened: open it again"):
                change()
        assert "a0" in index and index.search(EYE[:1], 1)[0].tolist() == [[1]]
    with Index.open(root, gpu="off") as index:
        assert len(index) == 3 and index.check() == [] and index.info()["generation"] == 1


def test_manifest_of_another_program(root: Path) -> None:
    rewrite(root, "", invented=1)
    with pytest.raises(SeeallError, match=r"'invented' in its manifest\.json, which .* does not know: update seeall"):
        Index.open(root)
    segments = json.loads((root / "manifest.json").read_text())["segments"]
    rewrite(root, "invented", segments=[{**s, "invented": 1} for s in segments])
    with pytest.raises(SeeallError, match="update seeall"):
        Index.open(root)
    rewrite(root, "dim", segments=segments)
    with pytest.raises(SeeallError, match="damaged"):
        Index.open(root)


@pytest.mark.parametrize("format", [1, 2])
def test_older_formats_are_still_read(format: int, root: Path) -> None:
    older(root, format)
    with Index.open(root, gpu="off") as index:
        index.add(["d"], EYE[3:])
        assert len(index) == 4 and index.check() == [] and index.refresh() is False
    assert json.loads((root / "manifest.json").read_text())["format"] == manifests.FORMAT


def test_trained_file_of_an_older_format_serves_on(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1200, 4))
    with begin(tmp_path / "i", plan=Plan("ivf", exact_below=1000)) as index:
        index.add([f"{n}" for n in range(1200)], x)
        before, known = index.search(x[:9], 5), index.info()["nprobe"]
    older(tmp_path / "i", 2)
    with Index.open(tmp_path / "i", gpu="off") as index:
        assert index.info()["structure"] == "ivf" and index.info()["nprobe"] == known and index.check() == []
        assert all((a == b).all() for a, b in zip(before, index.search(x[:9], 5)))


@pytest.mark.parametrize(
    "name", ["one.jpg", "index/one.jpg", "vectors/one.jpg", "notes/a.txt", "lock/a.jpg", "model.safetensors"]
)
def test_photographs_beside_a_manifest_are_never_overwritten(name: str, root: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / name).parent.mkdir(parents=True)
    (photos / name).write_bytes(b"dear")
    (photos / "manifest.json").write_text('{"name": "an app", "icons": []}')
    with pytest.raises(SeeallError, match="holds other files"):
        begin(photos, overwrite=True)
    (photos / "manifest.json").write_bytes((root / "manifest.json").read_bytes())
    (photos / "items.sqlite").write_bytes((root / "items.sqlite").read_bytes())
    with pytest.raises(SeeallError, match=f"holds other files .{name.partition('/')[0]}"):
        begin(photos, overwrite=True)
    assert (photos / name).read_bytes() == b"dear"


def test_foreign_manifest_alone_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "an app", "icons": []}')
    with pytest.raises(SeeallError, match=r"holds other files .manifest\.json"):
        begin(tmp_path / "app", overwrite=True)


@pytest.mark.parametrize("how", ["cut", "empty", "missing", "segment", "leftovers"])
def test_damaged_index_is_overwritten(how: str, root: Path, tmp_path: Path) -> None:
    raw = (root / "manifest.json").read_bytes()
    if how in ("cut", "empty"):
        (root / "manifest.json").write_bytes(raw[: len(raw) // 2] if how == "cut" else b"")
    elif how == "missing":
        (root / "manifest.json").unlink()
    elif how == "segment":
        (root / "vectors" / "000001.npy").unlink()
    for name in ("vectors/000009.npy.tmp", "vectors/.nfs0001", "items.sqlite-wal", "skipped.csv", "manifest.json.tmp"):
        (root / name).touch()
    make(root, "b", overwrite=True)
    with Index.open(root, gpu="off") as index:
        assert "b0" in index and index.check() == []
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_only_drafts_are_cleared_away(root: Path, tmp_path: Path) -> None:
    for name in (".index.tmp-backup", ".index.tmp-0123abcd", ".index.tmp-0123abcd9", ".index.tmp-0123ABCD"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dear.txt").touch()
        if "0123abcd" not in name or name.endswith("9"):
            (tmp_path / name / "building").touch()
    (tmp_path / ".index.tmp-89abcdef").mkdir()
    (tmp_path / ".index.tmp-89abcdef" / "building").touch()
    (tmp_path / ".index.tmp-89abcdef" / "manifest.json").touch()
    (tmp_path / ".index.tmp-00000000").mkdir()
    before = sorted(tmp_path.rglob("dear.txt"))
    begin(root, overwrite=True).close()
    assert sorted(tmp_path.rglob("dear.txt")) == before and len(before) == 4
    assert len(list(tmp_path.iterdir())) == 5


def test_renames_where_folders_cannot_be_exchanged(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_swap", lambda: None)
    with pytest.raises(FileNotFoundError):
        durable.exchange(tmp_path / ".index.tmp-0123abcd", root)
    with Index.open(root, gpu="off") as index:
        assert "a0" in index
    make(root, "b", overwrite=True)
    with Index.open(root, gpu="off") as index:
        assert "b0" in index and index.check() == []
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("who", ["open", "create", "overwrite", "refresh"])
def test_index_left_under_its_hidden_name_comes_back(who: str, root: Path, tmp_path: Path) -> None:
    """As a kill between the two renames leaves it."""
    with Index.open(root, gpu="off") as index:
        (root / "building").touch()
        root.rename(tmp_path / ".index.tmp-0123abcd-old")
        if who == "refresh":
            assert not index.refresh()
    if who == "create":
        with pytest.raises(SeeallError, match="already an index"):
            begin(root)
    if who == "overwrite":
        begin(root, overwrite=True).close()
    with Index.open(root, gpu="off") as index:
        assert "a0" in index and index.check() == []
        index.add(["next"], EYE[:1])
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_old_index_is_kept_while_there_is_no_new_one(root: Path, tmp_path: Path) -> None:
    old = root.rename(tmp_path / ".index.tmp-0123abcd-old")
    (old / "building").touch()
    root.mkdir()
    begin(root).close()
    root.rmdir()
    with Index.open(root, gpu="off") as index:
        assert "a0" in index


def test_publishing_waits_for_a_short_writer(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seeall")
    held = threading.Event()

    def write() -> None:
        with Index.open(root, gpu="off") as index, index.writer() as writer:
            writer.append(["last"], EYE[:1])
            held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=write)
    with begin(root, overwrite=True) as index:
        thread.start()
        assert held.wait(20)
        index.add(["b0"], EYE[:1])
        assert index.path == root and len(index) == 1
    thread.join()
    assert caplog.text.count("waiting for another process") == 1
    with Index.open(root, gpu="off") as index:
        assert "b0" in index and "last" not in index


def test_index_that_could_not_be_published(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(new: Path, old: Path) -> None:
        raise OSError(5, "Input/output error")

    with begin(root, overwrite=True) as index:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "exchange", fail)
            with pytest.raises(SeeallError, match="Input/output error"):
                index.add(["b0"], EYE[:1])
        assert "b0" in index and index.check() == [] and index.search(EYE[:1], 1)[0].tolist() == [[1]]
        with Index.open(root, gpu="off") as old:
            old.add(["still"], EYE[:1])
        (root / "photo.jpg").touch()
        with pytest.raises(SeeallError, match="holds other files"):
            index.add(["b1"], EYE[1:2])
        (root / "photo.jpg").unlink()
        index.add(["b2"], EYE[2:3])
        assert index.path == root and len(index) == 3
    with Index.open(root, gpu="off") as index:
        assert len(index) == 3 and index.check() == []
    assert not (root / draft._BUILDING).exists()
