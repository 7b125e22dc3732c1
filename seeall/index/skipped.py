"""`skipped.csv`: pictures that were left out, and why. Its header says what the columns are; `path` is one of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from seeall.index import durable
from seeall.types import SeeallError

NAME = "skipped.csv"
_ERRORS = "surrogateescape"


def lines(root: Path) -> list[dict[str, str]]:
    """Column → value of each line in `root`; nothing where there is no list. Raises SeeallError for what is none."""
    path = root / NAME
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors=_ERRORS) as file:
            return [{k: v or "" for k, v in line.items() if k} for line in csv.DictReader(file)]
    except csv.Error as fault:
        raise SeeallError(f"{path}: is no list ({fault}): delete it") from None


def save(root: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Put the whole list in place, or none where there are no rows. Raises OSError."""
    text, rows = io.StringIO(newline=""), list(rows)
    if not rows:
        (root / NAME).unlink(missing_ok=True)
        return
    csv.writer(text).writerows([header, *rows])
    durable.write(root / NAME, lambda file: file.write(text.getvalue().encode("utf-8", _ERRORS)))


def add(root: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """Add pictures, (path, reason) each, unless they are listed with that reason. Raises OSError."""
    there = lines(root)
    header = list(there[0]) if there else ["path", "reason"]
    fresh = [{"path": written(path), "reason": written(why)} for path, why in skipped]
    listed = {(line.get("path"), line.get("reason")) for line in there}
    new = [line for line in fresh if (line["path"], line["reason"]) not in listed]
    if new:
        save(root, header, [[line.get(name, "") for name in header] for line in [*there, *new]])


def forget(root: Path, gone: Callable[[dict[str, str]], bool]) -> None:
    """Leave out the lines that `gone` says. Raises OSError."""
    there = lines(root)
    kept = [line for line in there if not gone(line)]
    if len(kept) < len(there):
        save(root, list(there[0]), [list(line.values()) for line in kept])


def written(path: str) -> str:
    """A path as it is written in the list: what is no text, as an escape."""
    return path.encode("utf-8", "backslashreplace").decode()
