"""Which layout annotations are in, and reading it: `find_annotated("bccd", "detection")`.

A folder is looked at itself, or the only folder in it, and so on. What a layout is recognised by:

    voc      JPEGImages/ with Annotations/*.xml or SegmentationClass/*.png
    coco     a JSON file with images and annotations: given, in the folder, in annotations/ or in train/, val/, test/
    yolo     images/ and labels/*.txt, above or below train/, val/, test/
    via      a JSON file of the VGG Image Annotator, in the folder or in train/, val/, test/
    masks    images/ and masks/, above or below train/, val/, test/
    labels   anything else: sub-folders are labels, or a manifest has a column `label`; for classification
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from seeall import catalog
from seeall.data.annotations import coco, files, via, voc, world, yolo
from seeall.data.annotations import masks as mask_folders
from seeall.data.annotations.coco import Source
from seeall.data.annotations.files import Place, Repair
from seeall.data.annotations.things import annotated
from seeall.data.annotations.truth import Annotated, Truth
from seeall.data.pictures import MANIFESTS, SPLITS
from seeall.data.pictures import find as find_pictures
from seeall.types import SeeallError

TASKS = catalog.STILL
Layout = Literal["auto", "voc", "coco", "yolo", "via", "masks", "labels"]
CALLED = {
    "voc": "Pascal VOC", "coco": "COCO JSON", "yolo": "YOLO text", "via": "VIA JSON", "masks": "pictures and masks",
    "labels": "pictures in sub-folders or a manifest",
}  # fmt: skip
_SERVES = {
    "voc": ("detection", "segmentation"), "masks": ("segmentation",), "labels": ("classification",),
    "coco": TASKS[1:], "yolo": TASKS[1:], "via": TASKS[1:],
}  # fmt: skip
_DEEPEST = 3
"""Folders that may lie around the one with the data."""


def find_annotated(
    data: str,
    task: str,
    *,
    layout: Layout = "auto",
    masks: str | None = None,
    names: str | None = None,
    ignore: str | None = None,
    colours: str | None = None,
) -> Annotated:
    """The pictures that `data` names, with what `task` is told about them.

    data: a folder, a JSON file, a manifest, or scenes:… · task: one of `TASKS`
    layout: how it is written down; auto recognises it
    masks: where the mask of a picture is, relative to the folder above images/, as masks/{stem}_L.png
    names: classes in their order, with commas, or a file of a name a line; things of other classes are left out; of the
        synthetic world, what its classes are to be called
    ignore: classes or values of masks whose pixels count for nothing, with commas
    colours: a file "red green blue name" a line: what the colours of masks mean

    Raises: SeeallError for anything that cannot be mended on the way.
    """
    if task not in TASKS:
        raise SeeallError(f"unknown task {task!r}: {catalog.suggest(task, TASKS)}")
    if data == "scenes" or data.startswith("scenes:"):
        if masks or ignore or colours:
            raise SeeallError(f"{data}: masks, ignore and colours are settings of files, not of the synthetic world")
        known, wanted = world.find(data, task), files.named(names)
        if wanted is not None and len(wanted) != len(known.classes):
            raise SeeallError(f"{data} has {len(known.classes)} classes; names must be as many, not {len(wanted)}")
        return replace(known, classes=wanted or known.classes)
    root = Path(data).expanduser()
    if not root.exists():
        raise SeeallError(f"{data}: no such file or folder")
    wanted = files.named(names)
    sources: list[Source] = []
    repairs: list[Repair] = []
    if root.is_dir():
        held: dict[Path, Any] = {}
        root, kind = _recognised(root, task, layout, masks, held)
        sources = _jsons(root, kind, held, repairs) if kind in ("coco", "via") else []
    elif root.suffix.lower() == ".json":
        sources = [(root, None, files.load_json(root))]
        kind, root = _content(sources[0][2], root), root.parent
    elif root.suffix.lower() in MANIFESTS:
        kind = "labels"
    else:
        raise SeeallError(f"{data}: neither a folder, a JSON file nor a manifest ({', '.join(MANIFESTS)})")
    _served(data, kind, task, root)
    if (masks or ignore or colours) and not (kind in ("masks", "voc") and task == "segmentation"):
        raise SeeallError(f"{data}: masks, ignore and colours are settings of {CALLED['masks']}, not of {CALLED[kind]}")
    if kind == "labels":
        return _labelled(data, wanted)
    if kind == "masks":
        places = files.pictures(root, "images", repairs)
        return mask_folders.find(
            root, data, places, masks, names=wanted, ignore=ignore, colours=colours, repairs=repairs
        )
    if kind == "voc" and task == "segmentation":
        where = masks or "SegmentationClass/{stem}.png"
        places = _voc_places(root, where, repairs)
        listed = wanted or (files.lines(root / "classes.txt") if (root / "classes.txt").is_file() else voc.CLASSES)
        return mask_folders.find(
            root, data, places, where, names=listed, ignore=ignore, colours=colours, repairs=repairs
        )
    if kind == "voc":
        return annotated(voc.find(root, wanted), data, task)
    if kind == "yolo":
        return annotated(yolo.find(root, wanted), data, task)
    found = (coco if kind == "coco" else via).find(root, sources, wanted)
    return annotated(replace(found, repairs=[*repairs, *found.repairs]), data, task)


def _recognised(root: Path, task: str, layout: str, masks: str | None, held: dict[Path, Any]) -> tuple[Path, str]:
    """The folder with the data, and its layout. held: what JSON files hold, filled as they are read."""
    here = root
    for _ in range(_DEEPEST):
        kinds = _kinds(here, masks, layout, held)
        if layout in kinds or (layout == "auto" and kinds):
            return here, layout if layout != "auto" else next((k for k in kinds if task in _SERVES[k]), kinds[0])
        inner = [p for p in sorted(here.iterdir()) if p.is_dir() and not p.name.startswith(".")]
        if len(inner) != 1:
            break
        here = inner[0]
    if layout == "labels" or (layout == "auto" and task == "classification"):
        return root, "labels"
    if layout in ("auto", "coco", "via") and (fault := next(_faults(held), None)):
        raise fault
    looked = (
        CALLED[layout] if layout != "auto" else ", ".join(CALLED[k] for k in ("voc", "coco", "yolo", "via", "masks"))
    )
    raise SeeallError(f"{root}: no annotations for {task} recognised; looked for {looked}")


def _kinds(root: Path, masks: str | None, layout: str, held: dict[Path, Any]) -> list[str]:
    """The layouts a folder itself is in, the most telling first."""
    found = []
    if (root / "JPEGImages").is_dir() and any((root / d).is_dir() for d in ("Annotations", "SegmentationClass")):
        found.append("voc")
    if files.homes(root, "images"):
        if any(files.below(base / "labels", {".txt"}) for _, base in files.homes(root, "labels")):
            found.append("yolo")
        if masks or files.homes(root, "masks"):
            found.append("masks")
    if not found or layout in ("coco", "via"):
        read = [_loaded(path, held) for path, _ in _paths(root)]
        found += ["coco"] if any(map(_is_coco, read)) else []
        found += ["via"] if any(via.content(one) is not None for one in read) else []
    return found


def _loaded(path: Path, held: dict[Path, Any]) -> Any:
    """What a JSON file holds, read once; what is wrong with it where it is broken."""
    if path not in held:
        try:
            held[path] = files.load_json(path)
        except SeeallError as fault:
            held[path] = fault
    return held[path]


def _faults(held: dict[Path, Any]) -> Iterator[SeeallError]:
    return (one for one in held.values() if isinstance(one, SeeallError))


def _paths(root: Path) -> list[tuple[Path, str | None]]:
    """JSON files that may be annotations, with their splits: things rather than captions where there are both."""
    found: list[tuple[Path, str | None]] = [(p, None) for p in sorted(root.glob("*.json"))]
    for top in sorted(p for p in root.iterdir() if p.name.lower() in SPLITS and p.is_dir()):
        found += [(p, SPLITS[top.name.lower()]) for p in sorted(top.glob("*.json"))]
    found += [(p, None) for p in sorted((root / "annotations").glob("*.json"))]
    found = [(p, split or _split(p.stem)) for p, split in found if "image_info" not in p.name]
    return [one for one in found if one[0].name.startswith("instances_")] or found


def _split(stem: str) -> str | None:
    """The split a file's name tells, as instances_train2017 does."""
    words = "".join(c if c.isalpha() else " " for c in stem.lower()).split()
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _jsons(root: Path, kind: str, held: dict[Path, Any], repairs: list[Repair]) -> list[Source]:
    """The JSON files of `root` that are in one layout; a broken one of a split is an error, another is left out."""
    read = [(path, split, _loaded(path, held)) for path, split in _paths(root)]
    for path, split, one in read:
        if isinstance(one, SeeallError):
            if split is not None:
                raise one
            fault = str(one).removeprefix(f"{path}: ")
            repairs.append((path.relative_to(root).as_posix(), f"JSON file that cannot be read left out: {fault}"))
    found = [one for one in read if (via.content(one[2]) is not None if kind == "via" else _is_coco(one[2]))]
    if len(found) > 1 and all(split is None for _, split, _ in found) and kind == "coco":
        told = ", ".join(path.name for path, _, _ in found)
        raise SeeallError(
            f"{root}: more than one JSON file, none called train or val: {told}; give one of them as DATA"
        )
    return found


def _is_coco(held: Any) -> bool:
    return isinstance(held, dict) and "images" in held and bool({"annotations", "categories"} & held.keys())


def _content(held: Any, path: Path) -> str:
    if _is_coco(held):
        return "coco"
    if via.content(held) is not None:
        return "via"
    raise SeeallError(f"{path}: neither COCO JSON (images, annotations, categories) nor VIA JSON (filename, regions)")


def _served(data: str, kind: str, task: str, root: Path) -> None:
    """Raises SeeallError where a layout cannot tell what `task` needs."""
    serves: Sequence[str] = _SERVES[kind]
    if kind == "voc":
        has = {"detection": (root / "Annotations").is_dir(), "segmentation": (root / "SegmentationClass").is_dir()}
        serves = [name for name in serves if has[name]]
    if task not in serves:
        tasks = " or ".join(f"--task {name}" for name in serves)
        raise SeeallError(f"{data} is {CALLED[kind]}, which serves {tasks}, not {task}")


def _voc_places(root: Path, template: str, repairs: list[Repair]) -> list[Place]:
    """The pictures that have a mask, which in VOC are few."""
    lists = root / "ImageSets"
    pictures = files.below(root / "JPEGImages", repairs=repairs)
    splits, _ = voc.listed(lists / ("Segmentation" if (lists / "Segmentation").is_dir() else "Main"), pictures)
    return [
        Place(f"JPEGImages/{Path(file).name}", file, root, stem, splits.get(stem))
        for stem, file in pictures.items()
        if (root / template.replace("{stem}", stem)).is_file()
    ]


def _labelled(data: str, names: Sequence[str] | None) -> Annotated:
    """Pictures with one label each."""
    pictures = find_pictures(data)
    targets, classes = pictures.targets().tolist(), pictures.classes()
    if names is not None:
        strange = next((name for name in classes if name not in names), None)
        if strange is not None:
            raise SeeallError(f"{data}: label {strange!r} is not among names; {catalog.suggest(strange, names)}")
        targets, classes = [list(names).index(classes[k]) for k in targets], list(names)
    if len(classes) < 2:
        raise SeeallError(f"{data}: every picture has the label {classes[0]}; add pictures of another")
    return Annotated(pictures, classes, frozenset({"label"}), targets, _label)


def _label(label: int, height: int, width: int) -> Truth:
    return Truth(label=label)
