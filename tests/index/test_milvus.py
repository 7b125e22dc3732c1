"""An index in Milvus whose writer dies, whose server goes away, and that is written from two places."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest

from seeall.index.known import files
from seeall.index.milvus import conditions as milvus_conditions
from seeall.index.milvus import log as milvus_log
from seeall.index.milvus import rows as milvus_rows
from seeall.index.plan import Plan
from seeall.index.protocol import Store
from seeall.index.segments import unit
from seeall.index.stamps import Stamp
from seeall.index.stores import creator, open_store
from seeall.types import SeeallError
from tests.index.stores import Milvus, beginner, needs_milvus

pytestmark = needs_milvus
WRITES = ("insert", "upsert", "delete", "flush")
Content = dict[str, tuple[int, str | None, str, bytes]]


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def content(index: Store) -> Content:
    """Everything that is in it, by path; found by search and by conditions as well."""
    items = index.items(index.ids)
    assert len(items) == len(index) == len(index.select("id > 0"))
    if items:
        assert sorted(index.search(np.ones(4), len(index))[0][0].tolist()) == index.ids.tolist()
    return {i.path: (i.id, i.label, json.dumps(i.metadata), i.vector.tobytes()) for i in items}


@final
class Dying:
    """A client of Milvus whose process dies at its n-th write, before or after that was done: then nothing goes out."""

    def __init__(self, client: Any, last: int, before: bool) -> None:
        self._client, self._left, self._before, self.dead = client, last, before, False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*some: Any, **more: Any) -> Any:
            if self.dead:
                raise ConnectionError("dead")
            if name in WRITES:
                self._left -= 1
                self.dead = self._left <= 0
            if self.dead and self._before:
                raise ConnectionError("dead")
            done = getattr(self._client, name)(*some, **more)
            if self.dead:
                raise ConnectionError("dead")
            return done

        return call


def change(index: Store) -> None:
    """What comes, goes, is replaced and is stamped, in one commit."""
    with index.writer() as writer:
        ids = writer.append(["new", "b"], vectors(2, 1), ["x", "y"], [{"n": 1}, None])
        writer.stamp({int(i): Stamp(1, 2, "3") for i in ids})
        writer.append(["newer"], vectors(1, 2))
        writer.remove(["a", "d"])


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_death_at_every_single_write(before: bool, tmp_path: Path) -> None:
    begin = beginner("milvus", tmp_path)
    seen = {"old": 0, "new": 0}
    for step in range(1, 40):
        with begin(f"i{step}") as index:
            index.add(["a", "b", "c", "d"], vectors(4), ["1", None, "3", "4"])
            old, place = content(index), index.path
        acknowledged, dead = died(place, step, before)
        with open_store(place) as index:
            found = content(index)
            came = "new" in found
            assert found.keys() == ({"b", "c", "new", "newer"} if came else old.keys())
            assert found["c"] == old["c"] and (found["b"][1] == "y" if came else found == old)
            assert came or not acknowledged
            seen["new" if came else "old"] += 1
            assert index.add(["later"], vectors(1, 3))[0] > max(i for i, *_ in found.values())
            assert index.remove(["later"]) == 1 and content(index) == found
            assert left_behind(index) == []
        if not dead:
            break
    assert seen["old"] >= 4 and seen["new"] >= 4 and not dead, seen


def died(place: Path, step: int, before: bool) -> tuple[bool, bool]:
    """Whether a writer that dies at that write had its commit acknowledged, and whether it came to die."""
    with open_store(place) as index:
        tables = index._tables  # type: ignore[attr-defined]
        client, acknowledged = tables._client, True
        tables._client = Dying(client, step, before)
        try:
            change(index)
        except SeeallError:
            acknowledged = False
        dead, tables._client = tables._client.dead, client
    return acknowledged, dead


def left_behind(index: Store) -> list[int]:
    """Ids in Milvus that are not in the index."""
    tables = index._tables  # type: ignore[attr-defined]
    found = [row["id"] for table in (tables.items, tables.files) for row in tables.rows(table, "id > 0", ["id"])]
    return sorted(set(found) - set(index.ids.tolist()))


def test_an_insert_that_comes_after_its_writer_died_counts_for_nothing(tmp_path: Path) -> None:
    with beginner("milvus", tmp_path)("index") as index:
        index.add(["a"], vectors(1))
        tables = index._tables  # type: ignore[attr-defined]
        died(index.path, 2, True)
        (batch,) = milvus_log.read(tables).state.void
        assert index.add(["b"], vectors(1, 1)).tolist() == [2]
        late = {"id": 77, "key": 7, "batch": batch, "path": "late", "label": None, "metadata": "{}", "marks": []}
        tables.insert(tables.items, [{**late, "vector": vectors(1, 2)[0]}])
        for _ in range(2):
            assert content(index).keys() == {"a", "b"} and 77 not in index
            index.refresh()


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_what_is_void_never_counts(before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose commit nobody acknowledged, and which was given up: also once its time is over, and whoever dies then."""
    begin, place = beginner("milvus", tmp_path), tmp_path / "index"
    for step in range(1, 30):
        with begin(overwrite=True) as index:
            index.add(["a", "b", "d"], vectors(3))
            monkeypatch.setattr(milvus_log, "_VOID", 86_400)
            tables, old = index._tables, content(index)  # type: ignore[attr-defined]
            change_of = milvus_log.begin(tables, place)
            row = {"id": 4, "key": 7, "path": "late", "label": None, "metadata": "{}", "marks": []}
            tables.insert(tables.items, [{**row, "batch": change_of, "vector": vectors(1)[0]}])
            milvus_log.finish(tables, change_of, milvus_log.State(2, 1, 5, "now"), [1, 2, 3])
            assert index.refresh() and content(index).keys() == {"late"}
            milvus_log._say(tables, change_of, [{"kind": "void", "time": 0}])
            assert content(index) == old
        monkeypatch.setattr(milvus_log, "_VOID", 0)
        _, dead = died(place, step, before)
        with open_store(place) as index:
            found = content(index).keys()
            assert found in ({"a", "b", "d"}, {"new", "b", "newer"}) and (step > 1 or "a" in found)
            index.add(["c"], vectors(1))
            assert content(index).keys() == {*found, "c"} and left_behind(index) == []
            assert files(index, ["c"])["c"][1] is None
        if not dead:
            break
    assert not dead and step > 8


def test_two_places_that_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with beginner("milvus", tmp_path)("one") as one:
        one.add(["a"], vectors(1))
        shutil.copytree(one.path, tmp_path / "two")
        with open_store(tmp_path / "two") as two:
            with one.writer() as writer:
                writer.append(["b"], vectors(1, 1))
                with pytest.raises(
                    SeeallError, match=f"is being written from .*:{re.escape(str(one.path))}: try again"
                ):
                    two.add(["c"], vectors(1, 2))
            assert two.add(["c"], vectors(1, 2)).tolist() == [3] and len(two) == 3
            with pytest.raises(SeeallError, match="another process has written"), one.writer() as writer:
                writer.append(["d"], vectors(1, 1))
                monkeypatch.setattr(milvus_log, "BUSY", 0)  # so long ago that it must be dead
                two.add(["e"], vectors(1, 1))
            assert content(one).keys() == content(two).keys() == {"a", "b", "c", "e"}
            assert left_behind(one) == []


@pytest.mark.parametrize("share", [1, 8])
def test_a_condition_that_many_fulfil_is_asked_in_parts(
    share: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_conditions, "_LIST", 7)
    monkeypatch.setattr(milvus_rows, "_TOGETHER", 20)
    monkeypatch.setattr(milvus_rows, "_SHARE", share)
    monkeypatch.setattr(milvus_rows, "_LETTERS", 900)
    x = vectors(300)
    draw = np.random.default_rng(1).random(300)
    answers = []
    for kind in ("folder", "milvus"):
        with beginner(kind, tmp_path)(kind) as index:
            index.add(
                [str(n) for n in range(300)],
                x,
                None,
                [{"d": float(d)} if d < 0.95 else {"e": n % 3} for n, d in enumerate(draw)],
            )
            index.remove(range(50, 90))
            asked = [f"d < {most}{more}" for most in (0, 0.1, 0.5, 0.9, 1) for more in ("", " or id > 290")]
            answers.append([index.search(x[:9], 20, text) for text in [*asked, "e = 1", "e in (0, 2)", "d is null"]])
    for (a, s), (b, t) in zip(*answers):
        assert np.array_equal(a, b) and np.array_equal(s, t)


def test_structures(tmp_path: Path) -> None:
    """Of those that are not exact nearly all is found, and what is found is scored and ordered as ever."""
    create = creator(f"milvus:{tmp_path}/x.db")
    x, queries = vectors(3000), vectors(50, 1)
    for name, least in (("exact", 1.0), ("hnsw", 0.9), ("ivf", 0.5)):
        with create(tmp_path / name, dim=4, model="m", preprocessing={}, plan=Plan(name)) as index:
            index.add([str(n) for n in range(3000)], x)
            ids, scores = index.search(queries, 10)
            true = np.argsort(-(unit(queries, 4) @ unit(x, 4).T), axis=1)[:, :10] + 1
            assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(ids, true)]) >= least
            assert (np.diff(scores) <= 0).all() and index.info()["structure"] == name
    for plan in (Plan("ivf-pq"), Plan(recall=0.9), Plan(memory=10**9)):
        with pytest.raises(SeeallError, match="choose --structure from exact, ivf, hnsw, auto"):
            create(tmp_path / "no", dim=4, model="m", preprocessing={}, plan=plan)
    assert not (tmp_path / "no").exists()


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    with beginner("milvus", tmp_path)(files={"net": Path(__file__)}) as index:
        index.add(["a", "b", "c", "d"], vectors(4))
        assert index.check() == [] == index.notes()
        tables = index._tables  # type: ignore[attr-defined]
        columns = ["key", "batch", "path", "label", "metadata", "marks", "vector"]
        row = dict(tables.rows(tables.items, "id == 2", columns)[0])
        tables.delete(tables.items, "id in [2, 3]")
        tables.insert(tables.items, [{**row, "id": 2}, {**row, "id": 3}])
        (index.path / "net").write_text("")
        died(index.path, 3, True)
        assert index.check() == ["1 paths twice: items 3", "net is not what was written"]
        assert len(index.notes()) == 1 and "not finished" in index.notes()[0]
        tables.delete(tables.items, "id == 3")
        assert index.check()[0] == "3 items are there, and 4 were written"
        tables.insert(tables.items, [{**row, "id": 9, "key": 5, "vector": [2.0, 0, 0, 0]}])
        assert index.check()[:3] == [
            "1 vectors not of length one: items 9", "1 paths that are not found: items 9",
            "item 9 is there, and none from 5 on was written",
        ]  # fmt: skip


def test_collections_of_what_is_overwritten_go(tmp_path: Path, notes: list[str]) -> None:
    begin = beginner("milvus", tmp_path)

    def held() -> int:
        with begin("probe") as index:
            return len(index._tables._client.list_collections()) - 3  # type: ignore[attr-defined]

    with begin("index") as index:
        index.add(["a"], vectors(1))
    assert held() == 3
    with begin("index", overwrite=True) as index:
        index.add(["b"], vectors(1))
    assert held() == 3
    with begin("index", overwrite=True):
        pass
    assert held() == 3 and not notes
    with beginner("folder", tmp_path)("index", overwrite=True) as index:
        index.add(["c"], vectors(1))
    assert held() == 3 and "stay at milvus:" in notes[-1]


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with (
        Milvus(tmp_path / "data") as server,
        creator(server.address)(tmp_path / "i", dim=4, model="m", preprocessing={}) as index,
    ):
        index.add(["a", "b"], vectors(2))
        before = content(index)
        server.kill()
        for ask in (lambda: index.search(np.ones(4), 1), lambda: index.add(["c"], vectors(1)), lambda: index.get(1),
                    lambda: open_store(index.path)):  # fmt: skip
            with pytest.raises(SeeallError, match=f"Milvus at {server.address[7:]} does not answer: is it running"):
                ask()
        server.start()
        end = time.monotonic() + 20
        while True:
            try:
                assert content(index) == before
                break
            except SeeallError:  # the line is not up again
                assert time.monotonic() < end
                time.sleep(0.1)
        with open_store(index.path) as other:
            assert content(other) == before and other.add(["c"], vectors(1)).tolist() == [3]
            other._tables._client.drop_collection(other._tables.items)  # type: ignore[attr-defined]
        with pytest.raises(SeeallError, match="has no collection seeall_[0-9a-f]+: it is gone"):
            index.get(1)
        with pytest.raises(SeeallError, match="has no collection"):
            open_store(index.path)


@pytest.mark.slow
def test_writers_that_are_killed(tmp_path: Path) -> None:
    """Real processes and a real server: a batch is there whole or not at all, and what was acknowledged is there."""
    code = """
import sys, numpy as np
from seeall.index.stores import open_store
with open_store(sys.argv[1]) as index:
    for turn in range(1000):
        name = sys.argv[2] + str(turn)
        index.add([f"{name}/{n}" for n in range(50)] + ["same"], np.full((51, 4), turn + 1.0), [name] * 51)
        print(name, flush=True)
"""
    with (
        Milvus(tmp_path / "data") as server,
        creator(server.address)(tmp_path / "i", dim=4, model="m", preprocessing={}) as index,
    ):
        index.add(["same"], vectors(1))
        known = {None}
        for kill in range(6):
            command = [sys.executable, "-c", code, str(index.path), f"k{kill}-"]
            writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert writer.stdout
            first = writer.stdout.readline()
            time.sleep(0.037 * kill)
            writer.kill()
            told = {first.strip(), *(line.strip() for line in writer.stdout)}
            writer.wait()
            writer.stdout.close()
            found = content(index)
            labels = [label for _, label, *_ in found.values()]
            whole = {label for label in labels if labels.count(label) >= 50}
            assert told <= whole and len(whole - known) - len(told) in (0, 1)
            assert set(labels) <= whole and len(found) == 50 * len(whole) + 1
            known |= whole
        index.add(["end"], vectors(1))
        assert left_behind(index) == []
