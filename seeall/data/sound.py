"""One sound file → samples at the rate wanted, a window of them, and its log-mel spectrogram.

WAV files of whole numbers (8, 16, 24, 32 bit) or floats (32, 64 bit) are read here; all else, the audio track
of a video included, by PyAV. `wave` of the standard library knows no floats, so their chunks are read with `struct`.
A sound is (samples,) float32 in [-1, 1], the mean of the file's channels.
"""

from __future__ import annotations

import importlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seeall.data.decode import Unreadable
from seeall.types import SeeallError

EXTENSIONS = frozenset([".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"])
MEAN_DB = -63.0
STD_DB = 18.0
"""Mean and deviation, in dB, of what `LogMel` gives for spoken words and for the sound of videos at 16 kHz."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WIDTHS = {_PCM: {1: "u1", 2: "<i2", 3: "<i4", 4: "<i4"}, _FLOAT: {4: "<f4", 8: "<f8"}}
"""Format and bytes a sample → how numpy calls it."""
_RATES = range(1, 1_000_000)
_UNKNOWN = (0, 0xFFFFFFFF)  # the size that a program writes which cannot go back to fill it in
_CROSSINGS, _DAMPING = 32, 80.0
_ROWS = 1 << 14


def read_sound(file: str | Path, rate: int) -> Tensor:
    """The sound of a file, or of a video's audio track: (samples,) float32 in [-1, 1] at `rate` Hz, one channel.

    Raises: Unreadable with the reason; SeeallError for what only PyAV can read, where it is missing.
    """
    head = _head(file)
    wave = _wave(Path(file).read_bytes()) if head[:4] == b"RIFF" and head[8:] == b"WAVE" else None
    values, own = wave or audio_track(file)[:2]
    return at_rate(values, own, rate)


def window(sound: Tensor, start: int, length: int) -> Tensor:
    """Samples start to start + length of a sound (samples,), with silence where it has none: (length,).

    >>> window(torch.tensor([1.0, 2.0, 3.0]), 1, 4)
    tensor([2., 3., 0., 0.])
    """
    piece = sound[max(start, 0) : max(start + length, 0)]
    before = min(max(-start, 0), length)
    return F.pad(piece, (before, length - before - len(piece)))


def _head(file: str | Path) -> bytes:
    """The first 12 bytes."""
    try:
        with Path(file).open("rb") as opened:
            head = opened.read(12)
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except OSError as fault:
        raise Unreadable(f"unreadable: {fault.strerror}") from None
    if not head:
        raise Unreadable("empty file")
    return head


def _wave(content: bytes) -> tuple[NDArray[np.float32], int] | None:
    """Samples (n,) and rate of a WAV file; None where it holds something compressed."""
    kind = None
    for name, size, place in _chunks(content):
        body = content[place : place + size]
        if name == b"fmt ":
            if len(body) < 16:
                raise Unreadable("damaged: its format is cut short")
            tag, channels, rate, _, block, _ = struct.unpack("<HHIIHH", body[:16])
            kind = int.from_bytes(body[24:26], "little") if tag == _EXTENSIBLE else tag
            if kind not in _WIDTHS:
                return None
            width = block // max(channels, 1)
            if channels < 1 or rate not in _RATES or width not in _WIDTHS[kind]:
                raise Unreadable(f"damaged: {channels} channels of {width} bytes at {rate} Hz")
        elif name == b"data":
            if kind is None:
                raise Unreadable("damaged: samples before their format")
            if size in _UNKNOWN:
                body = content[place:]
            elif len(body) < size:
                raise Unreadable(f"damaged: {len(body)} of {size} bytes of sound are there")
            body = body[: len(body) // (channels * width) * channels * width]
            return _unit(_numbers(body, kind, width)).reshape(-1, channels).mean(1, dtype=np.float32), rate
    raise Unreadable("damaged: no sound in it")


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and place of every chunk of a RIFF file."""
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[place : place + 8])
        yield name, size, place + 8
        place += 8 + size + size % 2


def _numbers(body: bytes, kind: int, width: int) -> NDArray[Any]:
    if width == 3:
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0]
    return np.frombuffer(body, _WIDTHS[kind][width])


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of any type → float32, full scale being 1; what is not a number is silence."""
    if values.dtype.kind == "u":
        return (values.astype(np.float32) - np.float32(128)) / np.float32(128)
    if values.dtype.kind == "i":
        return values.astype(np.float32) * np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    numbers: NDArray[np.float32] = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0).astype(np.float32)
    return numbers


def audio_track(file: str | Path) -> tuple[NDArray[np.float32], int, float]:
    """Samples (n,), their rate in Hz, and how many seconds after a video's first picture they begin; by PyAV.

    Raises: Unreadable with the reason; SeeallError where PyAV is missing.
    """
    try:
        av = importlib.import_module("av")
    except ImportError:
        raise SeeallError(f"{file}: to read its sound needs PyAV: pip install 'seeall[video]'") from None
    _head(file)
    pieces: list[NDArray[np.float32]] = []
    rate, begin = 0, 0.0
    try:
        with av.open(str(file)) as container:
            if not container.streams.audio:
                raise Unreadable("no audio stream in it")
            for frame in container.decode(container.streams.audio[0]):
                if not pieces:
                    rate, begin = frame.sample_rate, frame.time or 0.0
                if frame.sample_rate != rate:
                    raise Unreadable("its rate changes midway")
                values = frame.to_ndarray()  # (channels, n), or (1, n · channels) where they are interleaved
                if not frame.format.is_planar:
                    values = values.reshape(-1, len(frame.layout.channels)).T
                pieces.append(_unit(values).mean(0, dtype=np.float32))
            pictures = container.streams.video
            first = pictures[0].start_time * pictures[0].time_base if pictures and pictures[0].start_time else 0
    except Unreadable:
        raise
    except Exception as fault:  # a damaged file meets a different fault in every decoder
        reason = getattr(fault, "strerror", None) or next(iter(str(fault).splitlines()), type(fault).__name__)
        raise Unreadable(f"damaged, or no sound that PyAV can read: {reason}") from None
    if not pieces:
        raise Unreadable("no samples in it")
    return np.concatenate(pieces), rate, begin - float(first) if pictures else 0.0


def at_rate(values: NDArray[np.float32], own: int, rate: int) -> Tensor:
    """Samples (n,) at `own` Hz → (samples,) in [-1, 1] at `rate` Hz. Raises: Unreadable where there are none."""
    if not len(values):
        raise Unreadable("no samples in it")
    return resample(torch.from_numpy(np.clip(values, -1, 1)), own, rate).clamp(-1, 1)


def resample(sound: Tensor, old: int, new: int) -> Tensor:
    """(samples,) at `old` Hz → (⌈samples · new / old⌉,) at `new` Hz, by a sinc under a Kaiser window.

    Band-limited interpolation, a row of filter taps for each of new / gcd phases (Smith and Gossett 1984, "A
    flexible sampling-rate conversion method"). The window (Kaiser 1974) damps by 80 dB what lies beyond the lower
    of the two Nyquist frequencies; up to 0.84 of it all passes. Each phase sums to 1. Silence is around the sound.

    >>> resample(torch.ones(8), 8000, 16000).shape
    torch.Size([16])
    """
    if old not in _RATES or new not in _RATES:
        raise ValueError(f"want rates of {_RATES.start} to {_RATES.stop - 1} Hz, not {old} and {new}")
    if old == new:
        return sound
    common = math.gcd(old, new)
    up, down = new // common, old // common
    count = -(-len(sound) * up // down)
    rows = -(-count // up)
    cutoff = (1 - 2.5 / _CROSSINGS) * min(1.0, up / down)  # of the old Nyquist frequency, mid-way down the slope
    reach = _CROSSINGS / cutoff
    side = math.ceil(reach)
    padded = F.pad(sound, (side, side + (rows + 1) * down))
    out = sound.new_empty(rows, up)
    for phase in range(min(up, count)):
        taps = _taps(phase * down % up / up, cutoff, reach, side).to(sound)
        around = padded[phase * down // up :].unfold(0, len(taps), down)
        for row in range(0, rows, _ROWS):  # a share at a time, since overlapping rows are copied
            out[row : row + _ROWS, phase] = around[row : min(row + _ROWS, rows)] @ taps
    return out.reshape(-1)[:count]


def _taps(ahead: float, cutoff: float, reach: float, side: int) -> Tensor:
    """(2 side + 1,) float64 taps around the old sample which the new one is `ahead` of."""
    t = torch.arange(-side, side + 1, dtype=torch.float64) - ahead
    beta = 0.1102 * (_DAMPING - 8.7)  # Kaiser's, for more than 50 dB
    kaiser = torch.special.i0(beta * (1 - (t / reach).square()).clamp(min=0).sqrt()) * (t.abs() < reach)
    taps: Tensor = torch.sinc(cutoff * t) * kaiser
    return taps / taps.sum()


def mel(hertz: Tensor) -> Tensor:
    """Frequencies in Hz → mel, as HTK has it: 2595 log10(1 + f / 700) (O'Shaughnessy 1987)."""
    return 2595 * torch.log10(1 + hertz / 700)


def normalised(decibels: Tensor) -> Tensor:
    """What `LogMel` gives, to about mean 0 and deviation 1: what the encoder of sounds is fed."""
    return (decibels - MEAN_DB) / STD_DB


class LogMel(nn.Module):
    """Sound → its log-mel spectrogram in dB relative to full scale: the bands of a full-scale sine add up to 0 dB.

    Power spectra under a periodic Hann window, scaled by 4 / (n_fft Σ w²), are summed under triangles that stand
    evenly on the mel axis and are straight and of height 1 on it (HTK's; Young et al., The HTK Book, section 5.4;
    Slaney's are straight in Hz and of equal area). There is no padding around the sound, except that one shorter
    than n_fft is filled up with silence.

    Args:
        rate: of the sound, Hz.
        n_fft: samples of a spectrum. hop: samples from one to the next.
        mels: how many bands. fmin, fmax: where they begin and end, Hz; fmax None is half of the rate.
        floor_db: what is softer, and silence, has this value.

    Raises:
        SeeallError: settings that make no sense, or so many bands that one holds no frequency of the spectrum.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        *,
        rate: int = 16000,
        n_fft: int = 512,
        hop: int = 256,
        mels: int = 64,
        fmin: float = 60.0,
        fmax: float | None = None,
        floor_db: float = -80.0,
    ) -> None:
        super().__init__()
        top = rate / 2 if fmax is None else fmax
        if rate not in _RATES:
            raise SeeallError(
                f"logmel: rate must be {_RATES.start} to {_RATES.stop - 1} Hz, not {rate}; 16000 is usual"
            )
        for name, value, least in (("n_fft", n_fft, 2), ("hop", hop, 1), ("mels", mels, 1)):
            if value < least:
                raise SeeallError(f"logmel: {name} must be at least {least}, not {value}")
        if not 0 <= fmin < top <= rate / 2:
            raise SeeallError(
                f"logmel: want 0 <= fmin < fmax <= {rate / 2:g} Hz, half the rate, not {fmin:g} and {top:g}"
            )
        if not -150 <= floor_db < 0:
            raise SeeallError(f"logmel: floor_db must be -150 to below 0, not {floor_db:g}; -80 is usual")
        self.rate, self.n_fft, self.hop, self.mels, self.floor_db = rate, n_fft, hop, mels, floor_db
        hann = torch.hann_window(n_fft, dtype=torch.float64)
        filters = _triangles(rate, n_fft, mels, fmin, top)
        if not bool((filters > 0).any(1).all()):
            raise SeeallError(f"logmel: {mels} bands are too many for n_fft {n_fft} at {rate} Hz; raise n_fft or fmin")
        self.register_buffer("window", hann.float(), persistent=False)
        self.register_buffer("filters", (filters * 4 / (n_fft * hann.square().sum())).float(), persistent=False)

    def samples(self, frames: int) -> int:
        """How long a sound must be to give `frames` frames."""
        return self.n_fft + (frames - 1) * self.hop

    def forward(self, sound: Tensor) -> Tensor:
        """sound: (B, samples) in [-1, 1] → (B, 1, mels, frames) float32 dB, frames = 1 + ⌊(samples - n_fft) / hop⌋."""
        if sound.ndim != 2:
            raise ValueError(f"want sound (B, samples), not {(*sound.shape,)}")
        with torch.autocast(sound.device.type, enabled=False):
            sound = F.pad(sound.float(), (0, max(0, self.n_fft - sound.shape[1])))
            spectra = torch.stft(sound, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)
            power = self.filters @ (spectra.real.square() + spectra.imag.square())
            return 10 * power.clamp(min=10 ** (self.floor_db / 10)).log10()[:, None]


def _triangles(rate: int, n_fft: int, mels: int, fmin: float, fmax: float) -> Tensor:
    """(mels, n_fft / 2 + 1) float64 weights: band m is 1 at its middle and 0 at those of its neighbours."""
    low, high = mel(torch.tensor([fmin, fmax], dtype=torch.float64))
    places = (mel(torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft) - low) / (high - low) * (mels + 1)
    middles = torch.arange(1, mels + 1, dtype=torch.float64)[:, None]
    weights: Tensor = (1 - (places - middles).abs()).clamp(min=0)
    return weights
