"""Pictures as pixels: read once and kept where they fit, read again for every crop where they do not.

A first pass reads every picture, so that damaged files are known before training starts. Pixels that fit into
the budget stay in memory, all of one size as one tensor on the device; otherwise the pass only checks, and
crops are cut from the files by `workers` threads (Pillow and torch release the interpreter while they decode
and resize; threads need no copies, so memory does not grow with workers).
"""

from __future__ import annotations

import collections
import contextlib
import csv
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from seeall.console import bar, log
from seeall.data.crops import crop_batch, crop_one
from seeall.data.decode import Pixels, Unreadable
from seeall.data.pictures import Pictures
from seeall.data.video import Frame
from seeall.types import SeeallError

S = TypeVar("S")
T = TypeVar("T")

MEMORY_SHARE = 0.25
"""The part of free memory that pixels may take."""

SKIPPED_SHARE = 0.05
"""The part of the pictures that may be unreadable before it is an error."""

NAMED = 5
"""Unreadable pictures that a message names; `skipped.csv` names all."""

_TOGETHER = (
    16  # pictures that a thread reads at a time: one by one, small ones would cost more to hand over than to read
)


class Store:
    """Readable pictures and what is kept of their pixels.

    pictures: those that can be read · skipped: (id, reason) of those that cannot
    sizes: (n, 2) int64, height and width in px of what `crop` cuts from
    """

    def __init__(
        self,
        pictures: Pictures,
        sizes: Tensor,
        skipped: Sequence[tuple[str, str]],
        kept: Tensor | list[Pixels] | None,
        shortest: int,
        workers: int,
    ) -> None:
        self.pictures, self.sizes, self.skipped = pictures, sizes, skipped
        self._kept, self._shortest, self._workers, self._device = kept, shortest, workers, torch.device("cpu")
        self._pool = None if isinstance(kept, Tensor) else ThreadPoolExecutor(max(1, workers), "pictures")

    def __len__(self) -> int:
        return len(self.pictures)

    def without(self, unfit: Sequence[tuple[int, str]]) -> Store:
        """The same pictures less those, (row, reason), that are to be skipped as well."""
        gone = dict(unfit)
        rows = [row for row in range(len(self)) if row not in gone]
        kept = [self._kept[row] for row in rows] if isinstance(self._kept, list) else self._kept
        return Store(
            self.pictures.subset(rows),
            self.sizes[rows],
            [*self.skipped, *((self.pictures.ids[row], why) for row, why in gone.items())],
            kept[rows] if isinstance(kept, Tensor) else kept,
            self._shortest,
            self._workers,
        )

    @property
    def resident(self) -> str:
        """Where the pixels are: "device", the one of `to`, or "memory" where they are kept, "files" where not."""
        if self._kept is None:
            return "files"
        return "device" if isinstance(self._kept, Tensor) and self._kept.device == self._device else "memory"

    @property
    def place(self) -> str:
        """The same in words."""
        on_gpu = isinstance(self._kept, Tensor) and self._kept.device.type == "cuda"
        return "GPU memory" if on_gpu else "files" if self._kept is None else "memory"

    def crop(self, rows: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
        """Cut V views of each of B pictures.

        rows: (B,) int64 · boxes: (V·B, 4) int64 x, y, w, h in px, all first views before all second ones ·
        flips: (V·B,) bool

        Returns: (V·B, 3, size, size), float32 in [0, 1] from a tensor on the device, else uint8.
        """
        if isinstance(self._kept, Tensor):
            return crop_batch(self._kept[rows.to(self._kept.device, non_blocking=True)], boxes, flips, size)
        assert self._pool is not None
        views = len(boxes) // len(rows)
        grid, turned = boxes.view(views, len(rows), 4).tolist(), flips.view(views, len(rows)).tolist()

        def cut(column: int) -> list[Tensor]:
            pixels = self._pixels(int(rows[column]))
            return [crop_one(pixels, grid[v][column], turned[v][column], size) for v in range(views)]

        cuts = list(self._pool.map(cut, range(len(rows))))
        return torch.stack([column[v] for v in range(views) for column in cuts])

    def middle(self, rows: Tensor, size: int) -> Tensor:
        """The largest square in the middle of each of B pictures, scaled: (B, 3, size, size), as `crop` gives it."""
        height, width = self.sizes[rows].unbind(1)
        side = torch.minimum(height, width)
        boxes = torch.stack([(width - side) // 2, (height - side) // 2, side, side], 1)
        return self.crop(rows, boxes, torch.zeros(len(rows), dtype=torch.bool), size)

    def _pixels(self, row: int) -> Pixels:
        if isinstance(self._kept, list):
            return self._kept[row]
        try:
            return self.pictures.read(row, self._shortest)
        except Unreadable as fault:
            raise SeeallError(
                f"{self.pictures.ids[row]}: was readable when training began, now {fault}; restore it and --resume"
            ) from None

    def to(self, device: torch.device) -> None:
        """Move pixels that are one tensor to `device`, if they take no more than their share of its memory."""
        self._device = device
        if isinstance(self._kept, Tensor) and device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self._kept.nbytes < free * MEMORY_SHARE:
                self._kept = self._kept.to(device)


def free_memory() -> int:
    """Bytes of main memory that a process can still take, a container's limit (cgroup v2) heeded."""
    free = 4 << 30  # where the system does not tell
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        told = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        used -= int(told["inactive_file"])  # files that were read, and that the kernel drops when it must
        free = min(free, int(limit) - used) if limit != "max" else free
    except (OSError, KeyError, ValueError):
        pass
    return free


def load(
    pictures: Pictures,
    *,
    shortest: int,
    budget: int | None = None,
    processes: int = 1,
    workers: int = 0,
    allow_skipped: bool = False,
) -> Store:
    """Read `pictures` once; keep their pixels if they fit.

    shortest: the shorter side, px, that crops need at most; see `decode`
    budget: bytes of pixels that may stay in memory; by default a quarter of what is free, shared by as many
        processes of this machine as do the same
    workers: threads that read; 0 takes one for each core

    Raises: SeeallError where nothing can be read, or more than a twentieth cannot and not `allow_skipped`.
    """
    room = int(free_memory() * MEMORY_SHARE / processes) if budget is None else budget
    good: list[int] = []
    skipped: list[tuple[str, str]] = []
    sizes: list[tuple[int, int]] = []
    pixels: list[Pixels] | None = []
    taken = 0
    with bar("reading pictures", len(pictures)) as progress:
        for i, result in enumerate(read_all(pictures, shortest, workers)):
            progress.update(1)
            if isinstance(result, Unreadable):
                skipped.append((pictures.ids[i], str(result)))
                continue
            good.append(i)
            sizes.append((result.shape[0], result.shape[1]))
            taken += result.nbytes
            if pixels is not None:
                pixels.append(result)
                pixels = pixels if taken <= room else None
    complain(pictures, skipped, allow_skipped)
    readable = pictures.subset(good) if skipped else pictures
    kept: Tensor | list[Pixels] | None = pixels
    if pixels is not None and len(set(sizes)) == 1:
        kept = torch.empty((len(pixels), 3, *sizes[0]), dtype=torch.uint8)
        for i in range(len(pixels)):
            kept[i] = torch.from_numpy(pixels[i].copy()).permute(2, 0, 1)
            pixels[i] = pixels[i][:0]  # one picture is in memory twice, not all of them
    return Store(readable, torch.tensor(sizes), skipped, kept, shortest, workers or cores())


def complain(pictures: Pictures, skipped: Sequence[tuple[str, str]], allowed: bool) -> None:
    """A note where a few pictures were skipped; SeeallError where all were, or too many."""
    if not skipped:
        return
    first = ", ".join(f"{name} ({why})" for name, why in skipped[:NAMED])
    more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    if len(skipped) == len(pictures):
        raise SeeallError(f"{pictures.source}: none of the {len(pictures)} pictures can be read; the first: {first}")
    videos = {key.video.path: key.video.why for key in pictures.keys if isinstance(key, Frame)}
    broken = [path for path, why in videos.items() if why]
    many = len(broken) > SKIPPED_SHARE * len(videos)  # a film counts as one, however many frames others have
    if (many or len(skipped) > SKIPPED_SHARE * len(pictures)) and not allowed:
        share = f"{len(broken)} of {len(videos)} videos" if many else f"{len(skipped)} of {len(pictures)} pictures"
        raise SeeallError(
            f"{pictures.source}: {share} cannot be read: {first}{more}; mend or remove them, or go on without them "
            "with --allow-skipped"
        )
    log.warning("skipped %d of %d pictures: %s%s", len(skipped), len(pictures), first, more)


def write_skipped(path: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """List what was skipped, and why, as a CSV file; none where nothing was."""
    if skipped:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerows([("path", "reason"), *skipped])


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_all(pictures: Pictures, shortest: int | None, workers: int) -> Iterator[Pixels | Unreadable]:
    """Every picture's pixels, in order, or why there are none. workers: threads that read; 0: one a core."""

    def read(rows: range) -> list[Pixels | Unreadable]:
        found: list[Pixels | Unreadable] = []
        for row in rows:
            try:
                found.append(pictures.read(row, shortest))
            except Unreadable as fault:
                found.append(fault)
        return found

    for some in in_order(read, stretches(len(pictures), _TOGETHER), workers or cores()):
        yield from some


def stretches(n: int, length: int) -> list[range]:
    """0 to n - 1 in ranges of `length`, the last one shorter.

    >>> stretches(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(first, min(first + length, n)) for first in range(0, n, length)]


def in_order(
    work: Callable[[S], T], items: Iterable[S], workers: int, begin: Callable[[], object] | None = None
) -> Iterator[T]:
    """`work(item)` of every item, in order, by threads that are at most two items each ahead of who takes them.

    begin: called once by every thread before its first item
    """
    with ThreadPoolExecutor(workers, "worker", begin) as pool:
        waiting: collections.deque[Future[T]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def background(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """The same items, made by a thread that is up to `depth` of them ahead."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    over = threading.Event()

    def put(item: tuple[T | None, BaseException | None]) -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put((item, None))
                if over.is_set():
                    return
            put((None, StopIteration()))
        except BaseException as fault:
            put((None, fault))

    thread = threading.Thread(target=work, name="background", daemon=True)
    thread.start()
    try:
        while True:
            item, fault = ready.get()
            if isinstance(fault, StopIteration):
                return
            if fault is not None:
                raise fault
            yield item  # type: ignore[misc]
    finally:
        over.set()
        thread.join()
