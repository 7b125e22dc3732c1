"""What a fine-tuning run is made of, and all that can be wrong with its settings, before a picture is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seeall import catalog
from seeall.backbones import load as backbones
from seeall.backbones.contract import Backbone
from seeall.console import log
from seeall.data import keyed
from seeall.data.annotations.examples import Examples
from seeall.data.annotations.truth import Annotated
from seeall.data.motion.actions import Sees
from seeall.data.scenes import Scenes, parse
from seeall.heads import build, kinds
from seeall.heads.about import About
from seeall.heads.detection.bootstrap import Bootstrap
from seeall.heads.detection.task import Detection
from seeall.heads.feed import Augmentation
from seeall.heads.kinds import Kind
from seeall.heads.randomise import Randomise, randomise
from seeall.heads.transfer import freeze, leave_out, rates, transfer
from seeall.heads.trial import Trial
from seeall.training.engine import Engine
from seeall.training.options import training
from seeall.training.run import Run
from seeall.types import SeeallError


@dataclass(frozen=True)
class Plan:
    """What a run is made of; whatever is wrong with its settings is found here, before a picture is read.

    find: data → pictures and their truth · spread: see `kinds.Kind` · settings: of the model and its loss, by role
    rate: frames a second, where they were chosen and matter to the head · sees: what clips show it
    world: what is varied while the head copes, or None; `randomise`: how
    """

    kind: Kind
    task: str
    model: str
    find: Callable[[str], Annotated]
    spread: Callable[[Annotated, Annotated], Annotated]
    backbone: Callable[[int], tuple[Backbone | None, str, dict[str, Any]]]
    settings: dict[str, dict[str, Any]]
    rate: float | None
    sees: Sees
    augment: Augmentation
    world: Scenes | None
    randomise: dict[str, Any]
    hold: Callable[[nn.Module, Backbone | None], None]
    optimiser: Callable[[nn.Module], torch.optim.Optimizer]
    loop: dict[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any], known: tuple[str, dict[str, Any]] | None = None) -> Plan:
        """The parts that the options of `finetune` name. Raises SeeallError for a setting that is none of theirs.

        known: name and settings of the backbone of a run that has a checkpoint, and needs no other weights
        """
        model = build.check(settings["task"], settings["model"])
        kind = kinds.KINDS[settings["task"]]
        if build.takes_backbone(model):
            name, own = known or _origin(settings["start"], settings["backbone"], kind.backbone)
        else:
            name, own = _no_backbone(model, settings), {}
        roles = parts(settings["task"], model, name, settings["optimiser"])
        chosen = catalog.resolve(roles, settings["set"])
        chosen["optimiser"].setdefault("lr", settings["lr"] if settings["lr"] is not None else 5e-4)
        how, how_varied = transfer(**chosen["transfer"]), randomise(**chosen["randomise"])
        if how_varied["widen"] and kind.looks_at is not kinds.single:
            raise SeeallError(f"setting 'widen' is for still pictures, not for --task {settings['task']}: leave it out")
        sees = chosen["annotations"].get("sees", "frames")
        if sees == "flow" and "flow_head" in catalog.positional(roles["model"]):
            raise SeeallError(f"setting 'sees' is flow: {model} tells the flow of frames by itself; leave it out")
        if sees == "flow" and (jitter := chosen["augment"].get("jitter")):
            raise SeeallError(f"setting 'jitter' is {jitter}: it changes colours, and flow has none; leave it out")
        plan = cls(
            kind,
            settings["task"],
            model,
            functools.partial(kind.find, **chosen["annotations"]),
            functools.partial(kind.spread, **chosen["spread"]),
            functools.partial(
                _backbone, "none" if known else settings["start"], name, {**own, **chosen.get("backbone", {})}
            ),
            {role: chosen[role] for role in ("model", "loss", "task") if role in chosen},
            chosen["annotations"].get(kind.pace),
            sees,
            kind.augment(*_told(kind, roles, chosen), **chosen["augment"]),
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


def parts(task: str, model: str, backbone: str | None, optimiser: str) -> dict[str, Any]:
    """The parts of a run whose settings `--set` reaches, by role. Raises SeeallError for an unknown name."""
    kind = kinds.KINDS[task]
    on = backbone or kind.backbone if build.takes_backbone(model) else build.NONE
    return {
        **build.parts(task, model),
        "augment": kind.augment,
        "transfer": transfer,
        "annotations": kind.finder,
        "spread": kind.spread,
        "randomise": randomise,
        **({} if on == build.NONE else {"backbone": backbones.factory(on)}),
        "optimiser": catalog.find(catalog.OPTIMISERS, optimiser, "optimiser"),
        "training": training,
    }


def _told(kind: Kind, roles: Mapping[str, Any], chosen: Mapping[str, dict[str, Any]]) -> list[Any]:
    """Those settings of the head, and of how data are found, that the augmentation needs to know."""
    known = {
        name: chosen[role].get(name, default)
        for role in ("task", "annotations") if role in roles
        for name, (_, default) in catalog.settings(roles[role]).items()
    }  # fmt: skip
    return [known[name] for name in kind.told]


def _no_backbone(model: str, settings: Mapping[str, Any]) -> str:
    """Raises SeeallError where one is asked for, for a model that has encoders of its own."""
    if settings["start"].lower() != "none" or settings["backbone"] or settings["freeze"] != "none":
        raise SeeallError(
            f"{model} has encoders of its own: give --from none, and neither --backbone nor --freeze; published "
            "weights come with --set published=on"
        )
    return build.NONE


def _origin(start: str, asked: str | None, usual: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of the backbone: those of the run to begin with, or the one that was asked for."""
    if start.lower() in ("none", "default"):
        return asked or usual, {}
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


def _backbone(
    start: str, name: str, settings: dict[str, Any], seed: int
) -> tuple[Backbone | None, str, dict[str, Any]]:
    torch.manual_seed(keyed.seed(seed, 0x1417))
    if name == build.NONE:
        return None, name, {}
    network, report = backbones.build(name, start, **settings)
    if start.lower() != "none":
        log.info("%s", report)
    return network, name, settings


def known_backbone(out: Path) -> tuple[str, dict[str, Any]] | None:
    """Name and settings of the backbone of a run that has a checkpoint."""
    run = Run.open(out)
    resolved = run.facts.get("resolved", {})
    if not run.last.exists() or "backbone" not in resolved:
        return None
    return resolved["backbone"], resolved["backbone_settings"]


def _hold(task: str, what: str, how: Mapping[str, Any], head: nn.Module, backbone: Backbone | None) -> None:
    """Freeze what is to be, and slow the rest down, of the backbone; of each where the network names several."""
    if backbone is None:
        return
    frozen, factors, held = 0, dict[str, float](), getattr(head.network, "backbones", (backbone,))
    for one in held:
        if task not in ("classification", "action"):
            leave_out(one)
        frozen += freeze(one, what, norm=how["norm"])
        factors |= rates(head, one, how["backbone_rate"], how["stage_decay"])
    head.rate_factors = factors  # type: ignore[assignment]
    if check := getattr(head.network, "check_parts", None):
        check()
    if frozen:
        log.info("%d of %d tensors of the backbone are frozen", frozen, sum(len(list(b.parameters())) for b in held))
