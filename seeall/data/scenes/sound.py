"""What things sound like: additive synthesis with NumPy, at any rate and from any moment.

A class has a timbre: partials, and how every note begins, dies, wavers and slides. An identity has a voice:
pitch, tempo and which notes of four are loud. A picture or clip has a take of it: how loud, a little higher or
lower, begun at some moment, in noise. A picture and its sound have the identity in common and nothing else.

A note, τ seconds after its beginning, of pitch f and with P seconds until the next one, is

    s(τ) = (1 - exp(-τ / attack)) exp(-τ / decay) (1 - tremolo (1 + sin 2π r τ) / 2) Σ_k a_k sin(2π q_k φ(τ) + p_k)
    φ(τ) = f (τ + slide τ² / 2P + vibrato sin(2π r τ) / 2π r)

so that its pitch slides from f to f (1 + slide) and wavers by a share `vibrato` of f. Notes follow each other evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seeall.data.scenes.world import HISS, TAKE, VOICE, Odds, generator
from seeall.types import SeeallError

Wave = NDArray[np.float64]

LEVEL = 0.25
"""Root mean square of the steady partials of the loudest take; what would go beyond 1 is bent, not cut."""
_FADE = 0.008
"""A note ends within so many seconds before the next one."""
_BLOCK = 4096
"""Samples of noise that are drawn together."""
_HIGHEST = 0.45
"""Partials beyond this share of the rate are left out."""
_NOTES = 4


@dataclass(frozen=True)
class Timbre:
    """What all things of a class have in common."""

    partials: tuple[tuple[float, float], ...]
    """Ratio to the pitch and amplitude of each."""
    attack: float
    decay: float
    """Seconds."""
    wobble: float = 5.0
    """Rate of vibrato and tremolo, per second."""
    vibrato: float = 0.0
    """Share of the pitch."""
    tremolo: float = 0.0
    """Share of the amplitude."""
    slide: float = 0.0
    """Share of the pitch, over a note."""


def _harmonics(count: int, power: float, step: int = 1) -> tuple[tuple[float, float], ...]:
    """The first `count` harmonics, or every `step`-th one, of amplitudes that fall with a power of their number."""
    return tuple((float(k), k**-power) for k in range(1, 1 + count * step, step))


TIMBRES = {
    "disc": Timbre(_harmonics(3, 2.0), attack=0.06, decay=2.0, vibrato=0.012),
    "square": Timbre(_harmonics(9, 1.0, step=2), attack=0.01, decay=2.0),
    "triangle": Timbre(((1.0, 1.0), (2.76, 0.7), (5.4, 0.5), (8.93, 0.3)), attack=0.001, decay=0.35),
    "star": Timbre(_harmonics(16, 0.8), attack=0.002, decay=0.07),
    "ring": Timbre(((0.59, 0.8), (1.0, 0.3), (1.41, 0.8), (3.41, 0.4)), attack=0.03, decay=2.0, wobble=22, tremolo=1.0),
    "cross": Timbre(tuple((5 + 7 * (k * k * 0.618 % 1), 1.0) for k in range(1, 25)), attack=0.001, decay=0.04),
    "crescent": Timbre(_harmonics(5, 1.2), attack=0.03, decay=2.0, slide=1.2),
    "heart": Timbre(((0.25, 1.0), (0.5, 0.5), (0.77, 0.25)), attack=0.004, decay=0.09, slide=-0.5),
}
"""Name of a class → its timbre: flute, clarinet, bell, pluck, ring modulator, rattle, siren, drum."""


@dataclass(frozen=True)
class Voice:
    """What all sounds of an identity have in common."""

    pitch: float
    """Hz."""
    tempo: float
    """Notes per second."""
    accents: tuple[float, ...]
    """How loud each of the notes of a bar is."""


@dataclass(frozen=True, eq=False)
class Take:
    """What differs between the pictures or clips of an identity."""

    loudness: float
    bend: float
    """A factor of the pitch."""
    onset: float
    """How much of a bar has passed when it begins, 0 to 1."""
    phases: NDArray[np.float64]
    """(partials,) radians."""
    noise: float
    """Root mean square of the noise."""
    dullness: float
    """Share of the noise that is smoothed, 0 to 1."""


def voice(seed: int, number: int) -> Voice:
    """The voice of identity `number` of the world `seed`."""
    rng = generator(seed, VOICE, number)
    pitch, tempo, *rest = (float(r) for r in rng.random(_NOTES + 1))
    return Voice(150 * 4**pitch, 2.5 * 2**tempo, (1.0, *(0.25 + 0.75 * r for r in rest)))


def take(seed: int, number: int, picture: int, partials: int, odds: Odds) -> Take:
    """Picture or clip `picture` of identity `number`."""
    rng = generator(seed, TAKE, number, picture)
    loudness, bend, onset, noise, dullness = (float(r) for r in rng.random(5))
    return Take(
        loudness=0.35 + 0.65 * loudness,
        bend=1 + 0.02 * (2 * bend - 1),
        onset=onset,
        phases=2 * math.pi * rng.random(partials),
        noise=0.12 * odds.noise * noise,
        dullness=dullness,
    )


def sound(
    seed: int, shape: str, number: int, picture: int, odds: Odds, *, start: float, seconds: float, rate: int
) -> NDArray[np.float32]:
    """(round(seconds · rate),) in [-1, 1]: identity `number`, of class `shape`, from `start` seconds on.

    Raises: SeeallError for a length or rate out of bounds.
    """
    count = round(seconds * rate) if math.isfinite(seconds) else 0
    if not (0 < seconds <= 3600 and count >= 1):
        raise SeeallError(f"scenes: a sound of {seconds} seconds; want one sample or more, and 3600 seconds or less")
    if not 8000 <= rate <= 192_000:
        raise SeeallError(f"scenes: a sound of {rate} samples per second; choose from 8000 to 192000")
    timbre = TIMBRES[shape]
    its_voice, its_take = voice(seed, number), take(seed, number, picture, len(timbre.partials), odds)
    first = round(start * rate)
    heard = its_take.loudness * _notes(timbre, its_voice, its_take, (first + np.arange(count)) / rate, rate)
    if its_take.noise > 0:
        heard += its_take.noise * _hiss((seed, HISS, number, picture), its_take.dullness, first, count)
    return np.tanh(heard).astype(np.float32)


def _notes(timbre: Timbre, voice: Voice, take: Take, t: Wave, rate: int) -> Wave:
    """(n,) the sound without noise, at times t in seconds."""
    passed = t * voice.tempo + _NOTES * take.onset
    note = np.floor(passed)
    period = 1 / voice.tempo
    tau = (passed - note) * period
    waver = 2 * math.pi * timbre.wobble
    phase = tau + timbre.slide * tau * tau / (2 * period) + timbre.vibrato * np.sin(waver * tau) / waver
    pitch = voice.pitch * take.bend
    wave = np.zeros_like(t)
    power = 0.0
    for (ratio, amplitude), offset in zip(timbre.partials, take.phases, strict=True):
        power += amplitude * amplitude / 2
        if ratio * pitch * (1 + max(timbre.slide, 0) + timbre.vibrato) < _HIGHEST * rate:
            wave += amplitude * np.sin(2 * math.pi * pitch * ratio * phase + offset)
    envelope = (1 - np.exp(-tau / timbre.attack)) * np.exp(-tau / timbre.decay)
    envelope *= np.minimum((period - tau) / _FADE, 1)
    envelope *= 1 - timbre.tremolo * (1 + np.sin(waver * tau)) / 2
    envelope *= np.array(voice.accents)[note.astype(np.int64) % _NOTES]
    return np.asarray(LEVEL / math.sqrt(power) * envelope * wave)


def _hiss(key: tuple[int, ...], dullness: float, first: int, count: int) -> Wave:
    """(count,) noise of root mean square 1, white and smoothed, from sample `first` on."""
    before = first + _BLOCK  # room for the samples that the first ones are smoothed with
    blocks = range((before - 1) // _BLOCK, (before + count - 1) // _BLOCK + 1)
    white = np.concatenate([generator(*key, block).uniform(-1, 1, _BLOCK) for block in blocks])
    white = white[before - 1 - blocks[0] * _BLOCK :][: count + 1]
    mixed = white[1:] + dullness * white[:-1]
    return np.asarray(mixed * math.sqrt(3 / (1 + dullness * dullness)))
