"""Finding pictures: folders, manifests, labels, splits, limits."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from seeall.data.pictures import find
from seeall.types import SeeallError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def test_a_folder_is_read_to_its_depths_in_order(tmp_path: Path) -> None:
    touch(tmp_path / "b" / "x" / "2.png", tmp_path / "b" / "1.JPG", tmp_path / "a" / "3.jpeg")
    (tmp_path / "a" / "notes.txt").touch()
    touch(tmp_path / ".hidden" / "4.png", tmp_path / "a" / "._5.png")
    pictures = find(str(tmp_path))
    assert list(pictures.ids) == ["a/3.jpeg", "b/1.JPG", "b/x/2.png"]
    assert list(pictures.labels or ()) == ["a", "b", "b/x"]
    assert pictures.splits is None
    assert pictures.read(0).shape == (4, 4, 3)


def test_a_link_to_itself_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    assert find(str(tmp_path)).ids == ["a.png", "gone.png"]


def test_a_row_of_a_manifest_may_be_too_long(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,year\na.png,1999,what,is,this\n")
    assert find(str(tmp_path / "m.csv")).metadata == [{"year": "1999"}]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert len(find(str(tmp_path))) == 1


def test_one_label_is_no_label(tmp_path: Path) -> None:
    touch(tmp_path / "all" / "1.png", tmp_path / "all" / "2.png")
    assert find(str(tmp_path)).labels is None
    with pytest.raises(SeeallError, match="no labels found"):
        find(str(tmp_path)).targets()


def test_splits(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a" / "1.png", tmp_path / "train" / "b" / "2.png", tmp_path / "valid" / "a" / "3.png")
    pictures = find(str(tmp_path))
    assert list(pictures.splits or ()) == ["train", "train", "val"]
    assert list(pictures.split("val").labels or ()) == ["a"]
    assert len(pictures.split("test")) == 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".txt"])
def test_manifests(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "p" / "1.png", tmp_path / "p" / "2.png")
    rows = {"path": ["p/1.png", "p/2.png"], "label": ["x", "y"], "year": ["1999", "2001"]}
    manifest = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        lines = [",".join(rows)] + [",".join(row) for row in zip(*rows.values())]
        manifest.write_text("﻿" + "\n".join(lines))  # as spreadsheets write it
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(rows), manifest)
    else:
        manifest.write_text("# two\np/1.png\n\np/2.png\n")
    pictures = find(str(manifest))
    assert list(pictures.ids) == rows["path"]
    assert pictures.read(1).shape == (4, 4, 3)
    if suffix != ".txt":
        assert pictures.targets().tolist() == [0, 1]
        assert [m["year"] for m in pictures.metadata or ()] == ["1999", "2001"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "lists no pictures"),
        ("file,label\na,b", "needs a column 'path'"),
        ("path\na\na\n", "'a' is listed more than once"),
    ],
)
def test_bad_manifests(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(SeeallError, match=words):
        find(str(tmp_path / "list.csv"))


def test_nothing_there(tmp_path: Path) -> None:
    for data, words in [
        (tmp_path, "no pictures in it"), (tmp_path / "no", "no such file or folder"), ("scene:n=3", "no such file"),
    ]:  # fmt: skip
        with pytest.raises(SeeallError, match=words):
            find(str(data))
    (tmp_path / "a.doc").touch()
    with pytest.raises(SeeallError, match="neither a folder, a manifest"):
        find(str(tmp_path / "a.doc"))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "ok.png")
    try:
        (tmp_path / name).write_bytes((tmp_path / "ok.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    pictures = find(str(tmp_path))
    assert len(pictures) == 2
    assert pictures.fingerprint()


def test_limit_spreads_over_labels_and_is_drawn_by_seed(folder: Path) -> None:
    pictures = find(str(folder))
    some = pictures.limit(10, seed=3)
    assert sorted((some.labels or [])[:]) == ["cat"] * 5 + ["dog"] * 5
    assert list(some.ids) == list(pictures.limit(10, seed=3).ids) != list(pictures.limit(10, seed=4).ids)
    assert len(pictures.limit(1000)) == len(pictures)
    with pytest.raises(SeeallError, match="--limit 0"):
        pictures.limit(0)


def test_fingerprint_changes_with_the_pictures(tmp_path: Path) -> None:
    touch(tmp_path / "1.png", tmp_path / "2.png")
    before = find(str(tmp_path)).fingerprint()
    assert find(str(tmp_path)).fingerprint() == before
    Image.new("RGB", (400, 4), "red").save(tmp_path / "2.png")
    assert find(str(tmp_path)).fingerprint() != before


def test_scenes_are_pictures_too() -> None:
    pictures = find("scenes:n=12,size=16,identities=3")
    assert pictures.read(0).shape == (16, 16, 3)
    assert len(pictures.classes()) == 3
    assert find("scenes:n=12,size=16,identities=3,labels=identity").classes()[2] == "identity_0002"
    assert find("scenes:n=2,size=16,seed=4").ids[1] == "scenes-4/identity_0001/000001"
    assert pictures.fingerprint() != find("scenes:n=12,size=16,identities=3,seed=1").fingerprint()
