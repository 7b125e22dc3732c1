"""`ssl demo`: the main job on the synthetic world, and an honest look at what was learnt.

A backbone is pretrained on pictures of some objects, without labels. Then pictures of other objects, which it has
never seen, are indexed, and each is searched for among the rest: how many of its ten nearest show the same
object? The same question is put to the same backbone untrained, and to raw pixels.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from seeall import durable
from seeall.backbones.load import build as new_backbone
from seeall.backbones.load import load
from seeall.console import bar, log
from seeall.data import scenes
from seeall.data.decode import decode
from seeall.data.pictures import Pictures, find
from seeall.index.build import build
from seeall.index.page import sheet
from seeall.index.query import search
from seeall.metrics.retrieval import retrieval
from seeall.ssl.pretrain import pretrain
from seeall.training.embed import Eye, square
from seeall.types import SeeallError

SIZE = 32
LEARN = f"scenes:n=3000,size={SIZE},identities=300,poles=0,light=0.3"
UNSEEN = f"scenes:n=600,size={SIZE},identities=60,first_identity=300,poles=0,light=0.3"
EPOCHS = 16
SETTINGS = ("jitter=0.2", "hue=0.02", "grey=0", "crop_min=0.3", "temperature=0.2")
"""Colour is part of who these objects are, so views keep most of it; a short run wants the higher temperature."""
QUERIES, NEIGHBOURS = 8, 7


def demo(out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Run it all into the folder `out`. Returns precision@10, percent, of each contender, and the page's path.

    Raises: SeeallError where `out` is not empty and not `overwrite`, or is something else than a demonstration.
    """
    start = time.monotonic()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise SeeallError(f"--out {out} is not empty; replace it by --overwrite, or choose another place")
        if not (out / "run" / "run.json").exists():
            raise SeeallError(f"--out {out} holds something that is no demonstration, so it is left alone")
        shutil.rmtree(out)
    run, index = out / "run", out / "index"
    log.info("1 of 3: learning from pictures of 300 objects, without labels")
    pretrain(LEARN, run, epochs=EPOCHS, set=SETTINGS, devices=1)
    log.info("2 of 3: indexing pictures of 60 other objects")
    pictures = _draw(out / "pictures")
    build(pictures, run, index)
    log.info("3 of 3: looking for each of them among the rest")
    eyes = {"pretrained": Eye(load(run)), "untrained": _untrained()}
    vectors = {name: eye.see_all(pictures)[0] for name, eye in eyes.items()}
    vectors["raw pixels"] = _raw(pictures)
    targets = pictures.targets()
    figures = {name: 100 * retrieval(z, targets, ks=(10,))["precision@10"] for name, z in vectors.items()}
    figures["chance"] = (
        100 * float((targets[:, None] == targets).sum() - len(targets)) / len(targets) / (len(targets) - 1)
    )
    page = out / "page.html"
    text = _page(pictures, index, vectors["raw pixels"], figures)
    durable.save(page, lambda file: file.write(text.encode()))
    log.info("open %s to see it; %.0f seconds in all", page, time.monotonic() - start)
    return {**{f"{name}": value for name, value in figures.items()}, "page": str(page)}


def _draw(folder: Path) -> Pictures:
    """The unseen objects as files, a sub-folder each, so that one can look at them."""
    world = scenes.parse(UNSEEN)
    with bar("drawing", len(world)) as progress:
        for i in range(len(world)):
            path = folder / f"object_{world.identity(i):03d}" / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(world.image(i)).save(path)
            progress.update()
    return find(str(folder))


def _untrained() -> Eye:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone, _ = new_backbone("resnet18")
    backbone.preprocessing["image_size"] = SIZE
    return Eye(backbone)


def _raw(pictures: Pictures) -> Tensor:
    """(n, 3·S·S): pixels less the mean picture, compared by cosine like everything else."""
    pixels = torch.stack([square(pictures.read(i), SIZE).flatten().float() for i in range(len(pictures))])
    return pixels - pixels.mean(0)


def _page(pictures: Pictures, index: Path, raw: Tensor, figures: dict[str, float]) -> str:
    step = len(pictures) // QUERIES
    rows = [i * step + i % 10 for i in range(QUERIES)]
    learnt = search(index, [str(pictures.keys[row]) for row in rows], NEIGHBOURS + 1)
    z = F.normalize(raw, dim=1)
    results: list[dict[str, Any]] = []
    for row, found in zip(rows, learnt):
        label = (pictures.labels or [])[row]
        others = [m for m in found["matches"] if m["path"] != found["query"]][:NEIGHBOURS]
        results.append({**found, "label": label, "matches": others, "title": "by what was learnt"})
        order = [int(i) for i in (z @ z[row]).argsort(descending=True) if int(i) != row][:NEIGHBOURS]
        results.append(
            {
                "query": found["query"],
                "label": label,
                "title": "by raw pixels",
                "matches": _matches(pictures, order, z @ z[row]),
            }
        )
    table = "".join(f"<tr><td>{name}</td><td>{value:.1f} %</td></tr>" for name, value in figures.items())
    intro = (
        "<p>A network was shown 3,000 pictures of 300 objects, without being told anything about them. Here it is "
        "asked about 60 <em>other</em> objects: for each of 600 pictures, how many of its ten nearest show the same "
        "object? "
        "Light, background, place, size and rotation differ from picture to picture. Green frames are right.</p>"
        f"<table><tr><th></th><th>same object among the ten nearest</th></tr>{table}</table>"
    )
    return sheet("What was learnt without labels", results, lambda path: decode(path), intro=intro, truth=True)


def _matches(pictures: Pictures, rows: Sequence[int], scores: Tensor) -> list[dict[str, Any]]:
    labels = pictures.labels or []
    return [{"path": str(pictures.keys[i]), "label": labels[i], "score": float(scores[i])} for i in rows]
