"""From pictures to an index, and from a picture to its look-alikes."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seeall.backbones.load import digest
from seeall.backbones.weights import locate
from seeall.console import bar
from seeall.data.pictures import Pictures
from seeall.data.pixels import complain
from seeall.data.video import Frame
from seeall.index.commit import Writer
from seeall.index.store import Index
from seeall.training.embed import Eye
from seeall.training.run import refuse_inside
from seeall.types import SeeallError

MODEL = "model.safetensors"
"""The backbone's copy in the index folder: an index can be searched when its run is gone."""


def build(
    pictures: Pictures,
    run: str | Path,
    out: Path,
    *,
    workers: int = 0,
    overwrite: bool = False,
    allow_skipped: bool = False,
) -> dict[str, Any]:
    """A new index of `pictures`, seen by the backbone of `run`. Returns what `Index.info` says, and how many skipped.

    Raises: SeeallError where there is no such run, `out` is taken or inside the data, or too much is unreadable.
    """
    refuse_inside(out, pictures.root)
    index, eye = begin(run, out, overwrite=overwrite)
    with index:
        skipped = add(index, pictures, eye, workers=workers, allow_skipped=allow_skipped)
        return {**index.info(), "skipped": len(skipped)}


def begin(run: str | Path, out: Path, *, overwrite: bool = False) -> tuple[Index, Eye]:
    """An empty index of what the backbone of `run` sees, and its eye. It is there with its first commit. As `build`."""
    source = locate(run)
    with tempfile.TemporaryDirectory() as folder:
        # A run that goes on replaces its file at any time: eye, digest and the index's own are of this one copy.
        model = Path(folder) / source.name
        try:
            shutil.copyfile(source, model)
        except OSError as error:
            raise SeeallError(f"{source} cannot be copied to {folder}: {error.strerror}; is there room?") from None
        try:
            eye = Eye.of(model)
        except SeeallError as error:
            raise SeeallError(str(error).replace(str(model), str(source))) from None
        index = Index.create(
            out, dim=eye.dim, model=digest(model), preprocessing=eye.preprocessing,
            files={MODEL: model}, overwrite=overwrite,
        )  # fmt: skip
    return index, eye


def add(
    index: Index, pictures: Pictures, eye: Eye, *, workers: int = 0, allow_skipped: bool = False
) -> list[tuple[str, str]]:
    """Add `pictures` in one commit; those already there are replaced. Returns (id, reason) of what was skipped."""
    skipped: list[tuple[str, str]] = []
    with index.writer() as writer, bar("embedding", len(pictures)) as progress:
        for rows, z, bad in eye.stream(pictures, workers=workers):
            skipped += [(pictures.ids[row], why) for row, why in bad]
            if rows:
                _append(writer, pictures, rows, z)
            progress.update(len(rows) + len(bad), "{rate:,.0f} pictures/s")
        complain(pictures, skipped, allow_skipped)
    if skipped:
        with (index.path / "skipped.csv").open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerows([*([] if file.tell() else [("path", "reason")]), *skipped])
    return skipped


def _append(writer: Writer, pictures: Pictures, rows: Sequence[int], z: Tensor) -> None:
    labels = [pictures.labels[row] for row in rows] if pictures.labels else None
    metadata = [pictures.metadata[row] for row in rows] if pictures.metadata else None
    writer.append([where(pictures, row) for row in rows], z.numpy(), labels, metadata)


def where(pictures: Pictures, row: int) -> str:
    """What an item is called: its absolute path, for a frame with its time behind, or its id where it is no file."""
    key = pictures.keys[row]
    if isinstance(key, Frame):
        return str(key)
    if not isinstance(key, str):
        return str(pictures.ids[row])
    return key if key.startswith("/") else str(Path(key).absolute())


def eye_of(index: Index, run: Path | None = None) -> Eye:
    """The eye that the index was made with, from its own copy.

    Raises: SeeallError where the copy is not what it was, or `run` is another model's.
    """
    if run is not None:
        index.require_model(digest(run))
    model = index.path / MODEL
    if not model.exists():
        raise SeeallError(f"{index.path}: its {MODEL} is missing; build the index again from its run")
    index.require_model(digest(model))
    return Eye.of(model)


def look(pictures: Pictures, eye: Eye) -> Tensor:
    """(n, D) features of query pictures, of which few are in memory at once.

    Raises: SeeallError at the first that is no picture.
    """
    found = []
    for _, z, bad in eye.stream(pictures):
        for row, why in bad:
            raise SeeallError(f"{pictures.keys[row]}: cannot be searched for: {why}")
        found.append(z)
    return torch.cat(found)
