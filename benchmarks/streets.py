"""Naming every pixel of a street: U-Net, SegNet and DeconvNet, learnt with cross-entropy, then on with Lovász-Softmax.

    python benchmarks/streets.py CAMVID [--only unet] [--backbone resnet18] [--epochs 20] [--more 5] [--json FILE]

CAMVID is a folder with train/, val/ and test/, each of images/ and masks/, and classes.txt: 11 classes, 480 x 360, seen
at 240 x 180. From nothing. Each network learns for `epochs` with cross-entropy, and the same for `epochs` - `more`
followed by `more` with Lovász-Softmax. mIoU on the 233 test pictures, at 240 x 180.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from seeall.console import log
from seeall.heads.examine import examine
from seeall.heads.finetune import finetune

SIZE = 180


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--only", default="unet,segnet,deconvnet")
    parser.add_argument("--losses", default="cross-entropy,lovasz")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--start", default="none")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--more", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    found = {}
    with tempfile.TemporaryDirectory(prefix="streets-") as scratch:
        for model in args.only.split(","):
            for loss in args.losses.split(","):
                then = (f"then={loss}", f"switch={args.epochs - args.more}") if loss != "cross-entropy" else ()
                start = time.monotonic()
                finetune(
                    str(args.camvid), Path(scratch) / "run", task="segmentation", model=model, start=args.start,
                    backbone=args.backbone, image_size=SIZE, epochs=args.epochs, batch_size=args.batch_size,
                    lr=args.lr, seed=args.seed, set=(*then, *args.set), overwrite=True,
                )  # fmt: skip
                seconds = time.monotonic() - start
                figures = examine(Path(scratch) / "run", str(args.camvid)).figures
                found[f"{model}, {loss}"] = {**figures, "seconds": seconds}
                shown = "  ".join(f"{k} {figures[k]:.2f}" for k in ("mIoU", "pixel_accuracy", "class_accuracy"))
                print(f"{model:<10} {loss:<14} {shown}   {seconds:.0f} s", flush=True)
                if args.json:
                    args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
