"""Finding pairs of picture and sound, and the window that gives nothing away."""

from __future__ import annotations

import shutil
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch import Tensor

import seeall
from seeall.data import keyed
from seeall.data.decode import Unreadable
from seeall.data.pairs import GRID, pairs, start, video_sound
from seeall.data.sound import LogMel, read_sound, window
from seeall.types import SeeallError

DIGITS = Path(seeall.__file__).parents[2] / "shared" / "data" / "spoken_digits.zip"


def touch(root: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".wav":
            with wave.open(str(file), "wb") as out:
                out.setparams((1, 2, 8000, 0, "NONE", ""))
                out.writeframes(bytes(2 * (i + 1)))
        else:
            Image.new("RGB", (4, 4)).save(file)
    return root


def message(data: Path) -> str:
    with pytest.raises(SeeallError) as fault:
        pairs(str(data))
    assert "\n" not in str(fault.value)
    return str(fault.value).removeprefix(str(data))


LAYOUTS = {
    "at the top": (["image/a.png", "sound/a.wav", "image/b.png", "sound/b.wav"], None, None),
    "below splits": (
        ["train/image/a.png", "train/sound/a.wav", "test/images/a.png", "test/Audio/a.wav"], None, ["test", "train"]
    ),
    "above splits and classes": (
        ["image/train/x/a.png", "sound/train/x/a.wav", "image/val/y/a.png", "sound/val/y/a.wav"],
        ["x", "y"], ["train", "val"],
    ),
    "below splits and classes": (
        ["train/x/image/a.png", "train/x/sounds/a.wav", "valid/y/image/a.png", "valid/y/sounds/a.wav"],
        ["x", "y"], ["train", "val"],
    ),
    "below classes": (["x/image/a.png", "x/sound/a.wav", "y/image/a.png", "y/sound/a.wav"], ["x", "y"], None),
    "above classes": (["image/x/a.png", "sound/x/a.wav", "image/y/b.png", "sound/y/b.wav"], ["x", "y"], None),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders(tmp_path: Path, layout: str) -> None:
    names, labels, splits = LAYOUTS[layout]
    touch(tmp_path, *names, "cover.png", "speech.wav")
    (tmp_path / "notes.txt").touch()
    found = pairs(str(tmp_path))
    partner = {str(tmp_path / p): str(tmp_path / s) for p, s in zip(names[::2], names[1::2])}
    assert dict(zip(found.pictures.keys, found.sounds, strict=True)) == partner
    assert sorted(found.pictures.ids) == sorted(names[::2])
    assert found.pictures.labels == labels
    assert found.pictures.splits == splits
    assert found.pictures.read(0).shape == (4, 4, 3)
    assert len(read_sound(found.sounds[0], 8000)) > 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifests(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, "p/1.png", "p/2.png", "s/a.wav")
    shutil.copy(tmp_path / "s" / "a.wav", tmp_path / "b.wav")
    rows = {
        "path": ["p/1.png", "p/2.png"], "sound": [str(tmp_path / "b.wav"), "s/a.wav"],
        "label": ["x", "y"], "split": ["train", "test"], "year": ["1999", "2001"],
    }  # fmt: skip
    manifest = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        manifest.write_text("\n".join([",".join(rows)] + [",".join(row) for row in zip(*rows.values())]))
    else:
        pyarrow.parquet.write_table(pyarrow.table(rows), manifest)
    found = pairs(str(manifest))
    assert found.sounds == [str(tmp_path / "b.wav"), str(tmp_path / "s" / "a.wav")]
    assert found.pictures.labels == ["x", "y"]
    assert found.pictures.metadata == [{"year": "1999"}, {"year": "2001"}]
    assert found.split("test").sounds == [str(tmp_path / "s" / "a.wav")]
    assert found.split("test").pictures.ids == ["p/2.png"]
    assert len(found.split("val")) == 0


def test_a_sound_may_go_with_many_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "a.wav")
    (tmp_path / "m.csv").write_text("path,sound\n1.png,a.wav\n2.png,a.wav\n")
    found = pairs(str(tmp_path / "m.csv"))
    assert found.sounds == [str(tmp_path / "a.wav")] * 2
    assert found.pictures.labels is None
    assert found.pictures.metadata is None
    assert len(found.fingerprint()) == 16


def test_mistakes_in_a_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "a.wav")
    manifest = tmp_path / "m.csv"
    wanted = "want a manifest with columns 'path' and 'sound', or a folder with sub-folders 'image' and 'sound'"
    manifest.write_text("path\n1.png\n")
    assert message(manifest) == f": no sounds named; {wanted}"
    assert message(tmp_path / "1.png") == f": no sounds named; {wanted}"
    manifest.write_text("path,sound\n1.png,a.wav\n2.png,\n")
    assert message(manifest) == ": the column 'sound' is empty for 2.png; fill it in or leave them out"
    manifest.write_text("path,sound\n1.png,a.wav\n2.png,b.wav\n3.png,a.wav\n4.png,c.wav\n")
    assert message(manifest) == ": no such file as 3.png, 4.png, b.wav and 1 more; paths are relative to the manifest"
    assert message(tmp_path / "gone.csv") == ": no such file or folder"


def test_mistakes_in_a_folder(tmp_path: Path) -> None:
    only = touch(tmp_path / "only", "image/a.png", "b.wav")
    assert message(only).startswith(": no pairs, for want of sounds in a sub-folder 'sound'; or give a manifest")
    none = touch(tmp_path / "none", "a.png", "sound/b.wav")
    assert message(none).startswith(": no pairs, for want of pictures in a sub-folder 'image'; or give a manifest")
    alone = touch(tmp_path / "alone", *(f"image/{i}.png" for i in range(6)), "sound/1.wav", "sound/x.wav")
    want = ": no sound for 0, 2, 3 and 2 more and no picture for x; each needs a partner of the same name"
    assert message(alone) == want
    twice = touch(tmp_path / "twice", "image/a.png", "image/a.jpg", "sound/a.wav")
    assert message(twice) == ": image/a.jpg and image/a.png are of the same name; keep one of them"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no pictures in it or below" in message(empty)


def test_a_limit_keeps_partners_together(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{kind}/{i}.{end}" for c in "xy" for i in range(8) for kind, end in
                      (("image", "png"), ("sound", "wav"))))  # fmt: skip
    found = pairs(str(tmp_path), limit=6, seed=1)
    assert sorted(found.pictures.labels or []) == ["x"] * 3 + ["y"] * 3
    for name, sound in zip(found.pictures.ids, found.sounds, strict=True):
        assert sound == str(tmp_path / name.replace("image", "sound").replace("png", "wav"))
    assert pairs(str(tmp_path), limit=6, seed=2).pictures.ids != found.pictures.ids
    with pytest.raises(SeeallError, match="--limit 0"):
        pairs(str(tmp_path), limit=0)


def test_the_fingerprint_tells_what_goes_with_what(tmp_path: Path) -> None:
    here = touch(tmp_path / "here", "1.png", "2.png", "a.wav", "b.wav")
    (here / "m.csv").write_text("path,sound\n1.png,a.wav\n2.png,b.wav\n")
    first = pairs(str(here / "m.csv")).fingerprint()
    shutil.copytree(here, tmp_path / "there")
    assert pairs(str(tmp_path / "there" / "m.csv")).fingerprint() == first
    (here / "m.csv").write_text("path,sound\n1.png,b.wav\n2.png,a.wav\n")
    assert pairs(str(here / "m.csv")).fingerprint() != first
    shutil.copy(here / "a.wav", here / "b.wav")
    swapped = pairs(str(here / "m.csv")).fingerprint()  # the same sizes, so it is the names that differ
    (here / "m.csv").write_text("path,sound\n1.png,a.wav\n2.png,b.wav\n")
    assert pairs(str(here / "m.csv")).fingerprint() != swapped
    touch(tmp_path / "there", "b.wav")  # of another length now
    assert pairs(str(tmp_path / "there" / "m.csv")).fingerprint() != first


def test_windows_begin_on_the_grid_evenly_and_by_key() -> None:
    samples, length = 16000, 4000
    places = [start(0, epoch, row, samples, length) for epoch in range(20) for row in range(100)]
    assert all(p % GRID == 0 and 0 <= p <= samples - length for p in places)
    counts = torch.bincount(torch.tensor(places) // GRID)
    assert len(counts) == (samples - length) // GRID + 1
    expected = len(places) / len(counts)
    assert float((counts - expected).square().sum() / expected) < 44  # χ² with 18 degrees of freedom, p = 0.0006
    assert start(0, 3, 7, samples, length) == places[307]
    assert [start(1, 0, row, samples, length) for row in range(100)] != places[:100]
    assert start(0, 0, 0, samples, length, grid=1) != places[0]


@pytest.mark.parametrize(("samples", "want"), [(0, {0}), (99, {0}), (100, {0}), (109, {0}), (110, {0, 10})])
def test_a_sound_that_is_hardly_longer_than_the_window(samples: int, want: set[int]) -> None:
    assert {start(0, 0, row, samples, 100, grid=10) for row in range(50)} == want


# The leak: rows are tracks of several utterances; picture i belongs to the time at which one of track i's begins.

RATE, LENGTH, SLOTS, TRACKS, EPOCHS = 8000, 2000, 5, 160, 8


def spoken(folder: Path) -> list[Tensor]:
    with zipfile.ZipFile(DIGITS) as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".wav"))[::2]
        archive.extractall(folder, names)
    return [read_sound(folder / name, RATE) for name in names]


def played() -> list[Tensor]:
    """Plucked strings of many pitches, in noise."""
    time = torch.arange(3200) / RATE
    notes = []
    for i in range(400):
        pitch, decay, noise = keyed.uniform(5, i, n=3).tolist()
        tone = torch.sin(2 * torch.pi * (150 + 1500 * pitch) * time) * torch.exp(-time * (5 + 10 * decay))
        notes.append(0.5 * tone + 0.01 * (1 + noise) * keyed.normal(6, i, n=len(time)))
    return notes


def tracks(utterances: list[Tensor]) -> tuple[list[Tensor], list[list[int]]]:
    """Utterances at multiples of 40 ms, one after another; and when each begins."""
    sounds, moments = [], []
    for row in range(TRACKS):
        parts, begins, samples = [], [], 0
        for number in keyed.permutation(len(utterances), 1, row)[:SLOTS].tolist():
            utterance = utterances[number]
            begins.append(samples)
            parts.append(window(utterance, 0, -(-(len(utterance) + RATE // 10) // 320) * 320))
            samples += len(parts[-1])
        parts.append(torch.zeros(LENGTH))
        sounds.append(torch.cat(parts))
        moments.append(begins)
    return sounds, moments


def accuracy(sounds: list[Tensor], rule: Callable[[int, int, int], int]) -> float:
    """How often a linear classifier that is given the sound alone tells that it is not the picture's.

    rule: epoch, picture, row of the sound → where its window begins. Learned on one half of the tracks, measured
    on the other.
    """
    logmel = LogMel(rate=RATE, n_fft=256, hop=256, mels=16)
    x, y = [], []
    for epoch in range(EPOCHS):
        for picture in range(TRACKS):
            half = picture // (TRACKS // 2) * (TRACKS // 2)
            own = int(keyed.bits(3, epoch, picture)) % 2
            row = picture if own else half + (picture + 1 + epoch) % (TRACKS // 2)
            x.append(window(sounds[row], rule(epoch, picture, row), LENGTH))
            y.append(2.0 * own - 1)
    features = logmel(torch.stack(x)).flatten(1).double() / 20
    features = torch.cat([features - features.mean(0), torch.ones(len(x), 1)], 1).view(EPOCHS, 2, TRACKS // 2, -1)
    truth = torch.tensor(y, dtype=torch.float64).view(EPOCHS, 2, TRACKS // 2)
    (seen, unseen), (told, untold) = features.transpose(0, 1).flatten(1, 2), truth.transpose(0, 1).flatten(1)
    ridge = torch.linalg.solve(seen.T @ seen + 30 * torch.eye(seen.shape[1]), seen.T @ told)
    return float(((unseen @ ridge) * untold > 0).double().mean())


@pytest.mark.parametrize("kind", ["spoken", "played"])
def test_a_window_does_not_say_whether_the_picture_is_its_own(tmp_path: Path, kind: str) -> None:
    if kind == "spoken" and not DIGITS.exists():
        pytest.skip("the spoken digits are not there")
    sounds, moments = tracks(spoken(tmp_path) if kind == "spoken" else played())

    def naive(epoch: int, picture: int, row: int) -> int:
        if picture == row:
            return moments[row][int(keyed.bits(2, epoch, row)) % SLOTS]
        return int(keyed.bits(4, epoch, picture, row) & 0xFFFFFF) % (len(sounds[row]) - LENGTH)

    def ours(epoch: int, picture: int, row: int) -> int:
        return start(0, epoch, row, len(sounds[row]), LENGTH, grid=320)

    noise = (0.25 / (EPOCHS * TRACKS / 2)) ** 0.5
    assert accuracy(sounds, naive) > 0.65  # 0.73 for words, 0.88 for strings
    assert abs(accuracy(sounds, ours) - 0.5) < 3 * noise


def film(file: Path, codec: str, *, sound_at: float = 0.0, pictures_at: float = 0.0) -> None:
    """Two seconds of grey at 25 a second; and two of sound, silent but for a click half a second after it begins."""
    av: Any = pytest.importorskip("av")
    values = np.zeros((1, 32000), np.float32)
    values[0, 8000:8080] = 0.5
    with av.open(str(file), "w") as out:
        seen = out.add_stream("mpeg4", rate=25, width=16, height=16)
        heard = out.add_stream(codec, rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        resampler = av.AudioResampler(heard.codec_context.format.name, "mono", 16000, heard.frame_size or 1000)
        packets = []
        for i in range(51):
            image = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 100, np.uint8)) if i < 50 else None
            if image is not None:
                image.pts = i + round(25 * pictures_at)
            packets += seen.encode(image)
        for part in [*resampler.resample(frame), None]:
            if part is not None:
                part.pts += round(16000 * sound_at)
            packets += heard.encode(part)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            out.mux(packet)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.parametrize(("sound_at", "pictures_at"), [(0.0, 0.0), (0.6, 0.0), (0.0, 0.4), (1.0, 1.0)])
def test_the_sound_of_a_video_is_on_the_clock_of_its_pictures(
    tmp_path: Path, name: str, sound_at: float, pictures_at: float
) -> None:
    file = tmp_path / name
    film(file, {"a.mkv": "pcm_s16le", "a.mp4": "aac"}[name], sound_at=sound_at, pictures_at=pictures_at)
    sound = video_sound(file, 8000)
    click = int(sound.abs().gt(0.15).nonzero()[0])
    assert abs(click / 8000 - (0.5 + sound_at - pictures_at)) < 0.01
    assert abs(len(sound) / 8000 - (2 + sound_at - pictures_at)) < 0.15


def test_a_video_whose_sound_is_over_before_its_pictures(tmp_path: Path) -> None:
    film(tmp_path / "a.mkv", "pcm_s16le", pictures_at=3.0)
    with pytest.raises(Unreadable, match="^its audio track ends before its first picture$"):
        video_sound(tmp_path / "a.mkv", 8000)
    with pytest.raises(Unreadable, match="^no such file$"):
        video_sound(tmp_path / "gone.mkv", 8000)
