"""Reading sounds, resampling against sines and scipy, log-mel spectrograms against loops."""

from __future__ import annotations

import math
import random
import struct
import sys
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import seeall
from seeall import catalog
from seeall.data.decode import Unreadable
from seeall.data.sound import LogMel, mel, normalised, read_sound, resample, window
from seeall.types import SeeallError

DIGITS = Path(seeall.__file__).parents[2] / "shared" / "data" / "spoken_digits.zip"
ENDS = {1: (0, 255), 2: (-(2**15), 2**15 - 1), 3: (-(2**23), 2**23 - 1), 4: (-(2**31), 2**31 - 1)}


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    """A WAV file of chunks; size: what the last one claims to measure."""
    body = b""
    for name, part in chunks:
        claimed = len(part) if size is None or name != chunks[-1][0] else size
        body += name + struct.pack("<I", claimed) + part + b"\0" * (len(part) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(tag: int, width: int, channels: int = 1, rate: int = 8000, *, extension: bytes = b"") -> tuple[bytes, bytes]:
    block = channels * width
    return b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, 8 * width) + extension


def sine(hertz: float, rate: int, seconds: float = 0.25) -> Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(round(rate * seconds), dtype=torch.float64) / rate)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_as_the_standard_library_writes_them(tmp_path: Path, width: int, channels: int) -> None:
    low, high = ENDS[width]
    draw = random.Random(width)
    rows = [[low] * channels, [high] * channels] + [
        [draw.randint(low, high) for _ in range(channels)] for _ in range(21)
    ]
    file = tmp_path / "a.wav"
    with wave.open(str(file), "wb") as out:
        out.setparams((channels, width, 8000, 0, "NONE", ""))
        out.writeframes(b"".join(n.to_bytes(width, "little", signed=width > 1) for row in rows for n in row))
    middle, full = (128, 128) if width == 1 else (0, 2 ** (8 * width - 1))
    want = [sum((n - middle) / full for n in row) / channels for row in rows]
    got = read_sound(file, 8000)
    assert got.dtype == torch.float32
    assert_close(got, torch.tensor(want), rtol=0, atol=2e-7)
    assert got[0] == -1


@pytest.mark.parametrize(("letter", "width"), [("f", 4), ("d", 8)])
def test_floats_are_cut_to_full_scale_and_no_number_is_silence(tmp_path: Path, letter: str, width: int) -> None:
    values = [0.0, 0.25, -0.75, 1.5, -7.0, math.nan, math.inf, -math.inf]
    (tmp_path / "a.wav").write_bytes(riff(fmt(3, width), (b"data", struct.pack(f"<8{letter}", *values))))
    assert read_sound(tmp_path / "a.wav", 8000).tolist() == [0.0, 0.25, -0.75, 1.0, -1.0, 0.0, 1.0, -1.0]


def test_resampling_overshoots_but_the_sound_stays_within_full_scale(tmp_path: Path) -> None:
    square = struct.pack("<200h", *([32767] * 10 + [-32768] * 10) * 10)
    (tmp_path / "a.wav").write_bytes(riff(fmt(1, 2), (b"data", square)))
    assert resample(read_sound(tmp_path / "a.wav", 8000), 8000, 16000).abs().max() > 1.05
    assert read_sound(tmp_path / "a.wav", 16000).abs().max() == 1


def test_other_chunks_an_extended_format_and_a_size_left_open(tmp_path: Path) -> None:
    extension = struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + bytes(14)
    data = (b"data", struct.pack("<3h", 16384, -16384, 8192))
    (tmp_path / "a.wav").write_bytes(riff((b"LIST", b"odd"), fmt(0xFFFE, 2, extension=extension), data))
    assert read_sound(tmp_path / "a.wav", 8000).tolist() == [0.5, -0.5, 0.25]
    for size in (0, 0xFFFFFFFF):
        (tmp_path / "a.wav").write_bytes(riff(fmt(1, 2), data, size=size))
        assert read_sound(tmp_path / "a.wav", 8000).tolist() == [0.5, -0.5, 0.25]


DAMAGED = {
    "empty file": b"",
    "no samples in it": riff(fmt(1, 2), (b"data", b"")),
    "damaged: 4 of 9 bytes of sound are there": riff(fmt(1, 2), (b"data", b"1234"), size=9),
    "damaged: no sound in it": riff(fmt(1, 2)),
    "damaged: samples before their format": riff((b"data", b"1234")),
    "damaged: its format is cut short": riff((b"fmt ", b"1234")),
    "damaged: 0 channels of 2 bytes at 8000 Hz": riff((b"fmt ", struct.pack("<HHIIHH", 1, 0, 8000, 0, 2, 16))),
    "damaged: 1 channels of 7 bytes at 8000 Hz": riff(fmt(1, 7)),
    "damaged: 1 channels of 2 bytes at 0 Hz": riff(fmt(1, 2, rate=0)),
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_why_a_file_is_unreadable(tmp_path: Path, reason: str) -> None:
    (tmp_path / "a.wav").write_bytes(DAMAGED[reason])
    with pytest.raises(Unreadable) as fault:
        read_sound(tmp_path / "a.wav", 8000)
    assert str(fault.value) == reason


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="^no such file$"):
        read_sound(tmp_path / "gone.mp3", 8000)
    with pytest.raises(Unreadable, match="^unreadable: Is a directory$"):
        read_sound(tmp_path, 8000)


def test_only_wav_does_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # as Python notes that a module is not there
    (tmp_path / "a.wav").write_bytes(riff(fmt(1, 2), (b"data", bytes(8))))
    assert read_sound(tmp_path / "a.wav", 16000).shape == (8,)
    law = riff(fmt(7, 1), (b"data", bytes(8)))  # µ-law
    for name, content in (("a.flac", b"fLaC and so on"), ("law.wav", law)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SeeallError) as fault:
            read_sound(tmp_path / name, 8000)
        assert str(fault.value) == f"{tmp_path / name}: to read its sound needs PyAV: pip install 'seeall[video]'"


def encode(file: Path, codec: str, sample_format: str, channels: list[Tensor], rate: int) -> None:
    av: Any = pytest.importorskip("av")
    layout = {1: "mono", 2: "stereo"}[len(channels)]
    values = torch.stack(channels).numpy().astype(np.float32)
    with av.open(str(file), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 256_000
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout=layout)
        frame.sample_rate = rate
        for part in [*av.AudioResampler(sample_format, layout, rate, stream.frame_size or 1024).resample(frame), None]:
            for packet in stream.encode(part):
                out.mux(packet)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "error"),
    [("a.flac", "flac", "s16", 1e-4), ("a.mp3", "libmp3lame", "fltp", 0.03), ("a.ogg", "libopus", "flt", 0.05),
     ("a.m4a", "aac", "fltp", 0.05), ("a.aiff", "pcm_s16be", "s16", 1e-4), ("a.mka", "pcm_s24le", "s32", 1e-6),
     ("law.wav", "pcm_mulaw", "s16", 0.03)],
)  # fmt: skip
def test_what_pyav_reads(tmp_path: Path, name: str, codec: str, sample_format: str, error: float) -> None:
    """Left and right of differing loudness; the right one is upside down."""
    wave_ = sine(440, 48000, 0.5)
    encode(tmp_path / name, codec, sample_format, [0.9 * wave_, -0.3 * wave_], 48000)
    got = read_sound(tmp_path / name, 48000)
    middle = got[8000:16000]
    turns = 2 * math.pi * 440 * torch.arange(8000, dtype=torch.float64) / 48000
    basis = torch.stack([turns.sin(), turns.cos()], 1).float()  # a codec may delay
    part = torch.linalg.lstsq(basis, middle).solution
    assert abs(float(part.norm()) - 0.3) < error
    assert float((basis @ part - middle).abs().max()) < error
    assert abs(len(got) - 24000) < 2500


def test_pyav_says_why_not(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    (tmp_path / "a.mp3").write_bytes(b"no sound at all")
    with pytest.raises(Unreadable, match="^damaged, or no sound that PyAV can read: Invalid data"):
        read_sound(tmp_path / "a.mp3", 8000)
    with av.open(str(tmp_path / "mute.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25, width=16, height=16)
        for frame in [av.VideoFrame(16, 16, "yuv420p"), None]:
            for packet in stream.encode(frame):
                out.mux(packet)
    with pytest.raises(Unreadable, match="^no audio stream in it$"):
        read_sound(tmp_path / "mute.mp4", 8000)


RATES = [(44100, 16000), (8000, 16000), (48000, 16000), (16000, 44100), (22050, 8000), (11025, 16000), (997, 1009)]


@pytest.mark.parametrize(("old", "new"), RATES)
def test_a_sine_stays_the_same_sine(old: int, new: int) -> None:
    nyquist = min(old, new) / 2
    for share in (0.01, 0.3, 0.6, 0.83):
        got = resample(sine(share * nyquist, old), old, new)
        want = sine(share * nyquist, new)[: len(got)]
        edge = round(40 * new / min(old, new)) + 1
        assert_close(got[edge:-edge], want[edge : len(got) - edge], rtol=0, atol=10 ** (-66 / 20))


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in RATES if new < old])
def test_what_would_alias_is_gone(old: int, new: int) -> None:
    edge = round(40 * new / min(old, new)) + 1
    for hertz in np.linspace(1.001 * new / 2, 0.999 * old / 2, 12):
        assert float(resample(sine(hertz, old), old, new)[edge:-edge].abs().max()) < 10 ** (-70 / 20)


@pytest.mark.parametrize(("old", "new"), RATES)
def test_resampling_equals_scipy_with_the_same_filter(old: int, new: int) -> None:
    signal = pytest.importorskip("scipy.signal")
    common = math.gcd(old, new)
    up, down = new // common, old // common
    cutoff = 0.921875 * min(1, up / down)  # 1 - 2.5 / 32 zero crossings
    half = math.floor(32 / cutoff * up)
    filtering = signal.firwin(2 * half + 1, cutoff / up, window=("kaiser", 0.1102 * (80 - 8.7)))
    x = np.random.default_rng(0).standard_normal(1500)
    want = signal.resample_poly(x, up, down, window=filtering)
    got = resample(torch.from_numpy(x), old, new)
    assert got.shape == want.shape
    assert float((got - torch.from_numpy(want)).abs().max()) < 1e-3 * float(np.abs(want).max())


@settings(deadline=None, max_examples=15, derandomize=True)
@given(n=st.integers(0, 300), old=st.integers(1, 90), new=st.integers(1, 90))
def test_any_rates(n: int, old: int, new: int) -> None:
    got = resample(torch.ones(n), old, new)
    assert len(got) == math.ceil(n * new / old)
    edge = math.ceil(36 * max(1, new / old))
    assert_close(got[edge:-edge], torch.ones_like(got[edge:-edge]), rtol=0, atol=2e-6)


def test_the_same_rate_changes_nothing_and_rates_must_be_rates() -> None:
    x = torch.rand(7)
    assert torch.equal(resample(x, 8000, 8000), x)
    for rate in (0, -1, 1_000_000):
        with pytest.raises(ValueError, match="want rates of 1 to 999999 Hz"):
            resample(x, 8000, rate)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(n=st.integers(0, 6), start=st.integers(-9, 9), length=st.integers(0, 9))
def test_a_window_is_the_sound_where_there_is_one_else_silence(n: int, start: int, length: int) -> None:
    want = [float(i + 1) if 0 <= i < n else 0.0 for i in range(start, start + length)]
    assert window(torch.arange(1.0, n + 1), start, length).tolist() == want


def test_logmel_follows_a_loop() -> None:
    rate, n, hop, mels = 8000, 64, 24, 5
    x = torch.rand(2, 150, generator=torch.Generator().manual_seed(0)) * 2 - 1
    got = LogMel(rate=rate, n_fft=n, hop=hop, mels=mels, fmin=100, fmax=3500)(x)
    hann = [math.sin(math.pi * i / n) ** 2 for i in range(n)]
    edge = [2595 * math.log10(1 + f / 700) for f in (100, 3500)]
    middles = [edge[0] + (edge[1] - edge[0]) * m / (mels + 1) for m in range(mels + 2)]
    assert got.shape == (2, 1, mels, 1 + (150 - n) // hop)
    for b in range(2):
        for t in range(got.shape[3]):
            bands = [0.0] * mels
            for k in range(n // 2 + 1):
                turn = [2 * math.pi * k * i / n for i in range(n)]
                part = [float(x[b, t * hop + i]) * hann[i] for i in range(n)]
                re, im = (
                    sum(p * math.cos(a) for p, a in zip(part, turn)),
                    sum(p * math.sin(a) for p, a in zip(part, turn)),
                )
                place = 2595 * math.log10(1 + k * rate / n / 700)
                for m in range(mels):
                    below, at, above = middles[m : m + 3]
                    weight = min((place - below) / (at - below), (above - place) / (above - at))
                    bands[m] += max(0.0, weight) * (re**2 + im**2) * 4 / (n * sum(w * w for w in hann))
            want = torch.tensor([10 * math.log10(p) for p in bands])
            assert_close(got[b, 0, :, t], want, rtol=0, atol=1e-3)


def test_filters_equal_those_of_a_table_of_lower_weights() -> None:
    """HTK keeps for each frequency the band below it and its share of that band; the rest goes to the band above."""
    logmel = LogMel()
    edges = np.linspace(*(1127 * math.log(1 + f / 700) for f in (60, 8000)), 66)
    want = np.zeros((64, 257))
    for k in range(257):
        place = 1127 * math.log(1 + k * 31.25 / 700)
        above = int(np.searchsorted(edges, place))
        if 0 < above < 66:
            share = (edges[above] - place) / (edges[above] - edges[above - 1])
            if above >= 2:
                want[above - 2, k] = share
            if above <= 64:
                want[above - 1, k] = 1 - share
    got = logmel.filters / logmel.filters.sum(0).max()
    assert_close(got.double(), torch.from_numpy(want / want.sum(0).max()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("hertz", [300, 1000, 3333.3, 6000])
@pytest.mark.parametrize("loudness", [1.0, 0.1])
def test_the_bands_of_a_sine_add_up_to_its_level(hertz: float, loudness: float) -> None:
    bands = LogMel()(loudness * sine(hertz, 16000)[None])
    level = 10 * (10 ** (bands / 10)).sum(2).log10()
    assert_close(level, torch.full_like(level, 20 * math.log10(loudness)), rtol=0, atol=0.05)
    loudest = int(bands.mean(3).argmax())
    edges = torch.linspace(*(float(mel(torch.tensor(float(f)))) for f in (60, 8000)), 66)
    assert edges[loudest] < mel(torch.tensor(hertz)) < edges[loudest + 2]


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 767, 768, 16640])
def test_silence_and_short_sounds_are_finite(samples: int) -> None:
    logmel = LogMel(floor_db=-90)
    silent = logmel(torch.zeros(2, samples))
    assert silent.shape == (2, 1, 64, 1 + max(0, samples - 512) // 256)
    assert (silent - -90).abs().max() < 1e-4
    loud = logmel(torch.ones(2, samples))
    assert torch.isfinite(loud).all()
    assert loud.min() >= -90 - 1e-4


def test_frames_and_samples_agree() -> None:
    logmel = LogMel(n_fft=100, hop=30, mels=4)
    for frames in (1, 2, 64):
        assert logmel(torch.zeros(1, logmel.samples(frames))).shape[3] == frames
        assert logmel(torch.zeros(1, logmel.samples(frames) + 29)).shape[3] == frames


def test_autocast_and_half_stay_in_float32() -> None:
    logmel = LogMel()
    x = sine(700, 16000)[None].float()
    want = logmel(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logmel(x), want)
    assert logmel(x.half()).dtype == torch.float32
    assert not logmel.state_dict()


WRONG = {
    "logmel: rate must be 1 to 999999 Hz, not 0; 16000 is usual": {"rate": 0},
    "logmel: n_fft must be at least 2, not 1": {"n_fft": 1},
    "logmel: hop must be at least 1, not 0": {"hop": 0},
    "logmel: mels must be at least 1, not 0": {"mels": 0},
    "logmel: want 0 <= fmin < fmax <= 8000 Hz, half the rate, not 60 and 9000": {"fmax": 9000.0},
    "logmel: want 0 <= fmin < fmax <= 8000 Hz, half the rate, not 500 and 400": {"fmin": 500.0, "fmax": 400.0},
    "logmel: want 0 <= fmin < fmax <= 8000 Hz, half the rate, not nan and 8000": {"fmin": math.nan},
    "logmel: floor_db must be -150 to below 0, not 3; -80 is usual": {"floor_db": 3.0},
    "logmel: 128 bands are too many for n_fft 256 at 16000 Hz; raise n_fft or fmin": {"mels": 128, "n_fft": 256},
}


@pytest.mark.parametrize("message", WRONG)
def test_settings_that_make_no_sense(message: str) -> None:
    with pytest.raises(SeeallError) as fault:
        LogMel(**WRONG[message])
    assert str(fault.value) == message


def test_settings_can_be_typed_and_shapes_are_checked() -> None:
    chosen = catalog.resolve({"sound": LogMel}, ["mels=40", "fmax=7000", "sound.rate=16000"])["sound"]
    assert LogMel(**chosen)(torch.zeros(1, 512)).shape == (1, 1, 40, 1)
    with pytest.raises(ValueError, match=r"want sound \(B, samples\), not \(5,\)"):
        LogMel()(torch.zeros(5))


@pytest.mark.skipif(not DIGITS.exists(), reason="the spoken digits are not there")
def test_spoken_digits_are_about_normal(tmp_path: Path) -> None:
    with zipfile.ZipFile(DIGITS) as archive:
        names = [n for n in archive.namelist() if n.endswith(".wav")][::25]
        archive.extractall(tmp_path, names)
    values = torch.cat([normalised(LogMel()(read_sound(tmp_path / n, 16000)[None])).flatten() for n in names])
    assert abs(float(values.mean())) < 0.3
    assert 0.7 < float(values.std()) < 1.3
