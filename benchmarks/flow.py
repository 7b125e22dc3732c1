"""Flow learnt from drawn pairs alone, asked of drawn pairs that are new, and of real ones.

    python benchmarks/flow.py MIDDLEBURY [--only flownets] [--size 256] [--steps 4000] [--keep FOLDER] [--json FILE]

MIDDLEBURY is a folder with NAME/frame10.png, frame11.png and flow10.flo. FlowNetS and FlowNetC, at a quarter of the
paper's width, learn from pairs of the synthetic world, one to three frames apart, in windows of 128 px. End-point
errors in px, beside those of saying that nothing moves. After Flying Chairs the paper's networks have 2.71 and 2.19 on
its validation pairs; on eight of Middlebury's, 1.09 and 1.15 are reported.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from seeall.console import log
from seeall.heads.examine import examine
from seeall.heads.finetune import finetune
from seeall.metrics.flow import flow

WORLD = "scenes:frames=4,things=1-5,fps=12,backdrop=0.5"
PIXELS = 1250 * 256**2
"""Of the clips to learn from, a frame of each: what fits in memory."""
CHANGED = ("turn=3", "zoom_min=1", "zoom_max=1.15", "apart=0.25", "noise=0.2", "jitter=0.2")
"""Less than usual: these are to be learnt, and then some that are quite different."""
WAYS: dict[str, tuple[str, ...]] = {
    "flownets": ("backbone.width=16", "model.width=128"),
    "flownetc": ("backbone.width=16", "model.width=64", "reach=6", "step=1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("middlebury", type=Path)
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument(
        "--size", type=int, default=256, help="of drawn pictures, px; windows of 128 px are learnt from"
    )
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--keep", type=Path, help="where the runs are left")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    clips = PIXELS // args.size**2
    learn, new = (f"{WORLD},size={args.size},{which}" for which in (f"n={clips}", f"n=60,first={clips}"))
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="flow-") as scratch:
        for model in args.only.split(","):
            start, out = time.monotonic(), (args.keep or Path(scratch)) / model
            finetune(
                learn, out, task="flow", model=model, start="none", val=new, image_size=128, steps=args.steps,
                lr=args.lr, seed=args.seed, set=("gap=1-3", "unit=4", *CHANGED, *WAYS[model], *args.set),
            )  # fmt: skip
            seconds = time.monotonic() - start
            drawn = examine(out, new, gap="1-3").figures
            print(f"{model:<10} {seconds:.0f} s")
            tell("drawn", drawn)
            real = examine(out, str(args.middlebury))
            tell("Middlebury", real.figures)
            for k, name in enumerate(real.examples.annotated.pictures.ids):
                one = real.predictions[k]
                tell(f"  {name}", examine_one(one, real.truths[k]))
            found[model] = {"drawn": drawn, "middlebury": real.figures, "seconds": seconds}
            if args.json:
                args.json.write_text(json.dumps(found))


def examine_one(prediction: Any, truth: Any) -> dict[str, float]:
    return flow([(prediction.flow, *truth.motion)])


def tell(name: str, figures: dict[str, float]) -> None:
    shown = "  ".join(f"{key} {figures[key]:.2f}" for key in ("EPE", "EPE/hidden", "Fl", "zero") if key in figures)
    print(f"  {name:<14}{shown}", flush=True)


if __name__ == "__main__":
    main()
