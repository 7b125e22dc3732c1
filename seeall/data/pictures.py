"""A collection of pictures, found but not yet read: folders, manifests, videos, and the synthetic world.

`find("photos")` walks a folder and everything below it; `find("list.csv")` reads a manifest with a column
`path` and, where there are, `label`, `split` and any other metadata; `find("scenes:n=500")` is the synthetic world.
Sub-folder names are labels, and where the top folders are called train, val, test they are splits. A video, in a
folder without pictures or in a manifest, stands for frames of it.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from seeall.console import log
from seeall.data import keyed, video
from seeall.data.decode import EXTENSIONS, Pixels, decode
from seeall.types import SeeallError

T = TypeVar("T")

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MANIFESTS = (".txt", ".csv", ".parquet")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """n pictures in a fixed order.

    source: what the user typed · ids: n unique names, relative to the source · keys: n things that `reader`
    turns into pixels · labels, splits: n names or None · metadata: n dictionaries or None · root: the folder that
    was given, None where there is none · moments: n names of clips and seconds within them, or None where `clips`
    is to tell from the keys · sound: key, seconds and rate in Hz → what it sounds like, (samples,), or None where
    `hearing` is to tell
    """

    source: str
    ids: Sequence[str]
    keys: Sequence[Any]
    reader: Callable[[Any, int | None], Pixels]
    labels: Sequence[str] | None = None
    splits: Sequence[str | None] | None = None
    metadata: Sequence[dict[str, Any]] | None = None
    root: Path | None = None
    moments: Sequence[tuple[str, float]] | None = None
    sound: Callable[[Any, float, int], NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int, shortest: int | None = None) -> Pixels:
        """Pixels (H, W, 3) uint8 of picture i; see `decode` for `shortest`. Raises Unreadable."""
        return self.reader(self.keys[i], shortest)

    def subset(self, rows: Sequence[int]) -> Pictures:
        """The pictures at `rows`, in that order."""

        def take(column: Sequence[T]) -> list[T]:
            return [column[i] for i in rows]

        return dataclasses.replace(
            self,
            ids=take(self.ids),
            keys=take(self.keys),
            labels=self.labels and take(self.labels),
            splits=self.splits and take(self.splits),
            metadata=self.metadata and take(self.metadata),
            moments=self.moments and take(self.moments),
        )

    def split(self, name: str) -> Pictures:
        """The pictures of one split; empty where there is none of that name."""
        return self.subset([i for i, s in enumerate(self.splits or []) if s == name])

    def limit(self, n: int, seed: int = 0) -> Pictures:
        """At most n pictures, drawn by seed, as many of each label as can be; in their old order."""
        if n < 1:
            raise SeeallError(f"--limit {n}: want at least 1 picture")
        if n >= len(self):
            return self
        order = keyed.permutation(len(self), seed, 0x11A17).tolist()
        turn: dict[str, int] = {}
        ranked = []
        for place, i in enumerate(order):
            label = self.labels[i] if self.labels else ""
            turn[label] = turn.get(label, 0) + 1
            ranked.append((turn[label], place, i))
        return self.subset(sorted(i for _, _, i in sorted(ranked)[:n]))

    def classes(self) -> list[str]:
        """The different labels, sorted; empty where there are none."""
        return sorted(set(self.labels or ()))

    def targets(self) -> torch.Tensor:
        """(n,) int64: each picture's place in `classes()`. Raises SeeallError where pictures have no labels."""
        if self.labels is None:
            raise SeeallError(
                f"{self.source}: no labels found, or one alone; give each class a sub-folder or a manifest a column "
                "'label'"
            )
        place = {name: i for i, name in enumerate(self.classes())}
        return torch.tensor([place[name] for name in self.labels], dtype=torch.int64)

    def fingerprint(self) -> str:
        """A digest of what the pictures are: ids, file sizes and labels."""
        first = self.keys[0][0] if type(self.keys[0]) is tuple else self.keys[0]
        digest = hashlib.sha256(b"" if isinstance(first, (str, video.Frame)) else self.source.encode())
        for i, key in enumerate(self.keys):
            size = list(map(_weight, key)) if type(key) is tuple else _weight(key)  # of several frames, or one
            digest.update(f"{self.ids[i]}\0{size}\0{self.labels[i] if self.labels else ''}\n".encode(errors="replace"))
        return digest.hexdigest()[:16]


def _weight(key: Any) -> Any:
    """How large the file is that a picture is read from; else its key."""
    if isinstance(key, video.Frame):
        return key.video.size
    return os.stat(key).st_size if isinstance(key, str) and os.path.exists(key) else key  # noqa: PTH110, PTH116


def find(data: str, *, limit: int | None = None, seed: int = 0, rate: float = video.RATE) -> Pictures:
    """The pictures that `data` names: a folder, a manifest, one picture or video, or `scenes:…`.

    rate: frames a second that are taken of a video, its first one in any case; see `Video.frames`

    Raises: SeeallError where it does not exist or holds no picture, or holds videos and PyAV is missing.
    """
    if not data:
        raise SeeallError("no name of a folder, manifest or picture was given, but an empty one")
    path = Path(data).expanduser()
    if data == "scenes" or data.startswith("scenes:"):
        pictures = _scenes(data)
    elif path.is_dir():
        pictures = _folder(path, data)
    elif not path.exists() and (frame := video.named(str(path))):
        return Pictures(data, [f"{path.name}"], [frame], video.Reader())
    elif not path.exists():
        raise SeeallError(f"{data}: no such file or folder")
    elif not path.is_file():
        raise SeeallError(f"{data}: neither a file nor a folder")
    elif path.suffix.lower() in MANIFESTS:
        pictures = _manifest(path, data)
    elif path.suffix.lower() in EXTENSIONS or video.is_video(str(path)):
        pictures = Pictures(data, [path.name], [str(path)], decode)
    else:
        raise SeeallError(f"{data}: neither a folder, a manifest ({', '.join(MANIFESTS)}), a picture nor a video")
    pictures = _with_frames(pictures, rate)
    return pictures if limit is None else pictures.limit(limit, seed)


def _with_frames(pictures: Pictures, rate: float) -> Pictures:
    """The same with every video replaced by frames of it, which share its label, split and metadata."""
    moving = [i for i, key in enumerate(pictures.keys) if isinstance(key, str) and video.is_video(key)]
    if not moving:
        return pictures
    videos = video.probe_all([pictures.keys[i] for i in moving], [pictures.ids[i] for i in moving])
    frames = {i: found.frames(rate) for i, found in zip(moving, videos)}
    rows: list[int] = []
    ids: list[str] = []
    keys: list[Any] = []
    for i, key in enumerate(pictures.keys):
        here = frames.get(i, [])
        rows += [i] * max(1, len(here))
        ids += [frame.id for frame in here] or [pictures.ids[i]]
        keys += here or [key]
    return dataclasses.replace(pictures.subset(rows), ids=ids, keys=keys, reader=video.Reader())


def _walk(folder: str, seen: set[str]) -> Iterator[str]:
    """Files below `folder` in sorted order, links followed, each folder once, hidden ones left out."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as fault:
        raise SeeallError(f"{folder}: cannot be read: {fault.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            inner = entry.is_dir()
        except OSError:  # a link to itself
            continue
        if inner:
            yield from _walk(entry.path, seen)
        elif entry.is_file() or not os.path.exists(entry.path):  # noqa: PTH110 (no pipe, whose reader waits for ever)
            yield entry.path


def _folder(root: Path, source: str) -> Pictures:
    there = list(_walk(str(root), set()))
    videos = [f for f in there if video.is_video(f)]
    files = [f for f in there if os.path.splitext(f)[1].lower() in EXTENSIONS]  # noqa: PTH122
    if files and videos:
        log.warning(
            "%s: %s beside the pictures left out; to use them, give a folder without pictures or a manifest",
            source, "1 video" if len(videos) == 1 else f"{len(videos)} videos",
        )  # fmt: skip
    files = files or videos
    if not files:
        raise SeeallError(
            f"{source}: no pictures in it or below, and no videos; looked for "
            f"{', '.join(sorted(EXTENSIONS)[:8])}, … and {', '.join(sorted(video.EXTENSIONS)[:8])}, …"
        )
    start = len(str(root).rstrip(os.sep)) + 1 if str(root) != os.sep else 1
    ids = [f[start:] for f in files]
    parts = [Path(i).parts[:-1] for i in ids]
    tops = {p[0].lower() for p in parts if p}
    split = all(parts) and len(tops) > 1 and tops <= SPLITS.keys()
    labels = ["/".join(p[1:] if split else p) or "." for p in parts]
    return Pictures(
        source, ids, files, decode,
        labels=labels if len(set(labels)) > 1 else None,
        splits=[SPLITS[p[0].lower()] for p in parts] if split else None,
        root=root,
    )  # fmt: skip


def manifest_rows(path: Path) -> list[dict[str, Any]]:
    """A manifest's rows as dictionaries that hold at least `path`."""
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        elif path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [{k: v for k, v in row.items() if k is not None} for row in csv.DictReader(file)]
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            rows = [{"path": line.strip()} for line in lines if line.strip() and not line.startswith("#")]
    except (OSError, ValueError, csv.Error) as fault:
        raise SeeallError(f"{path}: cannot be read as a manifest: {str(fault).splitlines()[0]}") from None
    if rows and "path" not in rows[0]:
        raise SeeallError(f"{path}: a manifest needs a column 'path'; it has {', '.join(map(str, rows[0]))}")
    return rows


def _manifest(path: Path, source: str) -> Pictures:
    rows = manifest_rows(path)
    if not rows:
        raise SeeallError(f"{source}: the manifest lists no pictures")
    ids = [str(row.pop("path")) for row in rows]
    twice = next((name for name, times in Counter(ids).items() if times > 1), None)
    if twice is not None:
        raise SeeallError(f"{source}: {twice!r} is listed more than once; list each picture once")
    labels = [row.pop("label", None) for row in rows]
    bare = [name for name, label in zip(ids, labels) if label in (None, "")]
    if 0 < len(bare) < len(ids):
        log.warning(
            "%s: labels are not used, as the column 'label' is empty for %s%s; fill it in, or leave them out",
            source, ", ".join(bare[:3]), f" and {len(bare) - 3} more" if len(bare) > 3 else "",
        )  # fmt: skip
    splits = [row.pop("split", None) for row in rows]
    return Pictures(
        source, ids, [str(path.parent / i) for i in ids], decode,
        labels=[str(name) for name in labels] if all(name not in (None, "") for name in labels) else None,
        splits=[SPLITS.get(str(s).lower()) for s in splits] if any(splits) else None,
        metadata=rows if rows[0] else None,
    )  # fmt: skip


def _scenes(source: str) -> Pictures:
    from seeall.data import scenes

    world = scenes.parse(source)
    rows = range(len(world))
    name = f"scenes-{world.seed}" if world.seed else "scenes"  # two worlds can then share an index
    moments = [(clip.replace("scenes", name, 1), seconds) for clip, seconds in map(world.moment, rows)]
    return Pictures(
        source,
        [world.id(i).replace("scenes", name, 1) for i in rows],
        rows,
        lambda i, _: world.image(i),
        labels=[world.label(i) for i in rows],
        moments=moments if world.frames > 1 else None,
        sound=world.sound,
    )
