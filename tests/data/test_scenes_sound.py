"""What the things of the synthetic world sound like."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

from seeall.data.scenes import Scenes, parse
from seeall.data.scenes.shapes import NAMES
from seeall.data.scenes.sound import LEVEL, TIMBRES, take, voice
from seeall.data.scenes.world import Odds
from seeall.types import SeeallError

SET = parse("scenes:n=192,identities=48")


@pytest.fixture(scope="module")
def sounds() -> np.ndarray:
    """(192, 16000)."""
    return np.stack([SET.sound(i) for i in range(len(SET))])


def test_every_class_has_a_timbre() -> None:
    assert tuple(TIMBRES) == NAMES and len(set(TIMBRES.values())) == len(NAMES)


def test_sounds_are_in_range_and_never_silent(sounds: np.ndarray) -> None:
    assert sounds.shape == (192, 16_000) and sounds.dtype == np.float32
    assert np.isfinite(sounds).all() and np.abs(sounds).max() <= 1
    assert np.sqrt((sounds.astype(float) ** 2).mean(1)).min() > 0.01
    assert np.abs(sounds).max(1).min() > 0.05


@pytest.mark.parametrize(("seconds", "rate"), [(0.25, 8000), (1.5, 22_050), (0.5, 44_100), (1 / 16_000, 16_000)])
def test_length_and_rate(seconds: float, rate: int) -> None:
    for i in range(8):
        heard = SET.sound(i, seconds, rate)
        assert len(heard) == round(seconds * rate) and np.isfinite(heard).all()
    assert len(heard) == 1 or heard.std() > 0.001


def test_the_same_key_is_the_same_sound(sounds: np.ndarray) -> None:
    again = pickle.loads(pickle.dumps(SET))
    for i in (150, 3, 70):
        np.testing.assert_array_equal(again.sound(i), sounds[i])
    np.testing.assert_array_equal(parse("scenes:n=9,first=144,identities=48").sound(6), sounds[150])
    assert not np.array_equal(replace(SET, seed=1).sound(3), sounds[3])
    assert len({heard.tobytes() for heard in sounds}) == len(sounds)


def test_nothing_but_identity_and_number_is_heard() -> None:
    for text in ("things=3", "poles=1", "light=1", "size=32", "labels=identity"):
        other = parse(f"scenes:n=192,identities=48,{text}")
        np.testing.assert_array_equal(other.sound(11), SET.sound(11))


def features(sounds: np.ndarray) -> np.ndarray:
    """(n, 16000) → (n, D): mean, spread and change of the logarithm of the power in bands; each of unit variance."""
    rows = []
    for heard in sounds:
        pieces = np.lib.stride_tricks.sliding_window_view(heard, 512)[::160] * np.hanning(512)
        power = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
        edges = np.unique(np.geomspace(2, 256, 25).round().astype(int))
        bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-4)
        rows.append(np.concatenate([bands.mean(0), bands.std(0), np.diff(bands, axis=0).std(0)]))
    table = np.stack(rows)
    return (table - table.mean(0)) / table.std(0)


def test_class_and_identity_can_be_told_by_the_nearest_sound(sounds: np.ndarray) -> None:
    table = features(sounds)
    who = np.array([SET.identity(i) for i in range(len(SET))])
    kind = who % 8
    distance = ((table[:, None] - table[None]) ** 2).sum(-1)
    same = who[:, None] == who
    alike = kind[:, None] == kind
    assert distance[alike & ~same].mean() < 0.8 * distance[~alike].mean()
    others = np.where(same, np.inf, distance)
    assert (kind[others.argmin(1)] == kind).mean() > 0.7, "an eighth is chance"
    np.fill_diagonal(distance, np.inf)
    assert (who[distance.argmin(1)] == who).mean() > 0.3, "3 of 191 is chance"


def test_a_class_is_not_told_by_loudness_noise_or_onset_of_a_take() -> None:
    odds = Odds()
    takes = [take(0, k, k, 3, odds) for k in range(800)]
    table = np.array([[t.loudness, t.bend, t.onset, t.noise, t.dullness] for t in takes])
    means = np.stack([table[k::8].mean(0) for k in range(8)])
    assert (np.abs(means - table.mean(0)) < 4 * table.std(0) / 10).all()
    assert table[:, 1].min() > 0.979 and table[:, 1].max() < 1.021


def by_formula(scenes: Scenes, i: int, sample: int, rate: int) -> float:
    """One sample without noise, from the formula of the module's first lines."""
    timbre, who = TIMBRES[scenes.label(i)], scenes.identity(i)
    mine, its = voice(scenes.seed, who), take(scenes.seed, who, i, len(TIMBRES[scenes.label(i)].partials), Odds())
    period = 1 / mine.tempo
    t = sample / rate + 4 * its.onset * period
    note, tau = int(t / period), t % period
    f, turn = mine.pitch * its.bend, 2 * math.pi * timbre.wobble
    slid = f * (tau + timbre.slide * tau**2 / (2 * period) + timbre.vibrato * math.sin(turn * tau) / turn)
    total = energy = 0.0
    for (q, a), p in zip(timbre.partials, its.phases, strict=True):
        energy += a * a / 2
        if f * q * (1 + max(timbre.slide, 0) + timbre.vibrato) < 0.45 * rate:
            total += a * math.sin(2 * math.pi * q * slid + p)
    total *= (1 - math.exp(-tau / timbre.attack)) * math.exp(-tau / timbre.decay)
    total *= 1 - timbre.tremolo * (1 + math.sin(turn * tau)) / 2
    total *= min((period - tau) / 0.008, 1) * mine.accents[note % 4]
    return math.tanh(its.loudness * LEVEL * total / math.sqrt(energy))


def test_sounds_follow_the_formula() -> None:
    clean = replace(SET, noise=0)
    for i in range(16):
        heard = clean.sound(i)
        for sample in range(0, 16_000, 613):
            assert heard[sample] == pytest.approx(by_formula(clean, i, sample, 16_000), abs=2e-6)


def test_the_pitch_of_an_identity_is_heard() -> None:
    """The flute's strongest line is its pitch, a quarter of a tone more or less, in every picture."""
    clean = replace(SET, noise=0)
    pitches = {k: voice(0, k).pitch for k in range(0, 48, 8)}
    assert max(pitches.values()) / min(pitches.values()) > 1.5
    for i in range(0, 192, 8):
        power = np.abs(np.fft.rfft(clean.sound(i, 2.0), 64_000))
        assert power.argmax() / 4 == pytest.approx(pitches[i % 48], rel=0.03)


def test_a_sound_is_the_same_at_every_rate() -> None:
    clean = replace(SET, noise=0)
    for i in (0, 6, 7):
        np.testing.assert_allclose(clean.sound(i, 0.5, 32_000)[::2], clean.sound(i, 0.5, 16_000), atol=1e-6)


def test_noise_is_added_and_of_its_strength() -> None:
    clean, noisy = replace(SET, noise=0), replace(SET, noise=1)
    for i in range(8):
        heard, without = (np.arctanh(s.sound(i).astype(float)) for s in (noisy, clean))
        its = take(0, SET.identity(i), i, len(TIMBRES[SET.label(i)].partials), Odds(noise=1.0))
        assert np.std(heard - without) == pytest.approx(its.noise, rel=0.05)


def test_frames_of_a_clip_hear_one_sound_that_goes_on() -> None:
    clips = parse("scenes:n=10,frames=8,fps=4,identities=5")
    for clip in (0, 7):
        whole = clips.sound(8 * clip, 3.0)
        for k in range(8):
            part = clips.sound(8 * clip + k)
            np.testing.assert_allclose(part, whole[k * 4000 :][:16_000], atol=1e-6)
    assert not np.array_equal(clips.sound(0), clips.sound(40)), "another clip of the same identity"


@pytest.mark.parametrize(
    ("seconds", "rate", "words"),
    [
        (0.0, 16_000, "a sound of 0.0 seconds; want one sample or more"),
        (-1.0, 16_000, "a sound of -1.0 seconds"),
        (math.nan, 16_000, "a sound of nan seconds"),
        (math.inf, 16_000, "a sound of inf seconds"),
        (1e-5, 16_000, "want one sample or more"),
        (3601.0, 16_000, "3600 seconds or less"),
        (1.0, 7999, "7999 samples per second; choose from 8000 to 192000"),
        (1.0, 10**6, "1000000 samples per second"),
    ],
)
def test_lengths_and_rates_out_of_bounds_are_refused(seconds: float, rate: int, words: str) -> None:
    with pytest.raises(SeeallError, match=words) as caught:
        SET.sound(0, seconds, rate)
    assert "\n" not in str(caught.value)


def test_sounds_beyond_the_set_are_refused() -> None:
    with pytest.raises(IndexError, match="picture 192 of 192"):
        SET.sound(192)
