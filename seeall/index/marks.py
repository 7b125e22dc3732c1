"""Marks: short texts about the values of an item, to look it up by where conditions cannot be worked out.

For every condition of `where` that holds for an item there are sets of marks, `Condition.implied`, of each of which the
item has one at least. The reverse need not be: whoever looks up by marks finds all that fulfil a condition, and some
more at times, for which it is to be worked out.

A value has a mark that it is there, one of what it is as text, and, where it reads as one, of what it is as a number.
How SQLite reads or writes a number of more than 15 digits or with an exponent, or a list, nobody else is to know: such
a value has the mark of all that are unsure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_READS = re.compile(r"[ \t-\r]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t-\r]*", re.ASCII)
_PLAIN = re.compile(r"[ \t-\r]*([+-]?(?:\d+\.?\d*|\.\d+))[ \t-\r]*", re.ASCII)
_DIGITS = 15
"""A decimal number of so many digits is read the same by everybody."""
_MOST = 1000
"""Marks of one item."""
MANY = "*"
"""The mark of items that would have more."""


def own(name: str) -> str:
    """What begins the marks of the item's own label or path."""
    return name


def column(key: str) -> str:
    """What begins the marks of a key of the metadata."""
    return f".{key}"


def present(name: str) -> frozenset[str]:
    """Of these, what is not missing has one."""
    return frozenset((f"{name}\0!", MANY))


def text(name: str, value: str) -> frozenset[str]:
    """Of these, what is equal to a text has one."""
    return frozenset((f"{name}\0={value}", f"{name}\0=?", MANY))


def number(name: str, value: float) -> frozenset[str]:
    """Of these, what is equal to a number has one."""
    return frozenset((f"{name}\0#{_canonical(value)}", f"{name}\0#?", MANY))


def truth(name: str, value: bool) -> frozenset[str]:
    """Of these, what is equal to true, or false, has one."""
    return number(name, int(value)) | {f"{name}\0~{value}".lower()}


def marks(path: str, label: str | None, metadata: Mapping[str, Any]) -> set[str]:
    """All marks of an item.

    >>> sorted(m.replace("\\0", " ") for m in marks("a", "7", {}))
    ['label !', 'label #7', 'label =7', 'path !', 'path =a']
    """
    found = {*_of(own("path"), path), *_of(own("label"), label)}
    for key, value in metadata.items():
        found.update(_of(column(key), value))
        if len(found) > _MOST:
            return {MANY}
    return found


def _of(name: str, value: Any) -> Iterator[str]:
    if value is None:
        return
    yield f"{name}\0!"
    if isinstance(value, str):
        yield f"{name}\0={value}"
        if value.lower() in ("true", "false"):
            yield f"{name}\0~{value.lower()}"
        if plain := _PLAIN.fullmatch(value):
            yield f"{name}\0#{_read(plain[1])}"
        elif _READS.fullmatch(value):
            yield f"{name}\0#?"
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        yield f"{name}\0={int(value)}"
        yield f"{name}\0#{int(value)}"
    else:
        yield f"{name}\0=?"
        yield f"{name}\0#{_read(repr(value)) if isinstance(value, float) else '?'}"


def _read(digits: str) -> str:
    """What a decimal number is, or that nobody can be sure."""
    if sum(letter.isdigit() for letter in digits) > _DIGITS or "e" in digits:
        return "?"
    return _canonical(float(digits))


def _canonical(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
