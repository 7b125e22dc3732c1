"""What was heard with pictures: read once and kept where it fits, cut into windows.

A picture's sound is a file that its metadata names, the track of the video that it is a frame of, or what the synthetic
world makes of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seeall.console import bar, log
from seeall.data.decode import Unreadable
from seeall.data.pairs import pairs, start, video_sound
from seeall.data.pictures import Pictures, find
from seeall.data.pixels import MEMORY_SHARE, cores, free_memory, in_order
from seeall.data.sound import read_sound, window
from seeall.data.video import Frame
from seeall.types import SeeallError

SOUND = "sound"
"""The column of the metadata that names a sound."""
_FULL = 32767


def find_heard(data: str, *, limit: int | None = None, seed: int = 0) -> Pictures:
    """The pictures that `data` names, with what was heard with them: pairs, frames of videos, or the synthetic world.

    Raises: SeeallError where there are none, or where pictures or sounds lack each other.
    """
    found = find(data, limit=limit, seed=seed)
    if found.sound or all(isinstance(key, Frame) for key in found.keys):
        return found
    paired = pairs(data, limit=limit, seed=seed)
    rows = paired.pictures.metadata or [{}] * len(paired)
    named = [{**row, SOUND: sound} for row, sound in zip(rows, paired.sounds)]
    return dataclasses.replace(paired.pictures, metadata=named)


def fingerprint(pictures: Pictures) -> str:
    """A digest of pictures and of the names and sizes of the sounds that go with them, if any."""
    own = pictures.fingerprint()
    sounds = [str(row[SOUND]) for row in pictures.metadata or () if row.get(SOUND)]
    if not sounds:
        return own
    digest = hashlib.sha256(own.encode())
    for sound in sounds:
        size = os.stat(sound).st_size if os.path.exists(sound) else -1  # noqa: PTH110, PTH116
        digest.update(f"{os.path.basename(sound)}\0{size}\n".encode(errors="replace"))  # noqa: PTH119
    return digest.hexdigest()[:16]


class Heard:
    """Rows → windows of sound.

    names: n sounds, what they are called · whole: number of a sound → its samples at `rate` Hz; raises Unreadable
    middles: n seconds, where in it the window's middle lies, or None where `data.pairs.start` says
    length: samples of a window
    """

    def __init__(
        self,
        names: Sequence[str],
        whole: Callable[[int], Tensor],
        middles: Sequence[float] | None,
        seed: int,
        rate: int,
        length: int,
    ) -> None:
        self.names, self.whole, self.middles = names, whole, middles
        self.seed, self.rate, self.length = seed, rate, length
        self._kept: dict[str, Tensor] | None = None

    @classmethod
    def of(cls, pictures: Pictures, seed: int, rate: int, length: int) -> Heard:
        """The sounds of these pictures. Raises SeeallError where they have none."""
        keys = pictures.keys
        if pictures.sound:
            speak = pictures.sound

            def whole(i: int) -> Tensor:
                return torch.from_numpy(speak(keys[i], length / rate, rate))

            return cls(pictures.ids, whole, None, seed, rate, length)
        if all(isinstance(key, Frame) for key in keys):
            paths = [key.video.path for key in keys]
            middles = [float(key.seconds) for key in keys]
            return cls(paths, lambda i: video_sound(paths[i], rate), middles, seed, rate, length)
        files = [str(row.get(SOUND) or "") for row in pictures.metadata or ()]
        if not files or not all(files):
            raise SeeallError(
                f"{pictures.source}: no sounds found; give a manifest with columns 'path' and 'sound', folders image/ "
                "and sound/ with the same names, or videos"
            )
        return cls(files, lambda i: read_sound(files[i], rate), None, seed, rate, length)

    def read(self) -> list[tuple[int, str]]:
        """Read every sound once, and keep them if they fit. Returns the rows whose sound cannot be read, and why."""
        first: dict[str, int] = {}
        for i, name in enumerate(self.names):
            first.setdefault(name, i)
        room, taken, silent = free_memory() * MEMORY_SHARE, 0, 0
        kept: dict[str, Tensor] | None = {}
        faults: dict[str, str] = {}
        with bar("reading sounds", len(first)) as progress:
            for name, sound in in_order(self._try, first.items(), cores()):
                progress.update(1)
                if isinstance(sound, str):
                    faults[name] = sound
                    continue
                silent += not bool(sound.any())
                taken += sound.nbytes
                if kept is not None:
                    kept[name] = sound
                    kept = kept if taken < room else None
        if silent:
            log.warning("%d of %d sounds are silent throughout", silent, len(first))
        self._kept = kept
        return [(i, f"its sound {name}: {faults[name]}") for i, name in enumerate(self.names) if name in faults]

    def _try(self, item: tuple[str, int]) -> tuple[str, Tensor | str]:
        name, i = item
        try:
            return name, (self.whole(i) * _FULL).round().to(torch.int16)
        except Unreadable as fault:
            return name, str(fault)

    def __call__(self, rows: Sequence[int], epoch: int) -> Tensor:
        """(B, length) float32: the window of each row's sound in an epoch."""
        return torch.stack([self._window(row, epoch) for row in rows])

    def _window(self, row: int, epoch: int) -> Tensor:
        kept = self._kept.get(self.names[row]) if self._kept is not None else None
        try:
            sound = self.whole(row) if kept is None else kept.float() / _FULL
        except Unreadable as fault:
            raise SeeallError(f"{self.names[row]}: was readable when training began, now {fault}; restore it") from None
        if self.middles is None:
            return window(sound, start(self.seed, epoch, row, len(sound), self.length), self.length)
        first = round(self.middles[row] * self.rate) - self.length // 2
        return window(sound, max(0, min(first, len(sound) - self.length)), self.length)
