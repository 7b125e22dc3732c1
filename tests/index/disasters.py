"""Writers that die, run as a program of their own: `python disasters.py SCENARIO FOLDER` prints one JSON object.

The program imports everything once and forks a child for each disaster, so that hundreds are quick. It runs
with one OpenMP thread, since a forked child cannot use its parent's pool.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from seeall.index import durable, segments
from seeall.index.plan import Plan
from seeall.index.stamps import Stamp
from seeall.index.store import Index
from seeall.index.transfer import merge
from seeall.types import SeeallError

DIM = 8
STEPS = {
    "write", "tofile", "flush", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir",
    "execute", "executemany", "executescript",
}  # fmt: skip
"""C functions before whose n-th call a child dies: all that changes a disk."""
Content = dict[str, tuple[str | None, str, bytes]]


def vectors(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def content(root: Path) -> tuple[int, Content]:
    """Generation and everything in it, by path."""
    with Index.open(root, gpu="off") as index:
        items = index.items(index.ids)
        generation = index.info()["generation"]
    return generation, {i.path: (i.label, json.dumps(i.metadata), i.vector.tobytes()) for i in items}


def files(folder: Path) -> list[tuple[str, bytes]]:
    """Every file and what is in it; states of the disk that are equal need no second look."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".sqlite-shm")
    return [(str(p.relative_to(folder)), p.read_bytes()) for p in found]


def assert_sound(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        assert index.check() == []


def assert_goes_on(root: Path) -> None:
    """The next writer works and leaves nothing of the last behind."""
    with Index.open(root, gpu="off") as index:
        before = len(index)
        index.add(["the next"], vectors(99, 1))
        assert len(index) == before + 1
        assert index.check() == [] and index.notes() == []


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dying_at(n: int, work: Callable[[], None]) -> Callable[[], None]:
    """`work`, ended before its n-th step as by a kill, with exit code 7."""
    left = n

    def profile(frame: object, event: str, called: object) -> None:
        nonlocal left
        if event == "c_call" and getattr(called, "__name__", "") in STEPS:
            left -= 1
            if left == 0:
                os._exit(7)

    def run() -> None:
        sys.setprofile(profile)
        work()
        sys.setprofile(None)

    return run


def base(root: Path, n: int = 30, **settings: int) -> None:
    with Index.create(root, dim=DIM, model="m", preprocessing={}, gpu="off", **settings) as index:
        index.add([f"p{i}" for i in range(n)], vectors(0, n), labels=["old"] * n)
        index.remove(["p3", "p4"])


def add(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        index.add(["new", "p5", "p6"], vectors(1, 3), ["x", "y", None], [{"a": 1}, None, {}])


def stream(root: Path) -> None:
    with Index.open(root, gpu="off") as index, index.writer() as writer:
        for i in range(3):
            writer.append([f"s{i}.{j}" for j in range(20)], vectors(i, 20))
        writer.remove(["p7"])


def remove(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        index.remove(["p0", "p29"])


def compact(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        index.compact()


def train(root: Path) -> None:
    with Index.open(root, gpu="off") as index:
        index.add([f"t{i}" for i in range(40)], vectors(2, 40))


def sync(root: Path) -> None:
    """What `ssl index sync` writes: other words for a vector that stays, new and changed ones, stamps, removals."""
    with Index.open(root, gpu="off") as index, index.writer() as writer:
        index.refresh()
        writer.append(["p8"], index.get("p8").vector[None], ["new label"])
        ids = writer.append(["p9", "new"], vectors(1, 2))
        writer.stamp({int(i): Stamp(1, 2, "x") for i in ids})
        writer.remove(["p10", "p11"])


CHANGES: Mapping[str, Callable[[Path], None]] = {
    "add": add, "stream": stream, "remove": remove, "compact": compact, "train": train, "sync": sync,
}  # fmt: skip


def every_step(name: str, folder: Path) -> dict[str, int]:
    """Die before every single step of one change; the index is as before or as after, never between."""
    segments.ROWS = 32  # so that one commit writes several
    template, root = folder / "template", folder / "index"
    base(template, plan=Plan(exact_below=60 if name == "train" else 1000))
    old = content(template)
    shutil.copytree(template, root)
    CHANGES[name](root)
    new = content(root)
    assert old[0] + 1 == new[0]
    seen, disk, side = {"old": 0, "new": 0}, [], "old"
    for n in range(1, 10_000):
        shutil.rmtree(root)
        shutil.copytree(template, root)
        code = wait(fork(dying_at(n, lambda: CHANGES[name](root))))
        disk, before = files(root), disk
        if code and disk == before:
            seen[side] += 1
            continue
        found = content(root)
        assert found in (old, new), f"step {n}: something between old and new"
        side = "old" if found == old else "new"
        seen[side] += 1
        assert_sound(root)
        assert_goes_on(root)
        if code == 0:
            assert found == new
            return seen
        assert code == 7
    raise AssertionError("it never ends")


def every_step_of_creation(name: str, folder: Path) -> dict[str, int]:
    """Die before every step of a creation or a merge, over nothing or over an old index: all of it or none."""
    overwrite = name != "create"
    if name == "overwrite by renames":
        durable._swap = lambda: None  # as on a file system that cannot exchange folders
    root, extra = folder / "index", folder / "extra"
    extra.write_text("weights")
    sources = [folder.parent / f"{folder.name}-{path}" for path in "ab"] if name == "merge" else []
    for path, source in zip("ab", sources):
        with Index.create(source, dim=DIM, model="m", preprocessing={}, files={"model.bin": extra}, gpu="off") as index:
            index.add([path], vectors(3, 1))

    def create() -> None:
        if sources:
            merge(root, sources, overwrite=True)
            return
        with Index.create(
            root, dim=DIM, model="m", preprocessing={}, files={"model.bin": extra}, overwrite=overwrite, gpu="off"
        ) as index:
            index.add(["a", "b"], vectors(3, 2))

    seen = {"old": 0, "new": 0, "hidden": 0}
    template, disk, side = folder.parent / f"{folder.name}-template", [], "old"
    base(template)
    for n in range(1, 10_000):
        shutil.rmtree(root, ignore_errors=True)
        if overwrite:
            shutil.copytree(template, root)
        code = wait(fork(dying_at(n, create)))
        disk, before = files(root), disk
        if code and disk and disk == before:
            seen[side] += 1
            continue
        if not overwrite and not root.exists():
            seen["old"] += 1
        else:
            seen["hidden"] += not root.exists()
            found = set(content(root)[1])
            assert found == {"a", "b"} or (overwrite and len(found) == 28), (n, found)
            side = "new" if found == {"a", "b"} else "old"
            seen[side] += 1
            assert_sound(root)
            assert_goes_on(root)
        if code == 0:
            for path in (root, template, *sources):
                shutil.rmtree(path)
            base(root)
            assert sorted(p.name for p in folder.iterdir()) == ["extra", "index"], "drafts are left"
            return seen
        assert code == 7
    raise AssertionError("it never ends")


def history(root: Path, generation: int) -> None:
    """The change that leads to `generation`: a function of it alone."""
    with Index.open(root, gpu="off") as index:
        if generation % 7 == 0:
            index.compact() if index.info()["removed"] else index.remove([int(index.ids[0])])
        elif generation % 3 == 0:
            index.remove([int(i) for i in index.ids[:4]])
        else:
            paths = [f"h{(generation * 5 + i) % 60}" for i in range(12)]
            index.add(paths, vectors(generation, 12), metadata=[{"generation": generation}] * 12)


class States:
    """What every generation holds when nobody dies, worked out as far as it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "reference"
        base(self._root)
        self._known = [{}, {}, content(self._root)[1]]

    def __getitem__(self, generation: int) -> Content:
        while generation >= len(self._known):
            history(self._root, len(self._known))
            self._known.append(content(self._root)[1])
        return self._known[generation]


def writing_on(root: Path, ready: int, go: int | None = None) -> None:
    """Commit without end, each told as soon as it is done; not before `go` can be read."""
    if go is not None:
        os.read(go, 1)
    with Index.open(root, gpu="off") as index:
        generation = int(index.info()["generation"])
    while True:
        generation += 1
        history(root, generation)
        os.write(ready, generation.to_bytes(4, "big"))


def kills(name: str, folder: Path) -> dict[str, int]:
    """kill -9 at random moments: exactly what was acknowledged, or one commit more.

    Every other child is let commit once at least; the moments are measured in commits, so that a slow machine and
    a quick one see the same.
    """
    moments = random.Random(7)
    known, root, ahead, told_all = States(folder), folder / "index", 0, 0
    began = time.monotonic()
    assert known[12]
    commit = (time.monotonic() - began) / 10
    base(root)
    acknowledged = 2
    for round_ in range(24):
        reading, ready = os.pipe()
        pid = fork(lambda end=ready: writing_on(root, end))
        os.close(ready)
        told = os.read(reading, 4) if round_ % 2 else b""
        time.sleep(moments.uniform(0, 4) * commit)
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL
        with os.fdopen(reading, "rb") as pipe:
            told += pipe.read()
        acknowledged = int.from_bytes(told[-4:], "big") or acknowledged
        told_all += len(told) // 4
        generation, found = content(root)
        assert generation in (acknowledged, acknowledged + 1), (acknowledged, generation)
        assert found == known[generation], f"generation {generation} is not what was written"
        assert_sound(root)
        ahead += generation - acknowledged
        acknowledged = generation
    return {"kills": 24, "acknowledged": told_all, "one more": ahead}


def readers(name: str, folder: Path) -> dict[str, int]:
    """Readers opened while a writer commits and compacts: each sees one whole generation, and keeps it."""
    known, root, opened = States(folder), folder / "index", {}
    base(root)
    query = vectors(5, 4)
    (reading, ready), (waiting, go) = os.pipe(), os.pipe()
    pid = fork(lambda: writing_on(root, ready, waiting))  # before anything is opened: SQLite forbids it after
    with Index.open(root, gpu="off") as patient:
        os.write(go, b"!")
        try:
            end = time.monotonic() + 120
            while time.monotonic() < end and len(opened) < 25:
                with Index.open(root, gpu="off") as index:
                    ids, _ = index.search(query, 3)
                    assert np.isin(ids, index.ids).all()
                    items = index.items(index.ids)
                    got = {i.path: (i.label, json.dumps(i.metadata), i.vector.tobytes()) for i in items}
                    opened[index.info()["generation"]] = got
                assert patient.check() == []
        finally:
            os.kill(pid, signal.SIGKILL)
            wait(pid)
        for generation, got in opened.items():
            assert got == known[generation]
        items = patient.items(patient.ids)
        assert {i.path for i in items} == set(known[2])
        assert (patient.search(query, 3)[0] == patient.search(query, 3)[0]).all()
    for end_of_pipe in (reading, ready, waiting, go):
        os.close(end_of_pipe)
    return {"generations": len(opened)}


def full_disk(name: str, folder: Path) -> dict[str, int]:
    """No file may grow beyond a limit: a plain error, and the old state."""
    template, root, refused = folder / "template", folder / "index", 0
    base(template)
    old = content(template)

    def grow(limit: int) -> None:
        with Index.open(root, gpu="off") as index:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                index.add([f"big{i}" for i in range(4000)], vectors(1, 4000))
            except SeeallError as error:
                assert "cannot write the index" in str(error) and "\n" not in str(error), error
                assert len(index) == 28 and len(index.search(vectors(0, 1), 5)[0]) == 1
                os._exit(3)

    def merged(limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            merge(folder / "merged", [template, root])
        except SeeallError as error:
            assert "cannot " in str(error) and "\n" not in str(error), error
            assert sorted(p.name for p in folder.iterdir()) == ["index", "template"], "a draft is left"
            os._exit(3)

    for limit in (100, 1000, 30_000, 33_000, 80_000, 140_000, 1_000_000):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template, root)
        code = wait(fork(lambda most=limit: merged(most)))
        assert code in (0, 3) and (folder / "merged").exists() == (code == 0), code
        shutil.rmtree(folder / "merged", ignore_errors=True)
        code = wait(fork(lambda most=limit: grow(most)))
        assert code in (0, 3), code
        refused += code == 3
        assert (content(root) == old) == (code == 3)
        assert_sound(root)
        assert_goes_on(root)
    return {"refused": refused}


SCENARIOS: Mapping[str, Callable[[str, Path], dict[str, int]]] = {
    **dict.fromkeys(CHANGES, every_step),
    "create": every_step_of_creation, "overwrite": every_step_of_creation, "merge": every_step_of_creation,
    "overwrite by renames": every_step_of_creation,
    "kills": kills, "readers": readers, "full_disk": full_disk,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(SCENARIOS[sys.argv[1]](sys.argv[1], Path(sys.argv[2]))))
