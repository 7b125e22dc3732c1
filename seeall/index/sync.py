"""From pictures and what an index knows of them to what has to be done, and doing it in one commit.

Whether a file has changed is told by its stamp (see `stamps`). An item without one, and one that is no file, is seen
again, and is the same if its vector is. Where pictures come without labels or metadata, those of the index stay; where
these differ and the file does not, the vector is kept under the new words. A film has one stamp for all its frames;
once it has changed, frames that it no longer has go.

The writer's lock is held from the first look to the commit, so that no other writer changes what was looked at.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np

from seeall.console import bar
from seeall.data.decode import decode
from seeall.data.pictures import MANIFESTS, Pictures
from seeall.data.pixels import complain
from seeall.data.video import Frame, is_video
from seeall.index import skipped, stamps
from seeall.index.items import Record
from seeall.index.known import below, files
from seeall.index.protocol import Changes, Store
from seeall.index.segments import Floats, unit
from seeall.index.stamps import Stamp
from seeall.training.embed import Eye

T = TypeVar("T")

_BLOCK = 4096
"""Pictures that are looked up at a time."""
_SAME = 1e-6
"""How far the numbers of a vector may be from those of the last time: networks see a batch of another size a bit
differently."""


@final
@dataclass
class Report:
    """How many pictures are new, changed, have other words, or are as they were; which are gone and which unreadable.

    looked_at_again: seen anew without a stamp, so that only their vectors can tell; in a dry run nobody knows yet.
    """

    added: int = 0
    changed: int = 0
    relabelled: int = 0
    unchanged: int = 0
    looked_at_again: int = 0
    removed: int = 0
    vanished: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@final
@dataclass
class _Plan:
    """Rows of the pictures to see, by what is known of them; rows to write under other words; stamps to renew."""

    new: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    relabelled: list[int] = field(default_factory=list)
    unchanged: int = 0
    touched: dict[int, Stamp] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)


def where(pictures: Pictures, row: int) -> str:
    """What an item is called: its absolute path, for a frame with its time behind, or its id where it is no file."""
    key = pictures.keys[row]
    if isinstance(key, Frame):
        return str(key)
    if not isinstance(key, str):
        return str(pictures.ids[row])
    return key if key.startswith("/") else str(Path(key).absolute())


def bring(
    index: Store,
    pictures: Pictures,
    eye: Callable[[], Eye],
    *,
    workers: int = 0,
    allow_skipped: bool = False,
    vanished: bool = False,
    remove: bool = False,
    dry: bool = False,
) -> Report:
    """Make an index hold `pictures` as they are now, in one commit, or in none where it does already.

    eye: gives the network of the index, asked for where there is something to see. vanished: also say which items in
    the folder of the pictures have lost their files; remove: and remove them. dry: only say what would be done.

    Raises: SeeallError where too much is unreadable, somebody else is writing, or the disk cannot take it.
    """
    if dry:
        plan = _plan(index, pictures, vanished)
        return Report(
            len(plan.new), len(plan.changed), len(plan.relabelled), plan.unchanged, len(plan.unknown),
            len(plan.stale), plan.vanished,
        )  # fmt: skip
    with index.writer() as writer:
        index.refresh()  # to the generation that the writer goes on from
        plan = _plan(index, pictures, vanished)
        report = _done(index, writer, pictures, plan, eye, workers)
        complain(pictures, report.skipped, allow_skipped)
        gone = [*plan.stale, *(plan.vanished if remove else [])]
        report.removed = writer.remove(gone) if gone else 0
    skipped.add(index.path, report.skipped)
    return report


def _file(pictures: Pictures, row: int) -> str | None:
    """The file that a picture is in, if it is in one."""
    key = pictures.keys[row]
    return key.video.path if isinstance(key, Frame) else key if isinstance(key, str) else None


def _words(pictures: Pictures, row: int, old: Record | None) -> tuple[str | None, dict[str, Any] | None]:
    """Label and metadata to write, those of the index where the pictures come without."""
    label = pictures.labels[row] if pictures.labels else old.label if old else None
    metadata = pictures.metadata[row] if pictures.metadata else json.loads(old.metadata) if old else None
    return label, metadata


def _same_words(pictures: Pictures, row: int, old: Record) -> bool:
    label, metadata = _words(pictures, row, old)
    return label == old.label and (metadata or {}) == json.loads(old.metadata)


def _blocks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _plan(index: Store, pictures: Pictures, vanished: bool) -> _Plan:
    plan, names, contents = _Plan(), set[str](), dict[str, str]()
    if not len(index):
        plan.new.update(range(len(pictures)))
        return plan
    for rows in _blocks(range(len(pictures))):
        called = {row: where(pictures, row) for row in rows}
        known = files(index, list(called.values()))
        for row, name in called.items():
            if vanished:
                names.add(name)
            file = _file(pictures, row)
            record, old = known.get(name, (None, None))
            now = stamps.look(file) if file and record else None
            if record is None:
                plan.new.add(row)
            elif vanished and file and now is None:
                plan.vanished.append(name)
            elif now is None or file is None or old is None:
                plan.unknown.add(row)
            elif not _as_before(file, now, old, contents):
                plan.changed.add(row)
            else:
                if now != (old.size, old.changed) and stamps.trusted(now[1]):
                    plan.touched[record.id] = Stamp(*now, old.digest)
                if _same_words(pictures, row, record):
                    plan.unchanged += 1
                else:
                    plan.relabelled.append(row)
    root = _root(pictures) if vanished else None
    left = [name for name in below(index, str(root)) if name not in names] if root else []
    for some in _blocks([name for name in left if stamps.look(name) is None]):
        for name, (_, old) in files(index, some).items():
            film = name.rpartition("#")[0]
            now = stamps.look(film) if film and is_video(film) else None
            if now is None:
                plan.vanished.append(name)
            elif old and not _as_before(film, now, old, contents):
                plan.stale.append(name)
    return plan


def _as_before(file: str, now: tuple[int, int], old: Stamp, contents: dict[str, str]) -> bool:
    """Whether a file is what its stamp says; `contents` keeps digests, since a film has many frames."""
    if now == (old.size, old.changed):
        return True
    if now[0] != old.size:
        return False
    if file not in contents:
        contents[file] = stamps.digest(file)
    return contents[file] == old.digest


def _root(pictures: Pictures) -> Path | None:
    """The folder that pictures come from: that of a manifest is where it lies."""
    if pictures.root:
        return pictures.root.absolute()
    path = Path(pictures.source).expanduser().absolute()
    return path.parent if path.suffix.lower() in MANIFESTS and path.is_file() else None


def _done(
    index: Store, writer: Changes, pictures: Pictures, plan: _Plan, eye: Callable[[], Eye], workers: int
) -> Report:
    """Do what the plan says, but for removals."""
    report = Report(unchanged=plan.unchanged, looked_at_again=len(plan.unknown), vanished=plan.vanished)
    writer.stamp(plan.touched)
    for rows in _blocks(plan.relabelled):
        names = [where(pictures, row) for row in rows]
        items, old = index.items(names), files(index, names)
        _write(
            writer, pictures, rows, np.stack([item.vector for item in items]), [old[name][0] for name in names], names
        )
        report.relabelled += len(rows)
    todo = sorted(plan.new | plan.changed | plan.unknown)
    if not todo:
        return report
    some, stamping = pictures.subset(todo), deque[Future[dict[int, Stamp]]]()
    reader = stamps.Reader() if pictures.reader is decode else None
    some = replace(some, reader=reader or pictures.reader)
    before = [stamps.look(file) if not reader and (file := _file(pictures, row)) else None for row in todo]
    with bar("embedding", len(todo)) as progress, ThreadPoolExecutor(1, "stamps") as pool:
        for good, z, bad in eye().stream(some, workers=workers):
            report.skipped += [(some.ids[row], why) for row, why in bad]
            if good:
                ids = _seen(index, writer, pictures, plan, report, [todo[row] for row in good], z.numpy())
                if reader:
                    taken = ((i, reader.taken(some.keys[row])) for i, row in zip(ids, good))
                    writer.stamp({i: stamp for i, stamp in taken if stamp})
                else:
                    seen = [(i, _file(some, row), before[row]) for i, row in zip(ids, good)]
                    stamping.append(pool.submit(_stamped, seen))
            while stamping and (len(stamping) > 1 or stamping[0].done()):
                writer.stamp(stamping.popleft().result())
            progress.update(len(good) + len(bad), "{rate:,.0f} pictures/s")
        for last in stamping:
            writer.stamp(last.result())
    return report


def _stamped(seen: Sequence[tuple[int, str | None, tuple[int, int] | None]]) -> dict[int, Stamp]:
    """Id → the stamp of its file. Frames of a film follow each other, so that it is read once for all that are here."""
    found: dict[int, Stamp] = {}
    last: tuple[str | None, Stamp | None] = (None, None)
    for number, file, before in seen:
        if file is None:
            continue
        if file != last[0]:
            last = file, stamps.stamp(file, before)
        if last[1]:
            found[number] = last[1]
    return found


def _seen(
    index: Store, writer: Changes, pictures: Pictures, plan: _Plan, report: Report, rows: Sequence[int], z: Floats
) -> list[int]:
    """Write what was seen, but for what is in the index with the same vector; the ids that the pictures have now."""
    names = [where(pictures, row) for row in rows]
    known = files(index, [name for name, row in zip(names, rows) if row not in plan.new])
    doubtful = [n for n, row in enumerate(rows) if row in plan.unknown]
    same: dict[int, int] = {}
    if doubtful:
        vectors = unit(z[doubtful], index.dim, [names[n] for n in doubtful])
        for n, vector, item in zip(doubtful, vectors, index.items([names[n] for n in doubtful])):
            if np.abs(vector - item.vector).max() <= _SAME and _same_words(pictures, rows[n], known[names[n]][0]):
                same[n] = item.id
    rest = [n for n in range(len(rows)) if n not in same]
    report.added += sum(rows[n] in plan.new for n in rest)
    report.changed += sum(rows[n] not in plan.new for n in rest)
    report.unchanged += len(same)
    if not rest:
        return list(same.values())
    old = [known[names[n]][0] if names[n] in known else None for n in rest]
    kept, numbers = ([rows[n] for n in rest], z[rest]) if same else (rows, z)
    ids = dict(zip(rest, _write(writer, pictures, kept, numbers, old, [names[n] for n in rest])))
    return [same[n] if n in same else ids[n] for n in range(len(rows))]


def _write(
    writer: Changes,
    pictures: Pictures,
    rows: Sequence[int],
    z: Floats,
    old: Sequence[Record | None],
    names: Sequence[str],
) -> list[int]:
    labels, metadata = zip(*(_words(pictures, row, known) for row, known in zip(rows, old)))
    return list(map(int, writer.append(names, z, labels, metadata)))
