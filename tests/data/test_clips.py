"""Which frames belong to one clip, and when they were taken: videos, folders, what pictures say themselves."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seeall.data.clips import Clips, clips, natural
from seeall.data.decode import decode
from seeall.data.pictures import Pictures, find
from seeall.types import SeeallError

DAVIS = Path(__file__).parents[2].parent / "shared" / "data" / "davis.zip"


def files(*ids: str) -> Pictures:
    """Files that are only named: `clips` opens none."""
    return Pictures("here", ids, [f"/here/{name}" for name in ids], decode)


def told(found: Clips) -> list[tuple[str, float]]:
    """As one list: the clip and time of every picture."""
    return [(found.names[c], round(t, 6)) for c, t in zip(found.clip.tolist(), found.seconds.tolist())]


def test_folders_of_frames() -> None:
    names = ["b/f10.jpg", "b/f9.jpg", "a/x/1.png", "b/f8.jpg", "a/x/0.png", "a/3.png", "top.png"]
    found = clips(files(*names), fps=10)
    assert told(found) == [
        ("b", 0.2), ("b", 0.1), ("a/x", 0.1), ("b", 0.0), ("a/x", 0.0), ("a", 0.0), (".", 0.0),
    ]  # fmt: skip
    assert found.clip.dtype == torch.int64
    assert found.seconds.dtype == torch.float64
    assert found.names == ["b", "a/x", "a", "."]
    assert told(clips(files(*names)))[0] == ("b", round(2 / 24, 6))


@pytest.mark.parametrize(
    "names",
    [
        ["9", "10", "11", "100"],
        ["img_2.9.png", "img_2.10.png", "img_10.1.png"],
        ["1", "a", "a1", "a1b", "a02", "b"],
        ["2024-1-31 9.jpg", "2024-2-1 10.jpg", "2024-10-1 1.jpg"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    assert sorted(set(names), key=natural) == names


def test_names_that_differ_by_zeros_have_an_order() -> None:
    assert told(clips(files("a/1", "a/01", "a/001"), fps=1)) == [("a", 2.0), ("a", 1.0), ("a", 0.0)]


def test_a_folder_on_disk(tmp_path: Path) -> None:
    for name in ("run/9.png", "run/10.png", "walk/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    pictures = find(str(tmp_path))
    assert list(pictures.ids) == ["run/10.png", "run/9.png", "walk/1.png"]
    assert told(clips(pictures, fps=4)) == [("run", 0.25), ("run", 0.0), ("walk", 0.0)]


def video(path: Path, times: Sequence[int]) -> None:
    """Frames at `times`, ms."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 32, 32
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def test_frames_of_videos_by_their_time_stamps(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    video(tmp_path / "sub" / "b.mkv", [0, 100, 700, 2000])
    video(tmp_path / "a.mkv", [0, 500])
    found = clips(find(str(tmp_path), rate=1000))
    assert told(found) == [
        ("a.mkv", 0.0), ("a.mkv", 0.5),
        ("sub/b.mkv", 0.0), ("sub/b.mkv", 0.1), ("sub/b.mkv", 0.7), ("sub/b.mkv", 2.0),
    ]  # fmt: skip
    some = find(str(tmp_path), rate=1000).subset([5, 1, 3])
    assert told(clips(some)) == [("sub/b.mkv", 2.0), ("a.mkv", 0.5), ("sub/b.mkv", 0.1)]


def test_a_manifest_of_videos_and_folders_of_frames(tmp_path: Path) -> None:
    video(tmp_path / "a.mkv", [0, 500])
    (tmp_path / "m.txt").write_text("f/10.png\na.mkv\nf/9.png\nf2/1.png\n")
    assert told(clips(find(str(tmp_path / "m.txt")), fps=2)) == [
        ("f", 0.5), ("a.mkv", 0.0), ("a.mkv", 0.5), ("f", 0.0), ("f2", 0.0),
    ]  # fmt: skip


def test_what_pictures_say_counts_and_is_kept_by_subset() -> None:
    said = [("x", 0.5), ("y", 3.0), ("x", 0.25), ("y", 1.0)]
    pictures = dataclasses.replace(files("a/1", "a/2", "b/1", "c/1"), moments=said)
    assert told(clips(pictures)) == said
    assert told(clips(pictures.subset([3, 2, 1]))) == [said[3], said[2], said[1]]
    some = pictures.limit(3)
    assert told(clips(some)) == [said[list(pictures.ids).index(name)] for name in some.ids]


def test_the_synthetic_world_says_it() -> None:
    found = clips(find("scenes:n=3,frames=4,fps=2,size=16"))
    assert found.clip.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.seconds.tolist() == [0, 0.5, 1, 1.5] * 3
    with pytest.raises(SeeallError, match="has no two frames of one clip"):
        clips(find("scenes:n=12,size=16,identities=2"))  # pictures of one identity are no clip


@pytest.mark.parametrize("names", [["a/1.png"], ["a/1.png", "b/1.png", "c/d/1.png"], []])
def test_no_two_frames(names: list[str]) -> None:
    with pytest.raises(SeeallError) as fault:
        clips(files(*names))
    assert str(fault.value) == (
        "here has no two frames of one clip; give videos, or a sub-folder of frames for each clip"
    )


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_no_rate(fps: float) -> None:
    with pytest.raises(SeeallError, match="fps is .*: choose a number above 0; 24 is usual"):
        clips(files("a/1", "a/2"), fps)


def test_real_clips(tmp_path: Path) -> None:
    if not DAVIS.exists():
        pytest.skip(f"needs {DAVIS}")
    with zipfile.ZipFile(DAVIS) as archive:
        names = [n for n in archive.namelist() if "/frames/" in n and n.endswith(".jpg")]
        for name in names:  # what is in them does not matter here
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    found = clips(find(str(tmp_path)), fps=24)
    assert len(found.names) == len({Path(n).parent for n in names}) == 3
    for c in range(3):
        own = found.seconds[found.clip == c]
        assert torch.allclose(own, torch.arange(len(own), dtype=torch.float64) / 24)  # DAVIS numbers with zeros
