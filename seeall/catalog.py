"""Tables of names, and settings read off signatures. Knows no torch: `ssl --help` needs it.

A table maps the name a user types to "module:attribute". The keyword-only arguments of what stands there
are its settings: their names, types and defaults are the only place where these are written down, and
`--set name=value` is checked against them.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seeall.types import SeeallError

Table = Mapping[str, str]

BACKBONES: Table = {
    "resnet18": "seeall.backbones.vision:resnet18",
    "resnet34": "seeall.backbones.vision:resnet34",
    "resnet50": "seeall.backbones.vision:resnet50",
    "resnet101": "seeall.backbones.vision:resnet101",
    "vgg16_bn": "seeall.backbones.vision:vgg16_bn",
    "mobilenet_v3_small": "seeall.backbones.vision:mobilenet_v3_small",
    "shufflenet_v2_x0_5": "seeall.backbones.vision:shufflenet_v2_x0_5",
    "convnext_tiny": "seeall.backbones.vision:convnext_tiny",
    "vit_b_16": "seeall.backbones.vision:vit_b_16",
    "vit_tiny": "seeall.backbones.vision:vit_tiny",
    "flownet": "seeall.backbones.flownet:flownet",
    "plain": "seeall.backbones.plain:plain",
}
OBJECTIVES: Table = {
    "simclr": "seeall.ssl.simclr:SimCLR",
    "contrastive": "seeall.ssl.contrastive:Contrastive",
    "triplet": "seeall.ssl.triplet:Triplet",
    "margin": "seeall.ssl.margin:Margin",
    "vicreg": "seeall.ssl.vicreg:VICReg",
    "barlow_twins": "seeall.ssl.barlow_twins:BarlowTwins",
    "simsiam": "seeall.ssl.simsiam:SimSiam",
    "byol": "seeall.ssl.byol:BYOL",
    "dino": "seeall.ssl.dino:DINO",
    "moco": "seeall.ssl.moco:MoCo",
}
POSITIVES: Table = {
    "views": "seeall.ssl.positives.views:views",
    "labels": "seeall.ssl.positives.labels:labels",
    "time": "seeall.ssl.positives.time:time",
    "sound": "seeall.ssl.positives.sound:sound",
}
NEGATIVES: Table = {
    "all": "seeall.ssl.negatives.all:All",
    "random": "seeall.ssl.negatives.random:Random",
    "hard": "seeall.ssl.negatives.hard:Hard",
    "semihard": "seeall.ssl.negatives.semihard:SemiHard",
    "distance": "seeall.ssl.negatives.distance:DistanceWeighted",
    "reweighted": "seeall.ssl.negatives.reweighted:Reweighted",
    "queue": "seeall.ssl.negatives.queue:Queue",
    "neighbours": "seeall.ssl.negatives.neighbours:Neighbours",
}
"""Which of these go together is in `combinations.py`."""
MODELS: Table = {
    "linear": "seeall.heads.classification:Linear",
    "retinanet": "seeall.heads.detection.retinanet:retinanet",
    "faster-rcnn": "seeall.heads.detection.rcnn:faster_rcnn",
    "mask-rcnn": "seeall.heads.detection.rcnn:mask_rcnn",
    "unet": "seeall.heads.segmentation.unet:UNet",
    "segnet": "seeall.heads.segmentation.segnet:SegNet",
    "deconvnet": "seeall.heads.segmentation.deconvnet:DeconvNet",
    "fpn": "seeall.heads.segmentation.fpn:FPN",
    "flownets": "seeall.heads.flow.flownets:FlowNetS",
    "flownetc": "seeall.heads.flow.flownetc:FlowNetC",
    "raft": "seeall.heads.flow.raft:RAFT",
    "inflated": "seeall.heads.action.networks:InflatedAction",
    "slowfast": "seeall.heads.action.slowfast:SlowFast",
    "two-stream": "seeall.heads.action.two_stream:TwoStream",
    "per-frame": "seeall.heads.action.networks:PerFrame",
    "transporter": "seeall.heads.keypoints.transporter:Transporter",
    "sideways": "seeall.heads.video.sideways:Sideways",
}
TASKS: Mapping[str, tuple[str, ...]] = {
    "classification": ("linear",),
    "detection": ("retinanet", "faster-rcnn"),
    "instance": ("mask-rcnn",),
    "segmentation": ("unet", "segnet", "deconvnet", "fpn"),
    "video-segmentation": ("unet", "segnet", "deconvnet", "fpn"),
    "flow": ("flownets", "flownetc", "raft"),
    "action": ("inflated", "slowfast", "two-stream", "per-frame", "sideways"),
    "keypoints": ("transporter",),
}
"""Task → the models that do it, the usual one first."""
STILL = ("classification", "detection", "instance", "segmentation")
"""The tasks that are about single pictures."""
SEMANTIC = ("segmentation", "video-segmentation")
"""The tasks that give every pixel a class."""
OPTIMISERS: Table = {
    "adamw": "seeall.training.optimisers:adamw",
    "sgd": "seeall.training.optimisers:sgd",
    "lars": "seeall.training.optimisers:lars",
}
EXAMPLES = 3
"""How many close names a "did you mean" offers."""


def locate(target: str) -> Any:
    """Import "module:attribute"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def suggest(name: str, known: Iterable[str]) -> str:
    """A "did you mean" for a name that is not known, or the list of what is.

    >>> suggest("resnet81", ["resnet18", "vit_tiny"])
    'did you mean resnet18?'
    >>> suggest("zzz", ["b", "a"])
    'choose from: a, b'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, EXAMPLES)
    return f"did you mean {' or '.join(close)}?" if close else f"choose from: {', '.join(known)}"


def find(table: Table, name: str, kind: str) -> Any:
    """What stands in `table` under `name`, or at `name` itself where it is "module:attribute".

    Raises: SeeallError with a suggestion where nothing does.
    """
    if ":" in name:
        try:
            return locate(name)
        except (ImportError, AttributeError, ValueError) as fault:
            raise SeeallError(f"{kind} {name!r} cannot be imported: {fault}") from None
    if name not in table:
        raise SeeallError(f"unknown {kind} {name!r}: {suggest(name, table)}")
    return locate(table[name])


def settings(target: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of a class or function: its keyword-only arguments, as name → (type, default).

    >>> def objective(z, *, temperature: float = 0.2): ...
    >>> settings(objective)
    {'temperature': (<class 'float'>, 0.2)}
    """
    body = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(body)
    return {
        name: (hints.get(name, str), p.default)
        for name, p in inspect.signature(target).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def convert(name: str, text: Any, kind: Any) -> Any:
    """`text` as `kind`; raises SeeallError where it is not one. Values that are no text pass if they fit.

    >>> convert("epochs", "3", int), convert("clip", "none", float | None), convert("grey", "off", bool)
    (3, None, False)
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if type(None) in options and (text is None or str(text).lower() == "none"):
            return None
        rest = [k for k in options if k is not type(None)]
        for k in rest:
            try:
                return convert(name, text, k)
            except SeeallError:
                if k is rest[-1]:
                    raise
    if typing.get_origin(kind) is typing.Literal:
        choices = [str(c) for c in typing.get_args(kind)]
        if str(text) not in choices:
            raise SeeallError(f"setting {name!r}: {text!r} is not a choice; {suggest(str(text), choices)}")
        return typing.get_args(kind)[choices.index(str(text))]
    try:
        if kind is bool:
            return {"true": True, "false": False, "on": True, "off": False, "1": True, "0": False,
                    "yes": True, "no": False}[str(text).lower()]  # fmt: skip
        if kind is int and float(text) != int(float(text)):
            raise ValueError
        return kind(float(text)) if kind is int else kind(text)
    except (ValueError, KeyError, TypeError, OverflowError):
        wanted = {bool: "on or off", int: "a whole number", float: "a number"}.get(kind, str(kind))
        raise SeeallError(f"setting {name!r} wants {wanted}, not {text!r}") from None


def resolve(targets: Mapping[str, Callable[..., Any]], pairs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Spread `name=value` pairs over the targets whose settings they are.

    A name that two targets share is written with the target's own, as `views.size=64`.

    Returns: target → its settings that were given, typed.
    Raises: SeeallError for a pair without "=", an unknown or doubtful name, or a value of the wrong type.

    >>> def objective(z, *, temperature: float = 0.2): ...
    >>> resolve({"objective": objective}, ["temperature=0.5"])
    {'objective': {'temperature': 0.5}}
    """
    known = {role: settings(target) for role, target in targets.items()}
    chosen: dict[str, dict[str, Any]] = {role: {} for role in targets}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals:
            raise SeeallError(f"--set wants name=value, not {pair!r}")
        asked, dot, short = name.partition(".")
        if not dot:
            asked, short = "", name
        owners = [role for role in known if short in known[role] and asked in ("", role)]
        if not owners:
            everything = [n for names in known.values() for n in names]
            raise SeeallError(f"unknown setting {name!r}: {suggest(short, everything)}")
        if len(owners) > 1:
            ways = " or ".join(f"{role}.{short}" for role in owners)
            raise SeeallError(f"setting {name!r} belongs to more than one part: write {ways}")
        chosen[owners[0]][short] = convert(name, text, known[owners[0]][short][0])
    return chosen


def positional(target: Callable[..., Any]) -> list[str]:
    """The names of the arguments that are no settings.

    >>> def objective(negatives, *, temperature: float = 0.2): ...
    >>> positional(objective)
    ['negatives']
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, p in inspect.signature(target).parameters.items() if p.kind in kinds]


def plain(value: Any) -> Any:
    """`value` if JSON can hold it, else its text: for writing settings into a run folder."""
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value
