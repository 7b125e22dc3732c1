"""What an index in Milvus refuses, in a line each: addresses, what does not fit, what needs a folder or a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seeall.index.store import Index
from seeall.index.stores import creator, open_store
from seeall.index.transfer import merge
from seeall.types import SeeallError
from tests.index.stores import beginner, needs_milvus
from tests.index.test_milvus import content, vectors

pytestmark = needs_milvus


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("redis:http://x", "want milvus:http://HOST:19530"), ("milvus:", "want milvus:http"),
        ("milvus:x.txt", "FILE.db"), ("milvus:/nowhere/x.db", "there is no folder /nowhere"),
        ("milvus:ftp://x:1", "want milvus:http"), ("milvus:http://", "want milvus:http"),
        ("milvus:http://x:99999", "want milvus:http"), ("milvus:http://me:secret@x:1", "no password goes into an"),
        ("milvus:http://127.0.0.1:9", "does not answer"),
    ],
)  # fmt: skip
def test_addresses(address: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match=words) as fault:
        creator(address)(tmp_path / "i", dim=4, model="m", preprocessing={})
    assert "\n" not in str(fault.value) and "secret" not in str(fault.value) and list(tmp_path.iterdir()) == []


def test_what_milvus_cannot_keep(tmp_path: Path) -> None:
    begin = beginner("milvus", tmp_path)
    with begin() as index:
        index.add(["a"], vectors(1))
        for what in [{"paths": ["x" * 5000]}, {"labels": ["ü" * 40_000]}, {"metadata": [{"a": "y" * 70_000}]}]:
            with pytest.raises(SeeallError, match=r"takes more than the \d+,\d+ bytes that are kept"):
                index.add(**{"paths": ["b"], "vectors": vectors(1), **what})
        assert content(index).keys() == {"a"} and index.info()["generation"] == 1
    with pytest.raises(SeeallError, match="two dimensions or more"):
        begin("one", dim=1)


def test_the_token_is_nowhere_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEALL_MILVUS_TOKEN", "root:very-secret")
    with beginner("milvus", tmp_path)() as index:
        index.add(["a"], vectors(1))
        told = str(index.info())
        held = [p.read_bytes() for p in index.path.rglob("*") if p.is_file()]
        assert held and not any(b"very-secret" in data for data in [*held, told.encode()])


def test_only_an_index_in_a_folder(tmp_path: Path) -> None:
    """What needs the files says so, and what to do."""
    with beginner("milvus", tmp_path)() as index:
        index.add(["a", "b"], vectors(2))
    with pytest.raises(SeeallError, match="keeps its items at milvus:.*`ssl index merge NEW .*` makes one of it"):
        Index.open(index.path)
    with pytest.raises(SeeallError, match="--gpu on: .* is searched by Milvus"):
        open_store(index.path, gpu="on")
    report = merge(tmp_path / "local", [index.path])
    assert report["count"] == 2
    with open_store(index.path) as one, Index.open(tmp_path / "local") as two:
        assert content(one) == content(two)


def test_a_file_that_another_process_has_open(tmp_path: Path) -> None:
    with beginner("milvus", tmp_path)() as index:
        index.add(["a"], vectors(1))
        code = "import sys; from seeall.index.stores import open_store; open_store(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", code, str(index.path)], capture_output=True, text=True)
        assert done.returncode == 1 and "serves one process at a time; several can share `milvus-lite" in done.stderr
