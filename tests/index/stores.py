"""Where indexes can be kept, for tests that hold for all of them: real folders, and a real milvus-lite."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

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


@final
class Milvus:
    """A server of milvus-lite as a process of its own, on a port that stays its own when it is started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as some:
            some.bind(("127.0.0.1", 0))
            self.port = int(some.getsockname()[1])
        self.address = f"milvus:http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([*command, "--data-dir", str(self._folder)], **quiet)  # type: ignore[call-overload]
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < end and self._process.poll() is None
                time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Milvus:
        return self

    def __exit__(self, *failure: object) -> None:
        self.kill()
