"""Who belongs together by time: frames of one stretch of a clip, with cuts that fall anywhere."""

from __future__ import annotations

import itertools
import math
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import seeall
from seeall.data.clips import clips
from seeall.data.pictures import find
from seeall.data.sampler import Grouped, Sampler
from seeall.ssl.positives.time import time
from seeall.ssl.pretrain import pretrain
from seeall.types import SeeallError
from tests.objectives.grey_pictures import made

DAVIS = Path(seeall.__file__).parents[2] / "shared" / "data" / "davis.zip"


def stretches(seconds: Sequence[float], groups: Sequence[int], window: float) -> bool:
    """Whether one cut, somewhere, and one after every window from there, parts the frames of a clip in this way.

    All cuts that make a difference are tried: one just behind every frame, modulo the window.
    """
    for cut in [(s + 1e-9) % window for s in seconds]:
        parts = [math.floor((s - cut) / window) for s in seconds]
        if all((a == b) == (g == h) for (a, g), (b, h) in itertools.combinations(list(zip(parts, groups)), 2)):
            return True
    return False


def moments(seed: int, clips_of: int = 4, frames: int = 12, length: float = 5.0) -> list[tuple[str, float]]:
    """Frames at odd times, of clips all mixed up."""
    draw = np.random.default_rng(seed)
    found = [(f"clip {c}", float(s)) for c in range(clips_of) for s in draw.uniform(0, length, frames)]
    return [found[i] for i in draw.permutation(len(found))]


@pytest.mark.parametrize("window", [0.4, 1.0, 3.7, 50.0])
def test_frames_of_one_stretch_belong_together(window: float) -> None:
    where = moments(1)
    found, partitions = time(made(moments=where), 5, window=window), set()
    assert found.together == 2
    for epoch in range(20):
        groups = found.groups(epoch).tolist()
        for (one, g), (other, h) in itertools.combinations(zip(where, groups), 2):
            assert g != h or (one[0] == other[0] and abs(one[1] - other[1]) < window)
        for clip in {name for name, _ in where}:
            own = [(s, g) for (name, s), g in zip(where, groups) if name == clip]
            assert stretches([s for s, _ in own], [g for _, g in own], window)
        partitions.add(tuple(groups))
        assert groups == time(made(moments=where), 5, window=window).groups(epoch).tolist()
    assert len(partitions) > 1 or window == 50.0


def test_cuts_fall_anywhere_anew_for_every_clip_and_epoch() -> None:
    """Frames d apart are together with probability 1 - d / window; what one clip has says nothing of another."""
    window, apart, n, epochs = 2.0, (0.2, 1.0, 1.8, 2.0), 200, 30
    where = [(f"{d} {c}", s) for d in apart for c in range(n) for s in (7.0, 7.0 + d)]
    found = time(made(moments=where), 3, window=window)
    pairs = torch.stack([found.groups(epoch).view(len(apart), n, 2) for epoch in range(epochs)])
    same = (pairs[..., 0] == pairs[..., 1]).double()
    for k, d in enumerate(apart):
        p = 1 - d / window
        assert abs(float(same[:, k].mean()) - p) <= 4 * (p * (1 - p) / (n * epochs)) ** 0.5
    half = same[:, 1] - 0.5  # of clips, and of epochs, one and the next
    for one, next_one in ((half[:, 1:], half[:, :-1]), (half[1:], half[:-1])):
        assert abs(float((one * next_one).mean())) < 4 * 0.25 / one.numel() ** 0.5


def test_folders_of_frames(tmp_path: Path) -> None:
    """Frames of a folder lie 1 / fps apart, whatever the folders below it hold."""
    for clip, many in (("run/frames", 9), ("walk/frames", 5), ("still", 1)):
        for i in range(many):
            (tmp_path / clip).mkdir(parents=True, exist_ok=True)
            (tmp_path / clip / f"{i:05d}.jpg").touch()
    pictures = find(str(tmp_path))
    found = time(pictures, 0, window=0.5, fps=4)
    assert [Path(name).parts[0] for name in pictures.ids] == ["run"] * 9 + ["still"] + ["walk"] * 5
    for epoch in range(12):
        run, still, walk = found.groups(epoch).split([9, 1, 5])
        for part in (run, walk):
            _, sizes = part.unique_consecutive(return_counts=True)
            assert set(sizes[1:-1].tolist()) == {2} and int(sizes.max()) == 2
        assert len({*run.tolist()} | {*still.tolist()} | {*walk.tolist()}) == sum(
            len({*part.tolist()}) for part in (run, still, walk)
        )
    with pytest.raises(SeeallError, match="frames are 0.25 s apart or more"):
        time(pictures, 0, window=0.25, fps=4)


def test_real_clips(tmp_path: Path) -> None:
    if not DAVIS.exists():
        pytest.skip(f"needs {DAVIS}")
    with zipfile.ZipFile(DAVIS) as archive:
        names = [n for n in archive.namelist() if "/frames/" in n and n.endswith(".jpg")]
    for name in names:  # what is in them does not matter here
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pictures = find(str(tmp_path))
    found = time(pictures, 0, window=0.5)
    where = clips(pictures)
    sampler = Sampler(len(pictures), 32, 0, order=Grouped(found.groups, found.together, 32, 0))
    for t in range(sampler.steps_per_epoch * 2):
        epoch, rows = sampler(t)
        groups = found.groups(epoch)[rows].tolist()
        for (i, g), (j, h) in itertools.combinations(zip(rows.tolist(), groups), 2):
            near = where.clip[i] == where.clip[j] and abs(float(where.seconds[i] - where.seconds[j])) < 0.5
            assert near or g != h
        assert sum(n > 1 for n in Counter(groups).values()) >= 10


def test_the_synthetic_world_has_clips() -> None:
    pictures = find("scenes:n=3,frames=10,size=16,fps=5")
    groups = time(pictures, 0, window=0.6).groups(0).view(3, 10)
    assert len(groups.unique()) == sum(len(clip.unique()) for clip in groups)
    assert all(int(clip.unique(return_counts=True)[1].max()) == 3 for clip in groups)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"window": 0.0}, "setting 'window' is 0.0: choose a number above 0"),
        ({"window": -1.0}, "setting 'window' is -1.0: choose a number above 0"),
        ({"window": math.nan}, "setting 'window' is nan: choose a number above 0"),
        ({"window": math.inf}, "setting 'window' is inf: choose a number above 0"),
        ({"fps": 0.0}, "setting 'fps' is 0.0: choose a number above 0"),
        ({"window": 0.39}, "memory: frames are 0.4 s apart or more, so none lie within the window of 0.39 s; choose a"),
        ({"window": 0.01}, "memory: frames are 0.4 s apart or more, so none lie within the window of 0.01 s; choose a"),
    ],
)
def test_times_that_will_not_do(setting: dict[str, float], words: str) -> None:
    where = [("a", 3.0), ("b", 3.1), ("a", 0.0), ("a", 2.6)]
    with pytest.raises(SeeallError, match=f"^{re.escape(words)}") as fault:
        time(made(moments=where), 0, **setting)
    assert "\n" not in str(fault.value)


def test_pictures_that_are_no_clips() -> None:
    with pytest.raises(SeeallError, match="^memory has no two frames of one clip; give videos, or a sub-folder"):
        time(made(moments=[("a", 0.0), ("b", 0.0), ("c", 0.1)]), 0)


def test_an_epoch_in_which_few_belong_together_does_not_end_a_run(tmp_path: Path) -> None:
    """How many do is another number in every epoch, where the window is hardly longer than the step of frames.

    Here 24 to 36 of 48 pictures do, 30 in the third epoch; a batch takes 32.
    """
    results = pretrain(
        "scenes:n=6,frames=8,size=32", tmp_path / "run", positives="time", backbone="shufflenet_v2_x0_5",
        image_size=32, batch_size=32, steps=4, set=("window=0.2",),
    )  # fmt: skip
    assert math.isfinite(results["loss"])
