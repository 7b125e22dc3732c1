"""What tests of heads share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from seeall import cli
from seeall.data.sampler import Sampler
from tests.heads.small_runs import LIGHT, OWN, WORLD, coco, masks, picture


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask to stop when batch t is fetched."""
    ordinary = Sampler.__call__

    def when(t: int) -> None:
        def sampled(self: Sampler, now: int) -> tuple[int, Tensor]:
            if now == t:
                monkeypatch.setattr(Sampler, "__call__", ordinary)
                os.kill(os.getpid(), signal.SIGINT)
            return ordinary(self, now)

        monkeypatch.setattr(Sampler, "__call__", sampled)

    return when


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of classification, detection, instance and segmentation, each in a folder of that name."""
    root = tmp_path_factory.mktemp("heads")
    for task, own in OWN.items():
        args = ["finetune", WORLD, "--task", task, "--out", str(root / task), *LIGHT, *own, "--quiet"]
        assert cli.run(args) == 0
    return root


@pytest.fixture(scope="session")
def places(run: Path, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders and runs that have something amiss, and some that have not, by name."""
    root = tmp_path_factory.mktemp("places")
    for i in range(12):
        picture(root / "labelled" / "ab"[i % 2] / f"{i}.png", i)
        picture(root / "plain" / f"{i}.png", i)
    coco(root / "things", 8)
    coco(root / "cows", 6, "cat cow")
    coco(root / "one", 1)
    coco(root / "nothing", 6, things=0)
    coco(root / "boxes", 6, outlines=False)
    masks(root / "masks", 6)
    masks(root / "unlike", 6, size=(20, 20))
    masks(root / "strange", 6, values=(0, 1, 77))
    masks(root / "ignored", 6, values=(255,))
    masks(root / "flat", 6, values=(0,))
    for name in ("empty", "junk", "full"):
        (root / name).mkdir()
    (root / "full" / "letter.doc").write_text("dear")
    (root / "junk" / "a.jpg").write_text("words")
    (root / "text.pt").write_text("words")
    shutil.copytree(runs / "segmentation", root / "damaged")
    whole = (root / "damaged" / "head.safetensors").read_bytes()
    (root / "damaged" / "head.safetensors").write_bytes(whole[: len(whole) // 2])
    found = {p.name.split(".")[0]: p for p in root.iterdir()}
    return found | {"run": run, "nowhere": root / "nowhere"} | {f"head_{task}": runs / task for task in OWN}
