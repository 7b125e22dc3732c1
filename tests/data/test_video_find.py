"""Finding the frames of videos: folders, manifests, names and texts, fingerprints, and what cannot be read."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.data.decode import Unreadable
from seeall.data.pictures import find
from seeall.data.video import is_video, named
from seeall.types import SeeallError
from tests.data.films import HEIGHT, WIDTH, film, plain


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


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    try:
        path = film(tmp_path / "v.mp4").rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system takes no such names")
    pictures = find(str(path))
    assert pictures.fingerprint()
    assert pictures.read(0).shape == (HEIGHT, WIDTH, 3)
