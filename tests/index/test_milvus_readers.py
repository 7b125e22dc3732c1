"""Readers beside a writer: whatever is asked of an index in Milvus meanwhile, the answer is of one generation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seeall.index.known import walk
from seeall.index.milvus import conditions, rows
from seeall.index.protocol import Store
from seeall.index.stores import open_store
from seeall.types import SeeallError
from tests.index.stores import beginner, needs_milvus

pytestmark = needs_milvus
N, TURNS = 40, 12


def whole(ids: list[int]) -> bool:
    """Whether these are all the items of one commit: each takes the next N numbers, and replaces those before."""
    first = min(ids)
    return sorted(ids) == list(range(first, first + N)) and first % N == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda i: i.search(np.ones(4), 2 * N)[0][0].tolist(),
        lambda i: i.search(np.ones(4), 2 * N, "label is not null")[0][0].tolist(),
        lambda i: i.select("n >= 0").tolist(),
        lambda i: i.ids.tolist(),
        lambda i: [item.id for item in i.items([f"p{n}" for n in range(N)])],
        lambda i: np.concatenate([ids for ids, _ in walk(i, 16)]).tolist(),
    ],
    ids=["search", "where", "select", "ids", "items", "walk"],
)
def test_readers_beside_a_writer(ask: Callable[[Store], list[int]], tmp_path: Path) -> None:
    with beginner("milvus", tmp_path)() as writer:
        faults: list[BaseException] = []

        def write(turn: int) -> None:
            x = np.random.default_rng(turn).standard_normal((N, 4))
            writer.add([f"p{n}" for n in range(N)], x, [f"turn {turn}"] * N, [{"n": turn}] * N)

        def work() -> None:
            try:
                for turn in range(1, TURNS):
                    write(turn)
            except BaseException as fault:
                faults.append(fault)

        write(0)
        seen, refused = set(), 0
        with open_store(writer.path) as reader:
            thread = threading.Thread(target=work)
            thread.start()
            while thread.is_alive():
                try:
                    found = ask(reader)
                    assert whole(found), found
                    seen.add(min(found))
                except SeeallError as fault:
                    assert "try again" in str(fault)
                    refused += 1
            thread.join()
            assert not faults and min(ask(reader)) == N * (TURNS - 1) + 1
        assert len(seen) + refused >= 3


@pytest.mark.parametrize(
    "where", ["label = 'cat'", "n > 2", "label is null or n = 1", "label = 'dog' and n in (1, 2, 3)"]
)
def test_a_condition_follows_what_is_written(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an index in a folder, through many changes; with so small limits that all ways are taken."""
    monkeypatch.setattr(conditions, "_LIST", 5)
    monkeypatch.setattr(rows, "_TOGETHER", 8)
    random = np.random.default_rng(0)
    with beginner("folder", tmp_path)("one") as one, beginner("milvus", tmp_path)("two") as two:
        with_both = (one, two)
        for turn in range(12):
            paths = [f"p{n}" for n in random.choice(60, 12, replace=False)]
            x, labels = random.standard_normal((12, 4)), random.choice(["cat", "dog", ""], 12).tolist()
            notes = [{"n": int(n)} for n in random.integers(0, 5, 12)]
            gone = random.choice(one.ids, 5, replace=False).tolist() if turn else []
            for index in with_both:
                index.add(paths, x, [label or None for label in labels], notes)
                index.remove([i for i in gone if i in index])
            assert one.select(where).tolist() == two.select(where).tolist()
            (a, s), (b, t) = (index.search(x[:3], 7, where) for index in with_both)
            assert np.array_equal(a, b) and np.array_equal(s, t)
