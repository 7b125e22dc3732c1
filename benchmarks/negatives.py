"""Is it worth choosing negatives? SimCLR on CIFAR-10 with all, reweighted, and neighbours.

    python benchmarks/negatives.py CIFAR [--seeds 2] [--epochs 10] [--only all,neighbours]

CIFAR is a folder with train/CLASS/* and test/CLASS/*. ResNet-18 with its usual stem at 32 px on 1,000 pictures a class,
otherwise `ssl pretrain` as a newcomer types it; the 20 nearest neighbours (T 0.1) of 200 test pictures a class among
those learnt from, percent, and the time that each takes beside `all`. The runs of a seed follow each other. About
35 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from pretrain import seen_by, some  # beside this file

from seeall.console import log
from seeall.index.nearest import nearest
from seeall.ssl.pretrain import pretrain
from seeall.training.embed import Eye

WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "all": ("all", ()),
    "all, decoupled": ("all", ("decoupled=on",)),
    "reweighted": ("reweighted", ()),
    "reweighted, debiased": ("reweighted", ("tau_plus=0.1",)),
    "neighbours": ("neighbours", ("every=3",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", default=",".join(("all", "reweighted", "neighbours")))
    args = parser.parse_args()
    log.setLevel("ERROR")
    train, test = some(args.cifar / "train", 1000), some(args.cifar / "test", 200)
    found: dict[str, list[float]] = {}
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "train.txt"
        manifest.write_text("\n".join(str(Path(key).absolute()) for key in train.keys))
        for seed in range(args.seeds):
            for way in args.only.split(","):
                negatives, extra = WAYS[way]
                start = time.perf_counter()
                pretrain(
                    str(manifest), Path(folder) / "run", negatives=negatives, set=extra, epochs=args.epochs, seed=seed,
                    search=nearest, overwrite=True,
                )  # fmt: skip
                taken.setdefault(way, []).append(time.perf_counter() - start)
                found.setdefault(way, []).append(seen_by(Eye.of(Path(folder) / "run"), train, test))
                print(f"seed {seed}  {way:<22} knn20 {found[way][-1]:.2f}  {taken[way][-1]:.0f} s", flush=True)
    for way, figures in found.items():
        ratio = statistics.median(t / b for t, b in zip(taken[way], taken["all"])) if "all" in taken else float("nan")
        print(f"{way:<22} knn20 {statistics.mean(figures):.2f}  of {figures}  time {ratio:.3f} of all")


if __name__ == "__main__":
    main()
