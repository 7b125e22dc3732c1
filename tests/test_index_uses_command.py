"""`ssl index duplicates`, `clusters`, `outliers`: tables, JSON and pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.index.store import Index

Ssl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def index(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 48 pictures by their pixels, one of them three times."""
    place = tmp_path_factory.mktemp("used")
    shutil.copytree(folder, place / "photos")
    for n in range(2):
        shutil.copy(folder / "dog" / "05.jpg", place / "photos" / "cat" / f"again{n}.jpg")
    files = sorted(p for p in (place / "photos").rglob("*") if p.is_file())
    pixels = [np.asarray(Image.open(p).convert("RGB").resize((5, 5)), np.float32).ravel() - 128 for p in files]
    with Index.create(place / "photos.index", dim=75, model="pixels", preprocessing={}, gpu="off") as index:
        index.add([str(p) for p in files], np.stack(pixels), [p.parent.name for p in files])
    return place / "photos.index"


def lines(ssl: Ssl, *typed: object) -> list[dict]:
    code, out, err = ssl(*typed, "--json", "--quiet")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_duplicates(ssl: Ssl, index: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    groups = lines(ssl, "index", "duplicates", index, "--threshold", 0.99, "--html", page)
    (group,) = groups
    assert [Path(p["path"]).name for p in group["pictures"]] == ["again0.jpg", "again1.jpg", "05.jpg"]
    assert group["size"] == 3 and [p["label"] for p in group["pictures"]] == ["cat", "cat", "dog"]
    assert group["pictures"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert page.read_text().count("<img ") == sum(g["size"] for g in groups)
    code, out, err = ssl("index", "duplicates", index, "--threshold", 0.99, "--html", page)
    assert code == 2 and "already there" in err
    code, out, err = ssl("index", "duplicates", index, "--threshold", 0.99)
    assert code == 0 and out.splitlines()[0] == f"{groups[0]['size']} pictures" and "could go if one of each" in err


def test_clusters(ssl: Ssl, index: Path, tmp_path: Path) -> None:
    found = lines(ssl, "index", "clusters", index, "-k", 3, "--most", 2, "--html", tmp_path / "p.html")
    assert [c["cluster"] for c in found] == [1, 2, 3] and sum(c["size"] for c in found) == 50
    assert all(1 <= len(c["pictures"]) <= 2 for c in found) and found == lines(
        ssl, "index", "clusters", index, "-k", 3, "--most", 2
    )
    assert sum(c["size"] for c in lines(ssl, "index", "clusters", index)) == 50
    assert ssl("index", "clusters", index, "-k", 3)[1].startswith("cluster 1: ")
    code, _, err = ssl("index", "clusters", index, "-k", 52)
    assert code == 2 and "at most 50" in err


def test_outliers(ssl: Ssl, index: Path, tmp_path: Path) -> None:
    (found,) = lines(ssl, "index", "outliers", index, "--most", 50, "-k", 3, "--html", tmp_path / "p.html")
    scores = [p["score"] for p in found["pictures"]]
    assert len(scores) == 50 and scores == sorted(scores)
    assert {Path(p["path"]).name for p in found["pictures"][-3:]} == {"again0.jpg", "again1.jpg", "05.jpg"}
    assert (tmp_path / "p.html").read_text().count("<figure") == 24
    assert "26 more are not shown" in (tmp_path / "p.html").read_text()
    assert ssl("index", "outliers", index, "--most", 0)[0] == 2
    assert ssl("index", "outliers", index, "--gpu", "maybe")[0] == 2
