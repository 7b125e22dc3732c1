"""Objectives with a state, and batches of neighbours: resumed to the last bit, and over two processes as in one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seeall.data.sampler import Sampler
from seeall.index.nearest import nearest
from seeall.ssl.pretrain import pretrain
from seeall.training import checkpoint
from seeall.training.loop import Stopped

WORLD = "scenes:n=24,size=32,identities=4"
CLIPS = "scenes:n=4,frames=6,size=32,identities=2"
TINY: dict[str, Any] = {"backbone": "shufflenet_v2_x0_5", "batch_size": 8, "epochs": 2, "image_size": 32}
NEIGHBOURS: dict[str, Any] = {
    "negatives": "neighbours", "search": nearest, "epochs": 4, "set": ("every=1", "skip=0", "ceiling=1"),
}  # fmt: skip
LABELS = {"positives": "labels"}


def trained(out: Path, **options: Any) -> dict[str, float]:
    return pretrain(out=out, **{"data": WORLD, **TINY, **options})


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Everything in a checkpoint by a name of its own."""
    if isinstance(state, (dict, list, tuple)):
        parts = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, part in parts for k, v in flat(part, f"{name}.{key}").items()}
    return {name: state}


def alike(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def differing(a: Path, b: Path) -> list[str]:
    """The names of all that differs between what two runs have left."""
    found = []
    for read in (lambda run: load_file(run / "backbone.safetensors"), lambda run: checkpoint.load(run.joinpath(*LAST))):
        one, two = flat(read(a)), flat(read(b))
        found += [name for name in one.keys() | two.keys() if not alike(one.get(name), two.get(name))]
    lines = [[json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()] for run in (a, b)]
    told = [[{k: v for k, v in x.items() if k not in ("pictures_per_second", "data_wait")} for x in y] for y in lines]
    return found + ([] if told[0] == told[1] else ["metrics.jsonl"])


LAST = ("checkpoints", "last")


class Dead(BaseException):
    """The end of a process, as far as the run can tell."""


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Do something when micro-batch t is asked for."""
    ordinary = Sampler.__call__

    def when(t: int, what: Callable[[], None]) -> None:
        def sampled(self: Sampler, now: int) -> tuple[int, Tensor]:
            if now == t:
                monkeypatch.setattr(Sampler, "__call__", ordinary)
                what()
            return ordinary(self, now)

        monkeypatch.setattr(Sampler, "__call__", sampled)

    return when


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def die() -> None:
    raise Dead


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "simclr, queue": ({"negatives": "queue", "set": ("size=20", "ema=0.9")}, "model.objective.negatives.rows"),
    "simclr over time, learnt temperature": (
        {"data": CLIPS, "positives": "time", "set": ("window=0.3", "learn_temperature=on", "clip=1")},
        "model.objective.log_temperature",
    ),
    "triplet over labels, hard": (
        {**LABELS, "objective": "triplet", "negatives": "hard", "set": ("projector.layers=0",)},
        "model.backbone.network.conv5.0.weight",
    ),
    "margin over labels, distance": (
        {**LABELS, "objective": "margin", "negatives": "distance", "steps": 3, "set": ("beta_lr=0.05", "accumulate=2")},
        "model.objective.beta",
    ),
    "byol": ({"objective": "byol", "set": ("ema=0.9", "momentum=0.9")}, "average.teacher.0.network.conv1.0.weight"),
    "moco": ({"objective": "moco", "steps": 3, "set": ("size=50", "accumulate=2")}, "model.objective.memory"),
    "dino": ({"objective": "dino", "set": ("prototypes=32",)}, "model.objective.criterion.center"),
    "simclr over sound": (
        {"positives": "sound", "set": ("ema=0.9", "rate=8000", "mels=16", "seconds=0.5", "width=8")},
        "average.ears.projector.0.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_resumed_to_the_last_bit(case: str, tmp_path: Path, at: Callable[..., None]) -> None:
    """Interrupted on the way; the state that is named is in the checkpoint, and changes after it."""
    options, named = CASES[case]
    trained(tmp_path / "a", **options)
    at(3, stop)
    with pytest.raises(Stopped):
        trained(tmp_path / "b", **options)
    half = flat(checkpoint.load((tmp_path / "b").joinpath(*LAST)))
    trained(tmp_path / "b", **options, resume=True)
    assert differing(tmp_path / "a", tmp_path / "b") == []
    whole = flat(checkpoint.load((tmp_path / "a").joinpath(*LAST)))
    assert 0 < half[".step"] < whole[".step"] and not alike(half[f".{named}"], whole[f".{named}"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four epochs of three batches, with a search before the second, the third and the fourth."""
    out = tmp_path_factory.mktemp("whole") / "run"
    trained(out, **NEIGHBOURS)
    yield out


def tables(run: Path) -> dict[str, Tensor]:
    return {path.name: load_file(path)["rows"] for path in run.glob("checkpoints/neighbours-*")}


def test_neighbours_make_other_batches(whole: Path, tmp_path: Path) -> None:
    """What is resumed below is not what random batches would be."""
    assert sorted(tables(whole)) == ["neighbours-2.safetensors", "neighbours-3.safetensors"]
    assert all((table >= 0).any(1).all() for table in tables(whole).values())
    trained(tmp_path / "r", epochs=4, negatives="neighbours", search=nearest, set=("every=9",))
    assert differing(whole, tmp_path / "r")


@pytest.mark.parametrize("t", [1, 4, 8])
def test_neighbours_stopped_and_resumed(whole: Path, tmp_path: Path, at: Callable[..., None], t: int) -> None:
    """Before the first table, between two, and in the last step before one."""
    at(t, stop)
    with pytest.raises(Stopped):
        trained(tmp_path / "r", **NEIGHBOURS)
    before = tables(tmp_path / "r")
    trained(tmp_path / "r", **NEIGHBOURS, resume=True)
    assert differing(whole, tmp_path / "r") == []
    after = tables(tmp_path / "r")
    assert all(torch.equal(after[name], before[name]) for name in after.keys() & before.keys())
    assert all(torch.equal(after[name], table) for name, table in tables(whole).items())


def with_checkpoints(seconds: float) -> dict[str, Any]:
    return {**NEIGHBOURS, "set": (*NEIGHBOURS["set"], f"checkpoint_seconds={seconds}")}


def test_a_table_was_written_and_no_checkpoint_after_it(whole: Path, tmp_path: Path, at: Callable[..., None]) -> None:
    t = 6
    options = with_checkpoints(0)
    at(t, die)
    with pytest.raises(Dead):
        trained(tmp_path / "r", **options)
    assert f"neighbours-{t // 3}.safetensors" in tables(tmp_path / "r")
    assert checkpoint.load((tmp_path / "r").joinpath(*LAST))["step"] == t
    trained(tmp_path / "r", **options, resume=True)
    assert differing(whole, tmp_path / "r") == []


@pytest.mark.parametrize(
    ("stopped", "died"),
    [
        (4, 7),
        (4, 10),
    ],
)  # fmt: skip
def test_a_checkpoint_older_than_the_newest_table(
    whole: Path, tmp_path: Path, at: Callable[..., None], stopped: int, died: int
) -> None:
    """Stopped, resumed, and killed one or two searches later, when no checkpoint had become due."""
    options = with_checkpoints(1e9)
    at(stopped, stop)
    with pytest.raises(Stopped):
        trained(tmp_path / "r", **options)
    at(died, die)
    with pytest.raises(Dead):
        trained(tmp_path / "r", **options, resume=True)
    assert stopped < checkpoint.load((tmp_path / "r").joinpath(*LAST))["step"] <= died
    assert f"neighbours-{died // 3}.safetensors" in tables(tmp_path / "r")
    trained(tmp_path / "r", **options, resume=True)
    assert differing(whole, tmp_path / "r") == []


def test_killed_before_a_checkpoint_became_due(whole: Path, tmp_path: Path, at: Callable[..., None]) -> None:
    """Tables lie there, of a beginning that may be gone."""
    options = with_checkpoints(1e9)
    at(10, die)
    with pytest.raises(Dead):
        trained(tmp_path / "r", **options)
    assert len(tables(tmp_path / "r")) == 2
    trained(tmp_path / "r", **options, resume=True)
    assert differing(whole, tmp_path / "r") == []


def test_neighbours_with_an_average_and_parts_of_a_step(tmp_path: Path, at: Callable[..., None]) -> None:
    """The first search falls into the middle of the second step, which a resumed run takes from its beginning."""
    options = {**NEIGHBOURS, "steps": 5, "set": (*NEIGHBOURS["set"], "ema=0.9", "accumulate=2", "checkpoint_seconds=0")}
    trained(tmp_path / "a", **options)
    at(3, die)
    with pytest.raises(Dead):
        trained(tmp_path / "b", **options)
    assert checkpoint.load((tmp_path / "b").joinpath(*LAST))["step"] == 1 and len(tables(tmp_path / "b")) == 1
    at(7, stop)
    with pytest.raises(Stopped):
        trained(tmp_path / "b", **options, resume=True)
    trained(tmp_path / "b", **options, resume=True)
    assert differing(tmp_path / "a", tmp_path / "b") == []


KILLED = {
    "neighbours": {**NEIGHBOURS, "epochs": 8, "set": (*NEIGHBOURS["set"], "checkpoint_seconds=0")},
    "queue": {"negatives": "queue", "epochs": 8, "set": ("ema=0.9", "checkpoint_seconds=0")},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLED)
def test_kill_9(case: str, tmp_path: Path, ssl_process: Callable[..., subprocess.Popen[str]]) -> None:
    """A process that is gone in the middle of it: after its second table, or its fourth checkpoint."""
    options = KILLED[case]
    flags = [x for name, value in {**TINY, **options}.items() if name not in ("set", "search")
             for x in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    flags += [x for pair in options["set"] for x in ("--set", pair)]
    env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = ssl_process("pretrain", WORLD, "--quiet", "--out", tmp_path / "b", *flags, **env)
    last = (tmp_path / "b").joinpath(*LAST)
    found: set[int] = set()
    while process.poll() is None:
        if case == "neighbours" and (last.parent / "neighbours-2.safetensors").exists():
            break
        found |= {last.stat().st_mtime_ns} if last.exists() else set()
        if case == "queue" and len(found) > 3:
            break
        time.sleep(0.002)
    process.kill()
    _, err = process.communicate()
    assert json.loads((tmp_path / "b" / "run.json").read_text())["status"] == "running", err
    trained(tmp_path / "a", **options)
    trained(tmp_path / "b", **options, resume=True)
    assert differing(tmp_path / "a", tmp_path / "b") == []


WORKER = """
import json, os, sys
from pathlib import Path
import torch
from seeall.index.nearest import nearest
from seeall.ssl.pretrain import pretrain

torch.set_num_threads(1)
for number, (name, options) in enumerate(json.loads(Path(sys.argv[1]).read_text()).items()):
    os.environ["MASTER_PORT"] = sys.argv[3 + number]  # the store of the run before may not have gone yet
    search = {"search": nearest} if options.get("negatives") == "neighbours" else {}
    pretrain(out=Path(sys.argv[2]) / name, **{**options, **search, "set": tuple(options["set"])})
"""

STILL = {"optimiser": "sgd", "lr": 1e-9, "backbone": "resnet18"}
"""Steps so small that only rounding differs, as gradients of float32 are sure to two or three digits; and a network
whose features are not all alike before BatchNorm has seen many batches."""

TOGETHER: dict[str, dict[str, Any]] = {
    "triplet": {**LABELS, "objective": "triplet", "negatives": "hard", "steps": 1, "batch_size": 24},
    "margin": {**LABELS, "objective": "margin", "negatives": "distance", "steps": 1, "batch_size": 24},
    "queue": {"negatives": "queue", "steps": 3, **STILL},
    "neighbours": {**NEIGHBOURS, "steps": 6, **STILL},
    "sound": {"positives": "sound", "steps": 1, "set": ("rate=8000", "mels=16", "seconds=0.5", "width=8")},
    "byol": {"objective": "byol", "steps": 3, **STILL},
    "moco": {"objective": "moco", "steps": 3, **STILL},
    "dino": {"objective": "dino", "steps": 3, **STILL},
}
TAUGHT = ("byol", "moco", "dino")


def started(folder: Path, rank: int, world: int, ports: list[int]) -> subprocess.Popen[str]:
    """A process as torchrun starts it, or one alone."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if world > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
        place = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
        env |= {name: str(value) for name, value in (ranks | place).items()}
    given = [
        sys.executable,
        str(folder / "worker.py"),
        str(folder / "cases.json"),
        str(folder / str(world)),
        *map(str, ports),
    ]
    with (folder / f"{world}-{rank}.log").open("w") as said:
        return subprocess.Popen(given, env=env, stderr=said)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders 1 and 2: all of `TOGETHER` by one process and by two. Those with a teacher come last."""
    folder = tmp_path_factory.mktemp("together")
    cases = {
        name: {"set": [], "data": WORLD, **TINY, **{k: v for k, v in options.items() if k != "search"}}
        for name, options in TOGETHER.items()
    }
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "worker.py").write_text(WORKER)
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in TOGETHER]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in free]
    processes = [started(folder, rank, world, ports) for rank, world in ((0, 1), (0, 2), (1, 2))]
    for process in processes:
        try:
            process.wait(timeout=200)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return folder


def losses(run: Path) -> list[float]:
    """Of its epochs."""
    file = run / "metrics.jsonl"
    assert file.exists(), "".join(log.read_text()[-2000:] for log in run.parent.parent.glob("*.log"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    TOGETHER,
)
def test_two_processes_see_the_losses_that_one_sees(case: str, together: Path) -> None:
    """The same batches, negatives, memories, draws and neighbours."""
    one, two = (losses(together / world / case) for world in "12")
    assert len(one) == -(-TOGETHER[case]["steps"] // 3) and one == pytest.approx(two, rel=1e-5)
    if case == "neighbours":
        tables_ = [tables(together / world / case)["neighbours-1.safetensors"] for world in "12"]
        assert torch.equal(*tables_) and (tables_[0] >= 0).any()
