"""Pairs of a picture and what was heard with it: found, not yet read.

`pairs("list.csv")` reads a manifest with columns `path` and `sound`, and `label`, `split` where there are.
`pairs("digits")` looks in a folder for sub-folders `image` and `sound` whose files have the same names, be these
sub-folders at its top, below train, val, test or classes, or above them. What is left of the folders is split and
label, as in `pictures.find`.

Which samples of a sound are heard is `start`'s to say, and it does not know the picture. Arandjelović and Zisserman
(2018, "Objects that Sound", arXiv:1712.06651) found why: where the windows of positives begin at times of pictures
and those of negatives anywhere, a network learns to hear where a window begins and ignores the picture.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from torch import Tensor

from seeall.data import keyed
from seeall.data.decode import Unreadable
from seeall.data.pictures import SPLITS, Pictures, _walk, find
from seeall.data.sound import EXTENSIONS, at_rate, audio_track, window
from seeall.types import SeeallError

GRID = 640
"""Windows begin at multiples of this many samples: 40 ms at 16 kHz, a picture of 25 a second."""
_STREAM = 0x50D
_IMAGE, _SOUND = frozenset({"image", "images"}), frozenset({"sound", "sounds", "audio"})
_NAMED = 3  # how many names an error gives


@dataclasses.dataclass(frozen=True)
class Pairs:
    """n pictures and n sounds; sounds[i], an absolute path, was heard with picture i."""

    pictures: Pictures
    sounds: Sequence[str]

    def __len__(self) -> int:
        return len(self.sounds)

    def subset(self, rows: Sequence[int]) -> Pairs:
        """The pairs at `rows`, in that order."""
        return Pairs(self.pictures.subset(rows), [self.sounds[i] for i in rows])

    def split(self, name: str) -> Pairs:
        """The pairs of one split; empty where there is none of that name."""
        return self.subset([i for i, s in enumerate(self.pictures.splits or []) if s == name])

    def fingerprint(self) -> str:
        """A digest of what the pairs are: that of the pictures, and names and sizes of the sounds, in order."""
        digest = hashlib.sha256(self.pictures.fingerprint().encode())
        common = os.path.commonpath([os.path.dirname(s) for s in self.sounds])  # noqa: PTH120
        for sound in self.sounds:
            size = os.stat(sound).st_size if os.path.exists(sound) else -1  # noqa: PTH110, PTH116
            digest.update(f"{os.path.relpath(sound, common)}\0{size}\n".encode(errors="replace"))
        return digest.hexdigest()[:16]


def pairs(data: str, *, limit: int | None = None, seed: int = 0) -> Pairs:
    """The pairs that `data` names, a manifest or a folder; at most `limit` of them, drawn by seed as pictures are.

    Raises: SeeallError where there are none, and for files that are missing, alone or one too many.
    """
    path = Path(data).expanduser()
    found = _folder(path, data) if path.is_dir() else _manifest(path, data)
    if limit is None:
        return found
    row = {name: i for i, name in enumerate(found.pictures.ids)}
    return found.subset([row[name] for name in found.pictures.limit(limit, seed).ids])


def start(seed: int, epoch: int, row: int, samples: int, length: int, *, grid: int = GRID) -> int:
    """Where in sound `row` of `samples` samples the window of `length` begins in an epoch: a multiple of `grid`.

    It is a function of the sound alone, so that a window says nothing about the picture it is held against, and a
    sound is the same as a positive and as a negative. Where the picture is one of a video's, let it be the one
    at the window's middle: the picture follows the sound. All places are equally likely; a sound that is no
    longer than the window begins at 0.
    """
    places = max(samples - length, 0) // grid + 1
    return keyed.seed(seed, _STREAM, epoch, row) % places * grid


def video_sound(file: str | Path, rate: int) -> Tensor:
    """A video's audio track on the clock of its pictures: sample i sounds i / rate seconds after the first picture.

    Where the audio track starts later there is silence before it, where it starts sooner it is cut. A gap
    within the track is not filled.

    Returns: (samples,) float32 in [-1, 1] at `rate` Hz, one channel.
    Raises: Unreadable with the reason; SeeallError where PyAV is missing.
    """
    values, own, delay = audio_track(file)
    sound, late = at_rate(values, own, rate), round(delay * rate)
    if late + len(sound) < 1:
        raise Unreadable("its audio track ends before its first picture")
    return window(sound, -late, len(sound) + late)


def _manifest(path: Path, source: str) -> Pairs:
    pictures = find(source)
    rows = pictures.metadata or [{}]
    if "sound" not in rows[0]:
        raise SeeallError(
            f"{source}: no sounds named; want a manifest with columns 'path' and 'sound',"
            " or a folder with sub-folders 'image' and 'sound'"
        )
    without = [name for name, row in zip(pictures.ids, rows) if row["sound"] in (None, "")]
    if without:
        raise SeeallError(f"{source}: the column 'sound' is empty for {_some(without)}; fill it in or leave them out")
    sounds = [os.path.abspath(path.parent / str(row["sound"])) for row in rows]  # noqa: PTH100
    named = {**dict(zip(pictures.ids, pictures.keys)), **{str(row["sound"]): s for row, s in zip(rows, sounds)}}
    missing = [name for name, file in named.items() if not os.path.isfile(file)]  # noqa: PTH113
    if missing:
        raise SeeallError(f"{source}: no such file as {_some(missing)}; paths are relative to the manifest")
    rest = [{name: value for name, value in row.items() if name != "sound"} for row in rows]
    return Pairs(dataclasses.replace(pictures, metadata=rest if rest[0] else None), sounds)


def _folder(root: Path, source: str) -> Pairs:
    pictures = find(source)
    files = [f for f in _walk(str(root), set()) if os.path.splitext(f)[1].lower() in EXTENSIONS]  # noqa: PTH122
    images = _by_name({name: i for i, name in enumerate(pictures.ids)}, _IMAGE, source)
    heard = _by_name({os.path.relpath(f, root): i for i, f in enumerate(files)}, _SOUND, source)
    if not images or not heard:
        lacking = "pictures in a sub-folder 'image'" if not images else "sounds in a sub-folder 'sound'"
        raise SeeallError(f"{source}: no pairs, for want of {lacking}; or give a manifest with columns 'path', 'sound'")
    silent, unseen = ([str(n) for n in a if n not in b] for a, b in ((images, heard), (heard, images)))
    if silent or unseen:
        faults = [f"no {kind} for {_some(names)}" for kind, names in (("sound", silent), ("picture", unseen)) if names]
        raise SeeallError(f"{source}: {' and '.join(faults)}; each needs a partner of the same name")
    chosen = pictures.subset(list(images.values()))
    folders = [name.parts[:-1] for name in images]
    split = all(folders) and len({f[0].lower() for f in folders}) > 1 and all(f[0].lower() in SPLITS for f in folders)
    labels = ["/".join(f[1:] if split else f) or "." for f in folders]
    chosen = dataclasses.replace(
        chosen,
        labels=labels if len(set(labels)) > 1 else None,
        splits=[SPLITS[f[0].lower()] for f in folders] if split else None,
    )
    return Pairs(chosen, [os.path.abspath(files[heard[name]]) for name in images])  # noqa: PTH100


def _by_name(files: Mapping[str, int], kinds: frozenset[str], source: str) -> dict[PurePath, int]:
    """Numbered relative paths → those below a folder of one of the `kinds`, less that folder and the ending."""
    found: dict[PurePath, tuple[str, int]] = {}
    for file, number in files.items():
        parts = PurePath(file).parts
        place = max((i for i, part in enumerate(parts[:-1]) if part.lower() in kinds), default=None)
        if place is None:
            continue
        name = PurePath(*parts[:place], *parts[place + 1 : -1], PurePath(file).stem)
        if name in found:
            raise SeeallError(f"{source}: {found[name][0]} and {file} are of the same name; keep one of them")
        found[name] = (file, number)
    return {name: number for name, (_, number) in found.items()}


def _some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
