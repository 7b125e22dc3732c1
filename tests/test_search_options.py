"""`ssl search` among some items, by several pictures as one query, and by a part of a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall import cli
from seeall.index.store import Index

Ssl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def index(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 48 pictures, from a manifest whose `year` is text, as in any CSV."""
    place = tmp_path_factory.mktemp("searched")
    with (place / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "year"])
        rows.writerows([p, p.parent.name, 2000 + n] for n, p in enumerate(sorted(folder.rglob("*.*g"))))
    out = place / "photos.index"
    assert cli.run(["index", "build", str(place / "list.csv"), "--run", str(run), "--out", str(out), "--quiet"]) == 0
    return out


def test_where(ssl: Ssl, index: Path, folder: Path) -> None:
    code, out, err = ssl(
        "search", index, folder / "dog" / "05.jpg", "--json", "--where", "year >= 2020 and label='cat'"
    )
    matches = json.loads(out)["matches"]
    assert code == 0 and len(matches) == 4, err
    assert {m["label"] for m in matches} == {"cat"} and all(int(m["metadata"]["year"]) >= 2020 for m in matches)
    assert "4 neighbours are returned, not 10" in err
    code, out, err = ssl("search", index, 1, "--where", "year >= and")
    assert (code, out) == (2, "") and "letter 9: want a value" in err and err.count("\n") == 1


def test_together_is_the_mean_direction(ssl: Ssl, index: Path, tmp_path: Path) -> None:
    code, out, err = ssl("search", index, 1, 2, 3, "--together", "-k", 48, "--json", "--html", tmp_path / "p.html")
    assert code == 0, err
    found = json.loads(out)
    with Index.open(index, gpu="off") as opened:
        items = opened.items([1, 2, 3])
        ids, scores = opened.search(np.mean([item.vector for item in items], axis=0), 48)
    assert found["together"] == [item.path for item in items] and found["label"] == "cat"
    assert [m["id"] for m in found["matches"]] == ids[0].tolist()
    assert [m["score"] for m in found["matches"]] == pytest.approx(scores[0].tolist(), abs=1e-6)
    assert (tmp_path / "p.html").read_text().count("<img ") == 51


def test_box_is_the_picture_cut_there(ssl: Ssl, index: Path, folder: Path, tmp_path: Path) -> None:
    picture = folder / "cat" / "24.png"
    with Image.open(picture) as image:
        image.crop((10, 5, 40, 30)).save(tmp_path / "part.png")
    box = ("--box", "10,5,40,30", "-k", 5, "--json")
    found, part = (json.loads(ssl(*c)[1]) for c in (
        ("search", index, picture, *box), ("search", index, tmp_path / "part.png", "-k", 5, "--json"),
    ))  # fmt: skip
    whole = json.loads(ssl("search", index, picture, "-k", 5, "--json")[1])
    assert found["query"] == str(picture) and found["matches"] == part["matches"] != whole["matches"]
    number = next(m["id"] for m in whole["matches"] if m["path"] == str(picture))
    assert json.loads(ssl("search", index, number, *box)[1]) == found


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("1 --box 1,2,3", "four whole numbers"), ("1 --box a,b,c,d", "four whole numbers"),
        ("1 --box 5,5,5,9", "x1 < x2"), ("1 --box=-1,0,5,9", "none below 0"),
        ("1 2 --box 0,0,5,5", "one picture, not 2"), ("{folder} --box 0,0,5,5", "one picture, not 48"),
        ("1 --box 0,0,500,20", "is 40 x 36 px, and --box 0,0,500,20 is not in it"),
    ],
)  # fmt: skip
def test_mistakes(ssl: Ssl, index: Path, folder: Path, typed: str, words: str) -> None:
    code, out, err = ssl("search", index, *typed.format(folder=folder).split())
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1
