"""The whole pretraining loop beside the bare step, and what it learns beside lightly's documented recipe.

    python benchmarks/pretrain.py --loop              about 3 minutes on 2 idle cores; expect ratios of at least 0.95
    python benchmarks/pretrain.py --cifar FOLDER      about 25 minutes; expect knn20 of 45 against 40 for lightly's

--loop times `training_step`, backward and the optimiser on one batch that is already on the device, views made and
normalised (the bare step), and the real thing: `ssl pretrain`'s own feed, loop, journal and bar. The two alternate
in one process.

--cifar trains ResNet-18 with its usual stem at 32 px for 10 epochs on 1,000 pictures a class of FOLDER/train, with
`ssl pretrain` as a newcomer types it, and with lightly's documented SimCLR recipe (its transform without blur, SGD
0.06, T 0.5, batch 128, its projection head), and looks at the 20 nearest neighbours (T 0.1) of 200 pictures a class
of FOLDER/test. FOLDER holds train/CLASS/* and test/CLASS/*.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seeall.backbones.load import build
from seeall.data.pictures import Pictures, find
from seeall.data.pixels import load
from seeall.data.sampler import Sampler
from seeall.metrics.knn import knn_accuracy
from seeall.ssl.pretrain import Feed, Pretraining, pretrain
from seeall.ssl.projector import projector
from seeall.ssl.simclr import SimCLR
from seeall.ssl.views import Views
from seeall.training.embed import Eye, Normalise, square
from seeall.training.engine import launch
from seeall.training.loop import fit
from seeall.training.optimisers import adamw
from seeall.training.run import Run

BATCH = 128


def loop_ratio(size: int, steps: int, rounds: int) -> dict[str, float]:
    """Pictures a second of the whole loop and of the bare step, and their ratio, round by round."""
    store = load(find(f"scenes:n={4 * BATCH},size={size}"), shortest=size)
    network, _ = build("resnet18")
    normalise = Normalise(network.preprocessing["mean"], network.preprocessing["std"])
    task = Pretraining(network, projector(network.embed_dim), SimCLR(), normalise)
    task.to(memory_format=torch.channels_last).train()
    engine = launch(devices=1, precision="32")
    task.to(engine.device)
    store.to(engine.device)
    feed = Feed(store, Views(), Sampler(len(store), BATCH, 0), task, size, 0, engine.device)
    optimiser, batch = adamw(task), feed.fetch(0)
    whole, bare = [], []

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        task.training_step(batch)["loss"].backward()
        optimiser.step()

    step()
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            start = time.perf_counter()
            for _ in range(steps):
                step()
            bare.append(BATCH * steps / (time.perf_counter() - start))
            run = Run.create(Path(folder) / str(turn), {}, {"fingerprint": ""})
            inner: list[float] = []

            def timed(t: int, inner: list[float] = inner) -> Any:
                inner.append(time.perf_counter())
                return feed.fetch(t)

            fit(engine, task, timed, adamw, run, steps=steps + 1, epoch_steps=4, samples=BATCH)
            whole.append(BATCH * steps / (inner[-1] - inner[0]))  # from the first fetch to the last: whole steps
    ratios = [w / b for w, b in zip(whole, bare)]
    return {
        "bare": statistics.median(bare), "whole": statistics.median(whole), "ratio": statistics.median(ratios),
        "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip


def some(folder: Path, a_class: int) -> Pictures:
    """The first `a_class` pictures of every class, in name order."""
    pictures = find(str(folder))
    labels, seen, rows = pictures.labels or (), dict[str, int](), []
    for row, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= a_class:
            rows.append(row)
    return pictures.subset(rows)


def knn20(features: dict[str, Tensor], train: Pictures, test: Pictures) -> float:
    return 100 * knn_accuracy(
        features["train"], train.targets(), features["test"], test.targets(), k=20, temperature=0.1, classes=10
    )


def seen_by(eye: Eye, train: Pictures, test: Pictures) -> float:
    return knn20({"train": eye.see_all(train)[0], "test": eye.see_all(test)[0]}, train, test)


def untrained() -> Eye:
    torch.manual_seed(0)
    backbone, _ = build("resnet18")
    backbone.preprocessing["image_size"] = 32
    return Eye(backbone)


def raw(train: Pictures, test: Pictures) -> float:
    def pixels(pictures: Pictures) -> Tensor:
        return torch.stack([square(pictures.read(i), 32).flatten().float() for i in range(len(pictures))])

    z = {"train": pixels(train), "test": pixels(test)}
    mean = z["train"].mean(0)
    return knn20({half: x - mean for half, x in z.items()}, train, test)


def lightly_recipe(train: Pictures, epochs: int, seed: int) -> Eye:
    """SimCLR as lightly's documentation gives it, on resident pictures: PIL transform, SGD 0.06, T 0.5."""
    import torchvision
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    torch.manual_seed(seed)
    images = [Image.fromarray(train.read(i)) for i in range(len(train))]
    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    model = torch.nn.Sequential(network, SimCLRProjectionHead(512, 512, 128)).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.06)
    criterion = NTXentLoss(temperature=0.5)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            if len(rows) < BATCH:
                continue
            views = [transform(images[i]) for i in rows.tolist()]
            z0, z1 = (model(torch.stack([v[k] for v in views])) for k in range(2))
            optimiser.zero_grad()
            criterion(z0, z1).backward()
            optimiser.step()
    backbone, _ = build("resnet18")
    backbone.network.load_state_dict(network.state_dict(), strict=False)
    backbone.preprocessing["image_size"] = 32
    return Eye(backbone)


def cifar(folder: Path, epochs: int, seeds: int, peers: bool) -> dict[str, Any]:
    """knn20, percent, of each contender; seconds that training took."""
    train, test = some(folder / "train", 1000), some(folder / "test", 200)
    figures: dict[str, Any] = {"raw pixels": raw(train, test), "untrained": seen_by(untrained(), train, test)}
    with tempfile.TemporaryDirectory() as place:
        manifest = Path(place) / "train.txt"
        manifest.write_text("\n".join(str(Path(key).absolute()) for key in train.keys))
        for seed in range(seeds):
            start = time.perf_counter()
            pretrain(str(manifest), Path(place) / f"run{seed}", epochs=epochs, seed=seed)
            seconds = time.perf_counter() - start
            figures[f"ssl pretrain, seed {seed}"] = seen_by(Eye.of(Path(place) / f"run{seed}"), train, test)
            figures[f"ssl pretrain, seed {seed}, seconds"] = seconds
            if peers:
                start = time.perf_counter()
                eye = lightly_recipe(train, epochs, seed)
                seconds = time.perf_counter() - start
                figures[f"lightly's recipe, seed {seed}"] = seen_by(eye, train, test)
                figures[f"lightly's recipe, seed {seed}, seconds"] = seconds
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--cifar", type=Path, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    if given.loop:
        for size, steps, rounds in ((32, 16, 5), (96, 4, 3)):
            figures |= {f"{size} px, {name}": value for name, value in loop_ratio(size, steps, rounds).items()}
    if given.cifar:
        figures |= cifar(given.cifar, given.epochs, given.seeds, not given.no_peers)
    if not figures:
        parser.error("choose --loop, --cifar FOLDER or both")
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<36}{value:10.3f}")


if __name__ == "__main__":
    main()
