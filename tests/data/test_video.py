"""Frames of videos: the very pixels of a plain decode, at the right times, in any order; or the right reason."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.data.decode import Unreadable
from seeall.data.film import Film
from seeall.data.video import Frame, Reader, Video, probe
from seeall.types import SeeallError
from tests.data.films import FRAMES, HEIGHT, film, orders, plain, timed

av = pytest.importorskip("av")

KINDS = {
    "b-frames.mp4": ("libx264", {"bf": "3", "g": "12"}),
    "open groups.mp4": ("libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=1:scenecut=0"}),
    "no key frames.mp4": ("libx264", {"bf": "0", "g": "12", "x264-params": "intra-refresh=1:scenecut=0"}),
    "part 2.mp4": ("mpeg4", {"bf": "2", "g": "12"}),
    "part 2.avi": ("mpeg4", {"bf": "2", "g": "12"}),
    "no order.avi": ("libx264", {"bf": "2", "g": "12"}),
    "stream.ts": ("libx264", {"bf": "3", "g": "12"}),
    "program.mpg": ("mpeg2video", {"bf": "2", "g": "12"}),
    "matroska.mkv": ("mpeg4", {"bf": "2", "g": "12"}),
    "hidden frames.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "keys alone.mov": ("mjpeg", {}),
    "long group.mp4": ("mpeg4", {"bf": "2", "g": "600"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_that_of_a_plain_decode(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, *KINDS[name])
    truth, video = plain(path), probe(str(path))
    assert len(truth) == len(video) == FRAMES
    for order in orders(FRAMES):
        reader = Reader()
        for i in order:
            assert np.array_equal(reader(Frame(video, i)), truth[i]), (order, i)


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_at_the_times_of_a_plain_decode(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, *KINDS[name])
    video = probe(str(path))
    times = [time for time, _ in timed(path)]
    if video.counted:  # a plain decode gives times in disorder, which is why these frames are counted
        assert times != sorted(times)
        times = [i / 25 for i in range(FRAMES)]
    assert np.allclose(video.seconds, np.array(times) - times[0], atol=1e-6)
    assert video.rate == pytest.approx(25, rel=1e-3)
    assert video.duration == pytest.approx(FRAMES / 25, rel=1e-3)


def test_what_has_no_time_stamps_is_counted(tmp_path: Path) -> None:
    video = probe(str(film(tmp_path / "no order.avi", *KINDS["no order.avi"])))
    assert video.counted
    assert not probe(str(film(tmp_path / "part 2.avi", *KINDS["part 2.avi"]))).counted


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_variable_rate_is_kept(tmp_path: Path, codec: str) -> None:
    steps = [40, 40, 400, 10, 10, 1000, 33, 33, 33, 34, 250, 40]
    times = [sum(steps[:i]) for i in range(len(steps) + 1)]
    path = film(tmp_path / "v.mkv", codec, {"bf": "2", "g": "5"}, len(times), times=times)
    video = probe(str(path))
    assert video.seconds.tolist() == pytest.approx([t / 1000 for t in times])
    assert [f.number for f in video.frames(1)] == [0, 6]  # at 0 s and 1.5 s
    for seconds, number in [(-1, 0), (0, 0), (0.479, 2), (0.48, 3), (1.499, 5), (1.5, 6), (99, 12)]:
        assert video.at(seconds).number == number
    truth, reader = plain(path), Reader()
    assert all(np.array_equal(reader(Frame(video, i)), truth[i]) for i in range(len(times)))


def _video(times: list[float], tick: float = 1e-6) -> Video:
    n = np.arange(len(times))
    return Video("/v.mp4", "v.mp4", 1, n, np.array(times), n, tick)


@pytest.mark.parametrize("fps", [3, 8, 12.5, 24, 25, 29.97, 30, 59.94, 240])
@pytest.mark.parametrize("rate", [0.5, 1, 5, 8, 10, 30])
def test_sampling_takes_the_first_frame_of_every_slot(fps: float, rate: float) -> None:
    exact = [Fraction(i) / Fraction(str(fps)) for i in range(200)]
    wanted, slot = [], -1
    for i, time in enumerate(exact):
        if int(time * Fraction(str(rate))) > slot:
            slot = int(time * Fraction(str(rate)))
            wanted.append(i)
    for tick in (1e-3, 1e-6):  # as Matroska and MP4 round
        rounded = _video([round(float(t) / tick) * tick for t in exact], tick)
        assert [f.number for f in rounded.frames(rate)] == wanted


def test_sampling_of_little(tmp_path: Path) -> None:
    assert [f.number for f in _video([0.0]).frames(0.001)] == [0]
    assert len(_video([0.0, 0.1]).frames()) == 2
    assert _video([0.0]).rate == _video([0.0]).duration == 0
    for rate in (0, -1, float("nan")):
        with pytest.raises(SeeallError, match="want more than 0 frames a second; 8 is usual"):
            _video([0.0]).frames(rate)


@pytest.mark.parametrize(
    ("times", "stamps"),
    [
        ([0, 1.25, 59.9996], ["00:00.000", "00:01.250", "01:00.000"]),
        ([0, 3600, 6000.5], ["000:00.000", "060:00.000", "100:00.500"]),
        ([0, 0.0001, 0.0002], ["00:00.000000", "00:00.000100", "00:00.000200"]),
        ([0, 1e-7, 2e-7], ["00:00.000000000", "00:00.000000100", "00:00.000000200"]),
    ],
)
def test_stamps_are_unique_and_sort(times: list[float], stamps: list[str]) -> None:
    video = _video(times)
    assert [video.stamp(i) for i in range(len(times))] == stamps == sorted(set(stamps))
    assert video.frames()[1].id == f"v.mp4#{stamps[1]}"
    assert str(video.frames()[1]) == f"/v.mp4#{stamps[1]}"


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # what a telephone held upright writes: clockwise
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    ],
)
def test_rotation(tmp_path: Path, matrix: tuple[int, ...], upright: object) -> None:
    """The matrix of the track header (ISO 14496-12, 8.3.2), by which the point (x, y) becomes (ax + cy, bx + dy)."""
    path = film(tmp_path / "v.mp4")
    truth = plain(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8
    a, b, c, d = (value.to_bytes(4, "big", signed=True) for value in (v << 16 for v in matrix))
    assert data[at : at + 4] == (1 << 16).to_bytes(4, "big")
    data[at : at + 20] = a + b + bytes(4) + c + d
    path.write_bytes(data)
    pixels = Reader()(Frame(probe(str(path)), 5))
    assert np.array_equal(pixels, upright(truth[5]))  # type: ignore[operator]
    assert pixels.flags.c_contiguous
    small = Reader()(Frame(probe(str(path)), 5), 10)
    assert min(small.shape[:2]) == HEIGHT // (HEIGHT // 10)


def test_shortest_reduces_by_a_whole_factor(tmp_path: Path) -> None:
    path = film(tmp_path / "v.mp4")
    frame, reader = Frame(probe(str(path)), 7), Reader()
    for shortest, factor in [(12, 4), (13, 3), (24, 2), (25, 1), (48, 1), (500, 1)]:
        expected = np.asarray(Image.fromarray(plain(path)[7]).reduce(factor))
        assert np.array_equal(reader(frame, shortest), expected)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames were decoded, as its one entry."""
    work, frames = Film.decoded, [0]

    def counting(self: Film, *key: int) -> Iterator[object]:
        for frame in work(self, *key):
            frames[0] += 1
            yield frame

    monkeypatch.setattr(Film, "decoded", counting)
    return frames


def test_in_order_every_frame_is_decoded_once(tmp_path: Path, decoded: list[int]) -> None:
    videos = [probe(str(film(tmp_path / name, *KINDS[name]))) for name in ("part 2.mp4", "keys alone.mov", "stream.ts")]
    reader = Reader()
    for i in range(FRAMES):  # by turns: as many decoders stay open
        for video in videos:
            reader(Frame(video, i))
    assert decoded[0] == 3 * FRAMES
    for step in (2, 7):
        decoded[0] = 0
        reader = Reader()
        for i in range(0, FRAMES, step):
            reader(Frame(videos[0], i))
        assert decoded[0] <= FRAMES
    decoded[0] = 0
    Reader()(Frame(videos[0], 38))
    assert decoded[0] <= 12  # from the key frame before


def test_a_damaged_group_is_not_decoded_for_every_frame_of_it(tmp_path: Path, decoded: list[int]) -> None:
    path = film(tmp_path / "v.mp4", "mpeg4", {"g": "600", "bf": "0"})
    with av.open(str(path)) as file:
        spot = [packet.pos for packet in file.demux(video=0) if packet.size][10:12]
    data = bytearray(path.read_bytes())
    data[spot[0] : spot[1]] = b"\xff" * (spot[1] - spot[0])
    path.write_bytes(data)
    video, reader = probe(str(path)), Reader()
    for i in range(FRAMES):
        with contextlib.suppress(Unreadable):
            reader(Frame(video, i))
    assert decoded[0] <= 60


def test_threads(tmp_path: Path) -> None:
    paths = [film(tmp_path / name, *KINDS[name]) for name in ("part 2.mp4", "program.mpg", "matroska.mkv", "stream.ts")]
    truth, videos, reader = [plain(p) for p in paths], [probe(str(p)) for p in paths], Reader()
    jobs = random.Random(1).sample([(v, i) for v in range(len(paths)) for i in range(FRAMES)], len(paths) * FRAMES)
    with ThreadPoolExecutor(4) as pool:
        for (v, i), pixels in zip(jobs, pool.map(lambda job: reader(Frame(videos[job[0]], job[1])), jobs)):
            assert np.array_equal(pixels, truth[v][i])


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")


@needs_proc
def test_a_thousand_clips_leak_nothing(tmp_path: Path) -> None:
    first = film(tmp_path / "0.mp4", n=6)
    names = [shutil.copy(first, tmp_path / f"{i}.mp4") for i in range(1, 1001)]
    reader = Reader()

    def look(name: str) -> None:
        video = probe(name)
        reader(Frame(video, 4))
        reader(Frame(video, 1))

    gc.disable()  # nothing is to wait for Python's collector
    try:
        for name in names[:100]:
            look(name)
        files, memory = _descriptors(), _resident()
        for name in names[100:]:
            look(name)
        assert _descriptors() == files
        assert _resident() - memory < 4 << 20
    finally:
        gc.enable()


@needs_proc
def test_files_are_closed_with_the_thread_the_reader_or_on_demand(tmp_path: Path) -> None:
    videos = [probe(str(film(tmp_path / f"{i}.mp4", n=3))) for i in range(5)]
    before, readers = _descriptors(), [Reader()]
    opened: list[int] = []

    def work() -> None:
        for video in videos:
            readers[0](Frame(video, 0))
        opened.append(_descriptors() - before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert _descriptors() == before
    work()
    readers[0].close()
    assert _descriptors() == before
    work()
    readers.clear()
    assert _descriptors() == before
    assert opened == [3, 3, 3]  # the last few, not all
