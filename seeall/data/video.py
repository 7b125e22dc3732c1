"""One video file → the time stamps of its frames, and any frame as RGB pixels, exactly; or a reason why not.

`probe` lists the frames without decoding them where the file's packets tell; a frame's time is its time stamp, so a
variable frame rate is kept. `Reader` gives the very pixels that decoding the file from its start would give: it
goes on from where its decoder is, or begins at the key frame before, whichever decodes fewer frames. Needs PyAV.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seeall.console import bar
from seeall.data.decode import Pixels, Unreadable, decode
from seeall.data.film import Film, pyav, size
from seeall.types import SeeallError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

EXTENSIONS = frozenset(
    [
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
        ".vob", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf",
    ]
)  # fmt: skip
RATE = 8.0
"""Frames a second that become pictures where nobody says otherwise."""

_OPEN = 3  # decoders that a thread keeps; one of 1080p holds about 50 MB
_SEEK = 8  # frames that could be decoded in the time that a seek takes
_EARLIER = 2  # key frames before its own that are tried where a frame does not come out
_NOWHERE = sys.maxsize


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
    """The n frames of a file, in the order they are shown.

    path: absolute · name: what its frames are called by · size: bytes · pts: (n,) int64 time stamps, ascending, in
    units of `tick` seconds; their numbers where `counted`, as the file's time stamps cannot be trusted ·
    seconds: (n,) float64 since the first frame · keys: (n,) int64, the frame that decoding each begins with ·
    why: why nothing of it can be read, else empty
    """

    path: str
    name: str
    size: int
    pts: NDArray[np.int64]
    seconds: NDArray[np.float64]
    keys: NDArray[np.int64]
    tick: float
    counted: bool = False
    why: str = ""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def rate(self) -> float:
        """Frames a second on average; 0 for a single frame."""
        return (len(self) - 1) / float(self.seconds[-1]) if len(self) > 1 else 0.0

    @property
    def duration(self) -> float:
        """Seconds, the last frame shown as long as the others on average."""
        return len(self) / self.rate if self.rate else 0.0

    def at(self, seconds: float) -> Frame:
        """The frame that is shown at a time; the first before it, the last after it."""
        return Frame(self, max(0, int(np.searchsorted(self.seconds, seconds, "right")) - 1))

    def frames(self, rate: float = math.inf) -> list[Frame]:
        """The first frame, and of every following 1/rate seconds the first in it; by default all.

        Raises: SeeallError where rate is not above 0.
        """
        if not rate > 0:
            raise SeeallError(f"--rate {rate:g}: want more than 0 frames a second; {RATE:g} is usual")
        if rate == math.inf:
            return [Frame(self, n) for n in range(len(self))]
        slots = np.floor((self.seconds + self.tick / 2) * rate + 1e-6)  # a time stamp is a rounded time
        return [Frame(self, int(n)) for n in np.flatnonzero(np.diff(slots, prepend=-1.0))]

    def stamp(self, number: int) -> str:
        """A frame's time as minutes:seconds, of one width for all frames of the file, so that they sort.

        >>> Video("", "", 0, *np.array([[0, 5], [0, 5], [0, 0]]), 1.0).stamp(1)
        '00:05.000'
        """
        width, digits = self._digits
        minutes, rest = divmod(round(float(self.seconds[number]) * 10**digits), 60 * 10**digits)
        return f"{minutes:0{width}d}:{rest // 10**digits:02d}.{rest % 10**digits:0{digits}d}"

    @functools.cached_property
    def _digits(self) -> tuple[int, int]:
        """Digits of the minutes, and of the parts of a second that tell all frames apart."""
        digits = next((d for d in (3, 6) if (np.diff(np.round(self.seconds * 10**d)) > 0).all()), 9)
        return max(2, len(str(int((self.seconds[-1] + 1) / 60)))), digits


class Frame(NamedTuple):
    """One frame of a video, by its number. As text: the file and the time."""

    video: Video
    number: int

    @property
    def id(self) -> str:
        """Such as `sub/walk.mp4#00:01.250`; the name alone where the file cannot be read."""
        return self.video.name if self.video.why else f"{self.video.name}#{self.video.stamp(self.number)}"

    @property
    def seconds(self) -> float:
        """Since the first frame of the video."""
        return float(self.video.seconds[self.number])

    def __str__(self) -> str:
        return f"{self.video.path}#{self.video.stamp(self.number)}"


def named(text: str) -> Frame | None:
    """The frame that its own text names, such as `/films/walk.mp4#00:01.250`; None where the text names none.

    Raises: Unreadable where there is such a file, but nothing in it; SeeallError where PyAV is missing.
    """
    path, _, stamp = text.rpartition("#")
    minutes, colon, seconds = stamp.partition(":")
    if not colon or not minutes.isdecimal() or not seconds.replace(".", "", 1).isdecimal() or not is_video(path):
        return None
    if not os.path.exists(path):  # noqa: PTH110
        return None
    found = probe(path)
    wanted = int(minutes) * 60 + float(seconds)
    return Frame(found, int(np.abs(found.seconds - wanted).argmin()))


def is_video(path: str) -> bool:
    """Whether a file is called like a video. `.ts` and `.mts` are TypeScript's too, so these are looked into."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
    if suffix in (".ts", ".mts"):
        with contextlib.suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
            return b"G" in file.read(5)[::4]  # the byte every packet of a transport stream begins with
    return suffix in EXTENSIONS


def probe_all(paths: Iterable[str], names: Iterable[str]) -> list[Video]:
    """`probe` of many files, in threads. One that cannot be read is a video of one frame, which raises when read.

    Raises: SeeallError where PyAV is missing.
    """
    pyav()
    jobs = list(zip(paths, names))

    def one(job: tuple[str, str]) -> Video:
        try:
            return probe(*job)
        except Unreadable as fault:
            nothing = np.zeros(1, np.int64)
            return Video(*job, size(job[0]), nothing, nothing.astype(np.float64), nothing, 1.0, why=str(fault))

    with bar("looking into videos", len(jobs)) as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = []
        for video in pool.map(one, jobs):
            found.append(video)
            progress.update(1)
    return found


def probe(path: str, name: str = "") -> Video:
    """The frames of a file, from its packets where they tell, else by decoding it once.

    Of a file that is damaged part-way, those that it still lists; reading one that cannot be decoded raises.

    Raises: Unreadable with the reason; SeeallError where PyAV is missing.
    """
    path = os.path.abspath(path)  # noqa: PTH100
    with contextlib.closing(Film(path)) as film:
        listed, tick, rate = film.listed(), film.tick, film.rate
    if listed is None:
        with contextlib.closing(Film(path)) as film:
            listed = film.listed_by_decoding()
    if not listed:
        raise Unreadable("no frames in it")
    n = np.arange(len(listed))
    pts = np.array([stamp for stamp, _ in listed if stamp is not None], np.int64)
    if len(pts) < len(n) or (np.diff(pts) <= 0).any():
        return Video(path, name or path, size(path), n, n / rate, np.zeros_like(n), 0.0, counted=True)
    keys = np.maximum.accumulate(np.where([key for _, key in listed], n, 0))
    return Video(path, name or path, size(path), pts, (pts - pts[0]) * tick, keys, tick)


class Reader:
    """Frames → pixels, by any number of threads, each with its last few files open; paths of pictures work too."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __reduce__(self) -> tuple[type[Reader], tuple[()]]:
        return Reader, ()  # in another process it opens its own

    def __call__(self, key: Any, shortest: int | None = None) -> Pixels:
        """RGB pixels (H, W, 3) uint8 of a `Frame`, upright; see `decode` for `shortest`. Raises: Unreadable."""
        if not isinstance(key, Frame):
            return decode(key, shortest)
        if key.video.why:
            raise Unreadable(key.video.why)
        players: dict[str, _Player] = self._own.__dict__.setdefault("players", {})  # that of last use last
        player = players.pop(key.video.path, None)
        if player is None or player.video is not key.video:
            while len(players) >= _OPEN:
                players.pop(next(iter(players))).close()
            player = _Player(key.video)
        players[key.video.path] = player
        return player.read(key.number, shortest)

    def close(self) -> None:
        """Close what this thread has open; what a thread has open is closed when it ends, too."""
        for player in self._own.__dict__.pop("players", {}).values():
            player.close()


class _Player:
    """A video with a decoder that stands somewhere in it: behind frame `_at`, or nowhere known."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self._film = Film(video.path)
        self._lost: dict[int, tuple[int, str]] = {}  # key frame → the first frame known to be lost to damage, why
        self._last: VideoFrame | None = None
        self._frames, self._passed, self._at = self._film.decoded(), 0, -1

    def close(self) -> None:
        self._frames.close()
        self._film.close()

    def read(self, number: int, shortest: int | None) -> Pixels:
        """See `Reader`."""
        return self._film.pixels(self._frame(number), shortest)

    def _frame(self, number: int) -> VideoFrame:
        if number == self._at and self._last is not None:
            return self._last
        own = int(self.video.keys[number])
        first, why = self._lost.get(own, (number + 1, ""))
        if number >= first:
            raise Unreadable(why)
        if own - _SEEK <= self._at < number:
            with contextlib.suppress(Unreadable):
                if frame := self._on_to(number):
                    return frame
        why = ""
        for place, key in self._ways(own):
            self._stand_at(place, key)
            try:
                if frame := self._on_to(number):
                    return frame
            except Unreadable as fault:
                why = why or str(fault)
        if why:
            self._lost[own] = number, why
        raise Unreadable(why or f"the decoder gives no frame at {self.video.stamp(number)}")

    def _ways(self, own: int) -> list[tuple[int, int]]:
        """Where to seek and where to begin decoding, one after another, for a frame whose key frame is `own`.

        Seeking in a transport stream may end behind the place; what is called a key frame may want some before it.
        """
        earlier: list[int] = []
        for _ in range(_EARLIER):
            if key := [own, *earlier][-1]:
                earlier.append(int(self.video.keys[key - 1]))
        return [(own, own), *((key, own) for key in earlier[:1]), *zip(earlier, earlier)]

    def _stand_at(self, place: int, key: int) -> None:
        """Seek to a key frame, to decode from that of number `key` on."""
        self._frames.close()
        if place == 0 or not self._film.seek(int(self.video.pts[place])):
            fresh = Film(self.video.path)
            self._film.close()
            self._film = fresh
        self._frames, self._passed = self._film.decoded(int(self.video.pts[key]) if key else None), 0

    def _on_to(self, number: int) -> VideoFrame | None:
        """Decode until a frame comes out; None where it does not. Raises: Unreadable at damage before it."""
        self._at, self._last, want = _NOWHERE, None, int(self.video.pts[number])
        for frame in self._frames:
            have = self._passed if self.video.counted else frame.pts
            self._passed += 1
            if have is None:
                continue
            if frame.is_corrupt:
                raise Unreadable("damaged")
            if have >= want:
                self._at, self._last = (number, frame) if have == want else (_NOWHERE, None)
                return self._last
        return None
