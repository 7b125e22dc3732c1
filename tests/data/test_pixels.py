"""Pixels kept, and pixels read again: the same crops either way, and faults told once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from seeall.data.pictures import Pictures, find
from seeall.data.pixels import background, load, write_skipped
from seeall.ssl.views import Views
from seeall.types import SeeallError


def crops(pictures: Pictures, budget: int | None, workers: int = 2) -> tuple[str, torch.Tensor]:
    store = load(pictures, shortest=24, budget=budget, workers=workers)
    rows = torch.tensor([5, 0, 17, 3])
    boxes, flips = Views().boxes(0, 1, rows, store.sizes[rows])
    return store.resident, store.crop(rows, boxes, flips, 24)


def test_the_same_crops_from_memory_and_from_files(folder: Path) -> None:
    """Whatever the number of workers."""
    pictures = find(str(folder))
    where, kept = crops(pictures, None)
    assert where == "memory"
    for workers in (1, 3):
        where, again = crops(pictures, 0, workers)
        assert where == "files"
        assert torch.equal(kept, again)


def test_pictures_of_one_size_become_one_tensor() -> None:
    """And give the same crops as pictures read one by one, but for rounding to whole numbers."""
    pictures = find("scenes:n=20,size=32")
    where, whole = crops(pictures, None)
    assert where == "device" and whole.dtype == torch.float32
    _, single = crops(pictures, 0)
    assert (whole * 255 - single).abs().max() < 1.01


def broken(folder: Path, good: int, bad: int) -> Pictures:
    for i in range(good):
        Image.new("RGB", (8 + i % 3, 9), (i, 0, 0)).save(folder / f"good{i:03d}.png")
    for i in range(bad):
        (folder / f"bad{i:03d}.png").write_bytes(b"\x89PNG nothing")
    return find(str(folder))


def test_a_few_unreadable_ones_are_skipped_and_listed(tmp_path: Path) -> None:
    store = load(broken(tmp_path, 40, 2), shortest=8)
    assert len(store) == 40
    write_skipped(tmp_path / "skipped.csv", store.skipped)
    lines = (tmp_path / "skipped.csv").read_text().splitlines()
    assert lines[0] == "path,reason" and lines[1].startswith("bad000.png,") and len(lines) == 3


def test_too_many_unreadable_ones_are_an_error_unless_allowed(tmp_path: Path) -> None:
    pictures = broken(tmp_path, 10, 2)
    with pytest.raises(SeeallError, match=r"2 of 12 pictures cannot be read: bad000.png .*--allow-skipped"):
        load(pictures, shortest=8)
    assert len(load(pictures, shortest=8, allow_skipped=True)) == 10


def test_none_readable(tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match="none of the 3 pictures can be read"):
        load(broken(tmp_path, 0, 3), shortest=8, allow_skipped=True)


def test_a_file_that_vanishes_in_mid_training(tmp_path: Path) -> None:
    store = load(broken(tmp_path, 4, 0), shortest=8, budget=0)
    (tmp_path / "good002.png").unlink()
    with pytest.raises(SeeallError, match=r"good002.png: was readable when training began, now no such file"):
        store.crop(torch.tensor([2]), torch.tensor([[0, 0, 4, 4]]), torch.tensor([False]), 8)


def test_background_keeps_order_passes_faults_on_and_stops() -> None:
    assert list(background(iter(range(50)), depth=3)) == list(range(50))

    def faulty():
        yield 1
        raise ValueError("here")

    got = background(faulty())
    assert next(got) == 1
    with pytest.raises(ValueError, match="here"):
        next(got)
    endless = background(iter(int, 1))
    next(endless)
    endless.close()
    time.sleep(0.05)
    assert not [t for t in threading.enumerate() if t.name == "background"]
