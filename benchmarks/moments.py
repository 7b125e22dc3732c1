"""Which moment of which clip? Frames that belong together in time, beside views of single frames, from the same frames.

    python benchmarks/moments.py DAVIS [--seeds 3]

DAVIS is a folder of clips, NAME/frames/*.jpg, 24 a second. Learnt from and tested on: DAVIS; and the synthetic world,
tested on clips of other objects, 8 frames a second. Two measures, of features, by cosine, percent:

    clip      the nearest frame that is not within 1 s of the query is of its clip
    moment    the nearest frame, none within 0.25 s being counted, is of its clip and within 1 s

Rows: raw pixels, untrained, `--positives views`, `--positives time` with two views of each frame, both with as many
rows a step and as many steps. About half an hour on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from seeall.console import log
from seeall.data.clips import Clips, clips
from seeall.data.pictures import Pictures, find
from seeall.ssl.pretrain import pretrain
from seeall.training.embed import Eye, squares

SIZE, FPS = 32, 24.0
LEARN = "scenes:n=120,frames=12,fps=8,size=32,identities=120"
UNSEEN = "scenes:n=60,frames=12,fps=8,size=32,identities=60,first_identity=120"
COMMON = ("crop_min=0.4", "temperature=0.2")


def measured(z: Tensor, where: Clips) -> tuple[float, float]:
    """Shares, percent, of the two measures; frames without a right answer are left out."""
    z = F.normalize(z, dim=1)
    same = where.clip[:, None] == where.clip
    apart = (where.seconds[:, None] - where.seconds).abs()

    def share(counted: Tensor, right: Tensor) -> float:
        able = (counted & right).any(1)
        nearest = (z @ z.T).masked_fill(~counted, -2).argmax(1, keepdim=True)
        return 100 * float(right.gather(1, nearest)[able].double().mean())

    return share(~same | (apart > 1), same), share(~same | (apart > 0.25), same & (apart <= 1))


def raw(pictures: Pictures) -> Tensor:
    pixels = torch.cat([part for _, part, _ in squares(pictures, SIZE)]).float().flatten(1)
    return pixels - pixels.mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    log.setLevel("ERROR")
    frames = Path(tempfile.mkdtemp(prefix="clips-"))  # without the masks, which are pictures too
    for clip in sorted(args.davis.resolve().iterdir()):
        (frames / clip.name).symlink_to(clip / "frames")
    for learn, test, epochs in ((str(frames), str(frames), 2 * args.epochs), (LEARN, UNSEEN, args.epochs // 2)):
        pictures = find(test)
        where = clips(pictures, FPS)
        print(f"{'DAVIS' if test == str(frames) else test}: {len(pictures)} frames of {len(where.names)} clips")
        tell("raw pixels", [measured(raw(pictures), where)])
        ways = {
            "untrained": {"positives": "views", "steps": 1, "lr": 1e-9},
            "views": {"positives": "views", "epochs": epochs},
            "time": {"positives": "time", "epochs": epochs, "set": ("views=2",)},
        }
        for name, chosen in ways.items():
            found = []
            for seed in range(args.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    extra = chosen.get("set", ())
                    pretrain(
                        learn, Path(folder) / "run", backbone=args.backbone, image_size=SIZE, batch_size=64, seed=seed,
                        **{**chosen, "set": (*COMMON, *extra)},
                    )  # fmt: skip
                    found.append(measured(Eye.of(Path(folder) / "run").see_all(pictures)[0], where))
            tell(name, found)


def tell(name: str, found: list[tuple[float, float]]) -> None:
    words = [f"{statistics.mean(c):6.2f} ± {statistics.stdev(c) if len(c) > 1 else 0:4.2f}" for c in zip(*found)]
    print(f"  {name:<12} clip {words[0]}   moment {words[1]}", flush=True)


if __name__ == "__main__":
    main()
