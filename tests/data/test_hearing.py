"""What is heard with pictures: the right window of the right sound, the same for the same row and epoch."""

from __future__ import annotations

import re
import shutil
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import seeall
from seeall.data import hearing
from seeall.data.hearing import Heard, find_heard
from seeall.data.pairs import GRID, start
from seeall.data.pictures import find
from seeall.data.sound import read_sound
from seeall.types import SeeallError

DIGITS = Path(seeall.__file__).parents[2] / "shared" / "data" / "spoken_digits.zip"
RATE = 8000
ROUNDING = 0.6 / 32767  # sounds are kept as 16 bits


def tone(seconds: float, rate: int, hertz: float = 200.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def sound_file(path: Path, channels: list[np.ndarray], rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setparams((len(channels), 2, rate, 0, "NONE", ""))
        out.writeframes((np.stack(channels, 1) * 32767).round().astype("<i2").tobytes())
    return path


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


def film(path: Path, *, seconds: int = 2, beep: float | None = 1.0, fps: int = 10) -> Path:
    """Grey pictures, and a sound that is silent but for a tone of 0.2 s around `beep`; None: no sound at all."""
    av: Any = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        seen = out.add_stream("mpeg4", rate=fps, width=16, height=16)
        heard = out.add_stream("pcm_s16le", rate=16000, layout="mono") if beep is not None else None
        packets: list[Any] = []
        for i in range(seconds * fps):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 100, np.uint8))
            frame.pts = i
            packets += seen.encode(frame)
        packets += seen.encode()
        if heard:
            values = np.zeros((1, seconds * 16000), np.int16)
            begin = round((beep - 0.1) * 16000)
            values[0, begin : begin + 3200] = (tone(0.2, 16000, 500.0) * 32767).astype(np.int16)
            part = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
            part.sample_rate, part.pts = 16000, 0
            packets += heard.encode(part) + heard.encode()
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            out.mux(packet)
    return path


def windows(data: Path | str, *, rate: int = RATE, length: int = 800, seed: int = 0, read: bool = True) -> Heard:
    heard = Heard.of(find_heard(str(data)), seed, rate, length)
    if read:
        heard.read()
    return heard


def near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= ROUNDING


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Five pictures and four sounds: of this rate, of another, of two channels, silent; two pictures share one."""
    ramp = np.arange(4000) / 4000
    sound_file(tmp_path / "s" / "ramp.wav", [ramp])
    sound_file(tmp_path / "s" / "fast.wav", [tone(0.5, 16000)], 16000)
    sound_file(tmp_path / "s" / "both.wav", [tone(0.5, RATE), np.zeros(4000)])
    sound_file(tmp_path / "s" / "still.wav", [np.zeros(4000)])
    names = ["ramp", "fast", "both", "still", "ramp"]
    for i in range(5):
        picture(tmp_path / "p" / f"{i}.png")
    lines = [f"p/{i}.png,s/{name}.wav,{'ab'[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("\n".join(["path,sound,label", *lines]) + "\n")
    return tmp_path / "list.csv"


def test_a_manifest_of_sounds(manifest: Path, notes: list[str]) -> None:
    """Windows are where `pairs.start` says; of two channels it is the mean; another rate is brought to this one."""
    pictures = find_heard(str(manifest))
    assert pictures.labels == list("ababa") and list(pictures.ids) == [f"p/{i}.png" for i in range(5)]
    heard = windows(manifest)
    assert notes == ["1 of 4 sounds are silent throughout"]
    whole = [read_sound(name, RATE) for name in heard.names]
    for epoch in range(4):
        rows = [4, 0, 2, 1, 3, 0]
        told = heard(rows, epoch)
        assert told.shape == (6, 800) and told.dtype == torch.float32
        for row, window in zip(rows, told):
            begin = start(0, epoch, row, 4000, 800)
            assert near(window, whole[row][begin : begin + 800])
    half = torch.from_numpy(tone(0.5, RATE) / 2).float()
    assert float((heard([2], 0)[0] - half[start(0, 0, 2, 4000, 800) :][:800]).abs().max()) <= 2 * ROUNDING
    assert not heard([3], 0).any()


def test_same_row_and_epoch_same_window(manifest: Path) -> None:
    """Whatever was asked for before, alone or among others; another epoch or seed hears another part."""
    heard = windows(manifest)
    first = heard([0, 1, 2, 3, 4], 3)
    for row in (2, 0, 4):
        heard([1, 3], 8)
        assert torch.equal(heard([row], 3)[0], first[row])
        assert torch.equal(windows(manifest)([row], 3)[0], first[row])
    begins = {round(float(heard([0], epoch)[0, 0]) * 4000) for epoch in range(40)}
    assert begins == set(range(0, 3201, GRID))  # the ramp tells where the window begins
    assert any(not torch.equal(windows(manifest, seed=1)([0], epoch), heard([0], epoch)) for epoch in range(3))
    assert any(not torch.equal(heard([0], epoch), heard([4], epoch)) for epoch in range(3))


def test_a_window_longer_than_the_sound_ends_in_silence(manifest: Path) -> None:
    heard = windows(manifest, length=6000)
    for epoch in (0, 7):
        window = heard([0], epoch)[0]
        assert near(window[:4000], read_sound(heard.names[0], RATE)) and not window[4000:].any()


def test_folders_of_the_same_names(tmp_path: Path) -> None:
    for i, name in enumerate(("train/x", "train/y", "test/z")):
        folder, file = name.split("/")
        picture(tmp_path / folder / "image" / f"{file}.png")
        sound_file(tmp_path / folder / "sound" / f"{file}.wav", [tone(0.2, RATE, 100.0 * (i + 1))])
    pictures = find_heard(str(tmp_path))
    names = [Path(name).stem for name in pictures.ids]
    assert sorted(names) == ["x", "y", "z"] and pictures.root == tmp_path
    assert [Path(name).stem for name in Heard.of(pictures, 0, RATE, 800).names] == names
    heard = windows(tmp_path)
    for row, name in enumerate(names):
        begin = start(0, 0, row, 1600, 800)
        want = torch.from_numpy(tone(0.2, RATE, 100.0 * ("xyz".index(name) + 1))).float()[begin : begin + 800]
        assert near(heard([row], 0)[0], want)
    some = pictures.subset([2, 0])
    assert list(Heard.of(some, 0, RATE, 800).names) == [windows(tmp_path).names[i] for i in (2, 0)]


def test_a_limit_keeps_partners_together(manifest: Path) -> None:
    found = find_heard(str(manifest), limit=3, seed=1)
    every = dict(zip(find(str(manifest)).ids, ["ramp", "fast", "both", "still", "ramp"]))
    assert len(found) == 3
    assert [Path(name).stem for name in Heard.of(found, 0, RATE, 800).names] == [every[name] for name in found.ids]


def test_the_synthetic_world() -> None:
    pictures = find_heard("scenes:n=6,size=16,identities=3")
    heard = Heard.of(pictures, 0, RATE, 800)
    heard.read()
    told = heard([5, 0, 3], 1)
    for window, row in zip(told, (5, 0, 3)):
        assert pictures.sound is not None
        assert near(window, torch.from_numpy(pictures.sound(pictures.keys[row], 0.1, RATE)))
    some = Heard.of(pictures.subset([4, 2]), 0, RATE, 800)
    assert torch.equal(some([1], 9)[0], heard.whole(2))
    assert told.abs().amax(1).min() > 0.01


@pytest.mark.parametrize("name", ["a.mkv", "b.mov"])
def test_frames_of_a_video_hear_what_is_around_them(tmp_path: Path, name: str) -> None:
    """The window's middle is the frame's time; near the ends it is pushed inwards."""
    film(tmp_path / name, beep=1.0)
    film(tmp_path / f"other {name}", beep=0.3)
    pictures = find_heard(str(tmp_path))
    heard = windows(tmp_path, length=1600)
    seconds = [key.seconds for key in pictures.keys]
    for epoch in (0, 5):
        for row, key in enumerate(pictures.keys):
            window = heard([row], epoch)[0]
            middle = min(max(seconds[row], 0.1), 1.9)
            beep = 1.0 if key.video.name == name else 0.3
            loud = max(0.0, 0.2 - abs(middle - beep))  # seconds of the tone that are in the window
            assert abs(float(window.square().sum()) - 0.125 * loud * RATE) < 25, (row, middle)
    assert len(set(heard.names)) == 2  # each is read once


def test_only_what_fits_is_kept(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short, sounds are read again, and windows are the same but for the rounding to 16 bits."""
    kept = windows(manifest)([0, 1, 2, 3, 4], 2)
    monkeypatch.setattr(hearing, "free_memory", lambda: 0)
    heard = windows(manifest)
    assert near(heard([0, 1, 2, 3, 4], 2), kept)
    shutil.move(manifest.parent / "s" / "ramp.wav", manifest.parent / "gone.wav")
    with pytest.raises(SeeallError, match=r"ramp\.wav: was readable when training began, now no such file; restore it"):
        heard([0], 0)


def test_what_was_kept_needs_no_file(manifest: Path) -> None:
    heard = windows(manifest)
    before = heard([0, 1], 0)
    shutil.rmtree(manifest.parent / "s")
    assert torch.equal(heard([0, 1], 0), before)


def test_sounds_that_cannot_be_read(manifest: Path) -> None:
    for name in ("ramp", "fast", "both", "still"):
        (manifest.parent / "s" / f"{name}.wav").write_bytes(b"" if name == "ramp" else b"RIFF\0\0\0\0WAVE")
    heard = windows(manifest, read=False)
    unheard = heard.read()
    whys = {Path(heard.names[row]).name: why.rpartition("/")[2] for row, why in unheard}
    assert [row for row, _ in unheard] == list(range(5)) and all(why.startswith("its sound /") for _, why in unheard)
    assert whys["ramp.wav"] == "ramp.wav: empty file" and whys["both.wav"] == "both.wav: damaged: no sound in it"


def test_a_video_without_sound(tmp_path: Path) -> None:
    film(tmp_path / "in" / "silent.mkv", beep=None)
    film(tmp_path / "in" / "whole.mkv")
    heard = windows(tmp_path / "in", read=False)
    rows = [row for row, name in enumerate(heard.names) if name.endswith("silent.mkv")]
    assert rows and heard.read() == [(row, f"its sound {heard.names[row]}: no audio stream in it") for row in rows]


def test_pictures_alone_have_no_sounds(tmp_path: Path, manifest: Path) -> None:
    only = picture(tmp_path / "only" / "a.png")
    with pytest.raises(SeeallError, match="no pairs, for want of pictures in a sub-folder 'image'"):
        find_heard(str(only.parent))
    with pytest.raises(SeeallError, match="no sounds named; want a manifest with columns 'path' and 'sound'"):
        find_heard(str(only))
    with pytest.raises(SeeallError, match="no such file or folder"):
        find_heard(str(tmp_path / "nowhere"))
    with pytest.raises(SeeallError, match=f"^{re.escape(str(only.parent))}: no sounds found; give a manifest with col"):
        Heard.of(find(str(only.parent)), 0, RATE, 800)
    (manifest.parent / "s" / "ramp.wav").unlink()
    with pytest.raises(SeeallError, match=r"no such file as s/ramp\.wav; paths are relative to the manifest"):
        find_heard(str(manifest))


def test_spoken_digits(tmp_path: Path) -> None:
    if not DIGITS.exists():
        pytest.skip(f"needs {DIGITS}")
    with zipfile.ZipFile(DIGITS) as archive:
        some = [n for n in archive.namelist() if "/train/" in n and n.endswith(("_000.png", "_000.wav"))]
        archive.extractall(tmp_path, some)
    data = tmp_path / "spoken_digits"
    heard = windows(data, length=4000)
    pictures = find_heard(str(data))
    assert len(pictures) == len(some) // 2 == 10
    assert [Path(name).stem for name in heard.names] == [Path(name).stem for name in pictures.ids]
    told = heard(range(10), 0)
    assert told.shape == (10, 4000) and told.abs().amax(1).min() > 0.01
    assert len({tuple(window.tolist()) for window in told}) == 10
