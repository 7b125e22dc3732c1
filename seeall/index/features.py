"""An index of what `ssl embed` or `ssl index export` wrote: no picture is looked at, and none need be there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from seeall.backbones.load import digest
from seeall.console import bar, log
from seeall.index.build import begin
from seeall.index.plan import Plan
from seeall.index.segments import Floats
from seeall.index.stores import creator
from seeall.training.features import FACTS
from seeall.types import SeeallError

_BLOCK = 1 << 16


def build_from(
    file: Path,
    run: str | Path,
    out: Path,
    *,
    limit: int | None = None,
    overwrite: bool = False,
    plan: Plan | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """A new index of the rows of FILE.npy, which FILE.parquet names; `run` is whose features they are. See `build`.

    A row's id becomes the item's path, in the folder that was embedded; label is its label, and what other columns
    hold is metadata, as text, where it is not empty.

    Returns: what `Index.info` says.
    Raises: SeeallError where a file is missing or no such file, the two differ in length, the features are another
        network's, a vector has no direction, or `out` is taken.
    """
    import pyarrow
    import pyarrow.parquet

    array, table = file.with_suffix(".npy"), file.with_suffix(".parquet")
    try:
        x: Floats = np.load(array, mmap_mode="r", allow_pickle=False)
        rows = pyarrow.parquet.ParquetFile(table)
    except FileNotFoundError as error:
        raise SeeallError(f"{error.filename or table} is missing: {array.name} and {table.name} are a pair") from None
    except (ValueError, EOFError, pyarrow.ArrowInvalid) as error:
        raise SeeallError(f"{array} and {table} are not what `ssl embed` writes: {error}") from None
    with rows:
        if x.ndim != 2 or x.dtype.kind != "f" or "id" not in rows.schema_arrow.names:
            raise SeeallError(f"{array} and {table} are not what `ssl embed` writes: features (n, D), and their ids")
        if len(x) != rows.metadata.num_rows:
            raise SeeallError(f"{array} has {len(x)} rows and {table} {rows.metadata.num_rows}: embed again")
        facts = json.loads((rows.schema_arrow.metadata or {}).get(FACTS, b"{}"))
        if facts.get("model", "") not in ("", digest(run)):
            raise SeeallError(f"{array} was made with model {facts['model'][:12]}, not {digest(run)[:12]}: --run that")
        if not facts:
            log.warning("%s does not say whose features they are: taken for those of %s", table, run)
        index, eye = begin(creator(store), run, out, overwrite=overwrite, plan=plan)
        with index:
            if x.shape[1] != eye.dim:
                raise SeeallError(
                    f"{array} has {x.shape[1]} dimensions and {run} makes {eye.dim}: --run whose they are"
                )
            total, done = min(len(x), limit or len(x)), 0
            with index.writer() as writer, bar("indexing", total) as progress:
                for batch in rows.iter_batches(_BLOCK):
                    found = batch.slice(0, total - done).to_pylist()
                    paths = [str(Path(facts.get("folder", ""), row.pop("id"))) for row in found]
                    labels = [row.pop("label", None) for row in found]
                    words = [{name: value for name, value in row.items() if value not in (None, "")} for row in found]
                    if found:
                        writer.append(paths, x[done : done + len(found)], labels, words)
                    done += len(found)
                    progress.update(len(found), "{rate:,.0f} items/s")
            return index.info()
