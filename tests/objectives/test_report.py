"""`ssl evaluate --html`: the hardest pairs against brute force, the page, its refusals; what is shown in training."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import wave
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn.functional import normalize

from seeall import cli, html
from seeall.data.pictures import find
from seeall.data.scenes import parse
from seeall.ssl import show
from seeall.ssl.probes import Found, Seen
from seeall.ssl.report import report
from seeall.training.journal import Journal
from seeall.types import SeeallError

Ssl = Callable[..., tuple[int, str, str]]
LIGHT = ["--backbone", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "16", "--quiet"]


class Tags(HTMLParser):
    """Every tag and its attributes, and whether all that open also close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def some(n: int, labels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=g), torch.randint(0, labels, (n,), generator=g)


def greedy(z: Tensor, labels: Tensor, count: int, alike: bool) -> list[tuple[int, int]]:
    """All pairs of a kind, hardest first; each is taken unless one of its rows is in two already."""
    cosine = normalize(z, dim=1) @ normalize(z, dim=1).T
    n = len(z)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if (labels[i] == labels[j]) == alike]
    pairs.sort(key=lambda pair: float(cosine[pair]), reverse=not alike)
    times: Counter[int] = Counter()
    taken = []
    for i, j in pairs:
        if len(taken) < count and times[i] < 2 and times[j] < 2:
            times.update((i, j))
            taken.append((i, j))
    return taken


@pytest.mark.parametrize(("n", "labels", "count"), [(40, 4, 12), (90, 30, 5), (9, 2, 12), (6, 1, 3), (60, 3, 1)])
@pytest.mark.parametrize("budget", [1 << 22, 100])
def test_hardest_pairs(n: int, labels: int, count: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_BUDGET", budget)  # tiles of a row or of all
    z, y = some(n, labels)
    z[0] = -z.mean(0) * 9  # far from everything, so that all its pairs come first
    for found, alike in zip(show.hardest(z, y, count), (True, False)):
        assert [pair[:2] for pair in found] == greedy(z, y, count, alike)
        for i, j, cosine in found:
            assert cosine == pytest.approx(float(torch.cosine_similarity(z[i], z[j], 0)), abs=1e-5)


def test_pairs_that_are_not_there() -> None:
    z, _ = some(4, 2)
    assert show.hardest(z[:1], torch.zeros(1, dtype=torch.int64)) == ([], [])
    positives, negatives = show.hardest(z, torch.arange(4))
    assert not positives and len(negatives) == 4
    assert [show.comparable(torch.tensor(y)) for y in ([0, 0], [0, 1], [0, 1, 1], [3])] == [False, False, True, False]
    with pytest.raises(SeeallError, match="NaN or infinity"):
        show.hardest(z * math.nan, torch.arange(4))


def test_distances_of_rows_of_length_one() -> None:
    x = normalize(some(6, 2)[0], dim=1)
    assert torch.allclose(show.distance(x @ x.T), torch.cdist(x, x), atol=1e-3)
    assert float(show.distance(torch.tensor(1.0 + 1e-6))) == 0


def test_command_writes_a_page_that_needs_nothing_else(ssl: Ssl, run: Path, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    code, out, err = ssl("evaluate", run, folder, "--val", folder, "--html", file, "--json")
    assert code == 0, err
    assert f"wrote {file}" in err
    figures = json.loads(out)
    assert {"nmi", "eer", "auc", "recall@8", "r-precision", "tar@far=1e-2"} < figures.keys()
    assert "tar@far=1e-4" not in figures and "same_or_different" not in figures  # too few pairs, too few labels
    text = file.read_text()
    tags = Tags(text)
    assert not tags.open or tags.open == ["html"]
    assert "http" not in text and "<script" not in text and "<link" not in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    pictures = tags.all("img")
    assert len(pictures) == 2 * 12 + 2 * 12 + 48
    for attrs in pictures:
        kind, _, data = (attrs["src"] or "").partition(",")
        assert kind == "data:image/jpeg;base64" and attrs["alt"]
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 128
    twice = Counter(attrs["alt"] for attrs in pictures[:24])
    assert max(twice.values()) <= 2
    assert len(tags.all("svg")) == 2
    for name, value in figures.items():
        if isinstance(value, float):
            assert f"<td>{name}</td><td>{value:.2f}</td>" in text
    assert not re.search(r"\bnan\b|\binf\b", re.sub(r"base64,[^\"]+", "", text))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("page.jpg", "page.jpg: a page's name ends in .html"),
        ("there.html", "there.html is already there; replace it by --overwrite, or choose another name"),
    ],
)
def test_refuses(ssl: Ssl, run: Path, folder: Path, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "there.html").write_text("mine")
    code, out, err = ssl("evaluate", run, folder, "--html", tmp_path / name)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and words in err
    assert (tmp_path / "there.html").read_text() == "mine"


def test_overwrite_and_a_place_that_cannot_be(ssl: Ssl, run: Path, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "there.html"
    file.write_text("mine")
    assert ssl("evaluate", run, folder, "--html", file, "--overwrite", "--quiet", "--limit", 12)[0] == 0
    assert file.read_text().startswith("<!doctype html>")
    code, _, err = ssl("evaluate", run, folder, "--html", file / "below.html", "--quiet", "--limit", 12)
    assert code == 2 and "cannot be saved" in err.splitlines()[-1]


def test_names_and_figures_stand_in_two_columns(ssl: Ssl, run: Path, folder: Path) -> None:
    code, out, _ = ssl("evaluate", run, folder, "--quiet", "--limit", 12)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert all(len(line) == 2 for line in lines) and ["classes", "2"] in lines
    starts = {re.search(r" +", line).end() for line in out.splitlines() if re.search(r" +", line)}  # type: ignore[union-attr]
    assert len(starts) == 1


def test_unlabelled_pictures_without_sounds(ssl: Ssl, run: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "cat", tmp_path / "flat")
    code, out, err = ssl("evaluate", run, tmp_path / "flat", "--html", tmp_path / "page.html", "--quiet")
    assert (code, out) == (2, "") and "no labels found" in err and not (tmp_path / "page.html").exists()


def test_a_page_of_few_pictures_odd_names_and_a_file_that_is_gone(tmp_path: Path) -> None:
    for i, label in enumerate("aa<"):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.new("RGB", (300, 9), (40 * i, 9, 9)).save(tmp_path / label / f"{i}&.png")
    pictures = find(str(tmp_path))
    (tmp_path / "a" / "0&.png").unlink()
    z = torch.eye(3)
    order = [pictures.ids.index(name) for name in ("a/0&.png", "a/1&.png", "</2&.png")]
    text = report("T<1>", Found({"knn20": 50.0}, Seen(pictures, z, order)))
    tags = Tags(text)
    assert "T&lt;1&gt;" in text and 'alt="a/1&amp;.png"' in text and "0.000 · a · &lt;" in text
    gone = [attrs for attrs in tags.all("div") if attrs.get("class") == "gone"]
    assert len(gone) == 1 + 1 + 1  # in a pair of its label, in one with the other label, on the map
    alone = report("one", Found({}, Seen(pictures, z[:1], order[1:2])))
    assert "<img" not in alone and "<svg" not in alone and not alone.count("<h2")


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that has learnt from sound."""
    out = tmp_path_factory.mktemp("heard") / "run"
    args = ["pretrain", "scenes:n=32,size=32", "--positives", "sound", "--out", str(out), "--epochs", "1", *LIGHT]
    assert cli.run(args) == 0
    return out


def test_sounds_beside_labels(ssl: Ssl, heard: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    args = ("scenes:n=32,size=32,classes=2", "--val", "scenes:n=20,size=32,classes=2,first=32", "--html", file)
    code, out, err = ssl("evaluate", heard, *args, "--json", "--quiet")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["pairs"] == figures["test_pictures"] == 20 and figures["pair_chance_recall@1"] == 5
    assert {"knn20", "image_sound_ndcg@30", "sound_sound_recall@1", "image_sound_pair_recall@1"} < figures.keys()
    assert all(0 <= value <= 100 for name, value in figures.items() if "recall" in name)
    text = file.read_text()
    assert text.count("<ol>") == 8 and text.count('class="answers asked"') == 8 and text.count("<li") == 40
    assert f"({figures['image_sound_chance_ndcg@30']:.2f})" in text and "picture → sound" in text
    assert re.search(r"<li[^>]*>\d{6} \((disc|square)\) · -?[01]\.\d{3}</li>", text)


def test_sounds_without_labels(ssl: Ssl, heard: Path, tmp_path: Path) -> None:
    world = parse("scenes:n=6,size=32")
    for i in range(6):
        for name in ("image", "sound"):
            (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(world.image(i)).save(tmp_path / "image" / f"{i}_a.png")
        with wave.open(str(tmp_path / "sound" / f"{i}_a.wav"), "wb") as out_file:
            out_file.setnchannels(1), out_file.setsampwidth(2), out_file.setframerate(16_000)
            out_file.writeframes((world.sound(i) * 32767).astype("<i2").tobytes())
    page = tmp_path / "page.html"
    code, out, err = ssl("evaluate", heard, tmp_path, "--html", page, "--json", "--quiet")
    assert code == 0, err
    figures = json.loads(out)
    assert figures.keys() == {"pair_chance_recall@1", "image_sound_pair_recall@1", "sound_image_pair_recall@1", "pairs"}
    assert figures["pairs"] == 6
    text = page.read_text()
    assert "pairs heard together" in text and "0_a.wav" in text and text.count("<li class=") <= 6
    # without the sounds, the same folder has nothing to be measured by
    shutil.rmtree(tmp_path / "sound")
    code, out, err = ssl("evaluate", heard, tmp_path)
    assert code == 2 and "nothing is measured by sound" in err and "no labels found" in err.splitlines()[-1]


def test_labelled_pictures_without_sounds_and_a_run_that_hears(ssl: Ssl, heard: Path, folder: Path) -> None:
    code, out, err = ssl("evaluate", heard, folder, "--json")
    assert code == 0 and "nothing is measured by sound" in err
    assert "knn20" in (figures := json.loads(out)) and "pairs" not in figures


def test_charts_place_their_points() -> None:
    lines = [html.Line("a<b", "one", [(0, 0), (1, 10)], filled=True), html.Line("", "two", [])]
    text = html.chart("A & B", html.Axis("x", 0, 1, [(0.5, "½")]), html.Axis("y", 0, 10, [(0, "0")]), lines)
    assert "A &amp; B" in text and "a&lt;b" in text and text.count("<span") == 1
    path = re.findall(r'class="line one" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', text)[0]
    x0, y0, x1, y1 = map(float, path)
    assert x1 > x0 and y0 > y1
    assert re.search(rf'<text x="{(x0 + x1) / 2:.1f}"[^>]*>½<', text)


def test_histograms_and_the_sheet_of_a_run(ssl: Ssl, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, err = ssl("pretrain", "scenes:n=64,size=32,classes=3", "--out", out, "--epochs", 2, *LIGHT)
    assert code == 0, err
    board = EventAccumulator(str(out), size_guidance={"histograms": 0, "images": 0}).Reload()
    assert set(board.Tags()["histograms"]) == {"distances/same", "distances/different"}
    y = torch.bincount(find("scenes:n=64,size=32,classes=3").targets())
    pairs = int((y * (y - 1)).sum()) // 2, 64 * 63 // 2 - int((y * (y - 1)).sum()) // 2
    for name, count in zip(("same", "different"), pairs):
        events = board.Histograms(f"distances/{name}")
        assert [event.step for event in events] == [4, 8]
        assert all(event.histogram_value.num == count for event in events)
        assert all(0 <= event.histogram_value.min <= event.histogram_value.max <= 2 for event in events)
    assert "hardest" in board.Tags()["images"]
    with Image.open(out / "pictures" / "hardest.png") as sheet:
        assert sheet.size == (12 * (64 + 4) + 10, 2 * (2 * (64 + 4) + 10))


def test_pictures_without_labels_have_no_sheet(ssl: Ssl, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(folder / "cat", tmp_path / "flat")
    assert ssl("pretrain", tmp_path / "flat", "--out", out, "--epochs", 1, *LIGHT)[0] == 0
    assert not (out / "pictures" / "hardest.png").exists()


def test_a_journal_keeps_histograms_and_writes_none_where_it_must_not(tmp_path: Path) -> None:
    for name, writes in (("writes", True), ("silent", False)):
        (tmp_path / name).mkdir()
        journal = Journal(tmp_path / name, writes=writes)
        journal.histogram("spread", torch.tensor([0.0, 0.5, 0.5, 2.0]), 3)
        journal.close()
    assert not list((tmp_path / "silent").iterdir())
    (event,) = EventAccumulator(str(tmp_path / "writes")).Reload().Histograms("spread")
    told = event.histogram_value
    assert (event.step, told.num, told.min, told.max, told.sum) == (3, 4, 0, 2, 3)
