"""The command as a stranger uses it: the whole way, and everything that can be wrong on it."""

from __future__ import annotations

import json
import re
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from seeall import cli

Ssl = Callable[..., tuple[int, str, str]]
LIGHT = ["--backbone", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "16", "--epochs", "1"]


@pytest.fixture(scope="module")
def index(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "photos.index"
    assert cli.run(["index", "build", str(folder), "--run", str(run), "--out", str(out), "--quiet"]) == 0
    return out


def test_help_and_version(ssl: Ssl) -> None:
    code, out, _ = ssl("--help")
    assert code == 0
    for command in ("pretrain", "evaluate", "embed", "index", "search", "demo", "doctor"):
        assert command in out
    assert ssl("--version")[1].strip() == "0.1.0"


def test_settings_can_be_listed_and_typed_back(ssl: Ssl) -> None:
    code, out, _ = ssl("pretrain", "--settings", "--optimiser", "sgd")
    assert code == 0 and {"objective.temperature=0.1", "optimiser.momentum=0.9", "training.ema=none"} <= set(
        out.split()
    )
    from seeall import catalog
    from seeall.ssl.pretrain import parts

    catalog.resolve(parts("simclr", "resnet18", "sgd"), out.splitlines())


def test_evaluate(ssl: Ssl, run: Path, folder: Path) -> None:
    code, out, err = ssl("evaluate", run, folder, "--json")
    found = json.loads(out)
    assert code == 0, err
    assert {"knn20", "knn200", "linear", "recall@1", "map@r"} <= found.keys()
    assert found["train_pictures"] + found["test_pictures"] == 48 and found["classes"] == 2


def test_embed(ssl: Ssl, run: Path, folder: Path, tmp_path: Path) -> None:
    code, out, err = ssl("embed", run, folder, "--out", tmp_path / "z", "--json")
    assert code == 0, err
    vectors = np.load(tmp_path / "z.npy")
    table = pyarrow.parquet.read_table(tmp_path / "z.parquet").to_pydict()
    assert vectors.shape == (48, json.loads(out)["dim"]) and np.isfinite(vectors).all()
    assert table["id"][0] == "cat/00.png" and table["label"].count("dog") == 24
    assert sorted(p.name for p in tmp_path.iterdir()) == ["z.npy", "z.parquet"]


def test_search_finds_the_picture_itself_first(ssl: Ssl, index: Path, folder: Path) -> None:
    query = folder / "dog" / "05.jpg"
    code, out, err = ssl("search", index, query, "-k", 48, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["query"] == str(query)
    itself = next(m for m in result["matches"] if m["path"] == str(query))
    assert itself["score"] == pytest.approx(1, abs=1e-5) == pytest.approx(result["matches"][0]["score"], abs=1e-5)
    scores = [m["score"] for m in result["matches"]]
    assert len(scores) == 48 and scores == sorted(scores, reverse=True)
    by_id = json.loads(ssl("search", index, itself["id"], "-k", 48, "--json")[1])
    assert by_id["query"] == str(query) and {m["id"] for m in by_id["matches"]} == set(range(1, 49))


def test_search_prints_a_table_and_a_page(ssl: Ssl, index: Path, folder: Path, tmp_path: Path) -> None:
    code, out, err = ssl("search", index, folder / "dog", "-k", 3, "--html", tmp_path / "page.html")
    assert code == 0, err
    assert len(out.splitlines()) == 24 * 4
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 24 * 4 and "http" not in page


def test_k_beyond_the_size_is_clipped_with_a_note(ssl: Ssl, index: Path) -> None:
    code, out, err = ssl("search", index, 1, "-k", 1000, "--json")
    assert code == 0 and len(json.loads(out)["matches"]) == 48
    assert "48" in err and "1000" in err


def test_add_remove_check_compact(ssl: Ssl, index: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.index"
    shutil.copytree(index, mine)
    Image.new("RGB", (50, 50), "red").save(tmp_path / "red.png")
    code, out, err = ssl("index", "add", mine, tmp_path / "red.png", "--json")
    assert code == 0 and json.loads(out)["count"] == 49, err
    assert json.loads(ssl("index", "add", mine, tmp_path / "red.png", "--json")[1])["count"] == 49
    assert json.loads(ssl("index", "remove", mine, tmp_path / "red.png", 1, "--json")[1]) == {"removed": 2, "count": 47}
    assert ssl("index", "check", mine)[0] == 0
    assert json.loads(ssl("index", "compact", mine, "--json")[1])["count"] == 47
    assert json.loads(ssl("index", "info", mine, "--json")[1])["removed"] == 0
    assert json.loads(ssl("index", "check", mine, "--json")[1])["problems"] == []
    assert json.loads(ssl("index", "remove", mine, "--where", "id > 40", "--json")[1]) == {"removed": 8, "count": 39}
    assert json.loads(ssl("index", "remove", mine, "--where", "id > 40", "--json")[1]) == {"removed": 0, "count": 39}


def test_config_repeats_a_run(ssl: Ssl, run: Path, tmp_path: Path) -> None:
    code, _, err = ssl("pretrain", "--config", run / "run.json", "--out", tmp_path / "again", "--quiet")
    assert code == 0, err
    assert (tmp_path / "again" / "backbone.safetensors").read_bytes() == (run / "backbone.safetensors").read_bytes()


def test_the_last_of_a_setting_counts_and_those_of_a_config_hold(ssl: Ssl, tmp_path: Path) -> None:
    """temperature=0.1 sorts before 0.5, and counts all the same."""
    out = tmp_path / "again"
    twice = ("--set", "temperature=0.5", "--set", "temperature=0.1", "--set", "crop_min=0.4", *LIGHT)
    assert ssl("pretrain", "scenes:n=16", "--out", tmp_path / "first", *twice)[0] == 0
    first = json.loads((tmp_path / "first" / "run.json").read_text())
    assert first["settings"]["set"] == ["crop_min=0.4", "temperature=0.1"]
    again = ("--config", tmp_path / "first" / "run.json", "--set", "crop_min=0.3")
    assert ssl("pretrain", *again, "--out", out)[0] == 0
    assert json.loads((out / "run.json").read_text())["settings"]["set"] == ["crop_min=0.3", "temperature=0.1"]


def test_json_is_alone_on_standard_output(ssl: Ssl, folder: Path, tmp_path: Path) -> None:
    code, out, err = ssl("pretrain", folder, "--out", tmp_path / "r", *LIGHT, "--json")
    assert code == 0 and json.loads(out)["run"] == str(tmp_path / "r")
    assert "pictures" in err


def test_doctor(ssl: Ssl) -> None:
    found = json.loads(ssl("doctor", "--json")[1])
    assert found["seeall"] == "0.1.0" and "searches on" in found["faiss"]


BAD = [
    ("pretrain {none} --out {out}", "no such file or folder"),
    ("pretrain {empty} --out {out}", "no pictures in it or below"),
    ("pretrain {text} --out {out}", "neither a folder, a manifest"),
    ("pretrain {junk} --out {out}", "none of the 1 pictures can be read"),
    ("pretrain {folder} --out {folder}/run", "lies inside the data folder"),
    ("pretrain {folder} --out {out} --lr -1", "--lr, is -1.0: choose a number above 0"),
    ("pretrain {folder} --out {out} --set weight_decay=-3", "'weight_decay' is -3.0: choose 0 or more"),
    ("pretrain {folder} --out {out} --set momentum=1 --optimiser sgd", "'momentum' is 1.0: choose a share"),
    ("pretrain {folder} --out {out} --set projector.out=0", "'projector.out' is 0: choose at least 1"),
    ("pretrain {folder} --out {out} --set views=1", "two views or more"),
    ("pretrain {folder} --out {out} --set warmup=5", "'warmup' is 5.0: choose a share of the steps"),
    ("pretrain {folder} --out {out} --workers -2", "See: ssl pretrain --help"),
    ("pretrain --out {run}", "has begun already; go on with it by --resume"),
    ("search {index} 1 --html {out}.jpg", "a page's name ends in .html"),
    ("pretrain {folder} --out {run}", "not empty: go on with it by --resume, or replace it by --overwrite"),
    ("pretrain {folder} --out {full} --overwrite", "no run, so it is not overwritten"),
    ("pretrain {folder}", "give --out FOLDER"),
    ("pretrain --out {out}", "which pictures"),
    ("pretrain {folder} --out {out} --batch-size 49", "--batch-size 49 does not fit the 48 pictures; choose 2 to 48"),
    ("pretrain {folder} --out {out} --batch-size 0", "--batch-size 0"),
    ("pretrain {folder} --out {out} --epochs 0", "--epochs 0 must be at least 1"),
    ("pretrain {folder} --out {out} --limit 0", "--limit 0"),
    ("pretrain {folder} --out {out} --limit 1", "one picture is not enough"),
    ("pretrain {folder} --out {out} --backbone resnet81", "did you mean resnet18"),
    ("pretrain {folder} --out {out} --backbone timm/resnet99", "timm"),
    ("pretrain {folder} --out {out} --objective simclar", "did you mean simclr"),
    ("pretrain {folder} --out {out} --optimiser adam", "did you mean adamw"),
    ("pretrain {folder} --out {out} --set temprature=1", "did you mean temperature"),
    ("pretrain {folder} --out {out} --set temperature=hot", "wants a number, not 'hot'"),
    ("pretrain {folder} --out {out} --set temperature=-1", "temperature"),
    ("pretrain {folder} --out {out} --set crop_min=2", "crop_min"),
    ("pretrain {folder} --out {out} --set temperature", "wants name=value"),
    ("pretrain {folder} --out {out} --lr fast", "'--lr'"),
    ("pretrain {folder} --out {out} --image-size 2", "--image-size 2"),
    ("pretrain {folder} --out {out} --precision 7", "choose from auto"),
    ("pretrain {folder} --out {out} --weights {none}", "no weights at"),
    ("pretrain {folder} --out {out} --weights {text}", "text.doc"),
    ("pretrain {folder} --out {out} --resume", "no such run folder"),
    ("pretrain {folder} --out {run} --resume --seed 5", "seed was 0 when the run began, and is 5 now"),
    ("pretrain {folder} --out {out} --config {text}", "damaged"),
    ("pretrain scenes:m=5 --out {out}", "unknown setting 'm'"),
    ("pretrain {folder} --out {out} --colour", "--colour"),
    ("paint", "paint"),
    ("evaluate {none} {folder}", "none"),
    ("evaluate {damaged} {folder}", "damaged"),
    ("evaluate {run} {junk}", "no labels found"),
    ("embed {run} {empty} --out {out}", "no pictures"),
    ("index build {folder} --run {run} --out {folder}/x.index", "inside the data"),
    ("index build {folder} --run {run} --out {index}", "--overwrite"),
    ("index build {folder} --run {empty} --out {out}", "empty"),
    ("index build {junk} --run {run} --out {out}", "none of the 1 pictures can be read"),
    ("index add {none} {folder}", "none"),
    ("index add {index} {folder} --run {other}", "model"),
    ("index add {index} {junk}", "none of the 1 pictures can be read"),
    ("index remove {index} 12345", "12345"),
    ("index remove {index}", "--where"),
    ("index remove {index} 1 --where id=2", "either"),
    ("index remove {index} --where id=", "id="),
    ("index remove {index} {empty}", "not in the index"),
    ("index info {empty}", "empty"),
    ("index info {newer}", "newer"),
    ("index info {broken}", "damaged"),
    ("search {index} {text}", "neither a folder, a manifest"),
    ("search {index} {junk}/a.jpg", "cannot be searched for"),
    ("search {index} {none}", "no such file or folder"),
    ("search {index} 12345", "12345"),
    ("search {index} 1 -k 0", "at least 1"),
    ("search {index} {folder}/dog/05.jpg --run {other}", "model"),
    ("search {index} 1 --gpu maybe", "choose from auto, on, off"),
    ("demo --out {full}", "not empty"),
    ("demo --out {full} --overwrite", "left alone"),
    ("pretrain {folder} --out {out} --positives label", "unknown positives 'label': did you mean labels"),
    ("pretrain {folder} --out {out} --negatives semihrd", "unknown negatives 'semihrd': did you mean semihard"),
    ("pretrain --settings --positives label", "unknown positives 'label': did you mean labels"),
    ("pretrain --settings --negatives semihrd", "unknown negatives 'semihrd': did you mean semihard"),
    ("pretrain {folder} --out {out} --objective byol --negatives hard", "byol pushes nothing away: leave --negatives"),
    ("pretrain {folder} --out {out} --objective triplet --negatives reweighted", "which is simclr; it goes with semih"),
    ("pretrain {folder} --out {out} --negatives hard", "simclr does not go with --negatives hard: it weighs all"),
    ("pretrain {folder} --out {out} --objective moco --positives time", "would be wrong; it goes with views, labels"),
    ("pretrain {folder} --out {out} --positives time --negatives queue", "time does not go with --negatives queue: wh"),
    ("pretrain {folder} --out {out} --positives time --negatives neighbours", "late positives, no negatives; choose"),
    ("pretrain {folder} --out {out} --objective simsiam --positives sound", "one predictor cannot serve pictures and"),
    ("pretrain {folder} --out {out} --objective dino --positives sound", "its teacher looks at pictures alone; it go"),
    ("pretrain {pairs} --out {out} --positives sound --set views=2", "with --positives sound a picture has one view"),
    ("pretrain {pairs} --out {out} --positives sound --set layers=0", "sounds need projectors into one space"),
    ("pretrain {folder} --out {out} --positives labels --set together=1", "'together' is 1: choose 2 pictures of a"),
    ("pretrain {folder} --out {out} --positives time --set together=1", "'together' is 1: choose 2 pictures of a"),
    ("pretrain {folder} --out {out} --set together=2", "unknown setting 'together'"),
    ("pretrain {folder} --out {out} --objective byol --set views=3", "'views' is 3: --objective byol learns from p"),
    ("pretrain {folder} --out {out} --set window=1", "unknown setting 'window'"),
    ("pretrain {folder} --out {out} --objective moco --set negatives.size=9", "unknown setting 'negatives.size'"),
    ("pretrain {folder} --out {out} --objective moco --set size=0", "size must be at least 1, not 0"),
    ("pretrain {folder} --out {out} --objective triplet --set margin=1", "write objective.margin or negatives.margin"),
    ("pretrain {folder} --out {out} --negatives reweighted --set decoupled=on", "decoupled already; leave decoupled"),
    ("pretrain {plain} --out {out} --positives labels", "no labels found, or one alone; give each class"),
    ("pretrain {same} --out {out} --positives labels", "all pictures have one label, so there is nothing to tell"),
    ("pretrain {differ} --out {out} --positives labels", "no label has two pictures, so none belong together; give m"),
    ("pretrain {few} --out {out} --positives labels --batch-size 8", "fit the 4 pictures that belong with another"),
    ("pretrain scenes:n=8,size=16 --out {out} --positives time", "no two frames of one clip; give videos, or a sub-"),
    ("pretrain {folder} --out {out} --positives time --set window=0.02", "frames are 0.0417 s apart or more, so none"),
    ("pretrain {folder} --out {out} --positives time --set window=0", "'window' is 0.0: choose a number above 0"),
    ("pretrain {film} --out {out}", "none of the 3 pictures can be read"),
    ("pretrain {film} --out {out} --positives time", "two frames of one clip: its videos are damaged, or"),
    ("pretrain {film}/none.mp4 --out {out} --positives time", "no two frames of one clip"),
    ("pretrain {film}/none.mp4 --out {out}", "empty file"),
    ("pretrain {film} --out {out} --positives sound", "none of the 3 pictures can be read"),
    ("pretrain {folder} --out {out} --positives sound", "no pairs, for want of pictures in a sub-folder 'image'"),
    ("pretrain {same} --out {out} --positives sound", "no sounds named; want a manifest with columns 'path' and"),
    ("pretrain {nosound} --out {out} --positives sound", "no such file as gone.wav; paths are relative to the manife"),
    ("pretrain {emptysound} --out {out} --positives sound", "the column 'sound' is empty for pairs/image/1.png; fill"),
    ("pretrain {badsound} --out {out} --positives sound", "cannot be read: pairs/image/0.png (its sound /"),
    ("pretrain {pairs} --out {out} --positives sound --set seconds=0", "'seconds' is 0.0: choose from 0.05 to 60"),
    ("pretrain {pairs} --out {out} --positives sound --set mels=9999", "9999 bands are too many"),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(
    run: Path, index: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], dict[str, Path]]:
    root = tmp_path_factory.mktemp("bad")
    for name in ("empty", "junk", "full"):
        (root / name).mkdir()
    (root / "text.doc").write_text("words")
    (root / "junk" / "a.jpg").write_text("words")
    (root / "full" / "letter.txt").write_text("dear")
    _with_partners(root)
    shutil.copytree(run, root / "damaged")
    whole = (run / "backbone.safetensors").read_bytes()
    (root / "damaged" / "backbone.safetensors").write_bytes(whole[: len(whole) // 2])
    assert cli.run(["pretrain", str(folder), "--out", str(root / "other"), *LIGHT, "--seed", "9", "--quiet"]) == 0
    for name in ("newer", "broken"):
        shutil.copytree(index, root / name)
    manifest = json.loads((index / "manifest.json").read_text())
    (root / "newer" / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    (root / "broken" / "manifest.json").write_text("{")
    fixed = {p.name.split(".")[0]: p for p in root.iterdir()} | {"none": root / "none"}
    return lambda out: {**fixed, "run": run, "index": index, "folder": folder, "out": out}


def _with_partners(root: Path) -> None:
    """Pictures, sounds and videos that have something amiss with who belongs together."""
    for folder in ("pairs/image", "pairs/sound", "plain", "more", "film"):
        (root / folder).mkdir(parents=True)
    for i in range(8):
        for folder in ("pairs/image", "plain", "more")[2 * (i > 3) :]:
            Image.new("RGB", (40, 32), (30 * i, 90, 0)).save(root / folder / f"{i}.png")
    for i in range(4):
        with wave.open(str(root / "pairs" / "sound" / f"{i}.wav"), "wb") as out:
            out.setparams((1, 2, 8000, 0, "NONE", ""))
            out.writeframes(bytes(range(200)) * 80)
    (root / "film" / "none.mp4").touch()
    (root / "film" / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(range(256)) * 40)
    shutil.copy(root / "pairs" / "sound" / "0.wav", root / "film" / "sound alone.avi")
    (root / "torn.wav").write_bytes(b"RIFF....WAVE")
    names = [f"pairs/image/{i}.png" for i in range(4)]
    sounds = [f"pairs/sound/{i}.wav" for i in range(4)]
    for name, column, values in (
        ("same", "label", ["a"] * 4),
        ("differ", "label", list("abcd")),
        ("nosound", "sound", ["gone.wav", *sounds[1:]]),
        ("emptysound", "sound", [sounds[0], "", *sounds[2:]]),
        ("badsound", "sound", ["torn.wav", *sounds[1:]]),
    ):
        rows = [f"{picture},{value}" for picture, value in zip(names, values)]
        (root / f"{name}.csv").write_text("\n".join([f"path,{column}", *rows]) + "\n")
    rows = [f"more/{i}.png,{label}" for i, label in enumerate("aabbcdef")]
    (root / "few.csv").write_text("\n".join(["path,label", *rows]) + "\n")


def state(where: dict[str, Path]) -> dict[Path, int]:
    """When each file last changed, but for the scratch files by which SQLite's readers agree."""
    files = (p for name in ("run", "index", "folder", "full") for p in where[name].rglob("*"))
    return {p: p.stat().st_mtime_ns for p in files if not p.name.endswith(("-shm", "-wal"))}


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(
    line: str, words: str, places: Callable[[Path], dict[str, Path]], ssl: Ssl, tmp_path: Path
) -> None:
    """One line that names the culprit and the mend, exit code 2, nothing written or lost."""
    where = places(tmp_path / "out")
    before = state(where)
    code, out, err = ssl(*(part.format(**where) for part in line.split()))
    last = err.strip().splitlines()[-1]
    assert code == 2, err
    assert out == "" and last.startswith("error: ") and "Traceback" not in err
    assert re.search(re.escape(words), last), last
    assert not (tmp_path / "out").exists()
    assert state(where) == before


def test_the_command_alone_helps(ssl: Ssl) -> None:
    for args in ((), ("index",), ("-h",)):
        _, out, err = ssl(*args)
        assert "Usage: ssl" in out and "Commands:" in out and err == ""


def test_a_page_that_exists_stays(ssl: Ssl, index: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    page.write_text("mine")
    code, _, err = ssl("search", index, 1, "--html", page, "--quiet")
    assert code == 2 and "replace it by --overwrite" in err and page.read_text() == "mine"
    assert ssl("search", index, 1, "--html", page, "--overwrite", "--quiet")[0] == 0
    assert page.read_text().startswith("<!doctype html>")


def test_none_is_what_the_table_calls_it(ssl: Ssl, folder: Path, tmp_path: Path) -> None:
    code, _, err = ssl(
        "pretrain", folder, "--out", tmp_path / "r", *LIGHT, "--objective", "vicreg", "--negatives", "none", "--quiet"
    )
    assert code == 0, err


def test_results_may_lie_beside_a_single_picture(ssl: Ssl, run: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "cat" / "00.png", tmp_path / "one.png")
    code, _, err = ssl("embed", run, tmp_path / "one.png", "--out", tmp_path / "z")
    assert code == 0 and np.load(tmp_path / "z.npy").shape[0] == 1, err


def test_a_label_column_with_holes_is_said(ssl: Ssl, run: Path, folder: Path, tmp_path: Path) -> None:
    names = sorted(str(p) for p in (folder / "cat").iterdir())
    rows = [f"{name},{'x' if i % 3 else ''}" for i, name in enumerate(names)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *rows]))
    code, _, err = ssl("evaluate", run, tmp_path / "l.csv")
    assert code == 2 and "the column 'label' is empty for" in err and "and 5 more" in err
