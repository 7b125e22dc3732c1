"""Claim: on two cores a video costs less: 1.6 times the frames with two threads, and only what changes is computed.

    python benchmarks/cheap_video.py --what parallel                15 minutes on two idle cores, 10 of them learning
    python benchmarks/cheap_video.py --what skip --davis DAVIS      35 minutes, 20 of them learning
    python benchmarks/cheap_video.py --what still                   a minute after learning; --runs FOLDER keeps heads

A U-Net on a ResNet-18 learns for `--steps` steps to name the pixels of clips of the synthetic world, at 256 px, from
nothing or from `--start`, and then sees clips that are new to it. Ways take turns, `--rounds` times, so that other work
on the machine falls on all; frames a second are medians. Frames are in memory; resizing them and reading the answer off
the logits count, for every way.

`parallel`: the network frame by frame, on one thread and on all; a frame on each core, which is what the cores have to
give; and cut in `--parts` parts that work at once, on cores / parts threads each, with connections that wait and with
ones that carry the newest (`seeall.heads.video.parallel`). Latency, in ms, is from when a frame is asked for to when
its answer comes, the median.
mIoU is against the truth of the answer's own frame, and against that of the frame that is on the screen, the last one
asked for, when the answer comes.

`skip`: every 2nd, 3rd or 4th frame seen and the others moved along (`seeall.heads.video.keys`), and by threshold what
has changed (`seeall.heads.video.skip`), on the same clips, on one frame a hundred times, and on each folder NAME of
DAVIS, which has frames/*.jpg and masks/*.png, of 0 and 255: frames a second and how many times those of the network
itself, the share that went through the network, mIoU against what the network itself says and against the truth (for
DAVIS, J: the IoU of the thing). A second head learns thing and background on the first half of all DAVIS clips, at
240 px, and sees the other halves.

Expect of two parts on two idle cores 1.6 times the frames a second of one thread at the least, with connections that
wait the same mIoU on its own frame, and on a still video 10 times the frames and more. On DAVIS, whose cameras move,
the bar is twice the frames for one point of J.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seeall.console import log
from seeall.data.annotations.examples import load
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.truth import Truth
from seeall.data.decode import decode
from seeall.data.pixels import cores
from seeall.heads import build
from seeall.heads.finetune import finetune
from seeall.heads.prediction import Prediction
from seeall.heads.video.parallel import Parallel
from seeall.heads.video.watch import Ahead, Reused

Clip = tuple[list[Tensor], list[Truth]]
"""Frames (3, H, W) uint8, and the truth about each."""
Said = list[Prediction]
STILL = 100


def learn(data: str, out: Path, options: argparse.Namespace, size: int, val: str | None = None) -> Path:
    """A head that names pixels, in `out`; as it is where there is one."""
    if not (out / build.HEAD_FILE).exists():
        finetune(
            data, out, task="segmentation", model=options.model, start=options.start, backbone=options.backbone,
            val=val, image_size=size, steps=options.steps, lr=options.lr, overwrite=out.exists(),
        )  # fmt: skip
    return out


def scenes(options: argparse.Namespace) -> tuple[Path, list[Clip]]:
    """The head of the synthetic world, and clips that are new to it."""
    world = f"scenes:size={options.size},frames={options.frames},fps={options.fps},things=1-5"
    new = f"{world},n={options.clips},first={options.learn}"
    run = learn(
        f"{world},n={options.learn}", options.runs / "scenes", options, options.size, f"{world},n=4,first=90000"
    )
    examples = load(find_annotated(new, "segmentation"), None)
    every = [(examples[i].pixels, examples[i].truth) for i in range(len(examples))]
    clips = [every[k : k + options.frames] for k in range(0, len(every), options.frames)]
    return run, [([x for x, _ in clip], [truth for _, truth in clip]) for clip in clips]


def davis(options: argparse.Namespace) -> tuple[Path, dict[str, Clip]]:
    """The head that learnt the first half of each clip, and the second halves."""
    data, halves = options.runs / "davis-data", defaultdict[str, list[str]](list)
    for folder in sorted(path for path in options.davis.iterdir() if (path / "masks").is_dir()):
        masks = sorted((folder / "masks").glob("*.png"))
        for k, mask in enumerate(masks):
            half, name = "train" if k < len(masks) // 2 else "val", f"{folder.name}-{mask.stem}"
            for kind, file in (("images", folder / "frames" / f"{mask.stem}.jpg"), ("masks", mask)):
                (data / half / kind).mkdir(parents=True, exist_ok=True)
                place = data / half / kind / f"{name}{file.suffix}"
                if not place.exists():
                    place.symlink_to(file.resolve())
            if half == "val":
                halves[folder.name].append(name)
    run = learn(str(data / "train"), options.runs / "davis", options, 240, str(data / "val"))
    examples = load(find_annotated(str(data / "val"), "segmentation"), None)
    row = {Path(name).stem: i for i, name in enumerate(examples.annotated.pictures.ids)}
    clips: dict[str, Clip] = {}
    for name, frames in halves.items():
        frames = frames[: options.limit]
        pixels = [decode(str(data / "val" / "images" / f"{frame}.jpg")) for frame in frames]
        shown = [torch.from_numpy(np.array(one)).movedim(-1, 0).contiguous() for one in pixels]
        clips[name] = shown, [examples[row[frame]].truth for frame in frames]
    return run, clips


def clock(run: Callable[[Iterable[Tensor]], Iterator[Prediction]], frames: Sequence[Tensor]) -> tuple[Said, Any]:
    """What is said; seconds, the median ms from frame to answer, and the frame on the screen at each answer."""
    asked: list[float] = []

    def coming() -> Iterator[Tensor]:
        for frame in frames:
            asked.append(time.perf_counter())
            yield frame

    said, late, screen = Said(), [], []
    start = time.perf_counter()
    for k, one in enumerate(run(coming())):
        late.append(1e3 * (time.perf_counter() - asked[k]))
        screen.append(len(asked) - 1)
        said.append(one)
    return said, (time.perf_counter() - start, statistics.median(late), screen)


def plainly(head: Any, threads: int) -> Callable[[Iterable[Tensor]], Iterator[Prediction]]:
    """Frame by frame."""

    def see(frames: Iterable[Tensor]) -> Iterator[Prediction]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        for frame in frames:
            yield from head.predict([frame])
        torch.set_num_threads(before)

    return see


def copies(head: Any, threads: int) -> Callable[[Iterable[Tensor]], Iterator[Prediction]]:
    """Whole frames, one on each thread: what the cores have to give."""

    def see(frames: Iterable[Tensor]) -> Iterator[Prediction]:
        with ThreadPoolExecutor(threads, "frame", torch.set_num_threads, (1,)) as pool:
            yield from pool.map(lambda frame: head.predict([frame])[0], frames)

    return see


def score(head: Any, said: Said, truths: Sequence[Truth]) -> float:
    """mIoU; where there are two classes, the IoU of the second one, which DAVIS calls J, all frames together; 100 where
    neither says that there is any. Percent."""
    told = head.judge(zip(said, truths))
    return float(told.get(f"iou/{head.classes[1]}", 100.0) if len(head.classes) == 2 else told["mIoU"])


def alike(head: Any, said: Said, wanted: Said) -> float:
    """As `score`, against what another one said."""
    return score(head, said, [Truth(semantic=one.semantic) for one in wanted])


def parallel(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way."""
    run, clips = scenes(options)
    head: Any = build.load(run)[0].cpu()
    ways: dict[str, Any] = {f"{n} thread{'s' * (n > 1)}": plainly(head, n) for n in dict.fromkeys([1, cores()])}
    ways[f"{cores()} frames at once"] = copies(head, cores())
    for parts in options.parts:
        for wait in (True, False):
            ways[f"{parts} parts, {'wait' if wait else 'newest'}"] = Ahead(head, "segmentation", parts, wait=wait)
    for way in ways.values():
        list(way(clips[0][0][:4]))  # what is traced once for all frames of a size is not counted
    rates: dict[str, list[float]] = defaultdict(list)
    late: dict[str, list[float]] = defaultdict(list)
    own, screen = defaultdict[str, Said](list), defaultdict[str, list[Truth]](list)
    for turn in range(options.rounds):
        for name, way in ways.items():
            seconds = 0.0
            for frames, truths in clips:
                said, (took, ms, seen) = clock(way, frames)
                seconds += took
                late[name].append(ms)
                if not turn:
                    own[name] += said
                    screen[name] += [truths[k] for k in seen]
            rates[name].append(sum(len(frames) for frames, _ in clips) / seconds)
    truths = [truth for _, truth in clips for truth in truth]
    first = next(iter(ways))
    shares = {p.run.parts: _balance(p.run) for p in ways.values() if isinstance(p, Ahead)}
    log.warning("the dearest part's share of the cost, as estimated: %s", shares)
    return [
        {
            "way": name, "frames_per_second": statistics.median(rates[name]),
            "times": statistics.median(a / b for a, b in zip(rates[name], rates[first])),
            "ms": statistics.median(late[name]), "mIoU": score(head, own[name], truths),
            "mIoU_on_screen": score(head, own[name], screen[name]),
        }
        for name in ways
    ]  # fmt: skip


def _balance(run: Parallel) -> float:
    costs = [part.cost for part in run._cut]
    return round(max(costs) / sum(costs), 3)


def skip(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each set of clips and threshold."""
    run, clips = scenes(options)
    rows: list[dict[str, Any]] = []
    if options.what == "skip":
        rows += by_threshold("scenes", run, clips, options)
    frames, truths = clips[0]
    rows += by_threshold("still", run, [(frames[:1] * STILL, truths[:1] * STILL)], options)
    if options.what == "skip" and options.davis:
        head, halves = davis(options)
        for name, clip in halves.items():
            rows += by_threshold(name, head, [clip], options)
    return rows


def by_threshold(name: str, run: Path, clips: list[Clip], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The network itself, keys, and each threshold."""
    head: Any = build.load(run)[0].cpu()
    settings = {"halo": options.halo, "most": options.most}
    ways: dict[str, Any] = {"none": plainly(head, torch.get_num_threads())}
    for every in options.keys:
        ways[f"key {every}"] = Reused(copy.deepcopy(head), "segmentation", keys=every)
    for threshold in options.thresholds:
        ways[f"{threshold:g}"] = Reused(copy.deepcopy(head), "segmentation", threshold=threshold, **settings)
    rates: dict[str, list[float]] = defaultdict(list)
    said: dict[str, Said] = defaultdict(list)
    for turn in range(options.rounds):
        for way, see in ways.items():
            told = [clock(see, frames) for frames, _ in clips]
            rates[way].append(sum(len(frames) for frames, _ in clips) / sum(took for _, (took, *_) in told))
            if not turn:
                said[way] = [one for some, _ in told for one in some]
    truths = [truth for _, some in clips for truth in some]
    return [
        {
            "clips": name, "way": way, "frames_per_second": statistics.median(rates[way]),
            "times": statistics.median(a / b for a, b in zip(rates[way], rates["none"])),
            "computed": see.facts()["computed"] if isinstance(see, Reused) else 1.0,
            "of_network": alike(head, said[way], said["none"]), "of_truth": score(head, said[way], truths),
        }
        for way, see in ways.items()
    ]  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """For a person."""
    words = {name: max([len(name), *(len(str(row[name])) for row in rows)]) for name in rows[0] if _is_word(rows, name)}
    lines = [
        "  ".join(f"{name:<{words[name]}}" if name in words else f"{name:>{max(8, len(name))}}" for name in rows[0])
    ]
    for row in rows:
        cells = (
            f"{value:<{words[name]}}"
            if name in words
            else f"{value:>{max(8, len(name))}.{3 if name == 'computed' else 2}f}"
            for name, value in row.items()
        )
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _is_word(rows: list[dict[str, Any]], name: str) -> bool:
    return isinstance(rows[0][name], str)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["parallel", "skip", "still"], required=True)
    parser.add_argument("--davis", type=Path, help="folders of frames/ and masks/")
    parser.add_argument(
        "--runs", type=Path, help="where heads are kept, and taken from; a temporary folder if not given"
    )
    parser.add_argument("--model", default="unet")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--start", default="none", help="what the backbone begins with, as for ssl finetune --from")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--size", type=int, default=256, help="of scenes, px")
    parser.add_argument("--frames", type=int, default=12, help="of each clip of scenes")
    parser.add_argument("--fps", type=float, default=12, help="of scenes")
    parser.add_argument("--learn", type=int, default=60, help="clips of scenes to learn from")
    parser.add_argument("--clips", type=int, default=10, help="clips of scenes to see")
    parser.add_argument("--parts", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.03, 0.1, 0.2])
    parser.add_argument("--keys", type=int, nargs="*", default=[2, 3, 4], help="one of so many frames is seen")
    parser.add_argument("--halo", type=int, default=32, help="px")
    parser.add_argument("--most", type=float, default=0.7, help="share of a picture above which all is seen")
    parser.add_argument("--limit", type=int, help="frames of each clip of DAVIS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cheap-video-") as scratch:
        options.runs = options.runs or Path(scratch)
        rows = parallel(options) if options.what == "parallel" else skip(options)
    print(json.dumps(rows) if options.json else table(rows))


if __name__ == "__main__":
    main()
