"""A tenth of the labels: heads on a backbone that has seen the rest without labels, beside the same from nothing.

    python benchmarks/few_labels.py [--seeds 0,1,2] [--only detection] [--pretrain-epochs 48] [--keep FOLDER]

2,000 pictures of the synthetic world, 48 px, 20 of each of 100 things. The backbone, a ResNet-18, is pretrained on all
of them without labels; then classification, detection and segmentation are learnt from 200 of them, drawn by the seed,
and judged by 500 pictures that neither has seen. Pretraining and head share the seed. With --keep, pretrained backbones
are left in FOLDER, and taken from there by later calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from seeall.console import log
from seeall.heads.finetune import finetune
from seeall.ssl.pretrain import pretrain

BACKBONE, SIZE = "resnet18", 48
WORLD, NEW = f"scenes:n=2000,size={SIZE}", f"scenes:n=500,size={SIZE},first=2000"
VIEWS = ("jitter=0.2", "hue=0.02", "grey=0", "crop_min=0.3", "temperature=0.2")
"""As in the demonstration: colour is part of what these things are, so views keep most of it."""
TASKS: dict[str, dict[str, Any]] = {
    "classification": {"batch_size": 32},
    "detection": {"model": "faster-rcnn", "set": ("width=64", "hidden=256"), "epochs": 12},
    "segmentation": {"model": "fpn", "epochs": 12},
}
SHOWN = {"classification": "top1", "detection": "mAP50", "segmentation": "mIoU"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--pretrain-epochs", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=30, help="of classification")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pretrain-set", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    rows: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="few-") as folder:
        for seed in map(int, args.seeds.split(",")):
            start = time.monotonic()
            seen = (args.keep or Path(folder)) / f"seen-{seed}"
            pretrain(
                WORLD, seen, backbone=BACKBONE, epochs=args.pretrain_epochs, seed=seed, resume=seen.exists(),
                set=(*VIEWS, *args.pretrain_set),
            )  # fmt: skip
            print(f"seed {seed}: pretrained in {time.monotonic() - start:.0f} s", flush=True)
            for task in args.only.split(","):
                for name, origin in (("pretrained", str(seen)), ("from nothing", "none")):
                    way = {"epochs": args.epochs, **TASKS[task], "set": (*TASKS[task].get("set", ()), *args.set)}
                    start = time.monotonic()
                    results = finetune(
                        WORLD, Path(folder) / "head", task=task, start=origin, backbone=BACKBONE, labels="10%", val=NEW,
                        image_size=SIZE, lr=args.lr, seed=seed, overwrite=True, **way,
                    )  # fmt: skip
                    rows.setdefault(f"{task}, {name}", []).append(results)
                    figure = results[SHOWN[task]]
                    print(f"  {task}, {name}: {SHOWN[task]} {figure:.2f}, {time.monotonic() - start:.0f} s", flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows))
    for name, found in rows.items():
        values = [one[SHOWN[name.partition(",")[0]]] for one in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:<32}{SHOWN[name.partition(',')[0]]} {statistics.mean(values):6.2f} ± {spread:.2f}")


if __name__ == "__main__":
    main()
