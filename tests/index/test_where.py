"""Conditions on items: what they mean, worked out in Python beside SQLite, and the line that answers a mistake."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeall.index.store import Index
from seeall.index.where import parse
from seeall.types import SeeallError

MEMORY = Path("/dev/shm")
KEYS = ["year", "größe", "shot by", 'a"b', "label", "a.b", ""]
TEXTS = [
    "2020",
    " 7 ",
    "1e3",
    ".5",
    "5.",
    "+3",
    "0x10",
    "",
    ".",
    "1e",
    "abc",
    "ABC",
    "it's",
    "50%",
    "a_b",
    "a\\b",
    "é",
    "ü1",
]
NUMBERS = [0, 1, -1, 2020, 7, 3, 5, 0.5, -0.25, 1000, 1000.0, 2.0, 2**40]
Verdict = bool | None
Test = Callable[[dict[str, Any]], Verdict]
READS = re.compile(r"[ \t-\r]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t-\r]*", re.ASCII)


def number(value: Any) -> float | None:
    """What a value is as a number, if it is one."""
    if isinstance(value, str):
        return float(value) if READS.fullmatch(value) else None
    return float(value) if isinstance(value, (bool, int, float)) else None


def written(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def compared(value: Any, sign: str, other: Any) -> Verdict:
    """The rules as the documentation has them, with no thought of SQL."""
    if value is None:
        return None
    if isinstance(other, bool):
        same = number(value) == other if not isinstance(value, str) or number(value) is not None else False
        same = same or written(value).lower() == str(other).lower()
        return same == (sign == "=")
    a, b = (written(value).encode(), other.encode()) if isinstance(other, str) else (number(value), float(other))
    if a is None:
        return sign == "!="
    return {"=": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign]


def like(value: Any, pattern: str) -> Verdict:
    if value is None:
        return None
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    shape = "".join({"%": ".*", "_": "."}.get(p, re.escape(p[-1])) for p in parts)
    return re.fullmatch(shape, written(value), re.DOTALL | re.IGNORECASE) is not None


def both(a: Verdict, b: Verdict) -> Verdict:
    return False if a is False or b is False else None if a is None or b is None else True


def negated(a: Verdict) -> Verdict:
    return None if a is None else not a


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


texts = st.sampled_from(TEXTS) | st.text("ab1 .e-'%_é", max_size=4)
numbers = st.sampled_from(NUMBERS) | st.integers(-50, 50) | st.integers(-50, 50).map(lambda n: n / 4).filter(bool)
literals = texts | numbers
values = st.none() | st.booleans() | texts | numbers | st.lists(st.sampled_from(["a", "b", 1]), max_size=2)
items = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, values))


@st.composite
def atoms(draw: st.DrawFn) -> tuple[str, Test]:
    key = draw(st.sampled_from(KEYS))
    plain = re.fullmatch(r"[^\W\d]\w*", key) and key != "label" and draw(st.booleans())
    name = key if plain else '"' + key.replace('"', '""') + '"'
    kind = draw(st.sampled_from(["compare", "compare", "truth", "in", "like", "null"]))
    no = draw(st.booleans())
    word = "NOT " if no else ""
    turn = negated if no else lambda v: v
    if kind == "compare":
        sign, other = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="])), draw(literals)
        return f"{name} {sign} {shown(other)}", lambda m: compared(m.get(key), sign, other)
    if kind == "truth":
        sign, other = draw(st.sampled_from(["=", "!="])), draw(st.booleans())
        return f"{name} {sign} {shown(other)}", lambda m: compared(m.get(key), sign, other)
    if kind == "in":
        some = draw(st.lists(literals | st.booleans(), min_size=1, max_size=4))

        def among(m: dict[str, Any]) -> Verdict:
            return None if m.get(key) is None else any(compared(m[key], "=", o) for o in some)

        return f"{name} {word}in ({', '.join(map(shown, some))})", lambda m: turn(among(m))
    if kind == "like":
        pattern = draw(st.text("aAb1%_é.", max_size=4) | st.sampled_from(["a\\_b", "50\\%", "%'%", "\\\\", "_bc"]))
        return f"{name} {word}LIKE {shown(pattern)}", lambda m: turn(like(m.get(key), pattern))
    return f"{name} is {word}null", lambda m: (m.get(key) is None) != no


def joined(parts: st.SearchStrategy[tuple[str, Test]]) -> st.SearchStrategy[tuple[str, Test]]:
    def join(a: tuple[str, Test], b: tuple[str, Test], word: str) -> tuple[str, Test]:
        if word == "not":
            return f"not ({a[0]})", lambda m: negated(a[1](m))
        if word == "and":
            return f"({a[0]}) and ({b[0]})", lambda m: both(a[1](m), b[1](m))
        return f"({a[0]} OR {b[0]})", lambda m: negated(both(negated(a[1](m)), negated(b[1](m))))

    return st.builds(join, parts, parts, st.sampled_from(["and", "or", "not"]))


conditions = st.recursive(atoms(), joined, max_leaves=6)


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as name,
        Index.create(Path(name) / "i", dim=2, model="m", preprocessing={}, gpu="off") as index,
    ):
        index.add(["first"], [[1.0, 0.0]])
        yield index


@settings(max_examples=60, deadline=None)
@given(metadata=st.lists(items, min_size=1, max_size=12), asked=st.lists(conditions, min_size=1, max_size=8))
def test_random_conditions_on_random_metadata(
    index: Index, metadata: list[dict], asked: list[tuple[str, Test]]
) -> None:
    with index.writer() as writer:
        writer.remove(index.ids.tolist())
        ids = writer.append([f"p{n}" for n in range(len(metadata))], np.eye(2)[[0] * len(metadata)], None, metadata)
    for text, holds in asked:
        expected = [i for i, m in zip(ids.tolist(), metadata) if holds(m) is True]
        assert index.select(text).tolist() == expected, (text, metadata)


def test_names_of_the_item_itself(folder: Path) -> None:
    with Index.create(folder / "i", dim=2, model="m", preprocessing={}, gpu="off") as index:
        notes = [{"label": "other", "id": 9}, None, {"year": "2021"}]
        index.add(["a/x.jpg", "b/ü.jpg", "it's\udc80"], np.ones((3, 2)), ["cat", None, "7"], notes)
        for text, found in [
            ("label = 'cat'", [1]), ("\"label\" = 'other'", [1]), ("label is null", [2]), ("label > 6", [3]),
            ("path like 'B/%'", [2]), ("path = 'it''s\udc80'", [3]), ("id in (1, 3)", [1, 3]), ("id >= 2", [2, 3]),
            ('"id" = 9', [1]), ("LABEL is null", [1, 2, 3]), ("year>=2020 OR NOT (label!='cat')", [1, 3]),
            ("label = 'cat' or label = '7' and year < 2000", [1]), ("not label = 'cat' and id < 9", [3]),
        ]:  # fmt: skip
            assert index.select(text).tolist() == found, text
        index.remove([1])
        assert index.select("id > 0").tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("", 1, "want a name"), ("year >=", 8, "want a value"), ("year >= 2020 and", 17, "want a name"),
        ("(a = 1", 7, "closing bracket"), ("a = 'x", 5, "never closed"), ("a ? 1", 3, "? means nothing"),
        ("a = b", 5, "'single quotes'"), ("a = null", 5, "is null"), ("id = '3'", 6, "is a number"),
        ("a < true", 5, "neither more nor less"), ("a in 3", 6, "in brackets"), ("a not = 3", 7, "want in or like"),
        ("and", 1, "want a name"), ("2020 < year", 1, "want a name"), ("a = 1 b = 2", 7, "joined by"),
        ("a = 1e999", 5, "too large"), ("a = 5x", 5, "means nothing"), ("(" * 200, 11, "more than 10"),
        ("a in (1, 2", 11, "closing bracket"), ("a like 5", 8, "after `like`"), ("a is 5", 6, "`not null`"),
        ("a = 1)", 6, "not expected"), ("a = '\ud800'", 5, "no text"), ("id like 'x'", 9, "not like any"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(text: str, at: int, words: str) -> None:
    with pytest.raises(SeeallError, match=rf"letter {at}: .*{re.escape(words)}") as fault:
        parse(text)
    assert "\n" not in str(fault.value)


def test_limits_are_those_of_sqlite_or_less(index: Index) -> None:
    many, everything = ", ".join(map(str, range(840))), len(index)
    assert index.select(f"id in ({many})").tolist() == [i for i in index.ids.tolist() if i < 840]
    for text in [
        " and ".join(["id > 0"] * 440), "(" * 9 + "id > 0" + ")" * 9, "not " * 8 + "id > 0",
        "id > 0 and (id > 0 or " * 8 + "not id in (2, 3) or id > 0" + ")" * 8,
        "id > 0 and not (id < 0 or " * 4 + "not id in (2, 3) or id > 0" + ")" * 4,
    ]:  # fmt: skip
        found = index.select(text).tolist()
        assert len(found) == everything or "not (" in text
    with pytest.raises(SeeallError, match="more than 900 comparisons or values"):
        parse(f"x in ({', '.join(map(str, range(500)))})")
    with pytest.raises(SeeallError, match="more than 1000 letters"):
        parse(f"x like '{'_' * 1001}'")


def test_values_are_never_part_of_the_sql(index: Index) -> None:
    text = "label = 'x'' OR 1=1; DROP TABLE items; --' or \"a\"\") OR (1=1\" = '%' or path like '''%'"
    assert "DROP" not in parse(text).sql and "1=1" not in parse(text).sql
    assert index.select(text).tolist() == [] and len(index.select("id > 0")) == len(index)
