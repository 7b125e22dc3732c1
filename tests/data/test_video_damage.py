"""Videos that are cut short, damaged or odd: every frame that can be had, and the reason for what cannot."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from seeall.data.decode import Unreadable
from seeall.data.video import Frame, Reader, probe
from tests.data.films import FRAMES, HEIGHT, WIDTH, film, orders, pattern, plain

av = pytest.importorskip("av")


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
