"""Where indexes can be kept, for tests that hold for all of them: real folders, and a real milvus-lite."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from seeall.index.protocol import Store
from seeall.index.stores import creator

MISSING = [name for name in ("pymilvus", "milvus_lite") if find_spec(name) is None]
needs_milvus = pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}")
EVERYWHERE = ["folder", pytest.param("milvus", marks=needs_milvus)]
Begin = Callable[..., Store]


def beginner(kind: str, root: Path) -> Begin:
    """What begins an index in the folder `root`/NAME, that kind of one: all of those in Milvus share a file there."""
    create = creator(f"milvus:{root / 'shared.db'}" if kind == "milvus" else None)

    def begin(name: str = "index", dim: int = 4, **more: Any) -> Store:
        settings = {"model": "m", "preprocessing": {"image_size": 32}, **more}
        return create(root / name, dim=dim, **settings)

    return begin
