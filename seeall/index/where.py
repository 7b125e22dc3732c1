r"""Which items? A small language of conditions on them, and the SQL with bound parameters that it becomes.

    year >= 2020 and camera = 'x'
    not (label in ('cat', 'dog') or path like '%/old/%') and "shot by" is not null

`label`, `path` and `id` are the item's own; any other name, and every name in double quotes, is a key of its
metadata. Values are numbers, true, false, and text in single quotes, in which '' is a quote. Between them stand
=, !=, <, <=, >, >=, `in (…)`, `like` and `is null`, with `not` before the last three words or before anything; `and`
binds more closely than `or`. Words of the language are of any case, names are not.

What is compared with what:

- With a number, text that reads as a number counts as that number, since a manifest's columns are text; any other
  text is neither equal to a number nor above nor below one. True and false are 1 and 0.
- With text, a number counts as it is written, and texts are ordered by the code points of their letters.
- `= true` is fulfilled by true, 1 and the text true of any case.
- In `like`, % stands for any letters and _ for one, \ before them for themselves; a to z are of either case.
- A list or an object counts as its JSON text.
- What is missing or null fulfils no comparison, nor the `not` of one: `is null` finds it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, final

from seeall.index import marks
from seeall.types import SeeallError

_SHOWN = 200
"""Letters of a condition that an error repeats."""
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<name>[^\W\d]\w*)
    |(?P<sign><=|>=|!=|<>|==|[=<>(),])
    |(?P<end>\Z))""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "not", "in", "like", "is", "null", "true", "false"}
_OWN = {"label", "path", "id"}
_COMPARE = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_PLAIN = re.compile(r"[ !#-\[\]-~]+")
"""Keys that JSON writes as they are, so that every version of SQLite finds them by a path."""
_DEEP, _MOST, _PATTERN = 10, 900, 1000
"""Most brackets within brackets, most comparisons and values, most letters of a pattern: SQLite has limits, too."""
_LARGEST = "CAST(9e999 AS REAL)"
"""Above every number and below every text, in SQLite's order."""


class Condition(NamedTuple):
    """SQL over the columns of `items` in which every value is a `?`, and the values in their order."""

    sql: str
    values: tuple[Any, ...] = ()
    implied: tuple[frozenset[str], ...] = ()
    """Sets of marks: what it holds for has one of each."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        """The word of the language that it is, in small letters; else nothing."""
        small = self.text.lower()
        return small if self.kind == "name" and small in _WORDS else ""


def parse(text: str) -> Condition:
    """The condition that `text` says.

    >>> parse("year >= 2020").values
    ('$."year"', 2020, '$."year"')

    Raises: SeeallError with the position of what cannot be understood.
    """
    found = _Parser(text)
    condition = found.either()
    if found.now.kind != "end":
        raise found.fault(f"{found.now.text} is not expected here: conditions are joined by `and` or `or`")
    if max(found.comparisons, len(condition.values)) > _MOST:
        raise SeeallError(f"where {text[:60]!r} …: more than {_MOST} comparisons or values: ask in several parts")
    return condition


@final
class _Parser:
    """Recursive descent, a token ahead: `now` is the next that is not yet used."""

    def __init__(self, text: str) -> None:
        self.text, self.comparisons = text, 0
        self._depth = self._place = 0
        self.now = self._read()

    def fault(self, what: str, at: int | None = None) -> SeeallError:
        """The error, with where it is, counted from 1."""
        text = self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}…"
        return SeeallError(f"where {text!r}, letter {(self.now.at if at is None else at) + 1}: {what}")

    def _read(self) -> _Token:
        match = _TOKEN.match(self.text, self._place)
        if match is None or match.lastgroup is None:
            at = len(self.text) - len(self.text[self._place :].lstrip())
            letter = self.text[at]
            if letter in "'\"":
                raise self.fault(f"the quote {letter} is never closed", at)
            raise self.fault(f"{letter} means nothing here; text stands in 'single quotes'", at)
        self._place = match.end()
        return _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))

    def _next(self) -> _Token:
        used, self.now = self.now, self._read()
        return used

    def _took(self, word: str) -> bool:
        """Whether the next is this word or sign, which is then used."""
        if self.now.word == word or (self.now.kind == "sign" and self.now.text == word):
            self._next()
            return True
        return False

    def either(self) -> Condition:
        """Conditions joined by `or`."""
        parts = [self._both()]
        while self._took("or"):
            parts.append(self._both())
        return _joined(parts, "OR")

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._took("and"):
            parts.append(self._one())
        return _joined(parts, "AND")

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEP:
            raise self.fault(f"more than {_DEEP} brackets or `not` within each other")
        if self._took("not"):
            found = _negated(self._one())
        elif self._took("("):
            found = self.either()
            if not self._took(")"):
                raise self.fault("a closing bracket ) is missing")
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> Condition:
        self.comparisons += 1
        name = self.now
        if name.word or name.kind not in ("name", "quoted"):
            shown = name.text or "nothing"
            raise self.fault(f"want a name, such as label or a key of the metadata, not {shown}")
        self._next()
        what = _column(name)
        if self._took("is"):
            negative = self._took("not")
            if not self._took("null"):
                raise self.fault("after `is` comes `null` or `not null`")
            return Condition(f"{what.sql} IS {'NOT ' * negative}NULL", what.values, what.implied[: int(negative)])
        negative = self._took("not")
        own = name.text == "id"
        if self._took("in"):
            found = self._among(what, name)
        elif self._took("like"):
            found = self._like(what, own)
        elif self.now.kind == "sign" and self.now.text in _COMPARE and not negative:
            sign = _COMPARE[self._next().text]
            found = self._compared(what, sign, name)
        else:
            wanted = "in or like" if negative else "=, !=, <, <=, >, >=, in, like or is"
            raise self.fault(
                f"want {wanted} after {'not' if negative else name.text}, not {self.now.text or 'the end'}"
            )
        return _negated(found) if negative else found

    def _among(self, what: Condition, name: _Token) -> Condition:
        if not self._took("("):
            raise self.fault("after `in` come values in brackets, such as ('a', 'b')")
        parts = [self._compared(what, "=", name)]
        while self._took(","):
            parts.append(self._compared(what, "=", name))
        if not self._took(")"):
            raise self.fault("a comma or a closing bracket ) is missing")
        return _joined(parts, "OR")

    def _like(self, what: Condition, own: bool) -> Condition:
        if own or self.now.kind != "text":
            raise self.fault("`id` is a number, and not like any text" if own else "after `like` comes 'text'")
        if len(self.now.text) > _PATTERN:
            raise self.fault(f"a pattern of more than {_PATTERN} letters")
        return what._replace(sql=rf"{what.sql} LIKE CAST(? AS TEXT) ESCAPE '\'", values=(*what.values, self._text()))

    def _compared(self, what: Condition, sign: str, name: _Token) -> Condition:
        """`what`, a name, compared with the value that is next."""
        self.comparisons += 1
        token, own, known = self.now, name.text == "id", _marked(name) if sign == "=" else None
        if own and token.kind != "number":
            raise self.fault(f"`id` is a number, and {token.text or 'nothing'} is none")
        if token.kind == "number":
            value = self._number()
            implied = (marks.number(known, value),) if known else what.implied
            plain = Condition(f"{what.sql} {sign} CAST(? AS NUMERIC)", (*what.values, value), implied)
            if sign not in (">", ">="):
                return plain
            return Condition(f"({plain.sql} AND {what.sql} <= {_LARGEST})", (*plain.values, *what.values), implied)
        if token.kind == "text":
            raw = self._text()
            implied = (marks.text(known, raw.decode("utf-8", "surrogateescape")),) if known else what.implied
            return Condition(f"{what.sql} {sign} CAST(? AS TEXT)", (*what.values, raw), implied)
        if token.word in ("true", "false"):
            if sign not in ("=", "!="):
                raise self.fault(f"{token.text} is neither more nor less than anything: use = or !=")
            self._next()
            truth = token.word == "true"
            equal = Condition(
                f"({what.sql} = CAST({int(truth)} AS NUMERIC) OR lower({what.sql}) = '{token.word}')",
                what.values * 2,
                (marks.truth(known, truth),) if known else what.implied,
            )
            return equal if sign == "=" else _negated(equal)
        if token.word == "null":
            raise self.fault("nothing is equal to null: write `is null` or `is not null`")
        if token.kind in ("name", "quoted") and not token.word:
            raise self.fault(f"{token.text} is a name, and a value is wanted; text stands in 'single quotes'")
        raise self.fault(f"want a value, that is a number, 'text', true or false, not {token.text or 'the end'}")

    def _number(self) -> int | float:
        text = self.now.text
        whole = text.lstrip("+-").isdecimal() and abs(int(text)) < 2**63
        number = int(text) if whole else float(text)
        if not math.isfinite(number):
            raise self.fault(f"{text} is too large a number")
        self._next()
        return number

    def _text(self) -> bytes:
        try:
            raw = self.now.text[1:-1].replace("''", "'").encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise self.fault("this is no text that can be stored") from None
        self._next()
        return raw


def _column(name: _Token) -> Condition:
    """The SQL of what a name stands for."""
    known = _marked(name)
    implied = (marks.present(known),) if known else ()
    if name.kind == "name" and name.text in _OWN:
        return Condition(name.text, (), implied)
    key = _key(name)
    if _PLAIN.fullmatch(key):
        return Condition("json_extract(metadata, ?)", (f'$."{key}"',), implied)
    raw = key.encode("utf-8", "surrogatepass")
    sql = "coalesce((SELECT value FROM json_each(metadata) WHERE key = CAST(? AS TEXT)), NULL)"
    return Condition(sql, (raw,), implied)


def _key(name: _Token) -> str:
    return name.text[1:-1].replace('""', '"') if name.kind == "quoted" else name.text


def _marked(name: _Token) -> str | None:
    """What begins the marks of what a name stands for; None for the id, which has none."""
    if name.kind == "name" and name.text in _OWN:
        return None if name.text == "id" else marks.own(name.text)
    return marks.column(_key(name))


def _negated(condition: Condition) -> Condition:
    return Condition(f"NOT ({condition.sql})", condition.values)


def _joined(parts: Sequence[Condition], word: str) -> Condition:
    if len(parts) == 1:
        return parts[0]
    sql, values = f"({f' {word} '.join(p.sql for p in parts)})", tuple(v for p in parts for v in p.values)
    if word == "AND":
        return Condition(sql, values, tuple(dict.fromkeys(some for p in parts for some in p.implied)))
    if not all(p.implied for p in parts):
        return Condition(sql, values)
    return Condition(sql, values, (frozenset().union(*(min(p.implied, key=len) for p in parts)),))
