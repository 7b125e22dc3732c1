"""An open video file: its packets, the frames decoded from them in order, and where damage ends them. Needs PyAV."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from seeall.data.decode import Pixels, Unreadable
from seeall.types import SeeallError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_ATTACHED = 0x400  # a stream that is the cover of a sound file


class Film:
    """An open file, and a decoder of one thread for the moving pictures in it."""

    _container: InputContainer | None = None

    def __init__(self, path: str) -> None:
        self._container, self._stream = _open(path)
        codec = self._stream.codec_context
        codec.thread_type, codec.thread_count = "NONE", 1
        # AVI has no order of display, and a packet of VP8 need not be shown
        self._ordered = self._container.format.name != "avi" and codec.name != "vp8"
        self.tick = float(self._stream.time_base or 1)
        self.rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        self._reformatter: Any = pyav().video.reformatter.VideoReformatter()
        self._turns: dict[int | None, tuple[bool, int, int]] = {0: (False, 1, 1)}

    def close(self) -> None:
        """Again and again, if need be."""
        if self._container is not None:
            self._container.close()

    __del__ = close  # PyAV's objects hold each other: without this the file would stay open

    def listed(self) -> list[tuple[int | None, bool]] | None:
        """Time stamp of every frame, and whether it is a key frame; None where packets do not tell."""
        if not self._ordered:
            return None
        found: list[tuple[int, bool]] = []
        first: int | None = None
        with contextlib.suppress(pyav().FFmpegError):  # damage: what was found before it counts
            for packet in self._packets():
                if packet.pts is None:
                    if packet.size:
                        return None
                    continue
                first = packet.pts if first is None else first
                if packet.pts >= first and not packet.is_corrupt and not packet.is_discard:
                    found.append((packet.pts, packet.is_keyframe))  # those before want a frame that is not there
        return sorted(found) if len({pts for pts, _ in found}) == len(found) else None

    def listed_by_decoding(self) -> list[tuple[int | None, bool]]:
        """The same, in the order in which the decoder gives them."""
        found = []
        with contextlib.suppress(Unreadable):
            for frame in self.decoded():
                found.append((frame.pts, bool(frame.key_frame)))
        return found

    def decoded(self, key: int | None = None) -> Generator[VideoFrame]:
        """All frames from here on, or from the key frame of a time stamp on, which is not far ahead.

        Raises: Unreadable at damage, once the frames before it are out.
        """
        packets, why = self._packets(key), ""
        while not why:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = [] if packet.is_corrupt else packet.decode()
                why = "damaged" if packet.is_corrupt else ""
            except pyav().FFmpegError as fault:
                frames, why = [], f"damaged: {fault.strerror}"
            yield from frames
        with contextlib.suppress(pyav().FFmpegError):
            yield from self._stream.codec_context.decode(None)
        raise Unreadable(why)

    def pixels(self, frame: VideoFrame, shortest: int | None) -> Pixels:
        """RGB (H, W, 3) uint8, upright; see `decode` for `shortest`."""
        try:
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        except TypeError:  # before PyAV 17, which has one thread here
            rgb = self._reformatter.reformat(frame, format="rgb24")
        pixels: Pixels = rgb.to_ndarray()
        if shortest is not None and (factor := min(pixels.shape[:2]) // shortest) > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
        rotation = getattr(frame, "rotation", None)  # None before PyAV 15: then the first frame tells for all
        if rotation not in self._turns:  # a frame whose side data were looked at lives until Python next collects
            self._turns[rotation] = _upright(frame)
        swap, down, right = self._turns[rotation]
        if not swap and down == right == 1:
            return pixels
        return np.ascontiguousarray((pixels.transpose(1, 0, 2) if swap else pixels)[::down, ::right])

    def seek(self, pts: int) -> bool:
        """Go to the key frame at or before a time stamp; False where the file cannot be sought in."""
        assert self._container is not None
        try:
            self._container.seek(pts, stream=self._stream)
        except pyav().FFmpegError:
            return False
        return True

    def _packets(self, key: int | None = None) -> Iterator[Packet[VideoStream]]:
        """Those from the next key frame on, of a time stamp or later."""
        assert self._container is not None
        begun = False
        for packet in self._container.demux(self._stream):
            begun = begun or (packet.is_keyframe and (key is None or packet.pts is None or packet.pts >= key))
            if begun:
                yield packet


def pyav() -> Any:
    """The module. Raises: SeeallError where it is not installed."""
    try:
        import av
    except ImportError:
        raise SeeallError("videos need PyAV: pip install 'seeall[video]'") from None
    return av


def _open(path: str) -> tuple[InputContainer, VideoStream]:
    av = pyav()
    try:
        container = av.open(path, metadata_errors="replace")
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except (av.FFmpegError, OSError) as fault:
        raise Unreadable("empty file" if size(path) == 0 else f"no video, or damaged: {fault.strerror}") from None
    for stream in container.streams.video:
        kind: Any = getattr(stream, "disposition", 0)  # PyAV tells from version 15 on
        if not getattr(kind, "value", kind) & _ATTACHED:
            if stream.codec_context is not None:
                return container, stream
            container.close()
            raise Unreadable("no decoder for what is in it")
    container.close()
    raise Unreadable("no video in it")


def size(path: str) -> int:
    """Bytes of a file; 0 where there is none."""
    return os.path.getsize(path) if os.path.exists(path) else 0  # noqa: PTH110, PTH202


def _upright(frame: VideoFrame) -> tuple[bool, int, int]:
    """How a frame is set upright: whether rows and columns change places, then the steps along both.

    A display matrix sends the point (x, y) to (ax + cy, bx + dy), y downwards.
    """
    beside: Any = frame.side_data
    if "DISPLAYMATRIX" not in {each.type.name for each in beside}:
        return False, 1, 1
    a, b, _, c, d = np.frombuffer(bytes(beside["DISPLAYMATRIX"]), np.int32)[:5]
    swap = bool(abs(b) > abs(a))
    x, y = (c, b) if swap else (a, d)
    return swap, -1 if y < 0 else 1, -1 if x < 0 else 1
