"""What many tests need: small real pictures, runs and indexes made of them, and the command."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seeall import cli
from seeall.console import log

LIGHT = ["--backbone", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "16", "--quiet"]


def pytest_configure(config: pytest.Config) -> None:
    """Tests compare bits, which only a CPU promises; `pytest -m gpu` runs those that are about a GPU."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it in what it starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small pictures on many threads are slower, and the sum of floats must not depend on how many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(path: Path, size: tuple[int, int] = (40, 32), seed: int = 0) -> Path:
    """A small picture file with a pattern of its own."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of two classes, in sub-folders, of differing sizes."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(48):
        draw(root / ("cat", "dog")[i % 2] / f"{i:02d}.{('jpg', 'png')[i % 3 == 0]}", (40 + i, 36), seed=i)
    return root


@pytest.fixture(scope="session")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `folder`."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert cli.run(["pretrain", str(folder), "--out", str(out), "--epochs", "1", *LIGHT]) == 0
    return out


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """What is told meanwhile, however loud the command was made before."""
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    yield told
    log.removeHandler(handler)


@pytest.fixture
def ssl(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: arguments → exit code, standard output, standard error."""

    def command(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(a) for a in args])
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.fixture
def ssl_process() -> Callable[..., subprocess.Popen[str]]:
    """Start the command as a process of its own."""

    def start(*args: object, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "seeall", *(str(a) for a in args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )

    return start


def as_json(text: str) -> Any:
    """The one JSON object that `text` is."""
    return json.loads(text)
