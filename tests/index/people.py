"""Small pictures of people whom even an untrained network tells apart, and a run to see them by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from seeall.backbones.load import build, save

BACKBONE = "shufflenet_v2_x0_5"


def network(path: Path, seed: int = 0) -> Path:
    """A backbone's file, untrained."""
    torch.manual_seed(seed)
    backbone, _ = build(BACKBONE)
    return save(backbone, path, name=BACKBONE, settings={}, preprocessing={"image_size": 32})


def portrait(file: Path, person: int, take: int) -> Path:
    """One picture: a pattern of the person's own, a little different each time."""
    rng, own = np.random.default_rng([person, take]), np.random.default_rng(person)
    small = own.integers(0, 256, (4, 4, 3)) + rng.normal(0, 3, (4, 4, 3))
    image = Image.fromarray(small.clip(0, 255).astype(np.uint8)).resize((40, 40), Image.Resampling.BICUBIC)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def folder(root: Path, people: dict[str, int], takes: range) -> Path:
    """A sub-folder for each person, whose number says what the person looks like."""
    for name, number in people.items():
        for take in takes:
            portrait(root / name / f"{name}-{take:02d}.png", number, take)
    return root


def drawn_face(size: int = 200, faces: int = 1) -> Image.Image:
    """A face that a cascade takes for one, or several beside each other; none is an even grey."""
    picture = Image.new("L", (size * max(faces, 1), size), 200)
    for n in range(faces):
        one = Image.new("L", (200, 200), 200)
        draw = ImageDraw.Draw(one)
        draw.ellipse((40, 20, 160, 185), fill=170)
        draw.rectangle((40, 20, 160, 60), fill=60)
        for x in (78, 122):
            draw.ellipse((x - 16, 80, x + 16, 94), fill=70)
            draw.rectangle((x - 18, 68, x + 18, 74), fill=60)
        draw.polygon([(100, 85), (90, 125), (110, 125)], fill=195)
        draw.ellipse((92, 120, 108, 128), fill=110)
        draw.ellipse((75, 140, 125, 155), fill=90)
        picture.paste(one.filter(ImageFilter.GaussianBlur(3)).resize((size, size)), (n * size, 0))
    return picture.convert("RGB")
