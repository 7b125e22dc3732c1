"""Erasures that die, run as a program of their own: `python -m tests.index.erasures SCENARIO FOLDER`
prints one JSON object."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from seeall.index import segments, skipped
from seeall.index.faces.gallery import Gallery
from seeall.index.faces.settings import Settings
from seeall.index.plan import Plan
from seeall.index.store import Index
from tests.index import disasters

DIM = disasters.DIM
GONE = "agathe-lindqvist"
PATHS = [f"/people/{GONE}/portrait-of-{i}.png" for i in range(3)]


def secrets() -> list[bytes]:
    """What may be in no file: the name, the files' names, every vector's bytes."""
    return [GONE.encode(), b"portrait-of-", *(row.tobytes() for row in unit())]


def unit() -> np.ndarray:
    x = disasters.vectors(7, len(PATHS))
    return (x / np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))[:, None]).astype(np.float32)


def traces(root: Path) -> list[tuple[str, bytes]]:
    """Where something is left of them."""
    files = [p for p in root.rglob("*") if p.is_file()]
    return [(p.name, secret) for p in files for secret in secrets() if secret in p.read_bytes()]


def base(root: Path, others: int = 40) -> None:
    """Agathe's pictures between those of others, one of them replaced, one removed, one listed as skipped."""
    with Index.create(root, dim=DIM, model="m", preprocessing={}, gpu="off", plan=Plan(exact_below=10)) as index:
        index.add([f"/people/other/{i}.png" for i in range(others)], disasters.vectors(1, others), ["other"] * others)
        index.add(PATHS, unit(), [GONE] * 3, [{"note": f"{GONE} at the lake"}] * 3)
        index.add(PATHS[:1], unit()[:1], [GONE])
        index.add([f"/people/more/{i}.png" for i in range(20)], disasters.vectors(2, 20))
        index.remove(PATHS[2:])
    listed = [(GONE, "elsewhere/9.png", "no face found"), ("", PATHS[1], "empty"), ("other", "other/x.png", "empty")]
    skipped.save(root, ("person", "path", "reason"), listed)
    Settings().save(root)


def erase(root: Path) -> None:
    """By the gallery, which finds all there is of a person."""
    with Gallery.open(root) as gallery:
        gallery.remove([GONE])


def settle(root: Path, old: object, new: object) -> str:
    """The next write, whatever was found; then nothing is left of what was erased. Returns which side it was on."""
    found = disasters.content(root)
    assert found in (old, new), "something between old and new"
    if found == old:
        erase(root)
    disasters.assert_sound(root)
    disasters.assert_goes_on(root)
    assert not traces(root), traces(root)
    assert "other/x.png" in (root / "skipped.csv").read_text()
    return "old" if found == old else "new"


def prepared(folder: Path, others: int) -> tuple[Path, Path, object, object]:
    template, root = folder / "template", folder / "index"
    base(template, others)
    assert len({secret for _, secret in traces(template)}) == len(secrets()), "the test would not see a trace"
    old = disasters.content(template)
    shutil.copytree(template, root)
    erase(root)
    assert not traces(root) and not (root / "erasing").exists()
    return template, root, old, disasters.content(root)


def steps(folder: Path) -> dict[str, int]:
    """Die before every single step."""
    segments.ROWS = 32
    template, root, old, new = prepared(folder, 40)
    seen = {"old": 0, "new": 0}
    disk: list[tuple[str, bytes]] = []
    for n in range(1, 10_000):
        shutil.rmtree(root)
        shutil.copytree(template, root)
        code = disasters.wait(disasters.fork(disasters.dying_at(n, lambda: erase(root))))
        disk, before = disasters.files(root), disk
        if code and disk == before:
            continue
        if code == 0:
            assert not traces(root)
        seen[settle(root, old, new)] += 1
        if code == 0:
            return seen
        assert code == 7
    raise AssertionError("it never ends")


def kills(folder: Path) -> dict[str, int]:
    """kill -9 at random moments of an erasure from a larger index."""
    template, root, old, new = prepared(folder, 3000)
    moments, seen = random.Random(3), {"old": 0, "new": 0}
    shutil.rmtree(root)
    shutil.copytree(template, root)
    began = time.monotonic()
    disasters.wait(disasters.fork(lambda: erase(root)))
    took = time.monotonic() - began
    for _ in range(24):
        shutil.rmtree(root)
        shutil.copytree(template, root)
        pid = disasters.fork(lambda: erase(root))
        time.sleep(moments.uniform(0, took))
        os.kill(pid, signal.SIGKILL)
        disasters.wait(pid)
        seen[settle(root, old, new)] += 1
    return seen


if __name__ == "__main__":
    print(json.dumps({"steps": steps, "kills": kills}[sys.argv[1]](Path(sys.argv[2]))))
