"""Fine-tuning: a backbone that has learnt to see and some pictures with their truth in, a head that does a task out."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from seeall.backbones import load as backbones
from seeall.backbones.contract import Backbone
from seeall.backbones.weights import RUN_FILE
from seeall.console import log
from seeall.data import keyed
from seeall.data.annotations.examples import Examples, load
from seeall.data.annotations.truth import Annotated
from seeall.data.decode import Unreadable
from seeall.data.pixels import write_skipped
from seeall.data.sampler import Sampler
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.examine import of, sheet
from seeall.heads.feed import Feed
from seeall.heads.plan import Plan, known_backbone
from seeall.heads.segmentation.task import Segmentation
from seeall.heads.split import divided, few, fingerprint, limited, require_classes, same_division
from seeall.training.engine import check, launch
from seeall.training.journal import Journal
from seeall.training.loop import Stopped, fit
from seeall.training.options import at_least, begun, last_of_each
from seeall.training.run import Run, refuse_inside
from seeall.types import SeeallError

_SIZES, _LARGEST, _LARGEST_CPU = (32, 48, 64, 96, 128, 192, 256, 384, 512), 512, 256


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
    image_size: shorter side of pictures, px, as the network sees them, or the side of the windows that flow is learnt
        from; None takes one that suits the pictures
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
    known = known_backbone(out) if resume else None
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
    learnt, held = (limited(part.known(), limit, seed) for part in divided(annotated, val, plan.find, seed))
    refuse_inside(out, held.pictures.root)
    learnt = few(learnt, labels, seed)
    require_classes(learnt)
    learnt = plan.spread(learnt, annotated)
    engine = launch(devices=devices, precision=resolved.get("precision") or precision)
    network, name, chosen = plan.backbone(seed)
    size = resolved.get("image_size") or image_size or choose_size(learnt)
    _check_batch(batch_size, len(learnt), engine.world)

    @functools.cache  # what is wrong with the settings of a head is said before, where it can be
    def parts_read() -> tuple[Examples, Examples]:
        tell_repairs(annotated)
        judging = held if engine.rank == 0 else held.subset([])
        some, others = (
            load(
                part,
                None if plan.kind.own_size else size,
                workers=workers,
                allow_skipped=allow_skipped,
                processes=engine.world,
            )
            for part in (learnt, judging)
        )
        return some, others

    recipe = build.Recipe(
        task, plan.model, tuple(annotated.classes), size, name, chosen, plan.settings, rate=plan.rate, sees=plan.sees
    )
    told = About(size, lambda: boxes_of(parts_read()[0]))
    torch.manual_seed(keyed.seed(seed, 0x1418))
    head = build.assemble(recipe, network, told)
    recipe = replace(recipe, anchors=told.anchors, flow=told.flow)
    plan.hold(head, network)
    if told.every is not None and plan.world is not None:
        raise SeeallError("negatives=bootstrap and widen=on both change what is learnt from: choose one")
    examples, judged = parts_read()
    if isinstance(head, Segmentation):
        counts = pixels_of(examples, len(annotated.classes))
        if (whole := counts.sum(0)).count_nonzero() < 2:
            only = f"no other class than {annotated.classes[int(whole.argmax())]}" if whole.any() else "no class"
            raise SeeallError(f"{data}: pixels of the pictures to learn from have {only}: there is nothing to learn")
        head.loss.set_counts(counts)
    shared = max(1, min(plan.kind.batch, len(examples)) // engine.world) * engine.world
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
    feed = Feed(examples, plan.augment, size, sampler, seed, tried)
    epoch_steps, accumulate = sampler.steps_per_epoch, plan.loop["accumulate"]
    total = steps or max(1, round(epochs * epoch_steps / accumulate))
    tenth = max(1, -(-total * accumulate // epoch_steps) // 10)
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
            compile=compile, resume=resume, end=end, best=plan.kind.best,
            pause_every=tried.every if tried else 0, pause=tried.pause if tried else lambda t: None,
            evaluate_every=tenth * epoch_steps if len(judged) else 0, **plan.loop,
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


def choose_size(annotated: Annotated) -> int:
    """The shorter side of most pictures, rounded down to a handy one, 256 px at most on a CPU and 512 on a GPU."""
    some, sides = annotated.pictures.limit(16), list[int]()
    for i in range(len(some)):
        with contextlib.suppress(Unreadable):
            sides.append(min(some.read(i).shape[-3:-1]))
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


def _keep(run: Run, head: nn.Module, backbone: Backbone | None, recipe: build.Recipe) -> None:
    """Write the head, and its backbone where that still is what its name says, on the process that writes."""
    if not run.writes:
        return
    build.save(head, recipe, run.path)
    if backbone is None or backbone.altered:
        return
    backbones.save(
        backbone, run.path / RUN_FILE, name=recipe.backbone, settings=recipe.backbone_settings,
        preprocessing={"image_size": recipe.image_size, "resize": "shorter side to image_size, then the middle"},
    )  # fmt: skip
