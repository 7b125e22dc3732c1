"""`ssl embed`: the features of a collection as FILE.npy, and what each row is as FILE.parquet.

Under torchrun every process embeds its own stretch of the pictures, and the first joins the parts. With Ray this
process writes down what others see, as it comes, and puts it in order at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from seeall import durable
from seeall.backbones.load import digest
from seeall.console import Bar, bar
from seeall.data.pictures import Pictures
from seeall.data.pixels import complain
from seeall.data.video import Frame
from seeall.training.cluster import Crowd
from seeall.training.embed import Eye, Squares
from seeall.training.engine import launch, rank
from seeall.training.run import refuse_inside
from seeall.types import SeeallError

ENGINES = ("local", "ray")
FACTS = b"seeall"
"""What FILE.parquet keeps of all rows, as JSON: the model's digest, and the folder that ids are relative to."""


def embed_files(
    pictures: Pictures,
    run: str | Path,
    out: Path,
    *,
    workers: int = 0,
    allow_skipped: bool = False,
    overwrite: bool = False,
    engine: str = "local",
) -> dict[str, Any]:
    """Write OUT.npy, (n, D) float32, and OUT.parquet: id, label, split and metadata of each of its rows.

    out: its suffix, if .npy or .parquet, is left out · engine: "local", or "ray" for the processes of a Ray cluster ·
    workers: threads that read, or processes of the cluster
    Returns: pictures embedded and skipped, dim, and the two files.
    Raises: SeeallError where there is no such run, a file is in the way and not `overwrite`, too much is unreadable,
        Ray is asked for and missing or at its end, or the disk refuses.
    """
    if engine not in ENGINES:
        raise SeeallError(f"--engine {engine}: choose from {', '.join(ENGINES)}")
    if engine == "ray" and "TORCHELASTIC_RUN_ID" in os.environ:
        raise SeeallError("--engine ray shares the work out by itself: start it without torchrun")
    refuse_inside(out, pictures.root)
    out = out.with_suffix("") if out.suffix in (".npy", ".parquet") else out
    array, table = (out.with_name(out.name + suffix) for suffix in (".npy", ".parquet"))
    taken = next((file for file in (array, table) if file.exists()), None)
    if taken and not overwrite and rank() == 0:
        raise SeeallError(f"{taken} is already there; replace it by --overwrite, or choose another --out")
    team = launch(devices=1 if engine == "ray" else 0)
    eye = Crowd(run) if engine == "ray" else Eye.of(run, team.device)
    first, last = (len(pictures) * r // team.world for r in (team.rank, team.rank + 1))
    mine = pictures.subset(range(first, last))
    part = _part(out, team.rank)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _terminable(), part.open("wb") as file, bar("embedding", len(mine)) as progress:
            runs, bad = _write(file, eye.stream(mine, workers=workers), progress)
        everyone = team.everyone((first, runs, bad))
        kept = [start + row for start, runs, _ in everyone for _, rows in sorted(runs, key=_place) for row in rows]
        skipped = [(pictures.ids[start + row], why) for start, _, bad in everyone for row, why in sorted(bad)]
        complain(pictures, skipped, allow_skipped)
        if team.rank == 0:
            table.unlink(missing_ok=True)  # never the new numbers beside an old list of what they are
            _join(array, [(_part(out, r), runs) for r, (_, runs, _) in enumerate(everyone)], len(kept), eye.dim)
            _table(pictures, kept, table, {"model": digest(run), "folder": _folder(pictures)})
        team.part()
    except OSError as fault:
        raise SeeallError(f"--out {out}: cannot be written: {fault.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return {"pictures": len(kept), "skipped": len(skipped), "dim": eye.dim, "files": [str(array), str(table)]}


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the process in order, with code 143."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


Written = tuple[int, list[int]]
"""How many rows were written before, and which rows of the pictures then."""


def _place(written: Written) -> int:
    return written[1][0]


def _write(file: BinaryIO, seen: Generator[Squares], progress: Bar) -> tuple[list[Written], list[tuple[int, str]]]:
    """Write features as they come. Returns what came when, and (row, reason) of what cannot be read."""
    runs, bad, written = list[Written](), list[tuple[int, str]](), 0
    with contextlib.closing(seen):
        for rows, z, unread in seen:
            file.write(z.numpy().tobytes())
            if rows:
                runs.append((written, rows))
            written += len(rows)
            bad += unread
            progress.update(len(rows) + len(unread), "{rate:,.0f} pictures/s")
    return runs, bad


def _part(out: Path, rank: int) -> Path:
    return out.with_name(f".{out.name}.part-{rank}")


def _join(array: Path, parts: Sequence[tuple[Path, list[Written]]], rows: int, dim: int) -> None:
    def write(file: BinaryIO) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for path, runs in parts:
            with path.open("rb") as part:
                for before, here in sorted(runs, key=_place):
                    part.seek(4 * dim * before)
                    file.write(part.read(4 * dim * len(here)))

    durable.save(array, write)


def _folder(pictures: Pictures) -> str:
    """Where ids are relative to; nothing where pictures are no files."""
    if not all(isinstance(key, (str, Frame)) for key in pictures.keys[:1]):
        return ""
    return str((pictures.root or Path(pictures.source).parent).absolute())


def _table(pictures: Pictures, rows: list[int], path: Path, facts: dict[str, str]) -> None:
    import pyarrow
    import pyarrow.parquet

    def text(value: Any) -> Any:
        """Names of files need not be text; a table's must."""
        return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value

    columns: dict[str, list[Any]] = {"id": [pictures.ids[row] for row in rows]}
    for name, values in (("label", pictures.labels), ("split", pictures.splits)):
        if values is not None:
            columns[name] = [values[row] for row in rows]
    for name in sorted({key for item in pictures.metadata or () for key in item} - columns.keys()):
        columns[name] = [str((pictures.metadata or ())[row].get(name, "")) for row in rows]
    table = pyarrow.table({name: [text(value) for value in values] for name, values in columns.items()})
    table = table.replace_schema_metadata({FACTS: json.dumps(facts)})
    durable.save(path, lambda file: pyarrow.parquet.write_table(table, file))
