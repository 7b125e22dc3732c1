"""What strangers brought: numbers as large as they get, pipes, names that are no text, half-read folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall import cli
from seeall.data.pictures import find
from seeall.index import segments
from seeall.index.build import MODEL, build
from seeall.types import SeeallError
from tests.index.test_index_build import network


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{n:02d}.png")
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path, tmp_path: Path) -> Path:
    build(find(str(photos)), network(tmp_path / "one.safetensors", 0), tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("size", [3e38, -3.4e38, 1e20, 1e-20, 1e-38])
def test_numbers_as_large_and_small_as_they_get(size: float) -> None:
    found = segments.unit(np.full((2, 512), size, np.float32), 512)
    assert np.allclose(found, np.sign(size) / np.sqrt(512), atol=1e-7)


def test_a_pipe_is_no_picture(photos: Path) -> None:
    os.mkfifo(photos / "pipe.png")
    assert find(str(photos)).ids == [f"{n:02d}.png" for n in range(4)]
    with pytest.raises(SeeallError, match="neither a file nor a folder"):
        find(str(photos / "pipe.png"))
    with pytest.raises(SeeallError, match="an empty one"):
        find("")


def test_json_is_text_whatever_names_are(photos: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(str(photos)) + b"/\xff\xfe.png")
    (photos / "00.png").rename(odd)
    build(find(str(photos)), network(tmp_path / "one.safetensors", 0), tmp_path / "index")
    command = [sys.executable, "-m", "seeall", "search", str(tmp_path / "index"), odd, "-k", "1", "--json"]
    told = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    assert json.loads(told)["matches"][0]["path"] == odd


def test_a_folder_of_queries_with_one_that_cannot_be_read(
    photos: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "01.png").write_text("no picture")
    assert cli.run(["search", str(index), str(photos), "-k", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["query"]).name for line in out.splitlines()] == ["00.png", "02.png", "03.png"]
    assert "1 of 4 pictures are left out" in err and "01.png" in err
    assert cli.run(["search", str(index), str(photos / "01.png")]) == 2


def test_check_says_what_is_damaged(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment = next((index / "vectors").glob("*[0-9].npy"))
    segment.write_bytes(segment.read_bytes()[:-9])
    assert cli.run(["index", "check", str(index), "--json"]) == 1
    assert "vectors/" in json.loads(capsys.readouterr().out)["problems"][0]
    assert cli.run(["index", "check", str(index / "nowhere")]) == 2


def test_a_network_that_was_cut(photos: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (index / MODEL).write_bytes((index / MODEL).read_bytes()[:-100])
    assert cli.run(["search", str(index), str(photos / "00.png")]) == 2
    assert f"{MODEL} is not what was written: restore it" in capsys.readouterr().err


def test_what_is_asked_of_a_few(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["index", "tune", str(index), "--structure", "hnsw"]) == 0
    assert "below 1000 items search is exact, whatever is asked for" in capsys.readouterr().err
    assert cli.run(["index", "tune", str(index), "--structure", "exact"]) == 0
    assert "whatever" not in capsys.readouterr().err


def test_a_long_condition_is_not_said_again(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["search", str(index), "1", "--where", "(" * 5000 + "id = 1"]) == 2
    assert len(capsys.readouterr().err) < 400
