"""`ssl` on an index in Milvus: whatever is asked, the answer is that of an index in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.conftest import draw
from tests.index.served import index_at, network, photos
from tests.index.stores import Milvus, needs_milvus

pytestmark = needs_milvus
Ssl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def both(ssl: Ssl, tmp_path: Path) -> list[Path]:
    """The same pictures in a folder and in Milvus."""
    listed = photos(tmp_path / "photos", 24)
    net = network(tmp_path / "net.safetensors")
    found = []
    for name, more in (("local", []), ("milvus", ["--store", f"milvus:{tmp_path}/x.db"])):
        out = tmp_path / name
        code, _, err = ssl("index", "build", listed, "--run", net, "--out", out, "--quiet", *more)
        assert (code, err) == (0, "")
        found.append(out)
    return found


def told(ssl: Ssl, *command: object) -> list[Any]:
    """What a command says, and what it warns of."""
    code, out, err = ssl(*command, "--json", *(["--quiet"] if command[1] not in ("info", "check") else []))
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()] + [f"warned: {line}" for line in err.splitlines()]


@pytest.mark.slow
def test_the_same_answers(ssl: Ssl, both: list[Path], tmp_path: Path) -> None:
    photo = tmp_path / "photos/cat/004.png"
    questions = [
        ("search", photo, "-k", 7), ("search", 3, "7", "-k", 20), ("search", tmp_path / "photos", "-k", 2),
        ("search", photo, "--where", "label = 'dog' and camera != 'c1'"), ("search", photo, "--box", "4,4,30,30"),
        ("search", photo, 9, tmp_path / "photos/dog/003.png", "--together", "--where", "not camera in ('c0')"),
        ("search", photo, "--where", "label = 'nobody'"),
        ("index", "duplicates", "--threshold", 0.9), ("index", "clusters", "-k", 3), ("index", "outliers", "--most", 5),
    ]  # fmt: skip

    def ask(question: tuple[Any, ...], index: Path) -> list[Any]:
        at = 2 if question[0] == "index" else 1
        return told(ssl, *question[:at], index, *question[at:])

    def agree() -> None:
        for question in questions:
            one, two = (ask(question, index) for index in both)
            assert one == two, question
            assert one or "duplicates" in question

    agree()
    draw(photo, seed=99)
    more = draw(tmp_path / "more" / "extra.png", seed=100)
    removed = []
    for index in both:
        told(ssl, "index", "add", index, more)
        told(ssl, "index", "add", index, tmp_path / "photos" / "list.csv")  # the one that has changed is seen again
        removed.append(told(ssl, "index", "remove", index, "2", tmp_path / "photos/dog/005.png"))
    assert removed[0] == removed[1] == [{"removed": 2, "count": 23}]
    agree()
    (tmp_path / "photos/dog/007.png").unlink()
    synced = [told(ssl, "index", "sync", index, tmp_path / "photos", "--remove-vanished") for index in both]
    assert synced[0] == synced[1] and synced[0][0]["removed"] == 1
    agree()
    one, two = (told(ssl, "index", "info", index)[0] for index in both)
    assert two["store"] == f"milvus:{tmp_path}/x.db" and two["collection"].startswith("seeall_")
    assert all(one[name] == two[name] for name in ("count", "dim", "metric", "generation", "model"))
    for name, index in zip(("a", "b"), both):
        told(ssl, "index", "export", index, "--out", tmp_path / name)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet") == pyarrow.parquet.read_table(tmp_path / "b.parquet")
    told(ssl, "index", "merge", tmp_path / "back", both[1])
    both[1] = tmp_path / "back"
    for index in (*both, tmp_path / "milvus"):
        assert told(ssl, "index", "check", index) == [{"problems": [], "notes": []}]


def test_the_folder_is_small_and_may_be_copied(both: list[Path]) -> None:
    assert sorted(p.name for p in both[1].iterdir()) == ["lock", "manifest.json", "model.safetensors"]


@pytest.mark.parametrize("command", [["compact"], ["tune"], ["check", "--repair"]])
def test_what_there_is_for_a_folder_alone(ssl: Ssl, both: list[Path], command: list[str]) -> None:
    code, out, err = ssl("index", *command, both[1])
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "keeps its items at milvus:" in err and "ssl index merge NEW" in err


def test_mistakes(ssl: Ssl, tmp_path: Path) -> None:
    listed, net = photos(tmp_path / "photos", 4), network(tmp_path / "net.safetensors")
    for store, more, words in [
        ("redis", [], "want milvus:http://HOST:19530"),
        ("milvus:http://127.0.0.1:9", [], "does not answer: is it running"),
        (f"milvus:{tmp_path}/x.db", ["--structure", "ivf-pq"], "choose --structure from"),
    ]:
        code, out, err = ssl("index", "build", listed, "--run", net, "--out", tmp_path / "i", "--store", store, *more)
        assert code == 2 and out == "" and words in err and err.count("\n") == 1
        assert not (tmp_path / "i").exists() and not list(tmp_path.glob(".i*"))


@pytest.mark.slow
def test_processes_share_a_server(ssl_process: Callable[..., Any], tmp_path: Path) -> None:
    local = index_at(tmp_path, 12)
    listed, out = tmp_path / "secret-home/photos/list.csv", tmp_path / "i"
    with Milvus(tmp_path / "data") as server:

        def ask(*command: object) -> Any:
            process = ssl_process(*command, "--json", "--quiet")
            told, err = process.communicate(timeout=120)
            assert (process.returncode, err) == (0, "")
            return json.loads(told)

        net = tmp_path / "net.safetensors"
        assert ask("index", "build", listed, "--run", net, "--out", out, "--store", server.address)["count"] == 12
        assert ask("search", out, "3", "-k", 5) == ask("search", local, "3", "-k", 5)
        assert ask("index", "remove", out, "3") == {"removed": 1, "count": 11}
