"""Whether each head can learn eight real pictures by heart, which nothing that is built wrong can.

    python benchmarks/overfit.py --bccd BCCD --balloon BALLOON --camvid CAMVID [--only unet] [--json FILE]

BCCD is a folder in Pascal VOC's layout, BALLOON one with train/via_region_data.json, CAMVID one with train/images and
train/masks. Eight pictures of each, to learn from and to be judged by, no augmentation, batches of four, from nothing.
The backbone is a ResNet-18, but for three whose decoders give no finer map than the backbone's: these have a VGG-16,
and its first map has every pixel, as in the papers of SegNet and DeconvNet.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from seeall.console import log
from seeall.heads.finetune import finetune

EIGHT = 8
STILL = ("flip=0", "crop_min=1", "jitter=0", "warmup=0.1")
CELLS: dict[str, Any] = {"task": "detection", "data": "bccd", "image_size": 192, "lr": 1e-3}
STREETS: dict[str, Any] = {"task": "segmentation", "data": "camvid", "lr": 2e-3, "set": ("balance=median",)}
WAYS: dict[str, dict[str, Any]] = {
    "retinanet": {**CELLS, "steps": 500, "set": ("width=128", "anchors=fit")},
    "faster-rcnn": {**CELLS, "steps": 200, "image_size": 160, "set": ("width=128", "hidden=512")},
    "mask-rcnn": {
        "task": "instance", "data": "balloon", "image_size": 192, "lr": 1e-3, "steps": 300,
        "set": ("width=128", "hidden=512", "mask_width=128"),
    },
    "unet": {**STREETS, "image_size": 120, "steps": 800},
    "segnet": {**STREETS, "backbone": "vgg16_bn", "image_size": 96, "steps": 400},
    "deconvnet": {**STREETS, "backbone": "vgg16_bn", "image_size": 96, "steps": 400},
    "fpn": {
        **STREETS, "backbone": "vgg16_bn", "image_size": 96, "steps": 400,
        "set": (*STREETS["set"], "width=64", "branch=64"),
    },
}  # fmt: skip
SHOWN = {"detection": "mAP50", "instance": "mAP50", "segmentation": "mIoU"}


def eight(kind: str, source: Path, to: Path) -> Path:
    """Eight pictures of a data set, evenly spread, in its own layout."""
    if kind == "bccd":
        for name in _spread(sorted(p.stem for p in (source / "Annotations").glob("*.xml"))):
            _copy(source / "Annotations" / f"{name}.xml", to / "Annotations")
            _copy(source / "JPEGImages" / f"{name}.jpg", to / "JPEGImages")
    elif kind == "camvid":
        _copy(source / "classes.txt", to)
        for picture in _spread(sorted((source / "train/images").iterdir())):
            _copy(picture, to / "images")
            _copy(source / "train/masks" / f"{picture.stem}.png", to / "masks")
    else:
        told = json.loads((source / "train/via_region_data.json").read_text())
        chosen = {key: told[key] for key in _spread(sorted(told))}
        for one in chosen.values():
            _copy(source / "train" / one["filename"], to)
        (to / "via_region_data.json").write_text(json.dumps(chosen))
    return to


def _spread(names: list[Any]) -> list[Any]:
    return [names[k * len(names) // EIGHT] for k in range(EIGHT)]


def _copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in ("bccd", "balloon", "camvid"):
        parser.add_argument(f"--{kind}", type=Path)
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    found = {}
    with tempfile.TemporaryDirectory(prefix="overfit-") as scratch:
        for name in args.only.split(","):
            way = dict(WAYS[name])
            kind = way.pop("data")
            source = getattr(args, kind)
            if source is None:
                continue
            data = str(eight(kind, source, Path(scratch) / f"{name}-data"))
            start = time.monotonic()
            results = finetune(
                data, Path(scratch) / name, model=name, start="none", val=data, batch_size=4,
                **{"backbone": "resnet18", **way, "set": (*STILL, *way.get("set", ()), *args.set)},
            )  # fmt: skip
            found[name] = results
            metric = SHOWN[way["task"]]
            print(f"{name:<12}{metric} {results[metric]:6.2f}   {time.monotonic() - start:5.0f} s", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
