"""Files of flow: exact round trips, torchvision's readers as a second opinion, and everything that can be wrong."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets._optical_flow import _read_16bits_png_with_flow_and_valid_mask, _read_flo

from seeall.data.motion import fields
from seeall.types import SeeallError

REAL = Path(os.environ.get("SEEALL_DATA", "../shared/data")) / "middlebury"


def some(height: int = 5, width: int = 7, steps: bool = False) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(height * width)
    vectors = rng.normal(0, 40, (height, width, 2)).astype(np.float32)
    known = rng.random((height, width)) < 0.7
    vectors[~known] = 0
    return np.round(vectors * 64) / np.float32(64) if steps else vectors, known


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 300), (64, 3)])
def test_a_flo_file_keeps_every_bit(size: tuple[int, int], tmp_path: Path) -> None:
    vectors, known = some(*size)
    known[0, 0] = True
    fields.write(tmp_path / "a.flo", vectors, known)
    back = fields.read(tmp_path / "a.flo")
    assert (back.vectors == vectors).all() and (back.known == known).all()
    theirs = _read_flo(str(tmp_path / "a.flo"))
    assert (theirs.transpose(1, 2, 0)[known] == vectors[known]).all()


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (33, 20)])
def test_a_png_keeps_steps_of_a_sixty_fourth(size: tuple[int, int], tmp_path: Path) -> None:
    vectors, known = some(*size, steps=True)
    known[0, 0] = True
    fields.write(tmp_path / "a.png", vectors, known)
    back = fields.read(tmp_path / "a.png")
    assert (back.vectors == vectors).all() and (back.known == known).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        flow, valid = _read_16bits_png_with_flow_and_valid_mask(str(tmp_path / "a.png"))
    assert (flow.transpose(1, 2, 0)[known] == vectors[known]).all() and (valid == known).all()


def test_a_png_rounds_to_the_nearest_step(tmp_path: Path) -> None:
    vectors, _ = some()
    fields.write(tmp_path / "a.png", vectors)
    assert np.abs(fields.read(tmp_path / "a.png").vectors - vectors).max() <= 1 / 128


@pytest.mark.skipif(not REAL.is_dir(), reason="Middlebury is not there")
def test_real_files_come_back_byte_for_byte(tmp_path: Path) -> None:
    files = sorted(REAL.glob("*/flow10.flo"))
    assert files
    for file in files:
        field = fields.read(file)
        assert (np.moveaxis(_read_flo(str(file)), 0, 2)[field.known] == field.vectors[field.known]).all()
        fields.write(tmp_path / "a.flo", field.vectors, field.known)
        again = fields.read(tmp_path / "a.flo")
        assert (again.vectors == field.vectors).all() and (again.known == field.known).all()


def test_flow_that_is_no_number_is_not_known(tmp_path: Path) -> None:
    vectors, _ = some()
    vectors[1, 2], vectors[2, 3, 1], vectors[3, 1, 0] = np.nan, np.inf, 2e9
    fields.write(tmp_path / "a.flo", vectors)
    back = fields.read(tmp_path / "a.flo")
    assert not back.known[[1, 2, 3], [2, 3, 1]].any() and back.known.sum() == back.known.size - 3
    assert np.isfinite(back.vectors).all()


def _files(folder: Path) -> dict[str, Path]:
    vectors, known = some()
    fields.write(folder / "whole.flo", vectors, known)
    whole = (folder / "whole.flo").read_bytes()
    made = {
        "short": whole[:-3],
        "long": whole + b"x",
        "empty": b"",
        "tag": b"PIEX" + whole[4:],
        "sides": struct.pack("<4sii", b"PIEH", -1, 5),
        "huge": struct.pack("<4sii", b"PIEH", 1 << 30, 1 << 30),
        "unknown": whole[:12] + np.full((5, 7, 2), 1e10, "<f4").tobytes(),
    }
    for name, content in made.items():
        (folder / f"{name}.flo").write_bytes(content)
    Image.new("RGB", (4, 4)).save(folder / "picture.png")
    (folder / "no.png").write_bytes(b"no picture")
    (folder / "flow.txt").write_text("0 0")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short.flo", "cut short"), ("long.flo", "too long"), ("empty.flo", "begin with PIEH"),
        ("tag.flo", "begin with PIEH"), ("sides.flo", "damaged"), ("huge.flo", "damaged"),
        ("unknown.flo", "nowhere in it"), ("picture.png", "16 bits"), ("no.png", "cannot be read as PNG"),
        ("flow.txt", ".flo or .png"), ("missing.flo", "No such file"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line(name: str, words: str, tmp_path: Path) -> None:
    files = _files(tmp_path)
    with pytest.raises(SeeallError, match=words) as told:
        fields.read(files.get(name, tmp_path / name))
    assert name in str(told.value) and "\n" not in str(told.value)


def test_what_a_png_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for value in (512.0, -513.0, np.nan):
        with pytest.raises(SeeallError, match="write a .flo file"):
            fields.write(tmp_path / "a.png", np.full((2, 2, 2), value, np.float32))
    fields.write(tmp_path / "a.png", np.full((2, 2, 2), -512, np.float32))
    with pytest.raises(SeeallError, match="end in"):
        fields.write(tmp_path / "a.txt", np.zeros((2, 2, 2), np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
