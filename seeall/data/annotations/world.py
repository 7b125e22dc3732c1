"""The synthetic world with its truth, which serves every task."""

from __future__ import annotations

import functools

import numpy as np

from seeall.data import scenes
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.pictures import find as find_pictures
from seeall.data.scenes.shapes import NAMES
from seeall.types import SeeallError

KNOWS = {
    "classification": {"label"},
    "detection": {"boxes"},
    "instance": {"boxes", "masks"},
    "segmentation": {"semantic"},
}


def find(source: str, task: str) -> Annotated:
    """What `scenes:…` names. For segmentation class 0 is the background.

    Raises: SeeallError for settings out of bounds.
    """
    world, pictures = scenes.parse(source), find_pictures(source)
    labels: dict[str, int] = {}
    if task == "classification":
        labels = {name: k for k, name in enumerate(pictures.classes())}
        if len(labels) < 2:
            raise SeeallError(f"{source}: every picture has the label {next(iter(labels))}; ask for more identities")
    shapes = list(NAMES[: world.classes])
    classes = list(labels) or (["background", *shapes] if task == "segmentation" else shapes)
    reading = functools.partial(_interpret, world=world, labels=labels, task=task)
    return Annotated(pictures, classes, frozenset(KNOWS[task]), list(range(len(world))), reading)


def _interpret(i: int, height: int, width: int, *, world: scenes.Scenes, labels: dict[str, int], task: str) -> Truth:
    if task == "classification":
        return Truth(label=labels[world.label(i)])
    known = world.truth(i)
    if task == "segmentation":
        return Truth(semantic=known.semantic)
    crowd, masks = np.zeros(len(known.boxes), np.bool_), known.masks if task == "instance" else None
    return Truth(boxes=known.boxes, classes=known.classes, crowd=crowd, masks=masks)
