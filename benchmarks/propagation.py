"""Few masks for many frames: masks carried to the frames beside them, and from the first frame to all others.

    python benchmarks/propagation.py --what learn [--flow RUN] [--from RUN] [--seeds 0] [--steps 400] [--json FILE]
    python benchmarks/propagation.py --what follow --davis DAVIS --from RUN [--flow RUN] [--json FILE]

`learn`: clips of the synthetic world, every tenth frame has a mask. A plain pyramid over the backbone of --from, else
over a ResNet-18 from nothing, learns from these frames alone, and from those up to 4 frames away as well, whose masks
are told by flow or by likeness; with cross-entropy, and with relaxed edges; as many steps for all. mIoU of all frames
of these clips, and of new ones.
`follow`: DAVIS is a folder with NAME/frames and NAME/masks. The first mask of each clip is carried through it, by
likeness of what the backbone of --from sees, and by the flow of --flow; J, beside the first mask kept as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from seeall.console import log
from seeall.data.motion.masked import by_clip, find_masked
from seeall.heads.examine import examine
from seeall.heads.finetune import finetune
from seeall.heads.video.propagate import propagate
from seeall.heads.video.spread import mask_of
from seeall.metrics.video import region_similarity

WORLD = "scenes:size=64,frames=21,fps=16,things=1-3"
LEARN, NEW = f"{WORLD},n=40", f"{WORLD},n=12,first=40"
REACH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("learn", "follow"), default="learn")
    parser.add_argument("--davis", type=Path)
    parser.add_argument("--from", dest="start", default="")
    parser.add_argument("--flow", default="")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    log.setLevel("ERROR")
    with tempfile.TemporaryDirectory(prefix="propagation-") as scratch:
        found = learn(args, Path(scratch)) if args.what == "learn" else follow(args, Path(scratch))
    if args.json:
        args.json.write_text(json.dumps(found))


def learn(args: argparse.Namespace, scratch: Path) -> dict[str, list[float]]:
    told = {"frames with a mask": (), "true flow": (f"reach={REACH}", "by=true")}
    told |= {"flow": (f"reach={REACH}", f"by={args.flow}")} if args.flow else {}
    told |= {"likeness": (f"reach={REACH}", f"by={args.start}")} if args.start else {}
    found: dict[str, list[float]] = {}
    for way, settings in told.items():
        for loss in ("cross-entropy", "relaxed"):
            begun, key = time.monotonic(), f"{way}, {loss}"
            for seed in map(int, args.seeds.split(",")):
                finetune(
                    LEARN, scratch / "run", task="video-segmentation", model="fpn",
                    start=args.start or "none", image_size=64, steps=args.steps, batch_size=8, lr=args.lr,
                    seed=seed, val=NEW, set=("every=10", f"loss={loss}", *settings), overwrite=True,
                )  # fmt: skip
                for data, name in ((LEARN, "these clips"), (NEW, "new ones")):
                    figures = examine(scratch / "run", data).figures
                    found.setdefault(f"{key}, {name}", []).append(figures["mIoU"])
            seconds = time.monotonic() - begun
            shown = "  ".join(f"{name} {_figure(found[f'{key}, {name}'])}" for name in ("these clips", "new ones"))
            print(f"{key:<36} mIoU of {shown}   {seconds:.0f} s", flush=True)
    return found


def _figure(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def follow(args: argparse.Namespace, scratch: Path) -> dict[str, dict[str, float]]:
    whole, kept = find_masked(str(args.davis)), dict[str, float]()
    for clip, rows in by_clip(whole).items():
        first = mask_of(whole, rows[0])
        kept[f"J/{clip}"] = region_similarity([(first, mask_of(whole, row)) for row in rows[1:]], [1]) or 0.0
    found = {"first mask kept": {"J": statistics.mean(kept.values()), **kept}}
    tell("first mask kept", found["first mask kept"])
    for name, run in (("likeness", args.start), ("flow", args.flow)):
        if run:
            begun = time.monotonic()
            found[name] = propagate(str(args.davis), scratch / name, by=run, every=0)
            tell(f"{name}, {time.monotonic() - begun:.0f} s", found[name])
    return found


def tell(name: str, figures: dict[str, float]) -> None:
    print(f"{name:<24}" + "  ".join(f"{k} {v:.1f}" for k, v in figures.items() if k.startswith("J")), flush=True)


if __name__ == "__main__":
    main()
