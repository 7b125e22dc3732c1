"""The examples and the documentation do what they say: each script a real process, each command and code block run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from seeall import cli
from seeall.backbones.load import build
from seeall.data.scenes import parse
from tests.conftest import draw

ROOT = Path(__file__).parents[1]
WORLD = "scenes:n=64,size=32"
EXAMPLES = {
    "learn_and_search.py": (
        [WORLD, "{out}", "2"],
        r"64 pictures of 512 dimensions[^\n]*\n1\.000  scenes/identity_0000/",
    ),
    "embed_with_any_weights.py": ([WORLD, "{out}"], r"loaded 100 of 100 tensors.*\n64 pictures, 512 numbers each"),
    "who_is_who.py": (
        ["scenes:n=64,size=32,labels=identity,identities=8", "{out}", "2"],
        r"identity_0000: (identity_\d+, 0\.\d+|nobody I know)\n",
    ),
    "own_loss.py": ([WORLD, "{out}", "2"], r"loss -?\d+\.\d+, alignment \d+\.\d+, uniformity -\d+\.\d+, spread \d"),
}
"""Script → what makes it small, and what it prints."""
SMALL = ["--backbone", "shufflenet_v2_x0_5", "--image-size", "32", "--batch-size", "16", "--epochs", "1", "--quiet"]

FEW = ["--image-size", "48", "--steps", "2", "--set", "width=16", "--quiet"]


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def defined(code: str) -> dict[str, Any]:
    """What a block of code leaves."""
    names: dict[str, Any] = {"__name__": "block"}
    exec(compile(code, "block", "exec"), names)
    return names


def test_every_example_is_run_here() -> None:
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    arguments, printed = EXAMPLES[name]
    command = [sys.executable, str(ROOT / "examples" / name), *(a.format(out=tmp_path) for a in arguments)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=alone, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(printed, done.stdout), done.stdout
    run = tmp_path / "run" if name in ("learn_and_search.py", "who_is_who.py") else tmp_path
    assert list(run.glob("*.safetensors")), "nothing was kept"


def speak(file: Path, hertz: float) -> None:
    """A second of a tone."""
    tone = 0.5 * torch.sin(torch.arange(8000) * 2 * torch.pi * hertz / 8000)
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes((tone * 32767).to(torch.int16).numpy().tobytes())


def cells(folder: Path, n: int = 10) -> None:
    """Pictures of the synthetic world with their boxes, in Pascal VOC's layout."""
    world = parse(f"scenes:n={n},size=48,things=1-2,classes=2")
    for part in ("JPEGImages", "Annotations"):
        (folder / part).mkdir(parents=True)
    for i in range(n):
        truth = world.truth(i)
        Image.fromarray(truth.image).save(folder / "JPEGImages" / f"{i}.jpg")
        things = "".join(
            f"<object><name>{'ab'[c]}</name><bndbox><xmin>{x0 + 1:.0f}</xmin><ymin>{y0 + 1:.0f}</ymin>"
            f"<xmax>{x1:.0f}</xmax><ymax>{y1:.0f}</ymax></bndbox></object>"
            for c, (x0, y0, x1, y1) in zip(truth.classes, truth.boxes.tolist())
        )
        size = "<size><width>48</width><height>48</height></size>"
        (folder / "Annotations" / f"{i}.xml").write_text(f"<annotation>{size}{things}</annotation>")


def test_readme(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands as they are typed, one after the other, then its Python; training made small."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "more-photos", "labelled", "people", "videos", "heard/image"):
        shutil.copytree(folder, name)
    for i, picture in enumerate(sorted(Path("heard/image").rglob("*.*g"))):
        sound = Path("heard/sound", picture.relative_to("heard/image")).with_suffix(".wav")
        sound.parent.mkdir(parents=True, exist_ok=True)
        speak(sound, 200 + 10 * i)
    shutil.copy("photos/cat/00.png", "holiday.jpg")
    shutil.copy("photos/dog/01.jpg", "photos/blurred.jpg")
    shutil.copytree("photos/dog", "photos/2019")
    lines = [line for block in blocks("README.md", "") for line in block.splitlines() if line.startswith("ssl ")]
    assert len(lines) > 15
    shutil.copytree("more-photos", "new-photos")
    cells(Path("cells"))
    for i in range(150):  # two friends, of whom three pictures are enrolled each; a hundred others
        name = f"friends/{'ab'[i % 2]}" if i < 6 else f"some-people/{'abc'[i % 3]}" if i < 30 else f"others/{i}"
        draw(Path(name) / f"{i}.png", seed=i)
    shutil.copy("friends/a/0.png", "party.jpg")
    shutil.copy("friends/b/3.png", "friends/b/1.png")
    missing = [name for name in ("pymilvus", "milvus_lite") if importlib.util.find_spec(name) is None]
    for line in lines:
        if missing and "shared.index" in line:
            continue
        words = [str(Path(w).expanduser()) if w.startswith("~") else w for w in shlex.split(line)[1:]]
        assert cli.run(words + {"pretrain": SMALL, "finetune": FEW}.get(words[0], [])) == 0, line
    for code in blocks("README.md", "python"):
        defined(code)
    assert "<img " in Path("found.html").read_text()


def test_contributing(tmp_path: Path) -> None:
    backbone, model, head = map(defined, blocks("CONTRIBUTING.md", "python"))

    network = backbone["regnet_y_400mf"]().eval()
    maps = network.stages(torch.zeros(1, 3, 33, 45))
    sizes = [(1, c, -(-33 // s), -(-45 // s)) for c, s in zip(network.channels, network.strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == sizes
    assert network(torch.zeros(1, 3, 33, 45)).shape == (1, network.embed_dim)

    assert model["Plain"](network, 5)(torch.zeros(2, 3, 33, 45)).shape == (2, 5, 33, 45)

    y = torch.arange(32) % 2
    x = torch.randn(32, 3, 16, 16) + y[:, None, None, None]
    task = head["Classify"](build("shufflenet_v2_x0_5")[0], 2, (x, y))
    results = head["finetune"](task, lambda t: (x, y), tmp_path / "run")
    assert results["loss"] < 0.69 and results["best top1"] >= 50
    assert (tmp_path / "run" / "checkpoints" / "best").exists()


@pytest.mark.slow
def test_a_new_objective_is_one_file_and_two_lines(tmp_path: Path) -> None:
    """The change that CONTRIBUTING.md shows applies, and the contract picks the objective up and holds."""
    for part in ("seeall", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    (change,) = blocks("CONTRIBUTING.md", "diff")
    subprocess.run(["git", "apply"], input=change, text=True, check=True, cwd=tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/objectives/test_contract.py", "-q", "-k", "alignuniform"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    found = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and found and int(found[1]) > 5, done.stdout[-3000:]


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_file_names(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", text):
        target, anchor = ROOT / (link[0] or document), link[1].lstrip("#")
        assert target.exists(), link
        heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [head.lower().replace(" ", "-") for head in heads], link
    for path in re.findall(r"(?:benchmarks|examples|tests|seeall)/[\w/]+\.py", text):
        assert (ROOT / path).exists() or path.endswith("alignuniform.py"), path
