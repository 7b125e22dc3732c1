"""`ssl faces …` as it is typed, and every mistake with the line that answers it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from seeall import cli
from seeall.commands import faces
from tests.heads.small_runs import LIGHT, SMALL, WORLD
from tests.index import people

Ssl = Callable[..., tuple[int, str, str]]
KNOWN = {"ann": 1, "bob": 2, "cyd": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of people, two backbones, and a gallery that is calibrated."""
    root = tmp_path_factory.mktemp("people")
    people.folder(root / "known", KNOWN, range(2))
    people.folder(root / "others", {f"o{n}": 10 + n for n in range(10)}, range(3))
    people.folder(root / "test", {**KNOWN, "zoe": 30, "yan": 31}, range(1, 4))
    people.network(root / "run.safetensors")
    people.network(root / "other.safetensors", 1)
    gallery = str(root / "gallery")
    enrol = ["faces", "enrol", gallery, "--folder", str(root / "known"), "--run", str(root / "run.safetensors")]
    assert cli.run([*enrol, "--quiet"]) == 0
    shutil.copytree(gallery, root / "raw")
    assert cli.run(["faces", "calibrate", gallery, "--folder", str(root / "others"), "--far", "0.1", "--quiet"]) == 0
    return root


def lines(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_line_for_each_query(world: Path, ssl: Ssl, tmp_path: Path) -> None:
    ann, zoe = world / "test/ann/ann-03.png", world / "test/zoe/zoe-03.png"
    (tmp_path / "bad.png").write_bytes(b"")
    code, out, err = ssl("faces", "identify", world / "gallery", ann, tmp_path / "bad.png", zoe, "--json", "--quiet")
    first, bad, stranger = lines(out)
    assert code == 0 and first["query"] == str(ann) and first["matches"][0]["person"] == "ann"
    assert first.keys() == {"query", "matches"} and first["matches"][0].keys() == {"person", "score"}
    assert bad == {"query": str(tmp_path / "bad.png"), "matches": [], "error": "empty file"}
    assert stranger == {"query": str(zoe), "matches": []} and "1 of 3 pictures cannot be read" in err
    code, out, _ = ssl("faces", "identify", world / "gallery", ann, zoe, "--quiet")
    assert code == 0 and out.splitlines()[0] == str(ann) and out.splitlines()[1].endswith("  ann")
    assert out.splitlines()[-1] == "  unknown"
    code, out, _ = ssl("faces", "identify", world / "raw", world / "test", "--threshold", "-1", "-k", "2", "--json")
    assert code == 0 and [len(line["matches"]) for line in lines(out)] == [2] * 15


def test_verify_list_info(world: Path, ssl: Ssl) -> None:
    a, b, c = (world / "test" / f"{name}.png" for name in ("ann/ann-02", "ann/ann-03", "bob/bob-02"))
    assert [json.loads(ssl("faces", "verify", world / "gallery", a, x, "--json")[1])["same"] for x in (b, c)] == [
        True, False,
    ]  # fmt: skip
    assert "same" in ssl("faces", "verify", world / "raw", a, b, "--threshold", "0")[1]
    code, out, _ = ssl("faces", "list", world / "gallery", "--json")
    assert code == 0 and lines(out) == [{"person": name, "pictures": 2} for name in KNOWN]
    facts = json.loads(ssl("faces", "info", world / "gallery", "--json")[1])
    assert facts["calibrated"] is True and facts["people"] == 3 and facts["changed_since"] is False
    assert facts["far"] == 0.1 and facts["far_low"] < facts["far_expected"] <= 0.1 < facts["far_high"]
    assert (facts["strangers"], facts["stranger_pictures"]) == (10, 30)
    out = ssl("faces", "info", world / "raw")[1]
    assert "calibrated" in out and "False" in out and ssl("index", "check", world / "gallery")[1] == "clean\n"


def test_evaluate_and_its_page(world: Path, ssl: Ssl, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, err = ssl("faces", "evaluate", world / "gallery", "--folder", world / "test", "--html", page, "--json")
    found = json.loads(out)
    assert code == 0 and (found["known"], found["unknown"], found["left_out"]) == (6, 6, 3)
    assert (found["known_people"], found["unknown_people"]) == (3, 2)
    assert found["rank@1"] == 100 and found["named"] + found["misnamed"] + found["missed"] == pytest.approx(100)
    assert "left out 3 of 15 pictures: they are enrolled" in err
    assert "tpir@fpir=1e-1" not in found, "six pictures of strangers cannot tell"
    assert {"taken", "eer", "auc", "same_or_different", "rank@1_low", "tar@far=1e-1"} <= found.keys()
    text = page.read_text()
    assert "Who is who in gallery" in text and "least like themselves" in text and "<img " in text
    assert "Is the right person among the first?" in text
    code, out, _ = ssl("faces", "evaluate", world / "raw", "--folder", world / "test", "--score", "mean")
    assert code == 0 and "rank@1" in out and "named" not in out
    code, _, err = ssl("faces", "evaluate", world / "gallery", "--folder", world / "known")
    assert code == 2 and "all pictures are those that" in err
    code, _, err = ssl("faces", "evaluate", world / "gallery", "--folder", world / "others")
    assert code == 2 and "no picture of anybody who is enrolled" in err


def test_remove_and_enrol_again(world: Path, ssl: Ssl, tmp_path: Path) -> None:
    gallery = shutil.copytree(world / "gallery", tmp_path / "g")
    code, out, _ = ssl("faces", "remove", gallery, "bob", "bob", "--json", "--quiet")
    assert code == 0 and json.loads(out) == {"removed": 2, "people": 2, "pictures": 4}
    code, out, err = ssl("faces", "identify", gallery, world / "test/ann/ann-02.png", "--quiet")
    assert code == 0 and err.count("3 people then and 2 now") == 1
    code, out, _ = ssl("faces", "enrol", gallery, "--folder", world / "known", "--score", "mean", "--json", "--quiet")
    assert code == 0 and json.loads(out)["enrolled"] == 2 and json.loads(out)["unchanged"] == 4
    assert json.loads(ssl("faces", "info", gallery, "--json")[1])["score"] == "mean"


def test_faces_found_by_opencv(world: Path, ssl: Ssl, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    for name, count in (("ann/one.png", 1), ("ann/none.png", 0), ("bob/two.png", 2)):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        people.drawn_face(faces=count).save(tmp_path / "p" / name)
    run = world / "run.safetensors"
    enrol = ("faces", "enrol", tmp_path / "g", "--folder", tmp_path / "p", "--run", run, "--find", "opencv", "--json")
    code, out, err = ssl(*enrol)
    assert code == 0 and json.loads(out)["enrolled"] == 1 and "no picture of 'bob' can be used" in err
    listed = (tmp_path / "g" / "skipped.csv").read_text().splitlines()
    assert listed[0] == "person,path,reason" and [line.rpartition(",")[2] for line in listed[1:]] == [
        "no face found", "2 faces found: cut it to one",
    ]  # fmt: skip
    asked = [tmp_path / "p" / name for name in ("bob/two.png", "ann/none.png")]
    code, out, _ = ssl("faces", "identify", tmp_path / "g", *asked, "--threshold", "0", "--json")
    left, right, none = lines(out)
    assert code == 0 and left["query"] == right["query"] == str(asked[0]) and left["box"][0] < right["box"][0]
    assert left["matches"][0]["person"] == "ann" and none == {"query": str(asked[1]), "matches": [], "faces": 0}
    code, _, err = ssl("faces", "identify", tmp_path / "g", *asked, "--threshold", "0", "--find", "none")
    assert code == 2 and "was made with --find opencv" in err
    code, _, err = ssl("faces", "verify", tmp_path / "g", *asked, "--threshold", "0")
    assert code == 2 and "2 faces found: cut it to one" in err
    assert "no face found" in ssl("faces", "identify", tmp_path / "g", asked[1], "--threshold", "0")[1]


@pytest.mark.slow
def test_faces_found_by_a_head(world: Path, ssl: Ssl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = tmp_path / "head"
    small = ["--model", "faster-rcnn", *SMALL[:-1], "--set=most=1", "--quiet"]
    code, _, err = ssl("finetune", WORLD, "--task", "detection", *LIGHT, *small, "--out", head)
    assert code == 0, err
    gallery, run, one = tmp_path / "g", world / "run.safetensors", world / "test/ann/ann-02.png"
    enrol = ("faces", "enrol", gallery, "--folder", world / "known", "--run", run, "--find", head, "--json", "--quiet")
    monkeypatch.setattr(faces, "SURE", 1.1)
    code, _, err = ssl(*enrol)
    assert code == 2 and "no face found" in err and not gallery.exists()
    monkeypatch.setattr(faces, "SURE", 0.0)
    assert ssl(*enrol)[0] == 0 and json.loads((gallery / "gallery.json").read_text())["find_run"] == str(head)
    code, out, _ = ssl("faces", "identify", gallery, one, "--threshold", "-1", "--json", "-k", "9")
    (found,) = lines(out)
    assert code == 0 and len(found["box"]) == 4 and len(found["matches"]) == 3
    moved = head.rename(tmp_path / "moved")
    code, _, err = ssl("faces", "identify", gallery, one, "--threshold", "-1", "--json")
    assert code == 2 and "there is no run of that name" in err
    assert ssl("faces", "identify", gallery, one, "--threshold", "-1", "--json", "--find", moved)[0] == 0
    code, _, err = ssl("faces", "identify", gallery, one, "--threshold", "-1", "--find", "none")
    assert code == 2 and "looks otherwise" in err


BAD = [
    ("identify {world}/nowhere x.png", "nowhere"),
    ("identify {world}/raw {one}", "is not calibrated"),
    ("identify {world}/gallery {world}/none.png", "no such file or folder"),
    ("identify {world}/gallery {one} -k 0", "ask for at least 1 person"),
    ("identify {world}/gallery {one} --score bets", "did you mean best"),
    ("identify {world}/gallery {one} --find opnecv", "neither none nor opencv"),
    ("identify {world}/gallery {junk}", "none of the 1 pictures can be read"),
    ("identify {world}/known {one}", "is no complete index"),
    ("enrol {world}/new --folder {world}/known", "give the --run"),
    ("enrol {world}/new --folder {world}/known --run {world}/known", "known"),
    ("enrol {world}/gallery --folder {world}/known --run {world}/other.safetensors", "was made with model"),
    ("enrol {world}/known/g --folder {world}/known --run {world}/run.safetensors", "lies inside the data folder"),
    ("enrol {world}/gallery --folder {world}/test/ann", "lies in no sub-folder"),
    ("enrol {world}/gallery --folder {world}/empty", "no pictures in it"),
    ("enrol {world}/gallery --folder {world}/known --score bets", "did you mean best"),
    ("enrol {world}/gallery --folder {world}/unusable", "none of the 1 pictures can be used"),
    ("calibrate {world}/gallery --folder {world}/known", "is enrolled in"),
    ("calibrate {world}/gallery --folder {world}/others", "give more than 99 of people of their own"),
    ("calibrate {world}/gallery --folder {world}/others --far 0", "a rate is between 0 and 1"),
    ("calibrate {world}/gallery --folder {world}/single --far 0.4", "two people at least"),
    ("verify {world}/gallery {one} {world}/known", "holds several pictures"),
    ("verify {world}/gallery {one} {junk}", "empty file"),
    ("verify {world}/raw {one} {one}", "is not calibrated"),
    ("remove {world}/gallery amn", "did you mean ann"),
    ("evaluate {world}/gallery --folder {world}/test --html page.txt", "ends in .html"),
    ("evaluate {world}/gallery --folder {one}", "does not say who is who"),
    ("list {world}/known", "is no complete index"),
    ("info {world}/run.safetensors", "run.safetensors"),
]


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_mistakes(line: str, words: str, world: Path, ssl: Ssl, tmp_path: Path) -> None:
    (world / "empty").mkdir(exist_ok=True)
    people.folder(world / "single", {"one": 40}, range(3))
    (tmp_path / "junk.png").write_bytes(b"")
    (world / "unusable" / "x").mkdir(parents=True, exist_ok=True)
    (world / "unusable" / "x" / "junk.png").write_bytes(b"")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (world / "gallery").iterdir() if "sqlite" not in p.name)
    filled = line.format(world=world, one=world / "test/ann/ann-02.png", junk=tmp_path / "junk.png")
    quiet = [] if line.split()[0] in ("list", "info") else ["--quiet"]
    code, out, err = ssl("faces", *filled.split(), *quiet)
    assert code == 2 and out == "" and words in err, err
    told = [row for row in err.splitlines() if row.startswith("error: ")]
    assert len(told) == 1 and "Traceback" not in err
    after = sorted((p.name, p.stat().st_mtime_ns) for p in (world / "gallery").iterdir() if "sqlite" not in p.name)
    assert [name for name, _ in before] == [name for name, _ in after]
    assert not (world / "new").exists() and not (world / "known" / "g").exists()


def test_pictures_that_are_no_faces_at_all(world: Path, ssl: Ssl, tmp_path: Path) -> None:
    """A grey square is nobody, and a person of whom there is one is somebody."""
    Image.new("RGB", (40, 40), "grey").save(tmp_path / "grey.png")
    code, out, _ = ssl("faces", "identify", world / "gallery", tmp_path / "grey.png", "--json", "--quiet")
    assert code == 0 and lines(out)[0]["matches"] == []
