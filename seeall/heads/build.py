"""From names to a head, and from a finished run to the head it made.

`head.safetensors` holds the whole network and, in its header, what is needed to build it again; `backbone.safetensors`
beside it holds the backbone alone, for everything that wants one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from seeall import catalog, durable
from seeall.backbones.contract import Backbone
from seeall.backbones.load import build
from seeall.data.motion.actions import Sees
from seeall.heads.about import About
from seeall.heads.action.task import Action
from seeall.heads.classification import Classification
from seeall.heads.detection.task import Detection
from seeall.heads.flow.task import Flow
from seeall.heads.keypoints.task import Keypoints
from seeall.heads.segmentation.losses import SegmentationLoss
from seeall.heads.segmentation.task import Segmentation
from seeall.training.embed import Normalise
from seeall.types import SeeallError

HEAD_FILE = "head.safetensors"
NONE = "none"
"""The backbone of a model that has encoders of its own."""
FORMAT = 2
"""Version of the header. A file with a higher one is refused, and so is a FlowNet of version 1."""
_KEY = "seeall"


@dataclass(frozen=True)
class Recipe:
    """What a head is made of.

    classes: names · image_size: shorter side of pictures, px · settings: of the model and of the task, by role
    anchors: what a detector took · flow: the recipe of the head of flow that it holds
    rate: frames a second that it learnt from, where that was chosen
    sees: what clips showed it, see `find_actions`
    """

    task: str
    model: str
    classes: tuple[str, ...]
    image_size: int
    backbone: str
    backbone_settings: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    anchors: Any = None
    flow: dict[str, Any] | None = None
    rate: float | None = None
    sees: Sees = "frames"


def check(task: str, model: str | None) -> str:
    """The model that is meant. Raises SeeallError for an unknown task, or a model that does another."""
    if task not in catalog.TASKS:
        raise SeeallError(f"unknown task {task!r}: {catalog.suggest(task, catalog.TASKS)}")
    if model is None:
        return catalog.TASKS[task][0]
    if ":" not in model and model not in catalog.TASKS[task]:
        does = next((other for other, models in catalog.TASKS.items() if model in models), None)
        raise SeeallError(
            f"--model {model} is for --task {does}; for {task} choose from {', '.join(catalog.TASKS[task])}" if does
            else f"unknown model {model!r}: {catalog.suggest(model, catalog.TASKS[task])}"
        )  # fmt: skip
    return model


def takes_backbone(model: str) -> bool:
    """Whether a model is built on a backbone, rather than having encoders of its own."""
    return "backbone" in catalog.positional(catalog.find(catalog.MODELS, model, "model"))


def parts(task: str, model: str) -> dict[str, Callable[..., Any]]:
    """The parts of a head whose settings `--set` reaches, by role."""
    roles: dict[str, Callable[..., Any]] = {"model": catalog.find(catalog.MODELS, model, "model")}
    if task in catalog.SEMANTIC:
        roles["loss"] = SegmentationLoss
    if task in ("classification", "action"):
        roles["task"] = Classification if task == "classification" else Action
    return roles


def assemble(recipe: Recipe, backbone: Backbone | None, about: About) -> nn.Module:
    """A new head on `backbone`. Raises SeeallError for settings that make no sense."""
    roles = parts(recipe.task, recipe.model)
    given: dict[str, Any] = {
        "backbone": backbone, "classes": len(recipe.classes), "about": about,
        "flow_head": functools.partial(_flow_head, about),
    }  # fmt: skip
    asked = catalog.positional(roles["model"])
    own = {role: recipe.settings.get(role, {}) for role in ("model", "loss", "task")}
    for name, value in own["model"].items():
        if type(value) is int and value < 1:
            raise SeeallError(f"setting {name!r} is {value}: choose 1 or more")
    network = roles["model"](**{name: given[name] for name in asked if name in given}, **own["model"])
    known = backbone.preprocessing if backbone is not None else network.preprocessing
    normalise = Normalise(known["mean"], known["std"])
    if recipe.task == "flow":
        return Flow(network, normalise, recipe.image_size)
    if recipe.task == "keypoints":
        return Keypoints(network, normalise, recipe.image_size)
    if recipe.task == "action":
        return Action(network, normalise, recipe.image_size, recipe.classes, **own["task"])
    if recipe.task in catalog.SEMANTIC:
        return Segmentation(network, normalise, recipe.image_size, recipe.classes, SegmentationLoss(**own["loss"]))
    if recipe.task == "classification":
        return Classification(network, normalise, recipe.image_size, recipe.classes, **own["task"])
    background_first = isinstance(network, GeneralizedRCNN)  # torchvision's two-stage networks give 0 to the background
    return Detection(network, recipe.classes, int(background_first), recipe.task == "instance")


def save(head: nn.Module, recipe: Recipe, folder: Path) -> None:
    """Write `head.safetensors`, whole or not at all."""
    network: nn.Module = head.network  # type: ignore[assignment]
    tensors = {key: t.detach().cpu().contiguous() for key, t in network.state_dict().items()}
    text = json.dumps({"format": FORMAT, **dataclasses.asdict(recipe)}, sort_keys=True, default=list)
    durable.save(folder / HEAD_FILE, lambda file: file.write(to_bytes(tensors, {_KEY: text})))


def describe(source: str | Path) -> Recipe:
    """What the head of a run folder, or a head's file, is made of. Raises SeeallError where there is none."""
    path = Path(source) / HEAD_FILE if Path(source).is_dir() else Path(source)
    if not path.exists():
        folder = path.parent
        learnt = (folder / "run.json").exists()
        raise SeeallError(
            f"{folder} is a run without a head; make one with: ssl finetune DATA --task … --from {folder}" if learnt
            else f"{source}: no such head; give the folder of a finished ssl finetune"
        )  # fmt: skip
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        made = header.pop("format")
        if made > FORMAT:
            raise SeeallError(f"{path} is of a newer version: upgrade seeall to read it")
        if made < 2 and (moves := (header.get("flow") or header)["model"]) in ("flownets", "flownetc"):
            raise SeeallError(f"{path} is of an older version, whose {moves} was another network: learn it again")
        header["classes"] = tuple(header["classes"])
        return Recipe(**header)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as fault:
        raise SeeallError(f"{path} is damaged, or holds no head ({str(fault).partition(chr(10))[0]})") from None


def load(source: str | Path) -> tuple[nn.Module, Recipe]:
    """The head of a run folder, or a head's file, in evaluation mode on the best device, and what it is made of.

    Raises: SeeallError where there is none, or it is damaged.
    """
    recipe = describe(source)
    path = Path(source) / HEAD_FILE if Path(source).is_dir() else Path(source)
    head = _again(recipe)
    try:
        head.network.load_state_dict(load_file(path))  # type: ignore[union-attr]
    except (RuntimeError, SafetensorError) as fault:
        raise SeeallError(f"{path} is damaged ({str(fault).partition(chr(10))[0]})") from None
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    return head.eval().to(device), recipe


def _again(recipe: Recipe) -> nn.Module:
    """A head of that make, whose weights are still to come."""
    with torch.random.fork_rng(devices=[]):
        backbone = None if recipe.backbone == NONE else build(recipe.backbone, **recipe.backbone_settings)[0]
        about = About(recipe.image_size, anchors=recipe.anchors, flow=recipe.flow, again=True)
        return assemble(recipe, backbone, about)


def _flow_head(about: About, source: str) -> nn.Module:
    """The head of flow of a run, which `about` then knows; where it knows one already, another of that make."""
    if about.flow is not None:
        return _again(Recipe(**{**about.flow, "classes": ()}))
    if not source:
        raise SeeallError("this model needs a head of flow: give a finished ssl finetune --task flow as --set flow=RUN")
    head, recipe = load(source)
    if recipe.task != "flow":
        raise SeeallError(f"setting 'flow' is {source}, a run of --task {recipe.task}: give one of --task flow")
    about.flow = dataclasses.asdict(recipe)
    return head.cpu()
