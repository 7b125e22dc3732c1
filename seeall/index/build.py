"""From pictures to an index, and from a picture to its look-alikes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from seeall.backbones.load import digest
from seeall.backbones.weights import locate
from seeall.data.pictures import Pictures
from seeall.index.plan import Plan
from seeall.index.protocol import Store
from seeall.index.stores import creator
from seeall.index.sync import bring
from seeall.training.embed import Eye
from seeall.training.run import refuse_inside
from seeall.types import SeeallError

Kind = TypeVar("Kind")

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
    plan: Plan | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """A new index of `pictures`, seen by the backbone of `run`, searched as `plan` says.

    store: where vectors and items are to be, "milvus:" and its address; None: in the folder.

    Returns: what `Index.info` says, and how many were skipped.

    Raises: SeeallError where there is no such run, `out` is taken or inside the data, or too much is unreadable.
    """
    refuse_inside(out, pictures.root)
    index, eye = begin(creator(store), run, out, overwrite=overwrite, plan=plan)
    with index:
        skipped = add(index, pictures, eye, workers=workers, allow_skipped=allow_skipped)
        return {**index.info(), "skipped": len(skipped)}


def begin(
    create: Callable[..., Kind], run: str | Path, out: Path, *, overwrite: bool = False, plan: Plan | None = None
) -> tuple[Kind, Eye]:
    """An empty index of what the backbone of `run` sees, and its eye. It is there with its first commit. As `build`.

    create: `Index.create`, or what else takes its arguments.
    """
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
        index = create(
            out, dim=eye.dim, model=digest(model), preprocessing=eye.preprocessing,
            files={MODEL: model}, overwrite=overwrite, plan=plan,
        )  # fmt: skip
    return index, eye


def add(
    index: Store, pictures: Pictures, eye: Eye, *, workers: int = 0, allow_skipped: bool = False
) -> list[tuple[str, str]]:
    """Add `pictures` in one commit; those there that have changed are replaced. Returns (id, reason) of the skipped.

    See `seeall.index.sync` for what has changed. Where nothing has, there is no commit.
    """
    return bring(index, pictures, lambda: eye, workers=workers, allow_skipped=allow_skipped).skipped


def eye_of(index: Store, run: Path | None = None) -> Eye:
    """The eye that the index was made with, from its own copy.

    Raises: SeeallError where the copy is not what it was, or `run` is another model's.
    """
    if run is not None:
        index.require_model(digest(run))
    model = index.path / MODEL
    if not model.exists():
        raise SeeallError(f"{index.path}: its {MODEL} is missing; build the index again from its run")
    try:
        index.require_model(digest(model))
    except SeeallError:
        raise SeeallError(
            f"{index.path}: its {MODEL} is not what was written: restore it from a copy, or build the index again"
        ) from None
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
