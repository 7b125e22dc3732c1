"""`ssl index sync` and `add`: an index beside one that is built anew, and nothing done where nothing has changed."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seeall import cli
from seeall.index.store import Index

Ssl = Callable[..., tuple[int, str, str]]
OLD = 1_600_000_000 * 10**9
NOTHING = dict.fromkeys(("added", "changed", "relabelled", "looked_at_again", "removed", "vanished", "skipped"), 0)


def age(path: Path, seconds: int = 0) -> None:
    """Give a file a time of change long ago."""
    os.utime(path, ns=(OLD + seconds * 10**9,) * 2)


def paint(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC).save(path)
    age(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for n in range(12):
        paint(tmp_path / "photos" / ("cat", "dog")[n % 2] / f"{n:02d}.bmp", n)
    return tmp_path / "photos"


@pytest.fixture
def index(run: Path, photos: Path, tmp_path: Path) -> Path:
    assert cli.run(["index", "build", str(photos), "--run", str(run), "--out", str(tmp_path / "i"), "--quiet"]) == 0
    return tmp_path / "i"


def content(root: Path) -> dict[str, tuple[Any, ...]]:
    with Index.open(root, gpu="off") as index:
        assert index.check() == []
        return {i.path: (i.label, i.metadata, np.round(i.vector, 5).tolist()) for i in index.items(index.ids)}


def same(a: dict[str, tuple[Any, ...]], b: dict[str, tuple[Any, ...]]) -> bool:
    return a.keys() == b.keys() and all(a[p][:2] == b[p][:2] and np.allclose(a[p][2], b[p][2], atol=3e-5) for p in a)


def synced(ssl: Ssl, *typed: object) -> dict[str, Any]:
    code, out, err = ssl("index", "sync", *typed, "--json", "--quiet")
    assert code == 0, err
    return json.loads(out)


def test_sync_is_building_anew(ssl: Ssl, index: Path, photos: Path, run: Path, tmp_path: Path) -> None:
    before = content(index)
    paint(photos / "cow" / "new.bmp", 100)
    paint(photos / "cat" / "00.bmp", 101)  # of the same size, and a new time
    age(photos / "cat" / "00.bmp", 5)
    age(photos / "cat" / "02.bmp", 5)  # a new time alone
    (photos / "dog" / "01.bmp").unlink()
    (photos / "dog" / "03.bmp").rename(photos / "dog" / "moved.bmp")
    expected = {**NOTHING, "added": 2, "changed": 1, "unchanged": 9, "vanished": 2, "count": 12, "generation": 1}
    gone = [str(photos / "dog" / f"{n}.bmp") for n in ("01", "03")]
    said = synced(ssl, index, photos, "--dry-run")
    assert said == {**expected, "vanished_paths": gone} and content(index) == before

    assert synced(ssl, index, photos) == {**expected, "count": 14, "generation": 2, "vanished_paths": gone}
    code, out, _ = ssl("index", "sync", index, photos, "--remove-vanished", "--quiet")
    assert code == 0 and out.startswith(f"gone: {gone[0]}\ngone: {gone[1]}\n") and "removed          2" in out
    assert ssl("index", "build", photos, "--run", run, "--out", tmp_path / "anew", "--quiet")[0] == 0
    assert same(content(index), content(tmp_path / "anew"))
    done = {**NOTHING, "unchanged": 12, "count": 12, "generation": 3, "vanished_paths": []}
    assert synced(ssl, index, photos, "--remove-vanished") == done


def test_what_has_not_changed_is_not_added_again(ssl: Ssl, index: Path, photos: Path) -> None:
    manifest, ids = (index / "manifest.json").read_bytes(), Index.open(index).ids.tolist()
    for again in (photos, photos / "cat", photos / "dog" / "05.bmp"):  # without labels, those of the index stay
        assert json.loads(ssl("index", "add", index, again, "--json", "--quiet")[1])["generation"] == 1
        assert synced(ssl, index, again)["added"] == 0
    assert (index / "manifest.json").read_bytes() == manifest and Index.open(index).ids.tolist() == ids
    paint(photos / "dog" / "05.bmp", 50)
    age(photos / "dog" / "05.bmp", 9)
    added = json.loads(ssl("index", "add", index, photos, "--json", "--quiet")[1])
    assert (added["count"], added["removed"], added["generation"]) == (12, 1, 2)
    with Index.open(index) as opened:
        assert set(opened.ids.tolist()) - set(ids) == {13} and len(opened) == 12
        assert (opened.get(13).path, opened.get(13).label) == (str(photos / "dog" / "05.bmp"), "dog")


def test_a_file_that_changes_within_a_tick_of_the_clock(ssl: Ssl, run: Path, tmp_path: Path) -> None:
    """Built at once after it was written: its time says nothing, even where size and time stay the same."""
    first, photos = paint(tmp_path / "p" / "a.bmp", 1), tmp_path / "p"
    paint(photos / "b.bmp", 2)
    os.utime(first)
    time = first.stat().st_mtime_ns
    assert ssl("index", "build", photos, "--run", run, "--out", tmp_path / "i", "--quiet")[0] == 0
    paint(first, 3)
    os.utime(first, ns=(time, time))
    assert synced(ssl, tmp_path / "i", photos)["changed"] == 1
    age(first)
    assert synced(ssl, tmp_path / "i", photos)["unchanged"] == 2


def test_a_manifest_says_new_words(ssl: Ssl, index: Path, photos: Path, tmp_path: Path) -> None:
    before = content(index)
    files = sorted(photos.rglob("*.bmp"))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "year"])
        rows.writerows([path, "dog", 2000 + n] for n, path in enumerate(files))
    files[3].unlink()
    found = synced(ssl, index, tmp_path / "list.csv")
    expected = {**NOTHING, "relabelled": 11, "vanished": 1, "unchanged": 0, "count": 12, "generation": 2}
    assert found == {**expected, "vanished_paths": [str(files[3])]}
    after = content(index)
    for n, path in enumerate(map(str, files)):
        words = before[path][:2] if n == 3 else ("dog", {"year": str(2000 + n)})
        assert after[path] == (*words, before[path][2])
    code, out, _ = ssl("search", index, 13, "--where", "year >= 2005", "--json", "--quiet")
    assert code == 0 and len(json.loads(out)["matches"]) == 7
    assert synced(ssl, index, tmp_path / "list.csv", "--remove-vanished")["count"] == 11


def test_an_index_from_before_there_were_stamps(ssl: Ssl, index: Path, photos: Path) -> None:
    db = sqlite3.connect(index / "items.sqlite")
    db.executescript("DROP TRIGGER items_deleted; DROP TABLE files")
    db.close()
    paint(photos / "cat" / "00.bmp", 7)
    found = synced(ssl, index, photos, "--dry-run")
    assert (found["looked_at_again"], found["generation"]) == (12, 1)
    found = synced(ssl, index, photos)
    assert (found["changed"], found["unchanged"], found["generation"]) == (1, 11, 2)
    assert synced(ssl, index, photos) == {
        **NOTHING,
        "unchanged": 12,
        "count": 12,
        "generation": 2,
        "vanished_paths": [],
    }


def test_stamps_go_with_their_items(ssl: Ssl, index: Path, photos: Path) -> None:
    assert ssl("index", "remove", index, 1, 2, "--quiet")[0] == 0 and ssl("index", "compact", index, "--quiet")[0] == 0
    db = sqlite3.connect(index / "items.sqlite")
    assert [row[0] for row in db.execute("SELECT id FROM files ORDER BY id")] == list(range(3, 13))
    db.close()


def test_a_picture_that_breaks_keeps_its_place(ssl: Ssl, index: Path, photos: Path) -> None:
    broken = photos / "cat" / "04.bmp"
    broken.write_bytes(b"")
    code, _, err = ssl("index", "sync", index, photos)
    assert code == 2 and "1 of 12 pictures cannot be read" in err
    for _ in range(2):
        found = synced(ssl, index, photos, "--allow-skipped")
        assert (found["skipped"], found["count"], found["generation"]) == (1, 12, 1)
    assert (index / "skipped.csv").read_text().count("04.bmp") == 1


def test_films_change_with_all_their_frames(ssl: Ssl, run: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")

    def film(path: Path, seed: int, frames: int) -> None:
        rng = np.random.default_rng(seed)
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(frames):
                pixels = np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
                out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            out.mux(stream.encode())
        age(path, seed)

    films, index = tmp_path / "films", tmp_path / "i"
    films.mkdir()
    film(films / "a.mp4", 1, 9)
    film(films / "b.mp4", 2, 9)
    film(films / "c.mp4", 3, 4)
    assert ssl("index", "build", films, "--run", run, "--out", index, "--quiet")[0] == 0
    assert synced(ssl, index, films)["generation"] == 1
    film(films / "a.mp4", 4, 5)
    (films / "c.mp4").unlink()
    found = synced(ssl, index, films)
    assert (found["changed"], found["removed"], found["unchanged"], found["vanished"]) == (5, 4, 9, 4)
    assert synced(ssl, index, films, "--remove-vanished")["count"] == 14
    assert ssl("index", "build", films, "--run", run, "--out", tmp_path / "anew", "--quiet")[0] == 0
    assert same(content(index), content(tmp_path / "anew"))


def test_drawn_pictures_are_no_files(ssl: Ssl, run: Path, tmp_path: Path) -> None:
    world = "scenes:n=20,size=32"
    assert ssl("index", "build", world, "--run", run, "--out", tmp_path / "i", "--quiet")[0] == 0
    found = synced(ssl, tmp_path / "i", world)
    assert (found["unchanged"], found["looked_at_again"], found["generation"]) == (20, 20, 1)


@pytest.mark.slow
def test_a_second_writer_is_told_or_waits(ssl: Ssl, ssl_process: Callable[..., Any], index: Path, photos: Path) -> None:
    paint(photos / "new.bmp", 77)
    (photos / "cat" / "00.bmp").unlink()  # item 1
    with (index / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (("sync", index, photos), ("add", index, photos), ("remove", index, 1), ("compact", index)):
            code, _, err = ssl("index", *command)
            assert code == 2 and "is being written by another process" in err
        waiting = [
            ssl_process("index", *command, "--wait") for command in (("sync", index, photos), ("remove", index, 1))
        ]
        for process in waiting:
            while "waiting for another process" not in process.stderr.readline():
                assert process.poll() is None
    for process in waiting:
        assert process.wait(60) == 0
        process.communicate()
    with Index.open(index, gpu="off") as opened:
        assert len(opened) == 12 and str(photos / "new.bmp") in opened and 1 not in opened and opened.check() == []


def test_nothing_is_removed_where_the_folder_is_gone(ssl: Ssl, index: Path, photos: Path) -> None:
    shutil.rmtree(photos)
    code, _, err = ssl("index", "sync", index, photos, "--remove-vanished")
    assert code == 2 and "no such file or folder" in err and len(content(index)) == 12
