"""Frames of videos in an index: called by their file and time, shown, found again, and replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

Ssl = Callable[..., tuple[int, str, str]]


def film(path: Path, seed: int, frames: int = 9) -> Path:
    """A second of noise that changes, 8 frames of which are taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            pixels = np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    return path


def test_films_of_one_name_are_two_and_a_film_again_is_the_same(run: Path, ssl: Ssl, tmp_path: Path) -> None:
    one, two, index = film(tmp_path / "A" / "clip.mp4", 1), film(tmp_path / "B" / "clip.mp4", 2), tmp_path / "i"
    first = json.loads(ssl("index", "build", one.parent, "--run", run, "--out", index, "--json")[1])["count"]
    both = json.loads(ssl("index", "add", index, two.parent, "--json")[1])
    assert (first, both["count"]) == (9, 18)
    again = json.loads(ssl("index", "add", index, one, "--json")[1])
    assert again["count"] == 18

    code, out, err = ssl("search", index, one, "-k", 18, "--json", "--html", tmp_path / "p.html")
    assert code == 0, err
    results = [json.loads(line) for line in out.splitlines()]
    assert len(results) == 9
    name = results[3]["query"]
    assert name == f"{one}#00:00.375" and name in [match["path"] for match in results[3]["matches"]]
    assert (tmp_path / "p.html").read_text().count("<img ") == 9 * 19

    found = json.loads(ssl("search", index, name, "-k", 18, "--json")[1])
    assert found == results[3]
    assert json.loads(ssl("index", "remove", index, name, "--json")[1])["count"] == 17
    assert json.loads(ssl("index", "remove", index, one, "--json")[1]) == {"removed": 8, "count": 9}
    code, _, err = ssl("index", "remove", index, one)
    assert code == 2 and f"{str(one)!r}: not in the index" in err
    assert json.loads(ssl("index", "remove", index, two.parent, "--json")[1]) == {"removed": 9, "count": 0}
