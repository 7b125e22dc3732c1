"""Embedding through Ray: real processes, the same bits as in one, and deaths that nobody notices in the result."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seeall.backbones.load import build, save
from seeall.data.decode import decode
from seeall.data.pictures import Pictures, find
from seeall.training import cluster
from seeall.training.features import embed_files
from seeall.types import SeeallError

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'seeall[ray]'")
pytestmark = pytest.mark.slow
Ssl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that sees 224 px, of which 8 are a batch on a CPU, so that few pictures are many batches."""
    torch.manual_seed(0)
    backbone, _ = build("shufflenet_v2_x0_5")
    file = tmp_path_factory.mktemp("eyes") / "backbone.safetensors"
    return save(backbone, file, name="shufflenet_v2_x0_5", settings={}, preprocessing={"image_size": 224})


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    """Ray in this process, which a command then uses and leaves alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    yield
    ray.shutdown()


def both(out: Path, name: str) -> tuple[bytes, bytes]:
    return (out / f"{name}.npy").read_bytes(), (out / f"{name}.parquet").read_bytes()


def killing(pictures: Pictures, victim: int, mark: Path | None) -> Pictures:
    """The same, but for who reads picture `victim`: that process is killed, once if there is a file to mark it in."""
    fatal = pictures.keys[victim]

    def reader(key: Any, shortest: int | None) -> Any:
        if key == fatal and not (mark and mark.exists()):
            if mark:
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(key, shortest)

    return dataclasses.replace(pictures, reader=reader)


def test_many_processes_write_what_one_writes(
    started: None, ssl: Ssl, eyes: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same order, to the last bit, with the same pictures left out; from a path that only this process knows."""
    (tmp_path / "broken.png").write_bytes(b"nothing")
    paths = [*sorted(str(p) for p in folder.rglob("*.*")), "broken.png"]
    (tmp_path / "list.txt").write_text("\n".join(paths[30:] + paths[:30]))
    monkeypatch.chdir(tmp_path)
    said = []
    for engine in ("local", "ray"):
        code, out, err = ssl("embed", eyes, "list.txt", "--out", engine, "--engine", engine, "--json")
        assert code == 0, err
        said.append({**json.loads(out), "files": None})
        assert "skipped 1 of 49 pictures: broken.png (not a picture that Pillow can read)" in err
    assert said[0] == said[1] == {"pictures": 48, "skipped": 1, "dim": 1024, "files": None}
    assert both(tmp_path, "ray") == both(tmp_path, "local")
    assert ray.is_initialized() and sys.stdout is not None
    units = list(cluster._cut(find("list.txt"), 224, "cpu", 2))
    assert [(first, len(part)) for first, part in units] == [(8 * n, 8) for n in range(6)] + [(48, 1)]


def test_drawn_pictures_go_over_too(started: None, ssl: Ssl, eyes: Path, tmp_path: Path) -> None:
    for engine in ("local", "ray"):
        args = ("embed", eyes, "scenes:n=20,size=32", "--out", tmp_path / engine, "--quiet", "--workers", 1)
        assert ssl(*args, "--engine", engine)[0] == 0
    assert both(tmp_path, "ray") == both(tmp_path, "local")


def test_a_process_that_is_killed_changes_nothing(started: None, eyes: Path, folder: Path, tmp_path: Path) -> None:
    pictures = find(str(folder))
    embed_files(pictures, eyes, tmp_path / "local")
    mark = tmp_path / "killed"
    embed_files(killing(pictures, 20, mark), eyes, tmp_path / "ray", engine="ray", workers=2)
    assert mark.exists() and both(tmp_path, "ray") == both(tmp_path, "local")


def test_a_picture_that_kills_whoever_reads_it(
    started: None, eyes: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_TRIES", 1)
    pictures, out = killing(find(str(folder)), 20, None), tmp_path / "new"
    with pytest.raises(SeeallError, match=rf"1 processes died.* from {pictures.ids[16]} to {pictures.ids[23]}: is"):
        embed_files(pictures, eyes, out / "z", engine="ray", workers=1)
    assert list(out.iterdir()) == []


def test_too_much_that_cannot_be_read(started: None, ssl: Ssl, eyes: Path, folder: Path, tmp_path: Path) -> None:
    paths = [*(str(p) for p in folder.rglob("*.*")), *(f"gone-{n}.png" for n in range(5))]
    (tmp_path / "list.txt").write_text("\n".join(paths))
    args = ("embed", eyes, tmp_path / "list.txt", "--out", tmp_path / "out" / "z", "--engine", "ray")
    code, _, err = ssl(*args)
    assert code == 2 and "5 of 53 pictures cannot be read: gone-0.png (no such file)" in err
    assert list((tmp_path / "out").iterdir()) == []
    code, out, err = ssl(*args, "--allow-skipped", "--json", "--quiet")
    assert (code, json.loads(out)["skipped"]) == (0, 5)
    assert len(np.load(tmp_path / "out" / "z.npy")) == 48


def test_a_cluster_of_its_own_is_silent_and_can_be_stopped(
    ssl_process: Callable[..., Any], eyes: Path, folder: Path, tmp_path: Path
) -> None:
    args = ("embed", eyes, folder, "--out", tmp_path / "z", "--engine", "ray", "--workers", 2, "--json", "--quiet")
    process = ssl_process(*args)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0 and json.loads(out)["pictures"] == 48 and err == ""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = ssl_process("embed", eyes, "scenes:n=20000,size=64", "--out", tmp_path / "y", "--engine", "ray")
        part = tmp_path / ".y.part-0"
        while not (part.exists() and part.stat().st_size):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=100)
        assert process.returncode == code and "Traceback" not in err
        assert sorted(p.name for p in tmp_path.iterdir()) == ["z.npy", "z.parquet"]


def test_mistakes(ssl: Ssl, eyes: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("embed", eyes, folder, "--out", tmp_path / "z", "--engine")
    code, _, err = ssl(*args, "spark")
    assert code == 2 and "--engine spark: choose from local, ray" in err
    with monkeypatch.context() as inside:
        inside.setenv("TORCHELASTIC_RUN_ID", "1")
        code, _, err = ssl(*args, "ray")
    assert code == 2 and "start it without torchrun" in err
    gone = "import sys; sys.modules['ray'] = None; from seeall.cli import app; app(sys.argv[1:])"
    for start, env, said in (
        (["-c", gone], {}, "--engine ray needs Ray: pip install 'seeall[ray]'"),
        (["-m", "seeall"], {"RAY_ADDRESS": "127.0.0.1:1"}, "the cluster at RAY_ADDRESS=127.0.0.1:1 cannot be used:"),
    ):
        command = [sys.executable, *start, *map(str, args), "ray"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=100)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []
