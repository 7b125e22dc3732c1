"""Claim: reading a video frame by frame costs what decoding it once costs, and any frame can be had at once, exactly.

    python benchmarks/video.py [FOLDER] [--rounds 5] [--clips 1000] [--json]      half a minute on two idle cores

FOLDER holds videos; without one, six of 640 x 360 px with 240 frames each are made first, in a temporary folder. All
is one thread. `plain` is the shortest loop that turns every frame of a file into RGB with PyAV, one file after another,
with one converter for all. `in order` reads every frame of every file through `seeall.data.video.Reader`, `at random`
reads `--reads` frames of any file, each found from the key frame before it. They take turns, so that other work on the
machine falls on all; the table shows medians. `equal` is the share of frames, in order and at random, that are byte for
byte those of a plain decode.

Then the first file is opened under `--clips` names, and two frames read from each, the later one first. The last line
says how many more files are open at the end, and how much more memory is resident, than after a tenth of that.
Python's collector is off, so that nothing is put right late.

Expect in order 0.9 to 1.05 times the speed of plain, `equal` exactly 1, no file left open, and less than 2 MB. What
at random costs is how far key frames are apart: the videos made here have one every 48 frames, of which half are
decoded, on average, for one that is read. Clips of two seconds mostly have one key frame, their first.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from seeall.data.video import Frame, Reader, Video, is_video, probe

FILES, FRAMES, HEIGHT, WIDTH, GROUP = 6, 240, 360, 640, 48


def make(path: Path, seed: int) -> Path:
    """A smooth coloured field that drifts, with B-frames."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 26, 3), dtype=np.uint8)
    field = np.asarray(av.VideoFrame.from_ndarray(coarse).reformat(2 * WIDTH, 2 * HEIGHT).to_ndarray(format="rgb24"))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, options={"g": str(GROUP), "bf": "2"})
        stream.width, stream.height, stream.bit_rate = WIDTH, HEIGHT, 2_000_000
        for i in range(FRAMES):
            x, y = (i * 2) % WIDTH, i % HEIGHT
            view = np.ascontiguousarray(field[y : y + HEIGHT, x : x + WIDTH])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(view)))
        out.mux(stream.encode())
    return path


def plain(path: str) -> Iterator[np.ndarray]:
    """All frames of a file, (H, W, 3) each."""
    converter = av.video.reformatter.VideoReformatter()
    with av.open(path) as file:
        file.streams.video[0].thread_type = "NONE"
        for frame in file.decode(video=0):
            yield converter.reformat(frame, format="rgb24", threads=1).to_ndarray()


def clock(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(videos: list[Video], rounds: int, reads: int) -> dict[str, float]:
    """Frames a second of the three ways, and how many frames are equal."""
    draw = random.Random(0)
    anywhere = [Frame(video, draw.randrange(len(video))) for video in draw.choices(videos, k=reads)]
    total = sum(len(video) for video in videos)

    def all_plain() -> None:
        for video in videos:
            for _ in plain(video.path):
                pass

    def all_ours() -> None:
        reader = Reader()
        for video in videos:
            for frame in video.frames():
                reader(frame)

    def some_ours() -> None:
        reader = Reader()
        for frame in anywhere:
            reader(frame)

    ways = {"plain": (all_plain, total), "in_order": (all_ours, total), "at_random": (some_ours, reads)}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):
        for name, (work, frames) in ways.items():
            seconds = clock(work)
            if turn >= 0:
                taken[name].append(frames / seconds)
    ratios = [a / b for a, b in zip(taken["in_order"], taken["plain"])]
    return {
        **{name: statistics.median(rates) for name, rates in taken.items()},
        "in_order_of_plain": statistics.median(ratios),
        "equal": equal(videos, anywhere),
    }


def equal(videos: list[Video], anywhere: list[Frame]) -> float:
    """Share of frames, in order and at random, whose bytes are those of a plain decode."""
    same = asked = 0
    for video in videos:
        with av.open(video.path) as file:
            truth = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        frames = video.frames() + [frame for frame in anywhere if frame.video is video]
        reader = Reader()
        same += sum(np.array_equal(reader(frame), truth[frame.number]) for frame in frames)
        asked += len(frames) + len(truth) - len(video)
    return same / asked


def leak(path: str, clips: int) -> dict[str, float]:
    """What is open and resident after many clips, beyond what it was after a tenth of them."""

    def look(name: Path) -> None:
        video = probe(str(name))
        reader(Frame(video, len(video) // 2))
        reader(Frame(video, 0))

    def held() -> tuple[int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return len(list(Path("/proc/self/fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE")

    reader = Reader()
    gc.disable()
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / f"{i}{Path(path).suffix}" for i in range(clips)]
        for i, name in enumerate(names):
            name.symlink_to(path)
            look(name)
            if i == clips // 10:
                files, memory = held()
        after_files, after_memory = held()
    gc.enable()
    return {"clips": clips, "files": after_files - files, "mb": (after_memory - memory) / 1e6}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the table."""
    with tempfile.TemporaryDirectory() as made:
        if options.folder:
            paths = sorted(p for p in options.folder.rglob("*") if is_video(str(p)))
        else:
            paths = [make(Path(made) / f"{i}.mp4", seed=i) for i in range(FILES)]
        videos: list[Video] = []
        seconds = clock(lambda: videos.extend(probe(str(path.resolve())) for path in paths))
        return {
            "videos": len(videos), "frames": sum(map(len, videos)), "probe_ms": 1e3 * seconds / len(videos),
            **speed(videos, options.rounds, options.reads), **leak(videos[0].path, options.clips),
        }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{report['videos']} videos, {report['frames']} frames; listing one takes {report['probe_ms']:.1f} ms"]
    lines += [f"{'':<12}{'frames/s':>10}{'of plain':>10}"]
    for name in ("plain", "in_order", "at_random"):
        ratio = report["in_order_of_plain"] if name == "in_order" else report[name] / report["plain"]
        lines.append(f"{name.replace('_', ' '):<12}{report[name]:>10.0f}{ratio:>10.2f}")
    lines.append(f"equal {report['equal']:.6g}")
    lines.append(f"{report['clips']} clips: {report['files']} more files open, {report['mb']:.1f} MB more memory")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", help="videos, here and below; made where none is given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=200, help="frames read at random")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    report = measure(options)
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
