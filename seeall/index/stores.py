"""An index, wherever it is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from seeall.index import durable
from seeall.index.gpus import Gpu
from seeall.index.manifest import Manifest
from seeall.index.protocol import Store
from seeall.index.store import Index
from seeall.types import SeeallError


def creator(store: str | None) -> Callable[..., Store]:
    """What takes the arguments of `Index.create`, and makes an index whose items are at the address `store`, if any."""
    if store is None:
        return Index.create
    from seeall.index.milvus.store import MilvusIndex

    return partial(MilvusIndex.create, store=store)


def open_store(path: str | Path, *, gpu: Gpu = "auto", wait: bool = False) -> Store:
    """Open the index at `path`, which says itself whether its items are there or in Milvus: see `Index.open`.

    Raises: as `Index.open`; SeeallError where Milvus does not answer or is no longer what was written, or where a GPU
    must search what Milvus does.
    """
    root = Path(path).resolve()
    durable.restore(root)
    if not Manifest.read(root).store:
        return Index.open(root, gpu=gpu, wait=wait)
    if gpu == "on":
        raise SeeallError(f"--gpu on: {root} is searched by Milvus, wherever that runs; leave it out")
    from seeall.index.milvus.store import MilvusIndex

    return MilvusIndex.open(root, wait=wait)
