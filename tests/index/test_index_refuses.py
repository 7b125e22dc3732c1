"""Everything a user can get wrong is one line that says what, where and what to do; and nothing has changed."""

import json
from pathlib import Path

import numpy as np
import pytest

from seeall.index.manifest import FORMAT
from seeall.index.store import Index
from seeall.types import SeeallError

DIM = 4
EYE = np.eye(DIM, dtype=np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with begin(tmp_path / "index") as index:
        index.add(["a", "b", "c"], EYE[:3], ["x", None, "y"], [{"n": 1}, None, {}])
    return tmp_path / "index"


def begin(path: Path, **settings: object) -> Index:
    return Index.create(path, dim=DIM, model="digest", preprocessing={"size": 64}, gpu="off", **settings)


def refused(error: pytest.ExceptionInfo[SeeallError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and all(w in text for w in words), text


def test_what_is_no_index(root: Path) -> None:
    with pytest.raises(SeeallError) as error:
        Index.open(root / "nowhere")
    refused(error, "no index at", "ssl index build")
    (root / "manifest.json").rename(root / "aside")
    with pytest.raises(SeeallError) as error:
        Index.open(root)
    refused(error, "no complete index")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x"}', '{"format": 1, "checksum": "0"}'])
def test_damaged_manifest(text: str, root: Path) -> None:
    (root / "manifest.json").write_text(text)
    with pytest.raises(SeeallError) as error:
        Index.open(root)
    refused(error, "damaged", "manifest.json")


def test_newer_format(root: Path) -> None:
    body = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**body, "format": FORMAT + 1, "something": "new"}))
    with pytest.raises(SeeallError) as error:
        Index.open(root)
    refused(error, f"format {FORMAT + 1}", f"up to {FORMAT}", "update")


@pytest.mark.parametrize("name", ["items.sqlite", "vectors/000001.npy", "vectors/000001.ids.npy"])
@pytest.mark.parametrize("how", ["missing", "cut", "nonsense"])
def test_damaged_files(name: str, how: str, root: Path) -> None:
    for log in root.glob("items.sqlite-*"):
        log.unlink()
    path = root / name
    raw = path.read_bytes()
    path.unlink() if how == "missing" else path.write_bytes(raw[:60] if how == "cut" else b"\1" * len(raw))
    with pytest.raises(SeeallError) as error:
        Index.open(root)
    refused(error, "damaged", name)


def test_second_writer(root: Path) -> None:
    with Index.open(root) as first, Index.open(root) as second:
        with first.writer() as writer:
            writer.append(["d"], EYE[3:])
            with pytest.raises(SeeallError) as error:
                second.remove(["a"])
            refused(error, str(root), "try again")
            assert len(second.search(EYE[:1], 3)[0][0]) == 3
        assert second.remove(["a", "d"]) == 2, "it starts from what the first has written"
        assert not first.check() and first.refresh() and first.ids.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("paths", "vectors", "words"),
    [
        (["d"], np.ones((1, 5)), ["(1, 5)", "4 dimensions"]),
        (["d", "e"], EYE[:1], ["1 vectors for 2 paths"]),
        (["d", "e"], np.stack([EYE[0], EYE[0] * np.nan]), ["NaN", "'e'"]),
        (["d", "e"], np.stack([EYE[0] + np.inf, EYE[0]]), ["infinity", "'d'"]),
        (["d", "e"], np.stack([EYE[0], EYE[0] * 0]), ["zeros", "'e'"]),
        (["d", "d"], EYE[:2], ["'d'", "twice"]),
        (["d", ""], EYE[:2], ["empty name"]),
        (["d", "e\0"], EYE[:2], ["zero byte"]),
        (["d", "\ud83d"], EYE[:2], ["neither text"]),
    ],
)
def test_items_that_cannot_be_added(paths: list[str], vectors: np.ndarray, words: list[str], root: Path) -> None:
    with Index.open(root) as index:
        with pytest.raises(SeeallError) as error:
            index.add(paths, vectors)
        refused(error, *words)
        assert len(index) == 3 and index.info()["generation"] == 1 and index.check() == []


def test_twice_over_two_parts_of_one_commit(root: Path) -> None:
    with Index.open(root) as index:
        with pytest.raises(SeeallError, match="twice"), index.writer() as writer:
            writer.append(["d"], EYE[:1])
            writer.append(["d"], EYE[1:2])
        with pytest.raises(SeeallError, match="same commit"), index.writer() as writer:
            writer.append(["d"], EYE[:1])
            writer.remove(["d"])
        assert len(index) == 3 and "d" not in index


def test_metadata_that_is_no_json(root: Path) -> None:
    with Index.open(root) as index, pytest.raises(SeeallError, match="'d' cannot be kept as JSON"):
        index.add(["d"], EYE[:1], metadata=[{"x": float("nan")}])


def test_unknown_items(root: Path) -> None:
    with Index.open(root) as index:
        with pytest.raises(SeeallError) as error:
            index.remove(["a", 7, "q", "r", "s"])
        refused(error, "7, 'q', 'r' and 1 more", "not in the index")
        with pytest.raises(SeeallError, match="'q' is not in the index"):
            index.get("q")
        with pytest.raises(SeeallError, match="^9 is not in the index"):
            index.items(np.array([1, 9]))
        assert len(index) == 3 and "a" in index and 1 in index and 7 not in index


def test_search_that_makes_no_sense(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Index.open(root) as index:
        with pytest.raises(SeeallError, match="k is 0"):
            index.search(EYE, 0)
        with pytest.raises(SeeallError, match="number 1"):
            index.search(EYE[:2] * [[1], [0]], 1)
        ids, scores = index.search(EYE[:2], 50)
        assert ids.shape == scores.shape == (2, 3) and "3 neighbours are returned, not 50" in caplog.text
        assert index.search(np.empty((0, DIM)), 2)[0].shape == (0, 2)
        index.remove(["a", "b", "c"])
        assert index.search(EYE, 2)[0].shape == (4, 0) and index.check() == []


def test_other_model(root: Path) -> None:
    with Index.open(root) as index:
        index.require_model("digest")
        with pytest.raises(SeeallError, match="made with model digest, not other"):
            index.require_model("other")


def test_creation_over_something(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match="--overwrite"):
        begin(root)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.jpg").touch()
    with pytest.raises(SeeallError, match="holds other files"):
        begin(photos, overwrite=True)
    with pytest.raises(SeeallError, match="is a file"):
        begin(photos / "one.jpg")
    with begin(root, overwrite=True):
        assert len(Index.open(root)) == 3, "the old one stays until the new one is complete"
    with begin(root, overwrite=True) as index:
        index.add(["z"], EYE[:1])
        assert index.path == root and index.check() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index", "photos"]


def test_files_kept_with_the_index(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    with pytest.raises(SeeallError, match="cannot be called 'manifest.json'"):
        begin(tmp_path / "index", files={"manifest.json": weights})
    with begin(tmp_path / "index", files={"model.safetensors": weights}) as index:
        index.add(["a"], EYE[:1])
        assert (tmp_path / "index" / "model.safetensors").read_bytes() == b"weights" and not index.check()
        (tmp_path / "index" / "model.safetensors").write_bytes(b"others")
        assert "model.safetensors" in index.check()[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index", "weights"]


def test_names_that_are_no_utf8(root: Path) -> None:
    name = b"caf\xe9/\xff.jpg".decode("utf-8", "surrogateescape")
    with Index.open(root) as index:
        index.add([name], EYE[3:], labels=[name], metadata=[{"of": name}])
    with Index.open(root) as index:
        item = index.get(name)
        assert (item.path, item.label, item.metadata) == (name, name, {"of": name}) and not index.check()
        assert index.get(item.id).path == name and index.remove([name]) == 1
