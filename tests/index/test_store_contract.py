"""What holds for an index wherever it is kept: beside brute force, and the ones beside each other, to the last bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeall.index.known import below, files, keys, records, walk
from seeall.index.protocol import Store
from seeall.index.segments import unit
from seeall.index.stamps import Stamp
from seeall.index.stores import open_store
from seeall.types import SeeallError
from tests.index.stores import EVERYWHERE, Begin, beginner, needs_milvus
from tests.index.test_where import conditions, items

ODD = ["it's.jpg", '"quoted".jpg', "a\udc80b.jpg", "ü/ñ.png", "back\\slash", "%_'", "id == 1", "7"]


@pytest.fixture(params=EVERYWHERE)
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Begin:
    return beginner(request.param, tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    """Two indexes of the same 400 items, in a folder and in Milvus; every tenth vector is one of five."""
    root = tmp_path_factory.mktemp("pair")
    x = vectors(400)
    x[::10] = x[np.arange(40) % 5]
    labels = [None if n % 4 == 0 else ("cat", "dog", "7")[n % 3] for n in range(400)]
    metadata = [{"n": n % 7, "t": str(n), "name": f"x{n % 11}"} if n % 5 else None for n in range(400)]
    with beginner("folder", root)("one", 16) as one, beginner("milvus", root)("two", 16) as two:
        for index in (one, two):
            index.add([f"/photos/{n % 3}/{n}.jpg" for n in range(400)], x, labels, metadata)
            index.remove([3, 5, "/photos/1/100.jpg"])
            index.add(["/photos/1/1.jpg", "new"], x[[7, 8]], ["cat", None])
        yield one, two


def vectors(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def brute(index: Store, queries: np.ndarray, k: int, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k best of the items `keep`, in double precision, equal ones by id."""
    rows = np.stack([item.vector for item in index.items(keep.tolist())]).astype(np.float64)
    scores = (unit(queries, index.dim).astype(np.float64)[:, None] * rows[None]).sum(-1).clip(-1, 1).astype(np.float32)
    order = np.lexsort((np.broadcast_to(keep, scores.shape), -scores))[:, :k]
    return keep[order], np.take_along_axis(scores, order, 1)


def test_what_goes_in_comes_out(begin: Begin) -> None:
    with begin() as index:
        x = vectors(8, 4)
        metadata: list[Any] = [{"a": n, "ü": [1, {"b": None}], "t": "it's", "f": 0.1 + n, "w": 2**60} for n in range(8)]
        assert index.add(ODD, 3 * x, ODD, metadata).tolist() == list(range(1, 9))
        got = index.items(ODD)
        assert [(i.id, i.path, i.label, i.metadata) for i in got] == list(zip(range(1, 9), ODD, ODD, metadata))
        assert np.array_equal(np.stack([i.vector for i in got]), unit(3 * x, 4))
        assert index.get(3).path == "a\udc80b.jpg" and index.get("a\udc80b.jpg").id == 3
        assert [name in index for name in ["7", 7, "8", 8, 9, 0, -1, 10**30]] == [True, True, False, True] + [False] * 4
        assert index.add([], np.empty((0, 4))).tolist() == [] and index.info()["generation"] == 1
        assert index.add(["plain"], x[:1]).tolist() == [9]
        assert (index.get(9).label, index.get(9).metadata) == (None, {})
        assert index.preprocessing == {"image_size": 32} and index.dim == 4 and len(index) == 9
        for missing in (10, "nothing", "\ud800"):
            with pytest.raises(SeeallError, match="is not in the index"):
                index.get(missing)


def test_a_path_that_comes_again_replaces_and_no_number_does(begin: Begin) -> None:
    with begin() as index:
        x = vectors(6, 4)
        index.add(["a", "b", "c"], x[:3], ["1", "2", "3"])
        assert index.add(["b", "d"], x[3:5], ["4", None]).tolist() == [4, 5]
        assert index.ids.tolist() == [1, 3, 4, 5] and index.get("b").label == "4" and 2 not in index
        assert index.remove([5, "a", 5]) == 2 and len(index) == 2
        assert index.add(["a"], x[5:]).tolist() == [6]
        assert index.search(x[3], 1)[0].tolist() == [[4]] and index.ids.tolist() == [3, 4, 6]
        with pytest.raises(SeeallError, match=r"'a' is not in the index|1: not in the index|not in the index"):
            index.remove([3, 1])
        with pytest.raises(SeeallError, match="added twice"):
            index.add(["x", "x"], x[:2])
        assert index.ids.tolist() == [3, 4, 6] and index.info()["generation"] == 4


def test_many_changes_are_one_commit_or_none(begin: Begin) -> None:
    with begin() as index:
        x = vectors(9, 4)
        index.add(["a", "b", "c"], x[:3])
        with open_store(index.path, gpu="off") as reader:
            with index.writer() as writer:
                assert writer.append(["d", "a"], x[3:5]).tolist() == [4, 5]
                assert writer.append(["e"], x[5:6]).tolist() == [6]
                assert writer.remove(["b"]) == 1
                for again in ("d", "a", "e"):
                    with pytest.raises(SeeallError, match="added twice in one commit"):
                        writer.append([again], x[:1])
                for gone in ("b", 2, 1, "nothing"):
                    with pytest.raises(SeeallError, match="not in the index"):
                        writer.remove([gone])
                with pytest.raises(SeeallError, match="added by this same commit"):
                    writer.remove([4])
                reader.refresh()
                assert len(reader) == 3 and reader.ids.tolist() == [1, 2, 3] and "d" not in reader
                assert sorted(reader.search(x[3], 9)[0][0].tolist()) == [1, 2, 3]
                assert [item.path for item in reader.items([1, 2, 3])] == ["a", "b", "c"]
            assert index.ids.tolist() == [3, 4, 5, 6] and index.info()["generation"] == 2
            with pytest.raises(ZeroDivisionError), index.writer() as writer:
                writer.append(["f", "c"], x[6:8])
                writer.remove(["d"])
                raise ZeroDivisionError
            assert reader.refresh() and not reader.refresh()
            for one in (index, reader):
                assert one.ids.tolist() == [3, 4, 5, 6] and len(one) == 4 and one.info()["generation"] == 2
                assert sorted(one.search(x[6], 9)[0][0].tolist()) == [3, 4, 5, 6]
        assert index.add(["f"], x[6:7]).tolist() == [7]


def test_search_is_brute_force(begin: Begin, notes: list[str]) -> None:
    with begin(dim=16) as index:
        x = vectors(300)
        x[::10] = x[0]
        index.add([str(n) for n in range(300)], x)
        index.remove([11, 12, 13])
        for queries in (vectors(20, seed=1), x[:3], x[:1] * 5):
            for k in (1, 7, 25, 297):
                ids, scores = index.search(queries, k)
                wanted, true = brute(index, queries, k, index.ids)
                assert ids.dtype == np.int64 and scores.dtype == np.float32 and np.allclose(scores, true, atol=1e-6)
                assert k > 25 or np.array_equal(ids, wanted)
                assert all(((a[:-1] > a[1:]) | (i[:-1] < i[1:])).all() for a, i in zip(scores, ids))
        assert not notes
        assert index.search(x[0], 1000)[0].shape == (1, 297) and "holds 297 items: 297 neighbours" in notes[-1]
        index.remove(index.ids.tolist())
        assert index.search(x[:2], 3)[0].shape == (2, 0) and len(index) == 0 and index.span() is None


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda i: i.add(["x"], [[1, np.nan, 0, 0]]), "NaN or infinity, the first is 'x'"),
        (lambda i: i.add(["x"], [[1, np.inf, 0, 0]]), "NaN or infinity"),
        (lambda i: i.add(["x", "y"], [[1, 0, 0, 0], [0, 0, 0, 0]]), "zeros only, the first is 'y'"),
        (lambda i: i.add(["x"], np.ones((1, 5))), "do not fit an index of 4 dimensions"),
        (lambda i: i.add(["x", "y"], np.ones((1, 4))), "1 vectors for 2 paths"),
        (lambda i: i.add(["x"], np.ones((1, 4)), ["a", "b"]), "2 labels for 1 paths"),
        (lambda i: i.add([""], np.ones((1, 4))), "empty name"),
        (lambda i: i.add(["a\0"], np.ones((1, 4))), "zero byte"),
        (lambda i: i.add(["\ud800"], np.ones((1, 4))), "neither text nor the name of a file"),
        (lambda i: i.add(["x"], np.ones((1, 4)), None, [{"a": {1}}]), "cannot be kept as JSON"),
        (lambda i: i.search(np.ones(4), 0), "k is 0"),
        (lambda i: i.search(np.ones(5), 1), "do not fit"),
        (lambda i: i.search([np.nan] * 4, 1), "NaN"),
        (lambda i: i.search(np.ones(4), 1, "n ="), "letter 4"),
        (lambda i: i.select("or"), "want a name"),
        (lambda i: i.require_model("other"), "was made with model m, not other"),
    ],
)
def test_mistakes_change_nothing(begin: Begin, work: Callable[[Store], object], words: str) -> None:
    with begin() as index:
        index.add(["a"], np.ones((1, 4)))
        with pytest.raises(SeeallError, match=re.escape(words)) as fault:
            work(index)
        assert "\n" not in str(fault.value)
        assert index.info()["generation"] == 1 and index.ids.tolist() == [1]


def test_a_folder_and_a_film_are_what_lies_in_them(begin: Begin) -> None:
    names = [
        "/a/f/1",
        "/a/f#2",
        "/a/f.mp4#00:00.000",
        "/a/f.mp4#00:01.000",
        "/a/f.mp4/x",
        "/a/F.mp4#00:00.000",
        "/a/f.mp40",
    ]
    with begin() as index:
        index.add(names, vectors(len(names), 4))
        assert below(index, "/a/f") == ["/a/f/1"]  # and no file whose name goes on with the sign of frames
        assert sorted(below(index, "/a/f.mp4")) == names[2:5]
        assert below(index, "/a/f/1") == [] and below(index, "") == below(index, "/") and len(below(index, "/")) == 7


def test_what_is_known_of_items(begin: Begin) -> None:
    with begin() as index:
        names = ["/photos/a/1", "/photos/a/2", "/photos/b", "/photos/ab", "odd"]
        index.add(names, vectors(5, 4), ["x", None, "z", None, None], [{"a": 1}, None, {"ü": 2, "a": 3}, None, {}])
        assert sorted(below(index, "/photos/a")) == names[:2] and sorted(below(index, "/photos/")) == sorted(names[:4])
        assert keys(index) == {"a", "ü"} and index.span() == ("/photos/a/1", "/photos/b")
        with index.writer() as writer:
            writer.stamp({1: Stamp(10, 2**62, "abc"), 3: Stamp(0, 0, "")})
        assert index.info()["generation"] == 1
        with index.writer() as writer:
            writer.stamp({1: Stamp(11, 5, "def")})
            index.refresh()
            (new,) = writer.append(["/photos/b"], vectors(1, 4))
            writer.stamp({int(new): Stamp(1, 2, "new")})
        found = files(index, [*names, "nothing"])
        assert {path: (r.id, r.label, r.metadata, stamp) for path, (r, stamp) in found.items()} == {
            "/photos/a/1": (1, "x", '{"a": 1}', (11, 5, "def")), "/photos/a/2": (2, None, "{}", None),
            "/photos/b": (6, None, "{}", (1, 2, "new")), "/photos/ab": (4, None, "{}", None),
            "odd": (5, None, "{}", None),
        }  # fmt: skip
        assert [(r.path, s) for r, s in records(index, np.array([6, 1]))] == [
            ("/photos/b", (1, 2, "new")), ("/photos/a/1", (11, 5, "def")),
        ]  # fmt: skip
        blocks = list(walk(index, 2))
        assert np.concatenate([ids for ids, _ in blocks]).tolist() == [1, 2, 4, 5, 6] == index.ids.tolist()
        assert max(len(ids) for ids, _ in blocks) <= 2
        assert np.array_equal(
            np.concatenate([x for _, x in blocks]), np.stack([item.vector for item in index.items(index.ids)])
        )


def test_reopened_replaced_and_closed(begin: Begin) -> None:
    with begin("i") as index:
        assert index.path.name != "i"
        index.add(["a", "b"], vectors(2, 4))
        place = index.path
        assert place.name == "i"
    with pytest.raises(SeeallError, match="is closed"):
        index.search(np.ones(4), 1)
    with open_store(place, gpu="off") as index, open_store(place, gpu="off") as other:
        assert index.ids.tolist() == [1, 2] and other.add(["c"], vectors(1, 4)).tolist() == [3]
        assert index.refresh() and index.ids.tolist() == [1, 2, 3]
        with index.writer() as writer, pytest.raises(SeeallError, match="being written by another process"):
            writer.append(["d"], vectors(1, 4))
            other.remove([1])
        assert other.refresh() and other.remove([1]) == 1
        with pytest.raises(SeeallError, match="--overwrite replaces it"):
            begin("i")
        with begin("i", overwrite=True) as new:
            assert index.refresh() and len(index) == 3  # until the first commit
            new.add(["z"], vectors(1, 4))
        for one in (index, other):
            with pytest.raises(SeeallError, match="was replaced since it was opened"):
                one.add(["e"], vectors(1, 4))
            with pytest.raises(SeeallError, match="was replaced since it was opened"):
                one.refresh()
    with open_store(place, gpu="off") as index:
        assert index.get(1).path == "z" and len(index) == 1
    begin("never").close()
    assert sorted(p.name for p in place.parent.iterdir() if p.suffix != ".db") == ["i"]
    with pytest.raises(SeeallError, match="there is no index at"):
        open_store(place / "nothing")


@needs_milvus
@pytest.mark.parametrize(
    "where", [None, "n = 3 and t > 100", "label is null", "n < 6", "label = 'cat' or id > 390", "n = 9"]
)
def test_both_answer_the_same_to_the_last_bit(pair: tuple[Store, Store], where: str | None, notes: list[str]) -> None:
    one, two = pair
    queries = np.concatenate([vectors(30, seed=2), vectors(400)[:20]])
    for k in (1, 10, 60, 500):
        (a, s), (b, t) = one.search(queries, k, where), two.search(queries, k, where)
        assert np.array_equal(a, b) and np.array_equal(s, t) and a.dtype == b.dtype and s.dtype == t.dtype
    assert [n for n in notes if "Milvus" in n] == []


@needs_milvus
@settings(max_examples=25, deadline=None)
@given(metadata=st.lists(items, min_size=1, max_size=12), asked=st.lists(conditions, min_size=1, max_size=4))
def test_random_conditions_hold_for_the_same(
    pair_of_two: tuple[Store, Store], metadata: list[dict[str, Any]], asked: list[tuple[str, Any]]
) -> None:
    for index in pair_of_two:
        with index.writer() as writer:
            writer.remove(index.ids.tolist())
            ids = writer.append([f"p{n}" for n in range(len(metadata))], vectors(len(metadata), 4), None, metadata)
    one, two = pair_of_two
    for text, holds in asked:
        expected = [i for i, m in zip(ids.tolist(), metadata) if holds(m) is True]
        assert one.select(text).tolist() == two.select(text).tolist() == expected, (text, metadata)
        (a, s), (b, t) = (index.search(np.ones(4), 3, text) for index in pair_of_two)
        assert np.array_equal(a, b) and np.array_equal(s, t)


@pytest.fixture(scope="module")
def pair_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    root = tmp_path_factory.mktemp("two")
    with beginner("folder", root)("one") as one, beginner("milvus", root)("two") as two:
        for index in (one, two):
            index.add(["first"], np.ones((1, 4)))
        yield one, two
