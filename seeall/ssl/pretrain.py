"""Pretraining: a folder of pictures in, a backbone that has learnt to tell them apart out.

Pictures, or views of them, belong together in groups; backbone and projector map them to z; the objective sees z and
the groups, of all processes together, and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seeall import catalog, combinations
from seeall.backbones.load import build, factory, save
from seeall.backbones.weights import RUN_FILE
from seeall.console import log
from seeall.data import keyed
from seeall.data.hearing import find_heard, fingerprint
from seeall.data.pictures import Pictures, find
from seeall.data.pixels import Store, complain, load, write_skipped
from seeall.data.sampler import Grouped, Sampler, partnered
from seeall.ssl import show
from seeall.ssl.composing import Composed
from seeall.ssl.feed import Feed
from seeall.ssl.listening import Listening, keep
from seeall.ssl.negatives.neighbours import Neighbours, Search
from seeall.ssl.positives.belonging import Belonging
from seeall.ssl.projector import projector
from seeall.ssl.task import Pretraining, collapsed
from seeall.ssl.views import Views
from seeall.training.embed import Normalise, squares
from seeall.training.engine import check, launch
from seeall.training.journal import Journal
from seeall.training.loop import Stopped, fit
from seeall.training.options import at_least, begun, last_of_each, training
from seeall.training.run import Run, refuse_inside
from seeall.types import SeeallError

MONITOR = 900
"""Labelled pictures that are watched during training; a third of them ask for their neighbours among the rest."""
WATCHED = 60
"""Pictures that it takes for that."""


def _unwatched(pictures: Pictures) -> str | None:
    """Why training cannot be watched by these pictures, or None where it can."""
    if len(pictures.classes()) < 2:
        return "the pictures have no labels, or all the same"
    return f"{len(pictures)} pictures are fewer than {WATCHED}" if len(pictures) < WATCHED else None


def _watchable(pictures: Pictures, keep: str) -> None:
    """Raises SeeallError where the best weights are asked for, and nothing would tell which those are."""
    if keep == "best" and (why := _unwatched(pictures)):
        raise SeeallError(
            f"setting 'keep' is best: that goes by how labelled pictures are told apart, and {why}; choose keep=last, "
            f"or give {WATCHED} pictures or more, of two labels or more"
        )


def _monitor(pictures: Pictures, size: int, seed: int) -> tuple[Tensor, Tensor] | None:
    """Some labelled pictures, in an order that mixes the classes."""
    if _unwatched(pictures):
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


def parts(
    objective: str, backbone: str, optimiser: str, positives: str = "views", negatives: str | None = "all"
) -> dict[str, Any]:
    """The parts of a run whose settings `--set` reaches, by role. Raises SeeallError for an unknown name."""
    roles = {
        "objective": catalog.find(catalog.OBJECTIVES, objective, "objective"),
        "positives": catalog.find(catalog.POSITIVES, positives, "positives"),
        "views": Views,
        "projector": projector,
        "backbone": factory(backbone),
        "optimiser": catalog.find(catalog.OPTIMISERS, optimiser, "optimiser"),
        "training": training,
    }
    # an objective that picks its negatives by itself, as moco does, has no use for another's settings
    if negatives and (negatives == "neighbours" or "negatives" in catalog.positional(roles["objective"])):
        roles["negatives"] = catalog.find(catalog.NEGATIVES, negatives, "negatives")
    elif negatives not in (None, "all") and objective not in catalog.OBJECTIVES:
        raise SeeallError(
            f"--negatives {negatives}: {objective} takes none; leave it out, or give it an argument 'negatives'"
        )
    return roles


def pretrain(
    data: str,
    out: Path,
    *,
    objective: str = "simclr",
    positives: str = "views",
    negatives: str | None = None,
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
    search: Search | None = None,
) -> dict[str, float]:
    """Pretrain a backbone on the pictures of `data` into the run folder `out`.

    objective, positives, negatives: what a wrong distance costs, who belongs together, whom to push away; see
        `combinations.py`. negatives None takes the objective's own
    image_size: side of a view, px; None chooses by the pictures and the device, see `choose_size`
    steps: optimiser steps, in place of epochs · batch_size: pictures a step, of all processes; None takes 128,
        or less where there are few pictures · set: `name=value` settings of the objective, the positives, the
        negatives, the views, the projector, the backbone, the optimiser and the loop, the last of a name counts
    search: finds nearest vectors, for negatives that are neighbours

    Returns: mean loss of the last epoch and, where pictures have labels, kNN accuracy.
    Raises: SeeallError for anything the caller can mend; `loop.Stopped` after SIGINT or SIGTERM, all saved.
    """
    options = {k: v for k, v in locals().items() if k not in ("resume", "overwrite", "data", "out", "search")}
    settings = {**options, "data": data, "out": str(out), "set": last_of_each(set)}
    at_least(epochs=(epochs, 1), steps=(steps, 1), image_size=(image_size, 8), batch_size=(batch_size, 2))
    _, here, world = check(devices, precision)
    plan = Plan.of(settings)
    if plan.composes and search is None:
        raise SeeallError(
            "negatives that are neighbours need a search: pretrain(…, search=seeall.index.nearest.nearest)"
        )
    pictures = (find_heard if positives == "sound" else find)(data, limit=limit, seed=seed)
    refuse_inside(out, pictures.root)
    about = {"source": data, "pictures": len(pictures), "fingerprint": fingerprint(pictures)}
    run = begun(out, settings, about, resume, overwrite)
    if run and run.facts["status"] == "finished" and (out / RUN_FILE).exists():
        log.warning("%s is already finished; nothing to do", out)
        return dict(run.facts["results"])

    _watchable(pictures, plan.loop["keep"])
    resolved = run.facts.get("resolved", {}) if run else {}
    precision = resolved.get("precision") or precision
    belonging = plan.positives(pictures, seed)
    asked = resolved.get("batch_size") or batch_size
    if asked or belonging.together > 1:
        _batches(belonging, len(pictures), asked, world, seed)  # finds fault with them before anything is read
    engine = launch(devices=devices, precision=precision)
    task = plan.task(backbone, weights, seed, belonging.ears)
    store, size = plan.read(pictures, resolved.get("image_size") or image_size, workers, allow_skipped, here)
    if store.pictures is not pictures:
        belonging = plan.positives(store.pictures, seed)
    if unfit := belonging.prepare():
        store = store.without(unfit)
        complain(pictures, store.skipped, allow_skipped)
        belonging = plan.positives(store.pictures, seed)
        belonging.prepare()
    if resolved.get("pictures", len(store)) != len(store):
        raise SeeallError(
            f"--resume {out}: {len(store)} pictures can be read now, {resolved['pictures']} could when the run began; "
            "restore them or start a new run"
        )
    _watchable(store.pictures, plan.loop["keep"])
    batch, order = _batches(belonging, len(store), asked, engine.world, seed)
    if run is None:
        run = Run.create(out, settings, about, overwrite=overwrite) if engine.rank == 0 else Run(out, {}, writes=False)
    run.writes = engine.rank == 0
    resolved = {"image_size": size, "batch_size": batch, "pictures": len(store), "precision": engine.precision}
    run.update(status="running", resolved=resolved)
    if run.writes:
        write_skipped(out / "skipped.csv", store.skipped)
        task.monitor = _monitor(store.pictures, size, seed)

    store.to(engine.device)
    sampler = Sampler(len(store), batch, seed, engine.rank, engine.world, order)
    composed = None
    if plan.composes:
        assert search is not None
        composed = Composed(
            plan.composes, search, belonging, store, task, engine,
            size=size, seed=seed, epoch_steps=sampler.steps_per_epoch, folder=run.last.parent, before=sampler.epoch,
        )  # fmt: skip
        sampler = dataclasses.replace(sampler, order=composed)
    feed = Feed(store, plan.views, sampler, task, size, seed, engine.device, belonging)
    epoch_steps, accumulate = sampler.steps_per_epoch, plan.loop["accumulate"]
    total = steps or max(1, round(epochs * epoch_steps / accumulate))
    if composed and total * accumulate <= composed.every:
        log.warning(
            "neighbours are first looked for after epoch %d, so never in this run; choose a smaller --set every=…",
            composed.how.every,
        )
    log.info(
        "%d pictures, views of %d px, batches of %d, %d steps, on %s; pixels in %s",
        len(store), size, batch, total, engine.device, store.place,
    )  # fmt: skip
    keep_all = functools.partial(_keep, run, task, backbone, plan.chosen, size)

    def end(journal: Journal, step: int) -> None:
        keep_all()  # before anything else: the rest is decoration
        feed.map(journal, step)
        show.sheet(task, journal, step)

    try:
        results = fit(
            engine, task, feed.fetch, plan.optimiser, run,
            steps=total, epoch_steps=epoch_steps, samples=batch, seed=seed, background=feed.waits,
            compile=compile, resume=resume, begin=feed.show, end=end, best="knn20", notice=collapsed,
            judged=functools.partial(show.distances, task),
            pause_every=composed.every if composed else 0, pause=composed.pause if composed else lambda t: None,
            evaluate_every=max(1, epochs // 10) * epoch_steps if task.monitor else 0, **plan.loop,
        )  # fmt: skip
    except Stopped as stop:
        keep_all()
        run.update(status="stopped", step=stop.step)
        engine.part()
        raise
    run.update(status="finished", step=total, results=results)
    engine.part()
    return results


@dataclass(frozen=True)
class Plan:
    """What a run is made of; whatever is wrong with its settings is found here, before a picture is read.

    positives: pictures and seed → which of them belong together; raises SeeallError where none do
    composes: how batches are made up of neighbours, or None
    """

    chosen: dict[str, dict[str, Any]]
    views: Views
    positives: Callable[..., Belonging]
    objective: Callable[[], nn.Module]
    composes: Neighbours | None
    optimiser: Callable[[nn.Module], torch.optim.Optimizer]
    loop: dict[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Plan:
        """The parts that the options of `pretrain` name.

        Raises: SeeallError for a setting that is none of theirs, or parts that do not go together.
        """
        names = {role: settings[role] for role in ("objective", "positives", "negatives")}
        catalog.find(catalog.OBJECTIVES, names["objective"], "objective")
        names["negatives"] = combinations.check(**names)
        roles = parts(backbone=settings["backbone"], optimiser=settings["optimiser"], **names)
        chosen = catalog.resolve(roles, settings["set"])
        if settings["lr"] is not None:
            chosen["optimiser"].setdefault("lr", settings["lr"])
        by_views = names["positives"] == "views"
        with torch.device("meta"):  # for its width alone
            dim = roles["backbone"](**chosen["backbone"]).embed_dim
            head = projector(dim, **chosen["projector"])
            dim = next((len(p) for p in reversed(list(head.parameters()))), dim)
        plan = cls(
            chosen,
            Views(**{"views": 2 if by_views else 1} | chosen["views"]),
            functools.partial(roles["positives"], **chosen["positives"]),
            functools.partial(_objective, roles, chosen, dim),
            Neighbours(**chosen["negatives"]) if names["negatives"] == "neighbours" else None,
            functools.partial(roles["optimiser"], **chosen["optimiser"]),
            training(**chosen["training"]),
        )
        plan.objective(), plan.optimiser(nn.Linear(1, 1))  # they find fault with their settings, if there is any
        if by_views and plan.views.views < 2:
            raise SeeallError("setting 'views' is 1: two views or more of a picture are what is learnt from")
        if names["positives"] != "sound":  # there a picture and its sound are the pair
            together = 1 if by_views else max(2, chosen["positives"].get("together", 2))
            combinations.whole_pairs(names["objective"], plan.views.views, together)
        if names["positives"] == "sound" and plan.views.views > 1:
            raise SeeallError(f"setting 'views' is {plan.views.views}: with --positives sound a picture has one view")
        if names["positives"] == "sound" and chosen["projector"].get("layers") == 0:
            raise SeeallError("setting 'projector.layers' is 0: pictures and sounds need projectors into one space")
        return plan

    def task(self, backbone: str, weights: str, seed: int, ears: Callable[..., nn.Module] | None = None) -> Pretraining:
        """The networks, with weights that depend on nothing but their settings and `seed`.

        ears: what `Belonging.ears` is
        """
        torch.manual_seed(keyed.seed(seed, 0x1417))
        network, report = build(backbone, weights, **self.chosen["backbone"])
        head = projector(network.embed_dim, **self.chosen["projector"])
        if weights != "none":
            log.info("%s", report)
        normalise = Normalise(network.preprocessing["mean"], network.preprocessing["std"])
        heard = ears(functools.partial(projector, **self.chosen["projector"])) if ears else None
        return Pretraining(network, head, self.objective(), normalise, heard)

    def read(
        self, pictures: Pictures, size: int | None, workers: int, allow_skipped: bool, processes: int
    ) -> tuple[Store, int]:
        """The pictures' pixels and the side of a view, px: `size`, or one that suits them."""
        gpu = torch.cuda.is_available()
        wanted = size or (224 if gpu else 64)
        shortest = int(wanted / (self.views.crop_min * 0.75) ** 0.5)  # no crop is then smaller than the view
        store = load(pictures, shortest=shortest, workers=workers, allow_skipped=allow_skipped, processes=processes)
        return store, size or choose_size(store.sizes, gpu)


def _objective(roles: Mapping[str, Any], chosen: Mapping[str, dict[str, Any]], dim: int) -> nn.Module:
    """A new objective, given what it asks for: negatives, and dim, the width of z."""
    own: dict[str, Any] = {"dim": dim}
    if "negatives" in roles and roles["negatives"] is not Neighbours:  # those are found before a batch is made
        own["negatives"] = roles["negatives"](**chosen["negatives"])
    asked = catalog.positional(roles["objective"])
    made: nn.Module = roles["objective"](
        **{name: value for name, value in own.items() if name in asked}, **chosen["objective"]
    )
    return made


def _batches(belonging: Belonging, n: int, asked: int | None, world: int, seed: int) -> tuple[int, Grouped | None]:
    """Pictures in a batch out of n, and, where some belong together, how batches are made up.

    Raises: SeeallError where there can be none, or they would hold one group alone.
    """
    if belonging.together == 1:
        return _batch(asked, n, world, "pictures"), None
    usable, least = partnered(belonging.groups(0)), 2 * belonging.together
    batch = _batch(asked, usable, world, "pictures" if usable == n else "pictures that belong with another one", least)
    if least > batch:
        raise SeeallError(
            f"setting 'together' is {belonging.together}: a batch of {batch} would hold one group alone; choose "
            "a smaller one, or a larger --batch-size"
        )
    order = Grouped(belonging.groups, belonging.together, batch, seed)
    order(0)
    return batch, order


def _batch(asked: int | None, n: int, world: int, kind: str, least: int = 2) -> int:
    if n < 2:
        raise SeeallError("one picture is not enough to learn from; give at least 2")
    usual = 128 // world * world or world if n >= 256 else 1 << max(1, (n // 2).bit_length() - 1)
    batch = asked or max(usual, min(least, n))
    if not 2 <= batch <= n:
        raise SeeallError(f"--batch-size {batch} does not fit the {n} {kind}; choose 2 to {n}")
    if batch % world:
        raise SeeallError(f"--batch-size {batch} cannot be shared by {world} processes; choose a multiple of {world}")
    return batch


def _keep(run: Run, task: Pretraining, name: str, chosen: Mapping[str, dict[str, Any]], size: int) -> None:
    """Write the backbone, and the ears where there are some, on the process that writes."""
    if not run.writes:
        return
    save(
        task.backbone, run.path / RUN_FILE, name=name, settings=chosen["backbone"],
        preprocessing={"image_size": size, "resize": "shorter side to image_size, then the middle"},
    )  # fmt: skip
    if isinstance(task.ears, Listening):
        keep(run.path, task.projector, task.ears, chosen["projector"])
