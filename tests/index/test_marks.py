"""Whatever fulfils a condition has the marks that the condition implies; SQLite says what fulfils it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seeall.index.marks import MANY, marks
from seeall.index.where import parse
from tests.index.test_where import conditions, items, shown

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
odd = st.sampled_from(
    [
        "0.30000000000000004",
        "1e22",
        "1e-7",
        " 12 ",
        "1e400",
        "-0",
        "-0.0",
        "9007199254740993",
        "0.1",
        "1.10",
        "TRUE",
        "False",
    ]
)


def holds(text: str, found: list[tuple[str, str | None, dict[str, Any]]]) -> list[bool]:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, path TEXT NOT NULL, label TEXT, metadata TEXT NOT NULL)")
    rows = ((n, path, label, json.dumps(metadata)) for n, (path, label, metadata) in enumerate(found))
    db.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
    condition = parse(text)
    passing = {row[0] for row in db.execute(f"SELECT id FROM items WHERE {condition.sql}", condition.values)}
    db.close()
    return [n in passing for n in range(len(found))]


def may(text: str, path: str, label: str | None, metadata: dict[str, Any]) -> bool:
    """Whether an item has the marks that a condition implies."""
    own = marks(path, label, metadata)
    return all(own & some for some in parse(text).implied)


@settings(max_examples=150, deadline=None)
@given(st.lists(items, min_size=1, max_size=8), st.lists(conditions, min_size=1, max_size=6))
def test_random_conditions(metadata: list[dict[str, Any]], asked: list[tuple[str, Any]]) -> None:
    found = [("p", None, m) for m in metadata]
    for text, _ in asked:
        for item, true in zip(found, holds(text, found)):
            assert may(text, *item) or not true, (text, item)


@settings(max_examples=300, deadline=None)
@given(numbers | odd, numbers | odd, st.sampled_from(["x", "label", "path"]))
@example(0.1 + 0.2, "0.30000000000000004", "x")
@example(2.0**53, 2**53 + 1, "x")
@example(1e22, 10**22, "x")
def test_numbers_however_they_are_written(value: Any, other: Any, name: str) -> None:
    written = value if isinstance(value, str) else repr(value)
    found = [(written, written, {"x": v}) for v in (value, written)]
    for literal in (value, other):
        for text in (
            f"{name} = {shown(literal)}",
            f"{name} in ({shown(literal)}, 'a')",
            f"{name} = true",
            f"{name} = false",
        ):
            for item, true in zip(found, holds(text, found)):
                assert may(text, *item) or not true, (text, item)


@pytest.mark.parametrize(
    ("text", "those"),
    [
        ("label = 'cat'", "a"), ("label in ('cat', 'dog') and y = 2020", "ab"), ("y = 2020.0 or label = 'dog'", "ab"),
        ("y > 7", "abc"), ("label is not null", "abc"), ("label is null", "abcd"), ("not label = 'cat'", "abcd"),
        ("y like '2%' and label = 'cat'", "a"), ("y = true", ""), ("\"label\" = 'cat'", "d"), ("path = 'b'", "b"),
        ("id = 1", "abcd"), ("id = 1 or label = 'cat'", "abcd"), ("id = 1 and label = 'cat'", "a"), ("z = 1", ""),
    ],
)  # fmt: skip
def test_how_many_others_have_them(text: str, those: str) -> None:
    found = {
        "a": ("cat", {"y": 2020}),
        "b": ("dog", {"y": "2020"}),
        "c": ("7", {"y": None, "x": 1}),
        "d": (None, {"label": "cat"}),
    }
    if text == "y > 7":
        found["c"] = ("7", {"y": 1})
    assert "".join(path for path, (label, m) in found.items() if may(text, path, label, m)) == those


def test_more_than_an_item_may_have() -> None:
    many = {f"k{n}": n for n in range(1000)}
    assert marks("a", None, many) == {MANY} and may("k7 = 7", "a", None, many) and may("nothing = 7", "a", None, many)
