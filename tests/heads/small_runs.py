"""The smallest runs of `ssl finetune` there can be, and data to make them with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

WORLD = "scenes:n=12,size=32,things=1-2,classes=3"
LIGHT = [
    "--from",
    "none",
    "--backbone",
    "shufflenet_v2_x0_5",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--steps",
    "2",
]
SMALL = [f"--set={one}" for one in ("width=16", "hidden=16", "proposals=20", "sampled=8", "mask_width=16")]
OWN = {"classification": [], "detection": ["--set=width=16"], "instance": SMALL, "segmentation": []}


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 36)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def coco(root: Path, n: int, names: str = "cat dog", things: int = 1, outlines: bool = True) -> None:
    """n pictures with so many things each, of all classes in turn."""
    classes, found = names.split(), []
    for i in range(n):
        picture(root / f"{i}.png", i)
        for k in range(things):
            x = 3 + 14 * k
            thing = {"id": len(found) + 1, "image_id": i, "category_id": (i + k) % len(classes), "iscrowd": 0}
            thing |= {"bbox": [x, 4, 12, 14], "area": 168}
            found.append(thing | ({"segmentation": [[x, 4, x + 12, 4, x + 12, 18, x, 18]]} if outlines else {}))
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 36} for i in range(n)]
    categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
    (root / "a.json").write_text(json.dumps({"images": images, "annotations": found, "categories": categories}))


def masks(root: Path, n: int, values: tuple[int, ...] = (0, 1, 2), size: tuple[int, int] = (40, 36)) -> None:
    for i in range(n):
        picture(root / "images" / f"{i}.png", i)
        (root / "masks").mkdir(exist_ok=True)
        mask = np.resize(np.array(values, np.uint8), (size[1], size[0]))
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text("background\ncat\ndog\n")
