"""`ssl embed`: the features of a collection as FILE.npy, and what each row is as FILE.parquet.

Under torchrun every process embeds its own stretch of the pictures, and the first joins the parts.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from seeall import durable
from seeall.console import bar
from seeall.data.pictures import Pictures
from seeall.data.pixels import complain
from seeall.training.embed import Eye
from seeall.training.engine import launch, rank
from seeall.training.run import refuse_inside
from seeall.types import SeeallError


def embed_files(
    pictures: Pictures,
    run: str | Path,
    out: Path,
    *,
    workers: int = 0,
    allow_skipped: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write OUT.npy, (n, D) float32, and OUT.parquet: id, label, split and metadata of each of its rows.

    out: its suffix, if .npy or .parquet, is left out
    Returns: pictures embedded and skipped, dim, and the two files.
    Raises: SeeallError where there is no such run, a file is in the way and not `overwrite`, too much is unreadable,
        or the disk refuses.
    """
    refuse_inside(out, pictures.root)
    out = out.with_suffix("") if out.suffix in (".npy", ".parquet") else out
    array, table = (out.with_name(out.name + suffix) for suffix in (".npy", ".parquet"))
    taken = next((file for file in (array, table) if file.exists()), None)
    if taken and not overwrite and rank() == 0:
        raise SeeallError(f"{taken} is already there; replace it by --overwrite, or choose another --out")
    engine = launch()
    eye = Eye.of(run, engine.device)
    first, last = (len(pictures) * r // engine.world for r in (engine.rank, engine.rank + 1))
    mine = pictures.subset(range(first, last))
    out.parent.mkdir(parents=True, exist_ok=True)
    skipped: list[tuple[str, str]] = []
    kept: list[int] = []
    part = _part(out, engine.rank)
    try:
        with part.open("wb") as file, bar("embedding", len(mine)) as progress:
            for rows, z, bad in eye.stream(mine, workers=workers):
                file.write(z.numpy().tobytes())
                kept += [first + row for row in rows]
                skipped += [(mine.ids[row], why) for row, why in bad]
                progress.update(len(rows) + len(bad), "{rate:,.0f} pictures/s")
        everyone = engine.everyone((kept, skipped))
        kept = [row for rows, _ in everyone for row in rows]
        skipped = [one for _, some in everyone for one in some]
        complain(pictures, skipped, allow_skipped)
        if engine.rank == 0:
            table.unlink(missing_ok=True)  # never the new numbers beside an old list of what they are
            _join(array, [_part(out, other) for other in range(engine.world)], len(kept), eye.dim)
            _table(pictures, kept, table)
        engine.part()
    finally:
        part.unlink(missing_ok=True)
    return {"pictures": len(kept), "skipped": len(skipped), "dim": eye.dim, "files": [str(array), str(table)]}


def _part(out: Path, rank: int) -> Path:
    return out.with_name(f".{out.name}.part-{rank}")


def _join(array: Path, parts: Sequence[Path], rows: int, dim: int) -> None:
    def write(file: BinaryIO) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, file, 1 << 22)

    durable.save(array, write)


def _table(pictures: Pictures, rows: list[int], path: Path) -> None:
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
    durable.save(path, lambda file: pyarrow.parquet.write_table(table, file))
