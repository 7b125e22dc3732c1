"""From the synthetic world to photographs: a detector that has only ever seen drawn discs, asked for balloons.

    python benchmarks/sim_to_real.py BALLOON [--epochs 15] [--seeds 1] [--only automatic] [--json FILE]

BALLOON is a folder with train/ and val/, each with via_region_data.json; all of its pictures are asked about, none is
learnt from. The detector, a Faster R-CNN over MobileNetV3-Small from nothing, learns eight kinds of shapes in worlds
that differ in how much their pictures do: not at all, as usual, as much as can be, and ever more as long as it copes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from seeall.console import log
from seeall.data.annotations.examples import load
from seeall.data.annotations.layouts import find_annotated
from seeall.data.scenes.dataset import RANGES
from seeall.heads import build
from seeall.heads.examine import of
from seeall.heads.finetune import finetune

NONE, ALL = (",".join(f"{name}={value}" for name in RANGES) for value in (0, 1))
WORLDS: dict[str, dict[str, Any]] = {
    "not at all": {"world": NONE},
    "as usual": {"world": ""},
    "all there is": {"world": ALL},
    "automatic": {"world": NONE, "set": ("widen=on",)},
}
FIGURES = ("AP50/disc", "AP/disc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("balloon", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="sim-") as scratch:
        out = Path(scratch) / "run"
        for name, way in WORLDS.items():
            if not name.startswith(args.only):
                continue
            for seed in range(args.seeds):
                start = time.monotonic()
                world = f"scenes:n={args.n},size={args.size},things=1-5,{way['world']}"
                here = finetune(
                    world, out, task="detection", model="faster-rcnn", start="none", backbone="mobilenet_v3_small",
                    epochs=args.epochs, lr=1e-3, seed=seed, overwrite=True, image_size=args.size,
                    set=("width=64", "hidden=256", "anchors=fit", *way.get("set", ()), *args.set),
                )  # fmt: skip
                head, recipe = build.load(out)
                balloons = dataclasses.replace(
                    find_annotated(str(args.balloon), "detection"), classes=list(recipe.classes)
                )  # whose only class has the number of discs
                figures = of(head, recipe, load(balloons, args.size)).figures  # type: ignore[arg-type]
                found.setdefault(name, []).append(
                    {**{k: figures[k] for k in FIGURES}, "in its world": here["mAP50"], "s": time.monotonic() - start}
                )
            words = []
            for key in found[name][0]:
                values = [one[key] for one in found[name]]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                words.append(f"{key} {statistics.mean(values):.1f}{spread}")
            print(f"{name:<14}" + "  ".join(words), flush=True)
            if args.json:
                args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
