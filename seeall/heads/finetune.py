"""Fine-tuning: a backbone that has learnt to see and some pictures with their truth in, a head that does a task out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seeall import catalog
from seeall.backbones import load as backbones
from seeall.backbones.contract import Backbone
from seeall.backbones.weights import RUN_FILE
from seeall.console import log
from seeall.data import keyed
from seeall.data.annotations.examples import Examples, load
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Annotated
from seeall.data.decode import Unreadable
from seeall.data.pixels import write_skipped
from seeall.data.sampler import Sampler
from seeall.data.scenes import Scenes, parse
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.augment import Augment
from seeall.heads.detection.bootstrap import Bootstrap
from seeall.heads.detection.task import Detection
from seeall.heads.examine import of, sheet
from seeall.heads.feed import Feed
from seeall.heads.randomise import Randomise, randomise
from seeall.heads.segmentation.task import Segmentation
from seeall.heads.split import divided, few, fingerprint, limited, same_division
from seeall.heads.transfer import freeze, leave_out, rates, transfer
from seeall.heads.trial import Trial
from seeall.training.engine import Engine, check, launch
from seeall.training.journal import Journal
from seeall.training.loop import Stopped, fit
from seeall.training.options import at_least, begun, last_of_each, training
from seeall.training.run import Run, refuse_inside
from seeall.types import SeeallError

BEST = {"classification": "top1", "detection": "mAP", "instance": "mAP", "segmentation": "mIoU"}
"""The metric whose highest value decides which checkpoint is the best."""
_SIZES, _LARGEST, _LARGEST_CPU = (32, 48, 64, 96, 128, 192, 256, 384, 512), 512, 256
_BATCH, _BATCH_WHOLE = 8, 32


def finetune(
    data: str,
    out: Path,
    *,
    task: str,
    start: str,
    model: str | None = None,
    val: str | None = None,
    labels: str | None = None,
    freeze: str = "none",
    backbone: str | None = None,
    image_size: int | None = None,
    epochs: int = 30,
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
    """Train a head for `task` on the pictures of `data` and their truth, into the run folder `out`.

    task, model: see `catalog.TASKS`
    start: a run or file whose weights the backbone begins with, "DEFAULT" for published ones, "none" for none
    val: data to judge by, or a share of `data` to hold back; else the data's own splits, or a fifth
    limit: at most so many pictures to learn from, and as many to judge by
    labels: how many of the pictures to learn from are used with their truth, as 10% or 50; see `split.few`
    freeze: none, backbone, or the first N stages · backbone: not needed where `start` says which it is
    image_size: shorter side of pictures, px, as the network sees them; None takes one that suits the pictures
    set: `name=value` settings of the model, its loss, the augmentation, the transfer, the annotations, the backbone,
        the optimiser and the loop

    Returns: mean scalars of the last epoch and the task's metrics on what was held back; `best NAME` is the highest.
    Raises: SeeallError for anything the caller can mend; `loop.Stopped` after SIGINT or SIGTERM, all saved.
    """
    options = {k: v for k, v in locals().items() if k not in ("resume", "overwrite", "data", "out")}
    settings = {**options, "data": data, "out": str(out), "set": last_of_each(set)}
    at_least(
        epochs=(epochs, 1), steps=(steps, 1), image_size=(image_size, 16), batch_size=(batch_size, 1), limit=(limit, 1)
    )
    check(devices, precision)
    known = _known(out) if resume else None
    if overwrite and start.lower() not in ("none", "default") and Path(start).resolve().is_relative_to(out.resolve()):
        raise SeeallError(f"--from {start} lies in --out {out}, which would replace it: choose another --out")
    plan = Plan.of(settings, known)
    annotated = plan.find(data)
    refuse_inside(out, annotated.pictures.root)
    about = {"source": data, "pictures": len(annotated), "fingerprint": fingerprint(annotated)}
    run = begun(out, settings, about, resume, overwrite)
    if run and run.facts["status"] == "finished" and (out / build.HEAD_FILE).exists():
        log.warning("%s is already finished; nothing to do", out)
        return dict(run.facts["results"])
    if run and not same_division(run.facts["settings"]["val"], val):
        raise SeeallError(f"--resume {out}: --val would hold other pictures back than when the run began; leave it out")
    resolved = run.facts.get("resolved", {}) if run else {}
    learnt, held = (limited(part, limit, seed) for part in divided(annotated, val, plan.find, seed))
    refuse_inside(out, held.pictures.root)
    learnt = few(learnt, labels, seed)
    engine = launch(devices=devices, precision=resolved.get("precision") or precision)
    network, name, chosen = plan.backbone(seed)
    size = resolved.get("image_size") or image_size or choose_size(learnt)
    _check_batch(batch_size, len(learnt), engine.world)

    @functools.cache  # what is wrong with the settings of a head is said before, where it can be
    def parts_read() -> tuple[Examples, Examples]:
        tell_repairs(annotated)
        judging = held if engine.rank == 0 else held.subset([])
        some, others = (
            load(part, size, workers=workers, allow_skipped=allow_skipped, processes=engine.world)
            for part in (learnt, judging)
        )
        return some, others

    recipe = build.Recipe(task, plan.model, tuple(annotated.classes), size, name, chosen, plan.settings)
    told = About(size, lambda: boxes_of(parts_read()[0]))
    torch.manual_seed(keyed.seed(seed, 0x1418))
    head = build.assemble(recipe, network, told)
    recipe = replace(recipe, anchors=told.anchors)
    plan.hold(head, network)
    if told.every is not None and plan.world is not None:
        raise SeeallError("negatives=bootstrap and widen=on both change what is learnt from: choose one")
    examples, judged = parts_read()
    if isinstance(head, Segmentation):
        counts = pixels_of(examples, len(annotated.classes))
        if not counts.any():
            raise SeeallError(
                f"{data}: no pixel of the pictures to learn from has a class, so there is nothing to learn"
            )
        head.loss.set_counts(counts)
    usual = _BATCH_WHOLE if task == "classification" else _BATCH
    shared = max(1, min(usual, len(examples)) // engine.world) * engine.world
    batch = resolved.get("batch_size") or batch_size or shared
    _check_batch(batch, len(examples), engine.world)
    if run is None:
        run = Run.create(out, settings, about, overwrite=overwrite) if engine.rank == 0 else Run(out, {}, writes=False)
    run.writes = engine.rank == 0
    run.update(
        status="running",
        resolved={
            "image_size": size, "batch_size": batch, "pictures": len(examples), "precision": engine.precision,
            "backbone": name, "backbone_settings": chosen,
        },
    )  # fmt: skip
    if run.writes:
        head.held = judged  # type: ignore[assignment]
        write_skipped(out / "skipped.csv", [*examples.skipped, *judged.skipped])
    sampler = Sampler(len(examples), batch, seed, engine.rank, engine.world)
    tried = plan.trial(head, told, examples, engine, sampler.steps_per_epoch, run.last.parent)
    feed = Feed(examples, plan.augment, sampler, seed, tried)
    epoch_steps = max(1, sampler.steps_per_epoch // plan.loop["accumulate"])
    total = steps or epochs * epoch_steps
    log.info(
        "%d pictures to learn from, %d to judge by, %d px, batches of %d, %d steps, on %s",
        len(examples), len(judged), size, batch, total, engine.device,
    )  # fmt: skip
    keep = functools.partial(_keep, run, head, network, recipe)

    def end(journal: Journal, step: int) -> None:
        keep()
        if len(judged):
            journal.picture("worst", sheet(of(head, recipe, judged)), step)  # type: ignore[arg-type]

    try:
        results = fit(
            engine, head, feed.fetch, plan.optimiser, run,
            steps=total, epoch_steps=epoch_steps, samples=batch, seed=seed,
            background=not examples.resident or engine.device.type == "cuda",
            compile=compile, resume=resume, end=end, best=BEST[task],
            pause_every=tried.every if tried else 0, pause=tried.pause if tried else lambda t: None,
            evaluate_every=max(1, -(-total // epoch_steps) // 10) * epoch_steps if len(judged) else 0, **plan.loop,
        )  # fmt: skip
    except Stopped as stop:
        keep()
        run.update(status="stopped", step=stop.step)
        engine.part()
        raise
    except ValueError as fault:
        if "more than 1 value per channel" not in str(fault):
            raise
        raise SeeallError(
            f"BatchNorm cannot learn from one picture of {size} px at a time: choose --batch-size {2 * engine.world} "
            "or more, a larger --image-size, or --freeze backbone"
        ) from None
    run.update(status="finished", step=total, results=results)
    engine.part()
    return results


@dataclass(frozen=True)
class Plan:
    """What a run is made of; whatever is wrong with its settings is found here, before a picture is read.

    find: data → pictures and their truth · settings: of the model and its loss, by role
    world: what is varied while the head copes, or None; `randomise`: how
    """

    task: str
    model: str
    find: Callable[[str], Annotated]
    backbone: Callable[[int], tuple[Backbone, str, dict[str, Any]]]
    settings: dict[str, dict[str, Any]]
    augment: Augment
    world: Scenes | None
    randomise: dict[str, Any]
    hold: Callable[[nn.Module, Backbone], None]
    optimiser: Callable[[nn.Module], torch.optim.Optimizer]
    loop: dict[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any], known: tuple[str, dict[str, Any]] | None = None) -> Plan:
        """The parts that the options of `finetune` name. Raises SeeallError for a setting that is none of theirs.

        known: name and settings of the backbone of a run that has a checkpoint, and needs no other weights
        """
        model = build.check(settings["task"], settings["model"])
        name, own = known or _origin(settings["start"], settings["backbone"])
        roles = parts(settings["task"], model, name, settings["optimiser"])
        chosen = catalog.resolve(roles, settings["set"])
        chosen["optimiser"].setdefault("lr", settings["lr"] if settings["lr"] is not None else 5e-4)
        how, how_varied = transfer(**chosen["transfer"]), randomise(**chosen["randomise"])
        plan = cls(
            settings["task"],
            model,
            functools.partial(find_annotated, task=settings["task"], **chosen["annotations"]),
            functools.partial(_backbone, "none" if known else settings["start"], name, {**own, **chosen["backbone"]}),
            {role: chosen[role] for role in ("model", "loss", "task") if role in chosen},
            Augment(**chosen["augment"]),
            _world(settings["data"]) if how_varied["widen"] else None,
            how_varied,
            functools.partial(_hold, settings["task"], settings["freeze"], how),
            functools.partial(roles["optimiser"], **chosen["optimiser"]),
            training(**chosen["training"]),
        )
        plan.optimiser(nn.Linear(1, 1))
        return plan

    def trial(
        self, head: Any, about: About, examples: Examples, engine: Engine, epoch: int, folder: Path
    ) -> Trial | None:
        """What is to be tried while the head learns. epoch: micro-batches · folder: where what it gives is kept."""
        if about.every is not None and isinstance(head, Detection):
            return Bootstrap(head, examples, engine, about.every * epoch, folder)
        if self.world is None:
            return None
        every, by, at = (self.randomise[f"widen_{name}"] for name in ("every", "by", "at"))
        return Randomise(head, self.world, self.task, examples, engine, every * epoch, by, at, folder)


def parts(task: str, model: str, backbone: str, optimiser: str) -> dict[str, Any]:
    """The parts of a run whose settings `--set` reaches, by role. Raises SeeallError for an unknown name."""
    return {
        **build.parts(task, model),
        "augment": Augment,
        "transfer": transfer,
        "annotations": find_annotated,
        "randomise": randomise,
        "backbone": backbones.factory(backbone),
        "optimiser": catalog.find(catalog.OPTIMISERS, optimiser, "optimiser"),
        "training": training,
    }


def _origin(start: str, asked: str | None) -> tuple[str, dict[str, Any]]:
    """Name and settings of the backbone: those of the run to begin with, or the one that was asked for."""
    if start.lower() in ("none", "default"):
        return asked or "resnet18", {}
    try:
        header = backbones.describe(start)
    except SeeallError:
        if asked is None:
            raise
        return asked, {}
    if "task" in header:
        raise SeeallError(f"--from {start} is a head: give its run folder, or the backbone.safetensors beside it")
    if asked not in (None, header["backbone"]):
        raise SeeallError(f"--from {start} holds a {header['backbone']}, not a {asked}: leave --backbone out")
    return header["backbone"], header["settings"]


def _world(data: str) -> Scenes:
    """The synthetic world that is to be varied. Raises SeeallError where `data` are of another one."""
    if data != "scenes" and not data.startswith("scenes:"):
        raise SeeallError(f"setting 'widen' is for the synthetic world; {data} cannot be made to vary")
    return parse(data)


def _backbone(start: str, name: str, settings: dict[str, Any], seed: int) -> tuple[Backbone, str, dict[str, Any]]:
    torch.manual_seed(keyed.seed(seed, 0x1417))
    network, report = backbones.build(name, start, **settings)
    if start.lower() != "none":
        log.info("%s", report)
    return network, name, settings


def _known(out: Path) -> tuple[str, dict[str, Any]] | None:
    """Name and settings of the backbone of a run that has a checkpoint."""
    run = Run.open(out)
    resolved = run.facts.get("resolved", {})
    if not run.last.exists() or "backbone" not in resolved:
        return None
    return resolved["backbone"], resolved["backbone_settings"]


def _hold(task: str, what: str, how: Mapping[str, Any], head: nn.Module, backbone: Backbone) -> None:
    if task != "classification":
        leave_out(backbone)
    frozen = freeze(backbone, what, norm=how["norm"])
    head.rate_factors = rates(head, backbone, how["backbone_rate"], how["stage_decay"])  # type: ignore[assignment]
    if frozen:
        log.info("%d of %d tensors of the backbone are frozen", frozen, len(list(backbone.parameters())))


def choose_size(annotated: Annotated) -> int:
    """The shorter side of most pictures, rounded down to a handy one, 256 px at most on a CPU and 512 on a GPU."""
    some, sides = annotated.pictures.limit(16), list[int]()
    for i in range(len(some)):
        with contextlib.suppress(Unreadable):
            sides.append(min(some.read(i).shape[:2]))
    largest = _LARGEST if torch.cuda.is_available() else _LARGEST_CPU
    shorter = sorted(sides)[len(sides) // 2] if sides else largest
    return max((s for s in _SIZES if s <= min(shorter, largest)), default=_SIZES[0])


def boxes_of(examples: Examples) -> Tensor:
    """(n, 4) xyxy, px: all boxes that are learnt from."""
    truths = (examples[i].truth for i in range(len(examples)))
    found = [torch.from_numpy(truth.boxes[~truth.crowd]) for truth in truths]
    return torch.cat(found).float() if found else torch.zeros(0, 4)


def pixels_of(examples: Examples, classes: int) -> Tensor:
    """(n, K) how many pixels of each class each picture has."""
    counts = []
    for i in range(len(examples)):
        semantic = examples[i].truth.semantic
        assert semantic is not None
        counts.append(torch.bincount(torch.from_numpy(semantic.ravel().astype(np.int64)), minlength=256)[:classes])
    return torch.stack(counts)


def tell_repairs(annotated: Annotated, named: int = 3) -> None:
    """A note of what was mended in the annotations."""
    if annotated.repairs:
        first = "; ".join(f"{where}: {what}" for where, what in annotated.repairs[:named])
        more = (
            f"; and {len(annotated.repairs) - named} more (ssl data check lists them)"
            if len(annotated.repairs) > named
            else ""
        )
        log.warning("mended in the annotations: %s%s", first, more)


def _check_batch(batch: int | None, n: int, world: int) -> None:
    """Raises SeeallError for a batch that the pictures do not fill, or the processes cannot share."""
    if n < world:
        raise SeeallError(f"{n} pictures to learn from are too few for {world} processes")
    if batch is not None and not 1 <= batch <= n:
        raise SeeallError(f"--batch-size {batch} does not fit the {n} pictures to learn from; choose 1 to {n}")
    if batch is not None and batch % world:
        raise SeeallError(f"--batch-size {batch} cannot be shared by {world} processes; choose a multiple of {world}")


def _keep(run: Run, head: nn.Module, backbone: Backbone, recipe: build.Recipe) -> None:
    """Write the head and its backbone, on the process that writes."""
    if not run.writes:
        return
    build.save(head, recipe, run.path)
    backbones.save(
        backbone, run.path / RUN_FILE, name=recipe.backbone, settings=recipe.backbone_settings,
        preprocessing={"image_size": recipe.image_size, "resize": "shorter side to image_size, then the middle"},
    )  # fmt: skip
