"""Claim: kill -9 at any moment costs no run and no index: a resumed run ends with the very bits of one that was
never killed, and an index holds what it held before, or all that was being added.

    python benchmarks/kills.py [--pretrain 20] [--index 26] [--seed 0] [--json]      three minutes on two idle cores

Four rows, 202 kills in all, each with its number of kills by SIGKILL at random moments, drawn by the seed:

`ssl pretrain`    is killed at moments spread evenly over the length of a whole run, saving after every step, and
                  gone on with by `ssl pretrain --resume`, which may be killed too; every run is at last let finish,
                  and each tensor of its backbone.safetensors compared, bit by bit, with that of the whole run. A
                  run killed before it wrote its run.json is begun again.
`ssl index add`   is killed while it adds 200 pictures to an index of 60 and replaces 20 that have changed. `ssl index
                  check` must then find nothing wrong, the content be that of before or that of after, and the same
                  command, let finish, bring that of after: this is its "resumed equal".
`ssl index sync`  the same, and 10 pictures are gone, which --remove-vanished removes from the index.
`Index.add`       `remove` and `compact` in a loop, so that nearly every kill hits a commit: what was acknowledged must
                  be there, and of the commit under way all or nothing. All kills hit one index, five times as many.

This program imports everything once and forks a process for each life that ends by a kill, so that kills hit the
work and not the seconds of importing; hence one thread each, as a fork cannot share a pool of threads. Linux only.
Every step is forced to disk; where that is slow, TMPDIR=/dev/shm kills the same processes in memory.

Expect every kill survived: as many resumed runs equal and indexes clean as there were kills, old and new states
adding up to them. Exit code 1 otherwise. How many of each kind there are in the loop is chance, and not judged;
with a hundred kills there are both.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUN = ["scenes:n=64,size=32", "--backbone", "shufflenet_v2_x0_5", "--batch-size", "16", "--epochs", "4"]
RUN += ["--set", "checkpoint_seconds=0"]
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
DIM, EACH, PATHS = 64, 50, 400
"""The loop's vectors: their dimension, how many a commit adds, and to how many paths in all."""
LOOP_SECONDS = 0.3
Report = dict[str, Any]
Work = Callable[[], int]


def prepare() -> None:
    """Import what the children need, with no thread started, or a fork would miss it."""
    os.environ.update(THREADS)
    import lightning_fabric  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import seeall.index.build
    import seeall.ssl.pretrain  # noqa: F401

    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise SystemExit("a library started threads when it was imported: processes cannot be forked")


def start(work: Work, output: int | None = None) -> int:
    """A process that does `work`, whose result is its exit code; its standard output goes to `output`."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        if output is None:
            output = os.open(os.devnull, os.O_WRONLY)
        os.dup2(output, 1)
        code = work()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ssl(*args: object) -> Work:
    """The command."""

    def work() -> int:
        from seeall import cli

        return cli.run([str(a) for a in args])

    return work


def end(pid: int) -> int:
    """Wait for a process; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ask(work: Work) -> tuple[int, str]:
    """Exit code and standard output of a process that is let finish."""
    reading, writing = os.pipe()
    pid = start(work, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    return end(pid), told


def finish(work: Work) -> float:
    """Let a process finish, which it must do well; its seconds."""
    began = time.perf_counter()
    code = end(start(work))
    if code:
        raise SystemExit(f"a process that nobody killed ended with exit code {code}")
    return time.perf_counter() - began


def killed(pid: int, seconds: float) -> bool:
    """SIGKILL after `seconds`; whether there was still somebody to kill."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return end(pid) == -signal.SIGKILL


def same_bits(a: Path, b: Path) -> bool:
    """Whether two runs have left the same tensors: names, shapes, types and every bit."""
    import torch
    from safetensors.torch import load_file

    one, two = (load_file(run / "backbone.safetensors") for run in (a, b))
    return one.keys() == two.keys() and all(
        (x.shape, x.dtype) == (y.shape, y.dtype)
        and torch.equal(x.reshape(-1).view(torch.uint8), y.reshape(-1).view(torch.uint8))
        for x, y in ((one[name], two[name]) for name in one)
    )


def pretraining(kills: int, moments: random.Random, folder: Path) -> Report:
    """Kill, resume, kill …, until so many have hit; every run is finished and compared."""
    whole = folder / "whole"
    length = finish(ssl("pretrain", *RUN, "--out", whole, "--quiet"))
    report = {
        "kills": 0,
        "runs": 0,
        "equal": 0,
        "before_run_json": 0,
        "after_a_checkpoint": 0,
        "seconds_of_a_run": length,
    }
    while report["kills"] < kills:
        out, hits = folder / f"run{report['runs']}", 0
        while True:
            begun = (out / "run.json").exists()
            work = ssl("pretrain", *([] if begun else RUN), "--out", out, "--quiet", *(["--resume"] if begun else []))
            if report["kills"] + hits == kills:
                finish(work)
                break
            if not killed(start(work), moments.uniform(0, length)):
                break
            hits += 1
            report["before_run_json"] += not (out / "run.json").exists()
            report["after_a_checkpoint"] += (out / "checkpoints" / "last").exists()
        good = (out / "backbone.safetensors").exists() and same_bits(whole, out)
        report["runs"] += 1
        report["kills"] += hits
        report["equal"] += hits * good
        print(f"ssl pretrain: run {report['runs']}, {hits} kills, {'equal' if good else 'DIFFERENT'}", file=sys.stderr)
        shutil.rmtree(out)
    return report


def draw(folder: Path, n: int, seed: int = 0) -> None:
    """n small pictures."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(n):
        rng = np.random.default_rng([seed, n, i])
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((40 + i % 9, 40), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.png")


def content(root: Path) -> str:
    """A digest of all that an index holds, by path."""

    def work() -> int:
        from seeall.index.store import Index

        with Index.open(root, gpu="off") as index:
            items = sorted(index.items(index.ids), key=lambda item: item.path)
        digest = hashlib.sha256()
        for item in items:
            digest.update(f"{item.path}\0{item.label}\0{json.dumps(item.metadata)}\0".encode() + item.vector.tobytes())
        print(len(items), digest.hexdigest())
        return 0

    code, told = ask(work)
    return told if code == 0 else f"unreadable, exit code {code}"


def clean(root: Path) -> bool:
    """What `ssl index check` says."""
    code, told = ask(ssl("index", "check", root, "--json"))
    return code == 0 and json.loads(told)["problems"] == []


def changing(name: str, kills: int, moments: random.Random, folder: Path) -> Report:
    """`ssl index add` or `sync`, killed; each time on a fresh copy of the same index."""
    pictures, template, root = folder / name, folder / f"{name}.template", folder / f"{name}.index"
    draw(pictures / "old", 60)
    finish(ssl("index", "build", pictures / "old", "--run", folder / "whole", "--out", template, "--quiet"))
    draw(pictures / "new", 200)
    draw(pictures / "other", 20, seed=1)
    for picture in sorted((pictures / "other").iterdir()):
        picture.replace(pictures / "old" / picture.name)
    if name == "sync":
        for picture in sorted((pictures / "old").iterdir())[-10:]:
            picture.unlink()
    change = ssl("index", name, root, pictures, "--quiet", *(["--remove-vanished"] if name == "sync" else []))
    shutil.copytree(template, root)
    old, length, new = content(root), finish(change), content(root)
    if old == new:
        raise SystemExit(f"ssl index {name} has changed nothing")
    report = dict.fromkeys(("kills", "clean", "old", "new", "mended"), 0) | {"seconds": length}
    while report["kills"] < kills:
        shutil.rmtree(root)
        shutil.copytree(template, root)
        if not killed(start(change), moments.uniform(0, length)):
            continue
        report["kills"] += 1
        found = content(root)
        report["clean"] += clean(root)
        report["old"] += found == old
        report["new"] += found == new
        finish(change)
        report["mended"] += content(root) == new and clean(root)
    return report


def commit(root: Path, generation: int) -> None:
    """The commit that leads to `generation`, a function of it alone."""
    import numpy as np

    from seeall.index.store import Index

    paths = [f"p{(generation * 37 + i * 3) % PATHS}" for i in range(EACH)]
    vectors = np.random.default_rng(generation).standard_normal((EACH, DIM)).astype(np.float32)
    with Index.open(root, gpu="off") as index:
        if generation % 7 == 0:
            index.compact() if index.info()["removed"] else index.remove([int(index.ids[0])])
        elif generation % 5 == 0:
            index.remove([int(i) for i in index.ids[:EACH]])
        else:
            index.add(paths, vectors, labels=[str(generation)] * EACH)


def looping(root: Path, generation: int, told: int) -> Work:
    """Commits without end, each acknowledged by its generation's number."""

    def work() -> int:
        for later in range(generation + 1, sys.maxsize):
            commit(root, later)
            os.write(told, later.to_bytes(4, "big"))
        return 0

    return work


def loop(kills: int, moments: random.Random, folder: Path) -> Report:
    """Add, remove and compact in a loop, killed; `reference` is the same index, one commit after another, unharmed."""

    def create(root: Path) -> int:
        from seeall.index.store import Index

        with Index.create(root, dim=DIM, model="none", preprocessing={}, gpu="off") as index:
            index.add(["first"], [[1.0] * DIM])
        return 0

    root, reference = folder / "loop", folder / "reference"
    for place in (root, reference):
        finish(functools.partial(create, place))
    generation, now = 1, content(reference)
    report = dict.fromkeys(("kills", "clean", "old", "new", "commits"), 0)
    for _ in range(kills):
        reading, writing = os.pipe()
        pid = start(looping(root, generation, writing))
        os.close(writing)
        report["kills"] += killed(pid, moments.uniform(0, LOOP_SECONDS))
        with os.fdopen(reading, "rb") as pipe:
            acknowledged = int.from_bytes(pipe.read()[-4:], "big") or generation
        found = content(root)
        report["clean"] += clean(root)
        report["commits"] += acknowledged - generation
        finish(replaying(reference, generation, acknowledged))
        generation, now = acknowledged, content(reference)
        report["old"] += found == now
        if found != now:
            finish(replaying(reference, generation, generation + 1))
            generation, now = generation + 1, content(reference)
            report["new"] += found == now
    return report


def replaying(root: Path, first: int, last: int) -> Work:
    """The commits after `first`, up to `last`."""

    def work() -> int:
        for generation in range(first + 1, last + 1):
            commit(root, generation)
        return 0

    return work


def survived(report: dict[str, Report]) -> bool:
    """Whether every kill was: equal runs, clean indexes, and of every commit all or nothing."""
    runs, indexes = report["pretrain"], (report[f"index_{name}"] for name in ("add", "sync", "loop"))
    return runs["equal"] == runs["kills"] and all(
        r["clean"] == r["old"] + r["new"] == r["kills"] == r.get("mended", r["kills"]) for r in indexes
    )


def table(report: dict[str, Report]) -> str:
    """The report for a person."""
    runs, added, synced, looped = (report[name] for name in ("pretrain", "index_add", "index_sync", "index_loop"))
    lines = [f"{'kill -9':<18}{'kills':>7}{'resumed equal':>15}{'index clean':>13}{'old state':>11}{'new state':>11}"]
    lines.append(f"{'ssl pretrain':<18}{runs['kills']:>7}{runs['equal']:>15}")
    for name, r in (("ssl index add", added), ("ssl index sync", synced), ("Index.add", looped)):
        again = r.get("mended", "")
        lines.append(f"{name:<18}{r['kills']:>7}{again:>15}{r['clean']:>13}{r['old']:>11}{r['new']:>11}")
    lines.append(
        f"{runs['runs']} runs of {runs['seconds_of_a_run']:.1f} s, {runs['after_a_checkpoint']} of the kills after a "
        f"first checkpoint; adds of {added['seconds']:.2f} s, syncs of {synced['seconds']:.2f} s; "
        f"{looped['commits']} commits in the loop"
    )
    return "\n".join(lines)


def main() -> None:
    """Kill and count."""
    parser = argparse.ArgumentParser(description=" ".join((__doc__ or "").split("\n\n")[0].split()))
    parser.add_argument("--pretrain", type=int, default=20, metavar="N", help="kills of ssl pretrain")
    parser.add_argument(
        "--index", type=int, default=26, metavar="N", help="kills of ssl index add and sync each; the loop: 5 N"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    began = time.perf_counter()
    prepare()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = {"pretrain": pretraining(options.pretrain, moments, folder)}
        for name in ("add", "sync"):
            report[f"index_{name}"] = changing(name, options.index, moments, folder)
        report["index_loop"] = loop(5 * options.index, moments, folder)
    flat = {f"{way}_{key}": value for way, r in report.items() for key, value in r.items()}
    flat |= {"survived": survived(report), "seconds": time.perf_counter() - began}
    print(json.dumps(flat) if options.json else table(report))
    sys.exit(0 if flat["survived"] else 1)


if __name__ == "__main__":
    main()
