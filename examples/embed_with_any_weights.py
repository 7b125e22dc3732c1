"""See pictures through weights from elsewhere: a .pt or .safetensors file, a run folder, or DEFAULT to download.

python examples/embed_with_any_weights.py [PICTURES [FOLDER [WEIGHTS]]]

Without WEIGHTS a file is made as another program would leave it. FOLDER/resnet18.safetensors can then stand
wherever a run folder can: ssl index build PICTURES --run FOLDER/resnet18.safetensors --out photos.index
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet18

from seeall.backbones.load import build, save
from seeall.data.pictures import find
from seeall.training.embed import Eye


def main(pictures: str = "scenes:n=300,size=64", folder: str = "", weights: str = "") -> None:
    """Fill a ResNet-18, say what fitted, keep it, embed."""
    out = Path(folder or tempfile.mkdtemp(prefix="seeall-"))
    if not weights:
        weights = str(out / "elsewhere.pt")
        torch.save({"state_dict": {f"module.{k}": v for k, v in resnet18().state_dict().items()}}, weights)
    backbone, report = build("resnet18", weights)
    print(report)
    file = save(
        backbone, out / "resnet18.safetensors", name="resnet18", settings={}, preprocessing={"image_size": 64}
    )  # fmt: skip
    vectors, rows = Eye.of(file).see_all(find(pictures))
    print(f"{len(rows)} pictures, {vectors.shape[1]} numbers each, kept network {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
