"""Out of an index, as `ssl embed` writes it, and from several indexes into one; a block at a time either way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from seeall import durable
from seeall.console import bar
from seeall.index.known import files, keys, records, walk
from seeall.index.protocol import Store
from seeall.index.store import Index
from seeall.index.stores import open_store
from seeall.training.features import FACTS
from seeall.types import SeeallError


def export(index: Store, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write OUT.npy, (n, D) float32 of length one, and OUT.parquet: id, label and metadata of each of its rows.

    id is the path, as in `ssl embed` it is the name; metadata is text there, and empty where an item has none. out: its
    suffix, if .npy or .parquet, is left out.

    Returns: pictures, dim, and the two files.
    Raises: SeeallError where a file is in the way and not `overwrite`, or the disk refuses.
    """
    out = out.with_suffix("") if out.suffix in (".npy", ".parquet") else out
    array, table = (out.with_name(out.name + suffix) for suffix in (".npy", ".parquet"))
    taken = next((file for file in (array, table) if file.exists()), None)
    if taken and not overwrite:
        raise SeeallError(f"{taken} is already there; replace it by --overwrite, or choose another --out")
    with bar("exporting", 2 * len(index)) as progress:

        def numbers(file: BinaryIO) -> None:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(index), index.dim)}
            np.lib.format.write_array_header_1_0(file, header)
            for ids, vectors in walk(index):
                file.write(vectors.astype("<f4", copy=False).tobytes())
                progress.update(len(ids))

        table.unlink(missing_ok=True)  # never the new numbers beside an old list of what they are
        durable.save(array, numbers)
        durable.save(table, lambda file: _rows(index, file, progress.update))
    return {"pictures": len(index), "dim": index.dim, "files": [str(array), str(table)]}


def _rows(index: Store, file: BinaryIO, update: Any) -> None:
    import pyarrow
    import pyarrow.parquet

    labelled = len(index.select("label is not null")) > 0
    first = ["id", "label"] if labelled else ["id"]
    others = sorted(keys(index) - set(first))
    with index.reading() as view:
        facts = json.dumps({"model": view.manifest.model, "folder": ""})
    schema = pyarrow.schema([(_text(name), pyarrow.string()) for name in [*first, *others]], {FACTS: facts})
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for ids, _ in walk(index):
            items = index.items(ids.tolist())
            columns: list[list[str | None]] = [[_text(item.path) for item in items]]
            if labelled:
                columns.append([None if item.label is None else _text(item.label) for item in items])
            columns += [[_text(str(item.metadata.get(key, ""))) for item in items] for key in others]
            writer.write_table(pyarrow.table([pyarrow.array(c, pyarrow.string()) for c in columns], schema=schema))
            update(len(ids))


def _text(value: str) -> str:
    """Names of files need not be text; a table's must."""
    return value.encode(errors="backslashreplace").decode()


def merge(out: Path, sources: Sequence[Path], *, overwrite: bool = False) -> dict[str, Any]:
    """A new index at `out` of all that is in `sources`. Of a path that is in several, the last of them counts.

    Returns: what `Index.info` says, and how many items were left out for a later one of the same path.
    Raises: SeeallError where their networks differ, `out` is taken and not `overwrite`, or the disk cannot take it.
    """
    with ExitStack() as stack:
        indexes = [stack.enter_context(open_store(source, gpu="off")) for source in sources]
        with indexes[0].reading() as view:
            first, root = view.manifest, indexes[0].path
        for index in indexes:
            index.require_model(first.model)
        merged = stack.enter_context(
            Index.create(
                out, dim=first.dim, model=first.model, preprocessing=first.preprocessing, plan=first.plan,
                files={name: root / name for name in first.files}, overwrite=overwrite, gpu="off",
            )
        )  # fmt: skip
        total = sum(map(len, indexes))
        with merged.writer() as writer, bar("merging", total) as progress:
            for number, index in enumerate(indexes):
                for ids, vectors in walk(index):
                    known = records(index, ids)
                    paths = [record.path for record, _ in known]
                    later = {path for other in indexes[number + 1 :] for path in files(other, paths)}
                    kept = [n for n, path in enumerate(paths) if path not in later]
                    new = writer.append(
                        [paths[n] for n in kept],
                        vectors[kept],
                        [known[n][0].label for n in kept],
                        [json.loads(known[n][0].metadata) for n in kept],
                    )
                    writer.stamp({int(i): stamp for i, n in zip(new, kept) if (stamp := known[n][1])})
                    progress.update(len(ids), "{rate:,.0f} items/s")
        return {**merged.info(), "left_out": total - len(merged)}
