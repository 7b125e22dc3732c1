"""Writers die at every step and at random moments, and the disk fills up: old state or new, never between."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("disasters.py")


def run(scenario: str, folder: Path) -> dict[str, int]:
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, PROGRAM, scenario, folder], capture_output=True, text=True, env=alone, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "change",
    ["add", "stream", "remove", "compact", "train", "sync", "create", "merge", "overwrite", "overwrite by renames"],
)
def test_death_before_every_single_step(change: str, folder: Path) -> None:
    seen = run(change, folder)
    assert seen["old"] >= 5 and seen["new"] >= 2, "the steps did not reach both sides of the commit"
    assert (seen.get("hidden", 0) > 0) == (change == "overwrite by renames")


def test_kill_at_random_moments(folder: Path) -> None:
    seen = run("kills", folder)
    assert seen["kills"] >= 20 and seen["acknowledged"] >= 5


def test_readers_beside_a_writer(folder: Path) -> None:
    assert run("readers", folder)["generations"] >= 5


def test_full_disk(folder: Path) -> None:
    assert run("full_disk", folder)["refused"] >= 5
