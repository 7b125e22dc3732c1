"""Pretraining: a folder of pictures in, a backbone that has learnt to tell them apart out.

Every picture gives a group of views; backbone and projector map them to z; the objective sees z and the groups,
of all processes together, and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seeall import catalog
from seeall.backbones.contract import Backbone
from seeall.backbones.load import build, factory, save
from seeall.backbones.weights import RUN_FILE
from seeall.console import log
from seeall.data import keyed
from seeall.data.pictures import Pictures, find
from seeall.data.pixels import Store, load
from seeall.data.sampler import Sampler
from seeall.metrics.knn import knn_accuracy
from seeall.ssl.projector import projector
from seeall.ssl.views import Views
from seeall.training.distributed import gather
from seeall.training.embed import Normalise, features, squares
from seeall.training.engine import check, launch, rank
from seeall.training.journal import Journal
from seeall.training.loop import Stopped, fit
from seeall.training.run import Run, refuse_inside
from seeall.types import Batch, SeeallError

MONITOR = 900
"""Labelled pictures that are watched during training; a third of them ask for their neighbours among the rest."""
MAPPED = 300
"""Pictures in TensorBoard's map of embeddings."""
SHEET = 8
"""Pictures on the sheet of views."""


class Pretraining(nn.Module):
    """A backbone, a projector and an objective: the task that the loop trains.

    monitor: pixels (n, 3, S, S) uint8 and targets (n,) of some labelled pictures to watch, or None
    """

    def __init__(self, backbone: Backbone, head: nn.Module, objective: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.backbone, self.projector, self.objective, self.normalise = backbone, head, objective, normalise
        self.monitor: tuple[Tensor, Tensor] | None = None

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """views (N, 3, S, S), groups (N,) → the objective's loss and scalars over the rows of all processes."""
        z = self.projector(self.backbone(batch["views"]))
        told: dict[str, Tensor] = self.objective(gather(z), gather(batch["groups"]))
        return told

    def evaluation(self) -> dict[str, float]:
        """`knn20`, percent, of a third of the monitored pictures among the rest; {} where none have labels."""
        if self.monitor is None:
            return {}
        pixels, targets = self.monitor
        device = batch_device(self)
        z = torch.cat([features(self.backbone, self.normalise, part, device) for part in torch.split(pixels, 256)])
        third = len(z) // 3
        accuracy = knn_accuracy(
            z[third:], targets[third:], z[:third], targets[:third], k=20, classes=int(targets.max()) + 1
        )
        return {"knn20": 100 * accuracy}


def batch_device(module: nn.Module) -> torch.device:
    """Where a module's parameters are."""
    return next(module.parameters()).device


def _monitor(pictures: Pictures, size: int, seed: int) -> tuple[Tensor, Tensor] | None:
    """Some labelled pictures, in an order that mixes the classes."""
    if pictures.labels is None or len(pictures.classes()) < 2 or len(pictures) < 60:
        return None
    some = pictures.limit(MONITOR, seed)
    some = some.subset(keyed.permutation(len(some), seed, 0x3071).tolist())
    read = list(squares(some, size))
    rows = [row for good, _, _ in read for row in good]
    return torch.cat([pixels for _, pixels, _ in read]), some.targets()[rows]


def choose_size(sizes: Tensor, gpu: bool) -> int:
    """The side of views for pictures of `sizes` (n, 2): 32, 64, 128 or 224 px, not above half of them, 64 on a CPU."""
    shorter = int(sizes.min(1).values.median())
    return max([s for s in (32, 64, 128, 224) if s <= shorter and s <= (224 if gpu else 64)], default=32)


def parts(objective: str, backbone: str, optimiser: str) -> dict[str, Any]:
    """The parts of a run whose settings `--set` reaches, by role. Raises SeeallError for an unknown name."""
    return {
        "objective": catalog.find(catalog.OBJECTIVES, objective, "objective"),
        "views": Views,
        "projector": projector,
        "backbone": factory(backbone),
        "optimiser": catalog.find(catalog.OPTIMISERS, optimiser, "optimiser"),
        "training": training,
    }


def training(
    *,
    warmup: float = 0.1,
    accumulate: int = 1,
    clip: float | None = None,
    ema: float | None = None,
    checkpoint_seconds: float = 60.0,
) -> dict[str, Any]:
    """Settings of the loop itself; see `training.loop.fit`."""
    if accumulate < 1:
        raise SeeallError(f"setting 'accumulate' is {accumulate}: choose at least 1")
    if checkpoint_seconds < 0:
        raise SeeallError(f"setting 'checkpoint_seconds' is {checkpoint_seconds}: choose 0 or more")
    if not 0 <= warmup < 1:
        raise SeeallError(f"setting 'warmup' is {warmup}: choose a share of the steps, from 0 and below 1")
    if clip is not None and clip <= 0:
        raise SeeallError(f"setting 'clip' is {clip}: choose a largest norm above 0, or none")
    if ema is not None and not 0 < ema < 1:
        raise SeeallError(f"setting 'ema' is {ema}: choose a decay between 0 and 1, such as 0.99")
    return locals()


def pretrain(
    data: str,
    out: Path,
    *,
    objective: str = "simclr",
    backbone: str = "resnet18",
    weights: str = "none",
    image_size: int | None = None,
    epochs: int = 100,
    steps: int | None = None,
    batch_size: int | None = None,
    optimiser: str = "adamw",
    lr: float | None = None,
    precision: str = "auto",
    devices: int = 0,
    workers: int = 0,
    seed: int = 0,
    limit: int | None = None,
    compile: bool = False,
    allow_skipped: bool = False,
    set: tuple[str, ...] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, float]:
    """Pretrain a backbone on the pictures of `data` into the run folder `out`.

    image_size: side of a view, px; None chooses by the pictures and the device, see `choose_size`
    steps: optimiser steps, in place of epochs · batch_size: pictures a step, of all processes; None takes 128,
        or less where there are few pictures · set: `name=value` settings of the objective, the views, the
        projector, the backbone, the optimiser and the loop

    Returns: mean loss of the last epoch and, where pictures have labels, kNN accuracy.
    Raises: SeeallError for anything the caller can mend; `loop.Stopped` after SIGINT or SIGTERM, all saved.
    """
    options = {k: v for k, v in locals().items() if k not in ("resume", "overwrite", "data", "out")}
    settings = {**options, "data": data, "out": str(out), "set": sorted(set)}
    _at_least(epochs=(epochs, 1), steps=(steps, 1), image_size=(image_size, 8), batch_size=(batch_size, 2))
    _, here, _ = check(devices, precision)
    plan = Plan.of(settings)
    pictures = find(data, limit=limit, seed=seed)
    refuse_inside(out, pictures.root)
    about = {"source": data, "pictures": len(pictures), "fingerprint": pictures.fingerprint()}
    run = _open(out, settings, about, resume, overwrite)
    if run and run.facts["status"] == "finished" and (out / RUN_FILE).exists():
        log.warning("%s is already finished; nothing to do", out)
        return dict(run.facts["results"])

    resolved = run.facts.get("resolved", {}) if run else {}
    precision = resolved.get("precision") or precision
    engine = launch(devices=devices, precision=precision)
    task = plan.task(backbone, weights, seed)
    store, size = plan.read(pictures, resolved.get("image_size") or image_size, workers, allow_skipped, here)
    if resolved.get("pictures", len(store)) != len(store):
        raise SeeallError(
            f"--resume {out}: {len(store)} pictures can be read now, {resolved['pictures']} could when the run began; "
            "restore them or start a new run"
        )
    batch = resolved.get("batch_size") or _batch(batch_size, len(store), engine.world)
    if run is None:
        run = Run.create(out, settings, about, overwrite=overwrite) if engine.rank == 0 else Run(out, {}, writes=False)
    run.writes = engine.rank == 0
    resolved = {"image_size": size, "batch_size": batch, "pictures": len(store), "precision": engine.precision}
    run.update(status="running", resolved=resolved)
    if run.writes:
        store.write_skipped(out / "skipped.csv")
        task.monitor = _monitor(store.pictures, size, seed)

    store.to(engine.device)
    sampler = Sampler(len(store), batch, seed, engine.rank, engine.world)
    feed = Feed(store, plan.views, sampler, task, size, seed, engine.device)
    epoch_steps = max(1, sampler.steps_per_epoch // plan.loop["accumulate"])
    total = steps or epochs * epoch_steps
    log.info(
        "%d pictures, views of %d px, batches of %d, %d steps, on %s; pixels in %s",
        len(store), size, batch, total, engine.device, store.place,
    )  # fmt: skip
    keep = functools.partial(_keep, run, task, backbone, plan.chosen["backbone"], size)

    def end(journal: Journal, step: int) -> None:
        keep()  # before anything else: the rest is decoration
        feed.map(journal, step)

    try:
        results = fit(
            engine, task, feed.fetch, plan.optimiser, run,
            steps=total, epoch_steps=epoch_steps, samples=batch, seed=seed, background=feed.waits,
            compile=compile, resume=resume, begin=feed.show, end=end, best="knn20",
            evaluate_every=max(1, epochs // 10) * epoch_steps if task.monitor else 0, **plan.loop,
        )  # fmt: skip
    except Stopped as stop:
        keep()
        run.update(status="stopped", step=stop.step)
        engine.part()
        raise
    run.update(status="finished", step=total, results=results)
    engine.part()
    return results


@dataclass(frozen=True)
class Plan:
    """What a run is made of; whatever is wrong with its settings is found here, before a picture is read."""

    chosen: dict[str, dict[str, Any]]
    views: Views
    objective: nn.Module
    optimiser: Callable[[nn.Module], torch.optim.Optimizer]
    loop: dict[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Plan:
        """The parts that the options of `pretrain` name. Raises SeeallError for a setting that is none of theirs."""
        roles = parts(settings["objective"], settings["backbone"], settings["optimiser"])
        chosen = catalog.resolve(roles, settings["set"])
        if settings["lr"] is not None:
            chosen["optimiser"].setdefault("lr", settings["lr"])
        plan = cls(
            chosen,
            Views(**chosen["views"]),
            roles["objective"](**chosen["objective"]),
            functools.partial(roles["optimiser"], **chosen["optimiser"]),
            training(**chosen["training"]),
        )
        plan.optimiser(projector(1, **chosen["projector"]))  # finds fault with its settings, if there is any
        if plan.views.views < 2:
            raise SeeallError("setting 'views' is 1: two views or more of a picture are what is learnt from")
        return plan

    def task(self, backbone: str, weights: str, seed: int) -> Pretraining:
        """The networks, with weights that depend on nothing but their settings and `seed`."""
        torch.manual_seed(keyed.seed(seed, 0x1417))
        network, report = build(backbone, weights, **self.chosen["backbone"])
        head = projector(network.embed_dim, **self.chosen["projector"])
        if weights != "none":
            log.info("%s", report)
        normalise = Normalise(network.preprocessing["mean"], network.preprocessing["std"])
        return Pretraining(network, head, self.objective, normalise)

    def read(
        self, pictures: Pictures, size: int | None, workers: int, allow_skipped: bool, processes: int
    ) -> tuple[Store, int]:
        """The pictures' pixels and the side of a view, px: `size`, or one that suits them."""
        gpu = torch.cuda.is_available()
        wanted = size or (224 if gpu else 64)
        shortest = int(wanted / (self.views.crop_min * 0.75) ** 0.5)  # no crop is then smaller than the view
        store = load(pictures, shortest=shortest, workers=workers, allow_skipped=allow_skipped, processes=processes)
        return store, size or choose_size(store.sizes, gpu)


def _open(
    out: Path, settings: Mapping[str, Any], about: Mapping[str, Any], resume: bool, overwrite: bool
) -> Run | None:
    """The run to go on with, or None where a new one begins. Raises SeeallError where neither can be."""
    if resume:
        run = Run.open(out)
        run.resumable(settings, about)
        return run
    Run.refuse(out, overwrite=overwrite or rank() > 0)
    return None


def _at_least(**numbers: tuple[int | None, int]) -> None:
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise SeeallError(f"--{name.replace('_', '-')} {value} must be at least {least}")


def _batch(asked: int | None, n: int, world: int) -> int:
    if n < 2:
        raise SeeallError("one picture is not enough to learn from; give at least 2")
    batch = asked or (128 // world * world or world if n >= 256 else max(2, 1 << ((n // 2).bit_length() - 1)))
    if not 2 <= batch <= n:
        raise SeeallError(f"--batch-size {batch} does not fit the {n} pictures; choose 2 to {n}")
    if batch % world:
        raise SeeallError(f"--batch-size {batch} cannot be shared by {world} processes; choose a multiple of {world}")
    return batch


class Feed:
    """Micro-batch number → views on the device."""

    def __init__(
        self,
        store: Store,
        views: Views,
        sampler: Sampler,
        task: Pretraining,
        size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.store, self.views, self.sampler, self.task = store, views, sampler, task
        self.size, self.seed, self.device = size, seed, device

    @property
    def waits(self) -> bool:
        """Whether there is something to wait for, so that fetching ahead helps: files, or the CPU beside a GPU."""
        return self.store.resident == "files" or (self.store.resident == "memory" and self.device.type == "cuda")

    def cut(self, rows: Tensor, epoch: int) -> Tensor:
        """Views in [0, 1] of these pictures, all first ones before all second ones."""
        boxes, flips = self.views.boxes(self.seed, epoch, rows, self.store.sizes[rows])
        cuts = self.store.crop(rows, boxes, flips, self.size).to(self.device, non_blocking=True)
        return self.views.photometric(cuts, self.seed, epoch, rows)

    def fetch(self, t: int) -> Batch:
        """What `training_step` takes. A row's group is its picture's number, the same on every process."""
        epoch, rows = self.sampler(t)
        x = self.task.normalise(self.cut(rows, epoch))
        return {"views": x, "groups": rows.repeat(self.views.views).to(self.device, non_blocking=True)}

    def show(self, journal: Journal) -> None:
        """A sheet of pictures' views, a column each, so that one can see what is learnt from."""
        _, rows = self.sampler(0)
        rows = rows[:SHEET]
        x = (self.cut(rows, 0) * 255).round().to(torch.uint8).cpu()
        grid = x.view(self.views.views, len(rows), 3, self.size, self.size)
        journal.picture("views", grid.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2), 0)

    def map(self, journal: Journal, step: int) -> None:
        """The embeddings of some pictures, for TensorBoard's projector."""
        some = self.store.pictures.limit(MAPPED, self.seed)
        read = [part for part in squares(some, self.size) if part[0]]
        if not read:
            return
        pixels = torch.cat([part for _, part, _ in read])
        z = torch.cat(
            [features(self.task.backbone, self.task.normalise, x, self.device) for x in torch.split(pixels, 256)]
        )
        labels = [some.labels[row] for rows, _, _ in read for row in rows] if some.labels else None
        journal.embedding(z, labels, pixels / 255, step)


def _keep(run: Run, task: Pretraining, name: str, settings: Mapping[str, Any], size: int) -> None:
    """Write the backbone, on the process that writes."""
    if run.writes:
        save(
            task.backbone, run.path / RUN_FILE, name=name, settings=settings,
            preprocessing={"image_size": size, "resize": "shorter side to image_size, then the middle"},
        )  # fmt: skip
