"""Frames of videos: the very pixels of a plain decode, at the right times, in any order; or the right reason."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import shutil
import subprocess
import sys
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
from seeall.data.pictures import find
from seeall.data.video import Frame, Reader, Video, is_video, named, probe
from seeall.types import SeeallError

av = pytest.importorskip("av")

FRAMES, HEIGHT, WIDTH = 40, 48, 64
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


def pattern(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def film(
    path: Path,
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
    n: int = FRAMES,
    *,
    times: list[int] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """A video of n frames, 25 a second; or at `times`, in ms."""
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=25, options=options or {"g": "12", "bf": "0"})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(pattern(i), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def plain(path: Path) -> list[np.ndarray]:
    """The oracle: all frames, decoded one after another."""
    return [pixels for _, pixels in timed(path)]


def timed(path: Path) -> list[tuple[float | None, np.ndarray]]:
    with av.open(str(path)) as file:
        return [(f.time, f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]


def orders(n: int) -> Iterator[list[int]]:
    yield list(range(n))
    yield random.Random(0).sample(range(n), n)
    yield list(range(n))[::-1]
    yield [i for i in range(0, n, 3) for _ in range(2)]


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


@pytest.mark.parametrize("name", ["v.mkv", "v.ts", "front.mp4"])
def test_of_a_file_cut_short_the_frames_before_are_there(tmp_path: Path, name: str) -> None:
    front = {"movflags": "faststart"} if name.endswith(".mp4") else {}
    whole = film(tmp_path / name, options={"g": "12", "bf": "2"}, container=front)
    if front:
        assert whole.read_bytes().index(b"moov") < whole.read_bytes().index(b"mdat")
    truth = plain(whole)
    with av.open(str(whole)) as file:
        ends = [packet.pos + packet.size for packet in file.demux(video=0) if packet.size]
    data = whole.read_bytes()
    for share in (0.3, 0.61, 0.9):
        part = tmp_path / f"{share}{whole.suffix}"
        part.write_bytes(data[: int(len(data) * share)])
        video = probe(str(part))
        assert abs(len(video) - sum(end <= int(len(data) * share) for end in ends)) <= 1
        expected: dict[int, str | None] = {}
        for order in orders(len(video)):
            reader = Reader()
            for i in order:
                number = round(float(video.seconds[i]) * 25)
                why = None
                try:
                    assert np.array_equal(reader(Frame(video, i)), truth[number]), i
                except Unreadable as fault:
                    why = str(fault)
                assert expected.setdefault(i, why) == why
        lost = [i for i, why in expected.items() if why]
        assert len(lost) <= 3
        assert all(i >= len(video) - 3 for i in lost)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_behind_damage_frames_raise_until_the_next_key_frame(tmp_path: Path, codec: str) -> None:
    path = film(tmp_path / "v.mp4", codec, {"g": "10", "bf": "0"})
    truth, whole = plain(path), probe(str(path))
    with av.open(str(path)) as file:
        spot = [packet.pos for packet in file.demux(video=0) if packet.size][14:16]
    data = bytearray(path.read_bytes())
    data[spot[0] : spot[1]] = b"\xff" * (spot[1] - spot[0])
    path.write_bytes(data)
    video = probe(str(path))
    assert len(video) == FRAMES
    key = int(whole.keys[14])
    following = next(i for i in range(15, FRAMES) if whole.keys[i] == i)
    assert key < 14 < following
    for order in orders(FRAMES):
        reader = Reader()
        for i in order:
            if 14 <= i < following:
                with pytest.raises(Unreadable, match="damaged"):
                    reader(Frame(video, i))
            else:
                assert np.array_equal(reader(Frame(video, i)), truth[i]), i


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_all_that_was_decoded_before_damage_comes_out(tmp_path: Path, codec: str) -> None:
    path = film(tmp_path / "v.mp4", codec, {"g": "600", "bf": "2"})
    truth = plain(path)
    with av.open(str(path)) as file:
        packets = [(packet.pts, packet.pos) for packet in file.demux(video=0) if packet.size]
    shown = sorted(pts for pts, _ in packets)
    data = bytearray(path.read_bytes())
    data[packets[20][1] : packets[21][1]] = b"\xff" * (packets[21][1] - packets[20][1])
    path.write_bytes(data)
    video, reader = probe(str(path)), Reader()
    before = sorted(shown.index(pts) for pts, _ in packets[:20])
    assert all(np.array_equal(reader(Frame(video, i)), truth[i]) for i in before)
    group = np.flatnonzero(video.keys == video.keys[shown.index(packets[20][0])]).tolist()
    assert len(set(group) - set(before)) > 3
    for i in set(group) - set(before):
        with pytest.raises(Unreadable, match="damaged: Invalid data|the decoder gives no frame at 00:00"):
            reader(Frame(video, i))


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


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
def test_a_stream_with_a_hole(tmp_path: Path, codec: str) -> None:
    """A packet of transport that never came takes its frame, and what follows up to the next key frame."""
    path = film(tmp_path / "v.ts", codec, {"g": "10", "bf": "0"})
    truth, whole = plain(path), probe(str(path))
    data = path.read_bytes()
    full = [i for i in range(0, len(data), 188) if data[i + 1 : i + 3] == b"\1\0" and data[i + 3] & 0x30 == 0x10]
    for hole in full:  # of the stream of pictures, without a header of its own
        path.write_bytes(data[:hole] + data[hole + 188 :])
        video = probe(str(path))
        numbers = np.searchsorted(whole.pts, video.pts).tolist()
        lost = set(range(FRAMES)) - set(numbers)
        for i in random.Random(hole).sample(range(len(video)), len(video)):
            try:
                assert np.array_equal(Reader()(Frame(video, i)), truth[numbers[i]]), i
            except Unreadable:
                lost.add(numbers[i])
        following = min((int(k) for k in whole.keys if k > min(lost)), default=FRAMES)
        assert sorted(lost) == list(range(min(lost), following))


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_a_stream_that_begins_in_the_middle(tmp_path: Path, codec: str) -> None:
    """Its first frames, shown before the first key frame, want one that is not there."""
    options = {"bf": "2", "g": "12", **({"x264-params": "open-gop=1:scenecut=0"} if codec == "libx264" else {})}
    whole = film(tmp_path / "v.ts", codec, options)
    with av.open(str(whole)) as file, av.open(str(tmp_path / "part.ts"), "w") as out:
        stream = out.add_stream_from_template(file.streams.video[0])
        keys = 0
        for packet in file.demux(video=0):
            keys += packet.is_keyframe
            if keys > 1 and packet.size:
                packet.stream = stream
                out.mux(packet)
    truth, video = plain(whole), probe(str(tmp_path / "part.ts"))
    assert 20 < len(video) < FRAMES
    for order in orders(len(video)):
        reader = Reader()
        for i in order:
            assert np.array_equal(reader(Frame(video, i)), truth[FRAMES - len(video) + i]), i


def test_what_is_decoded_but_not_shown_is_no_frame(tmp_path: Path) -> None:
    """By an edit list (ISO 14496-12, 8.6.6), and by the bit `show_frame` of VP8 (RFC 6386, 9.1)."""
    cut = film(tmp_path / "v.mp4", "mpeg4", {"g": "600", "bf": "2"})
    data = bytearray(cut.read_bytes())
    at = data.index(b"elst") + 16  # version and flags, number of entries, length; then the time it begins at
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 5 * 512).to_bytes(4, "big")
    cut.write_bytes(data)
    hidden = film(tmp_path / "v.webm", "libvpx", {"g": "600"})
    with av.open(str(hidden)) as file:
        packet = bytes([p for p in file.demux(video=0) if p.size][7])
    hidden.write_bytes(hidden.read_bytes().replace(packet, bytes([packet[0] & ~0x10]) + packet[1:]))
    for path, shown in ((cut, FRAMES - 5), (hidden, FRAMES - 1)):
        truth, video, reader = plain(path), probe(str(path)), Reader()
        assert len(truth) == len(video) == shown
        assert all(np.array_equal(reader(Frame(video, i)), truth[i]) for i in range(shown))


def _sound(path: Path, cover: bool = False) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        if cover:
            picture = out.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            out.mux(picture.encode(av.VideoFrame.from_ndarray(pattern(0), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())


def test_files_that_give_nothing(tmp_path: Path) -> None:
    garbage = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    (tmp_path / "garbage.mp4").write_bytes(garbage)
    (tmp_path / "empty.mp4").touch()
    _sound(tmp_path / "sound.mp4")
    with av.open(str(tmp_path / "none.avi"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height = WIDTH, HEIGHT
        out.start_encoding()
    end = film(tmp_path / "end.mp4")  # without its table of contents, which stands at the end
    end.write_bytes(end.read_bytes()[:-500])
    for name, why in [
        ("gone.mp4", "no such file"), ("garbage.mp4", "no video, or damaged: Invalid"), ("empty.mp4", "empty file"),
        ("sound.mp4", "no video in it"), ("none.avi", "no frames in it"), ("end.mp4", "no video, or damaged: "),
    ]:  # fmt: skip
        with pytest.raises(Unreadable, match=f"^{why}"):
            probe(str(tmp_path / name))


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    try:
        path = film(tmp_path / "v.mp4").rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system takes no such names")
    pictures = find(str(path))
    assert pictures.fingerprint()
    assert pictures.read(0).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.skipif(int(av.__version__.split(".")[0]) < 18, reason="older PyAV cannot write such a file")
def test_the_cover_of_a_sound_file_is_no_video(tmp_path: Path) -> None:
    _sound(tmp_path / "cover.mp4", cover=True)
    with av.open(str(tmp_path / "cover.mp4")) as file:
        assert file.streams.video
    with pytest.raises(Unreadable, match="no video in it"):
        probe(str(tmp_path / "cover.mp4"))


def test_a_file_that_went_away_raises_and_comes_back(tmp_path: Path) -> None:
    path = film(tmp_path / "v.mp4")
    video, reader = probe(str(path)), Reader()
    path.rename(tmp_path / "w.mp4")
    with pytest.raises(Unreadable, match="no such file"):
        reader(Frame(video, 3))
    (tmp_path / "w.mp4").rename(path)
    last = reader(Frame(video, 9))
    path.rename(tmp_path / "w.mp4")
    with pytest.raises(Unreadable, match="no such file"):
        reader(Frame(video, 3))
    (tmp_path / "w.mp4").rename(path)
    assert np.array_equal(reader(Frame(video, 9)), last)


def test_names_of_videos_and_of_programs(tmp_path: Path) -> None:
    assert is_video("/nowhere/a.MP4")
    assert not is_video("/nowhere/a.jpg")
    (tmp_path / "a.ts").write_text("export const a = 1\n")
    (tmp_path / "a.mts").write_text("")
    assert not is_video(str(tmp_path / "a.ts"))
    assert not is_video(str(tmp_path / "a.mts"))
    assert is_video(str(film(tmp_path / "b.ts", "mpeg2video", {})))


def test_find_in_a_folder_of_videos(tmp_path: Path) -> None:
    for name in ("train/walk/a.mp4", "train/run/b.mp4", "val/walk/c.mp4"):
        film(tmp_path / name, n=30)
    pictures = find(str(tmp_path))
    assert len(pictures) == 3 * 10  # 30 frames are 1.2 s
    assert list(pictures.ids[:3]) == [
        "train/run/b.mp4#00:00.000",
        "train/run/b.mp4#00:00.160",
        "train/run/b.mp4#00:00.280",
    ]
    assert list(pictures.ids) == sorted(set(pictures.ids))
    assert list(pictures.labels or ()) == ["run"] * 10 + ["walk"] * 20
    assert list(pictures.splits or ()) == ["train"] * 20 + ["val"] * 10
    assert np.array_equal(pictures.read(1), plain(tmp_path / "train/run/b.mp4")[4])
    assert pictures.read(1, 12).shape == (12, 16, 3)
    assert np.array_equal(pictures.subset([1]).read(0), pictures.read(1))
    assert len(find(str(tmp_path), rate=1)) == 6
    assert len(find(str(tmp_path), rate=0.01)) == 3
    assert len(find(str(tmp_path), rate=1000)) == 90
    assert len(find(str(tmp_path), limit=5)) == 5
    assert find(str(tmp_path), rate=1000).ids[4] == pictures.ids[1]  # a frame is called the same at every rate
    with pytest.raises(SeeallError, match="--rate 0: want more than 0"):
        find(str(tmp_path), rate=0)


def test_find_one_video(tmp_path: Path) -> None:
    pictures = find(str(film(tmp_path / "a.mp4", n=2)), rate=100)
    assert list(pictures.ids) == ["a.mp4#00:00.000", "a.mp4#00:00.040"]
    assert pictures.root is None, "the folder beside it is no data"


def test_beside_pictures_videos_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film(tmp_path / "a.mp4", n=2)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    with caplog.at_level(logging.WARNING, "seeall"):
        assert list(find(str(tmp_path)).ids) == ["b.png"]
        film(tmp_path / "c.mp4", n=2)
        find(str(tmp_path))
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == [
        f"{videos} beside the pictures left out; to use them, give a folder without pictures or a manifest"
        for videos in ("1 video", "2 videos")
    ]


def test_find_by_a_manifest_of_videos_and_pictures(tmp_path: Path) -> None:
    film(tmp_path / "v" / "a.mp4", n=30)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    (tmp_path / "m.csv").write_text("path,label,split,who\nv/a.mp4,x,train,Ann\nb.png,y,test,Bob\n")
    pictures = find(str(tmp_path / "m.csv"), rate=1)
    assert list(pictures.ids) == ["v/a.mp4#00:00.000", "v/a.mp4#00:01.000", "b.png"]
    assert list(pictures.labels or ()) == ["x", "x", "y"]
    assert list(pictures.splits or ()) == ["train", "train", "test"]
    assert [row["who"] for row in pictures.metadata or ()] == ["Ann", "Ann", "Bob"]
    assert [pictures.read(i).shape for i in range(3)] == [(HEIGHT, WIDTH, 3)] * 2 + [(8, 8, 3)]
    assert pictures.fingerprint()


def test_a_broken_video_is_one_unreadable_picture(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", n=2)
    (tmp_path / "b.mp4").write_bytes(b"nothing" * 100)
    pictures = find(str(tmp_path))
    assert list(pictures.ids) == ["a.mp4#00:00.000", "b.mp4"]
    with pytest.raises(Unreadable, match="no video, or damaged"):
        pictures.read(1)


def test_the_fingerprint_is_of_the_videos(tmp_path: Path) -> None:
    film(tmp_path / "1" / "a.mp4", n=30)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    before = find(str(tmp_path / "1")).fingerprint()
    assert find(str(tmp_path / "2")).fingerprint() == before  # wherever they are
    assert find(str(tmp_path / "1"), rate=2).fingerprint() != before
    with (tmp_path / "1" / "a.mp4").open("ab") as file:
        file.write(bytes(8))
    assert find(str(tmp_path / "1")).fingerprint() != before


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "a.mp4", n=2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SeeallError, match=r"^videos need PyAV: pip install 'seeall\[video\]'$"):
        find(str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert list(find(str(tmp_path)).ids) == ["b.png"]  # a folder of pictures does not want it


def test_nothing_imports_pyav_before_it_meets_a_video() -> None:
    code = "import sys, seeall.data.video; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_frame_is_found_by_its_own_text(tmp_path: Path) -> None:
    path = film(tmp_path / "a b.mp4", n=5)
    frames = find(str(path), rate=100)
    for row in range(5):
        again = find(str(frames.keys[row]))
        assert len(again) == 1 and np.array_equal(again.read(0), frames.read(row))
    for text in (f"{path}#", f"{path}#x:1", f"{path}#1", f"{tmp_path}/none.mp4#00:00.000", f"{tmp_path}#00:01.000"):
        assert named(text) is None
        with pytest.raises(SeeallError):
            find(text)


def test_a_broken_video_counts_as_much_as_a_whole_one(tmp_path: Path) -> None:
    """One in four cannot be read, though the other three have many frames."""
    from seeall.data.pixels import load

    for name in ("a", "b", "c"):
        film(tmp_path / f"{name}.mp4", n=40)
    (tmp_path / "d.mp4").write_bytes(b"junk")
    pictures = find(str(tmp_path), rate=1000)
    assert len(pictures) > 100
    with pytest.raises(SeeallError, match="1 of 4 videos cannot be read: d.mp4"):
        load(pictures, shortest=8)
    assert len(load(pictures, shortest=8, allow_skipped=True)) == len(pictures) - 1
