"""An index and its twin go through random steps side by side: see `twin.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("twin.py")
KINDS = {
    "add", "update", "remove", "compact", "sync", "stamp", "fail", "search", "filter", "reopen", "refresh", "check",
}  # fmt: skip


def steps(n: int, seed: int) -> dict[str, int]:
    command = [sys.executable, PROGRAM, "--steps", str(n), "--seed", str(seed)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=alone, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_few_hundred_steps() -> None:
    taken = steps(300, 0)
    assert taken["steps"] >= 300 and taken.keys() == {"steps"} | KINDS


@pytest.mark.slow
def test_ten_thousand_steps() -> None:
    taken = steps(10_000, 1000)
    assert taken["steps"] >= 10_000 and all(taken[kind] > 100 for kind in KINDS)
