"""A loss of one's own: alignment and uniformity (Wang and Isola 2020), trained by the loop that trains the rest.

python examples/own_loss.py [PICTURES [FOLDER [STEPS]]]

An objective sees z (N, D) and groups (N,) and nothing else. FOLDER must be new or empty; it becomes a run folder,
which `ssl evaluate`, `ssl embed` and `ssl index build` take like any other.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from seeall.backbones.load import build, save
from seeall.data.pictures import find
from seeall.data.pixels import load
from seeall.data.sampler import Sampler
from seeall.ssl.feed import Feed
from seeall.ssl.projector import projector
from seeall.ssl.task import Pretraining
from seeall.ssl.views import Views
from seeall.training.embed import Normalise
from seeall.training.engine import launch
from seeall.training.loop import fit
from seeall.training.optimisers import adamw
from seeall.training.run import Run

SIZE, BATCH = 32, 32


class AlignAndSpread(nn.Module):
    """Rows of a group close, all rows spread evenly over the sphere; distances are squared Euclidean."""

    def forward(self, z: Tensor, groups: Tensor) -> dict[str, Tensor]:
        """z: (N, D), groups: (N,) → loss, and its two parts."""
        z = nn.functional.normalize(z.float(), dim=1)
        distance = 2 - 2 * z @ z.T
        apart = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        alignment = distance[apart & (groups[:, None] == groups)].mean()
        uniformity = (-2 * distance[apart]).exp().mean().log()
        return {"loss": alignment + uniformity, "alignment": alignment, "uniformity": uniformity}


def main(pictures: str = "scenes:n=1000,size=32", folder: str = "", steps: str = "60") -> None:
    """What `ssl pretrain` does, written out."""
    run = Run.create(Path(folder or tempfile.mkdtemp(prefix="seeall-")), {"data": pictures}, {"fingerprint": ""})
    store, engine = load(find(pictures), shortest=SIZE), launch(devices=1)
    store.to(engine.device)
    backbone, _ = build("resnet18")
    normalise = Normalise(backbone.preprocessing["mean"], backbone.preprocessing["std"])
    task = Pretraining(backbone, projector(backbone.embed_dim), AlignAndSpread(), normalise)
    sampler = Sampler(len(store), BATCH, seed=0)
    feed = Feed(store, Views(), sampler, task, SIZE, 0, engine.device)
    results = fit(
        engine, task, feed.fetch, adamw, run,
        steps=int(steps), epoch_steps=sampler.steps_per_epoch, samples=BATCH, background=feed.waits,
    )  # fmt: skip
    save(
        backbone, run.path / "backbone.safetensors", name="resnet18", settings={}, preprocessing={"image_size": SIZE}
    )  # fmt: skip
    run.update(status="finished", results=results)
    print(", ".join(f"{name} {value:.3f}" for name, value in results.items()), "in", run.path)


if __name__ == "__main__":
    main(*sys.argv[1:])
