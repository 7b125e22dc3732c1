"""What items are called where no folder of the disk may be told."""

from pathlib import Path

import numpy as np
import pytest

from seeall.index.server.errors import without_paths
from seeall.index.server.names import Names
from seeall.index.store import Index


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/home/me/a/1.jpg", "/home/me/b/2.jpg"], ["a/1.jpg", "b/2.jpg"]),
        (["/home/me/a/1.jpg"], ["1.jpg"]),
        (["/home/me/1.jpg", "/home/you/2.jpg"], ["1.jpg", "2.jpg"]),
        (["/home/me/1.jpg", "/data/2.jpg"], ["1.jpg", "2.jpg"]),
        (["/1.jpg", "/a/2.jpg"], ["1.jpg", "2.jpg"]),
        (["/home/me/ab/1.jpg", "/home/me/ac/2.jpg", "/home/me/ab2/3.jpg"], ["ab/1.jpg", "ac/2.jpg", "ab2/3.jpg"]),
        (["scenes/a/1", "scenes/b/2"], ["scenes/a/1", "scenes/b/2"]),
        (["scenes/a/1", "/home/me/x/2.jpg", "/home/me/y/2.jpg"], ["scenes/a/1", "x/2.jpg", "y/2.jpg"]),
        (["/home/me/a/film.mp4#00:01.250", "/home/me/b.jpg"], ["a/film.mp4#00:01.250", "b.jpg"]),
        (["/home/me/a/\udcff.jpg", "/home/me/b/é.jpg"], ["a/?.jpg", "b/é.jpg"]),
    ],
)
def test_names(paths: list[str], names: list[str], tmp_path: Path) -> None:
    index = Index.create(tmp_path / "x.index", dim=2, model="m", preprocessing={}, gpu="off")
    with index:
        index.add(paths, np.eye(2)[np.arange(len(paths)) % 2])
        found = Names(index.span())
    assert [found.name(path) for path in paths] == names


def test_removed_items_do_not_count(tmp_path: Path) -> None:
    with Index.create(tmp_path / "x.index", dim=2, model="m", preprocessing={}, gpu="off") as index:
        index.add(["/a/1", "/home/me/x/2", "/home/me/y/3"], np.ones((3, 2)))
        assert index.span() == ("/a/1", "/home/me/y/3")
        index.remove(["/a/1"])
        assert index.span() == ("/home/me/x/2", "/home/me/y/3")
        index.remove(["/home/me/x/2", "/home/me/y/3"])
        assert index.span() is None and Names(index.span()).name("/p/q/r") == "r"


def test_metadata() -> None:
    names = Names(("/home/me/a/1.jpg", "/home/me/b/2.jpg"))
    told = {"mask": "/home/me/m/1.png", "other": "/etc/passwd", "n": 3, "in": [{"deep": "/x/y/z"}], "ratio": "3/4"}
    assert names.bare(told) == {"mask": "m/1.png", "other": "passwd", "n": 3, "in": [{"deep": "z"}], "ratio": "3/4"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("the index /home/me/x.index is damaged", "the index x.index is damaged"),
        ("/home/me/x.index/vectors/1.npy is missing", "1.npy is missing"),
        ("cannot read '/var/lib/a b.png' here", "cannot read 'a b.png' here"),
        ("a ratio of 3/4 and/or more", "a ratio of 3/4 and/or more"),
        ("two\nlines", "two lines"),
    ],
)
def test_errors_tell_no_folder(text: str, told: str) -> None:
    assert without_paths(text) == told
