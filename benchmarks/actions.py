"""Naming what happens: by frames one by one, by networks over time, by two streams.

    python benchmarks/actions.py --what order [--only inflated] [--seeds 0] [--json FILE]
    python benchmarks/actions.py --what fights --data FIGHTS [--start RUN] [--flow RUN] [--seeds 0,1,2] [--json FILE]

`order`: clips of the synthetic world in which a thing goes to the left or to the right, and nothing else tells which:
the frames of one, in the other order, are the other. 8 frames of 48 px; an eighth of FlowNetS's contracting part, from
nothing; top-1 of new clips. Chance is 50. `fights`: FIGHTS is a folder with train/ and test/, each of fight/ and
noFight/, 44 and 16 clips of two seconds, seen at 64 px; top-1 of the test clips, mean and deviation over seeds, by
ShuffleNet from nothing and from the backbone of --start, which is of the same kind. Two streams need a run of flow;
without one they are left out.
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

WORLD = "scenes:size=48,frames=8,fps=8,actions=left+right,labels=action"
LEARN, NEW = f"{WORLD},n=600", f"{WORLD},n=200,first=600"
CLIP = ("frames=8", "views=1", "backbone.width=8")
WAYS: dict[str, dict[str, Any]] = {
    "per-frame": {},
    "inflated": {"set": ("which=all",)},
    "slowfast": {},
    "two-stream": {"set": ("which=all",)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("order", "fights"), default="order")
    parser.add_argument("--data", type=Path, help="of fights")
    parser.add_argument("--start", default="", help="a run whose backbone is tried besides none")
    parser.add_argument("--flow", default="", help="a run of flow, for two streams")
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    fights = args.what == "fights"
    common: dict[str, Any] = (
        {"data": str(args.data), "backbone": "shufflenet_v2_x0_5", "image_size": 64, "epochs": 30, "batch_size": 8}
        if fights
        else {"data": LEARN, "val": NEW, "backbone": "flownet", "image_size": 48, "epochs": 10, "batch_size": 16}
    )
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="actions-") as scratch:
        for model in args.only.split(","):
            if model == "two-stream" and not args.flow:
                continue
            for start in ("none", *([args.start] if args.start else [])):
                name, begun = f"{model}, {'from nothing' if start == 'none' else 'pretrained'}", time.monotonic()
                for seed in map(int, args.seeds.split(",")):
                    own = WAYS[model].get("set", ()) + ((f"flow={args.flow}",) if model == "two-stream" else ())
                    options = common | {"backbone": None if start != "none" else common["backbone"]}
                    options |= {"epochs": args.epochs} if args.epochs else {}
                    figures = finetune(
                        out=Path(scratch) / "run", task="action", model=model, start=start, lr=args.lr, seed=seed,
                        set=(*(("flip=0.5",) if fights else CLIP), *own, *args.set), overwrite=True, **options,
                    )  # fmt: skip
                    found.setdefault(name, []).append(figures["top1"])
                values = found[name]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                seconds = (time.monotonic() - begun) / len(values)
                print(f"{name:<26} top1 {statistics.mean(values):5.1f}{spread}   {seconds:.0f} s a seed", flush=True)
                if args.json:
                    args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
