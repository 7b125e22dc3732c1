"""Embedding: the same features whatever the batch, pictures squared as torchvision squares them, shards joined."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from seeall.data.pictures import find
from seeall.training import embed
from seeall.training.embed import Eye, Normalise, square, squares


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (500, 31), (16, 30)])
def test_square_is_resize_and_centre_crop(height: int, width: int) -> None:
    """torchvision's, where the margin is even; where it is odd the two round to different sides."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = square(pixels, 32)
    expected = v2.CenterCrop(32)(v2.Resize(32, antialias=True)(torch.from_numpy(pixels).permute(2, 0, 1)))
    assert found.dtype == torch.uint8 and (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 33), (1, 7), (7, 1), (64, 41)])
def test_square_is_square_whatever_comes(height: int, width: int) -> None:
    assert square(np.zeros((height, width, 3), dtype=np.uint8), 32).shape == (3, 32, 32)


def test_normalise_takes_bytes_and_floats() -> None:
    x = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    normalise = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = v2.functional.normalize(x / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(normalise(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normalise(x / 255), expected, rtol=1e-5, atol=1e-5)


def test_batches_hold_every_readable_picture_once(folder: Path, tmp_path: Path) -> None:
    pictures = find(str(folder))
    for batch in (1, 7, 100):
        rows = [row for good, pixels, _ in squares(pictures, 32, batch=batch) for row in good]
        assert rows == list(range(48))
    for i in range(3):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"nothing")
    found = list(squares(find(str(tmp_path)), 16))
    assert [(good, bad) for good, _, bad in found] == [([0, 2], [(1, "not a picture that Pillow can read")])]


def test_features_do_not_depend_on_the_batch(run: Path, folder: Path) -> None:
    eye, pictures = Eye.of(run), find(str(folder))
    z, rows = eye.see_all(pictures)
    assert z.shape == (48, eye.dim) and rows == list(range(48))
    alone = torch.cat([eye.see(pixels) for _, pixels, _ in squares(pictures, 32, batch=5)])
    torch.testing.assert_close(z, alone, rtol=1e-4, atol=1e-5)


def test_cores_keep_the_order_and_leave_torch_its_threads(
    folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are seen by several threads of one thread each; afterwards torch has as many as before."""
    eye, threads = Eye.of(run), torch.get_num_threads()
    pictures = find(str(folder))
    (whole,) = (z for _, z, _ in eye.stream(pictures))
    monkeypatch.setattr(embed, "_PIXELS_CPU", 1)
    try:
        torch.set_num_threads(3)
        rows, several = zip(*((rows, z) for rows, z, _ in eye.stream(pictures)))
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), later) == (3, [3])
    finally:
        torch.set_num_threads(threads)
    assert [row for part in rows for row in part] == list(range(48)) and len(rows) == 6
    torch.testing.assert_close(torch.cat(several), whole, rtol=1e-4, atol=1e-5)


def test_an_output_that_exists_stays(run: Path, folder: Path, tmp_path: Path, ssl: Any) -> None:
    args = ("embed", run, folder, "--out", tmp_path / "z", "--quiet")
    assert ssl(*args)[0] == 0
    before = (tmp_path / "z.npy").read_bytes()
    code, _, err = ssl(*args, "--limit", 3)
    assert code == 2 and "z.npy is already there; replace it by --overwrite" in err
    assert (tmp_path / "z.npy").read_bytes() == before
    assert ssl(*args, "--limit", 3, "--overwrite")[0] == 0
    assert len(np.load(tmp_path / "z.npy")) == 3


def test_names_that_are_no_text(run: Path, tmp_path: Path, ssl: Any) -> None:
    for name in (b"caf\xe9", b"th\xe9"):
        place = tmp_path / "p" / os.fsdecode(name)
        place.mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(place / "1.png")
    assert ssl("embed", run, tmp_path / "p", "--out", tmp_path / "z", "--quiet")[0] == 0
    rows = pyarrow.parquet.read_table(tmp_path / "z.parquet").to_pylist()
    assert rows[0] == {"id": "caf\\udce9/1.png", "label": "caf\\udce9"}


def test_nothing_is_left_of_an_embedding_that_fails(run: Path, tmp_path: Path, ssl: Any) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"nothing")
    assert ssl("embed", run, tmp_path, "--out", tmp_path.parent / "broken" / "z", "--quiet")[0] == 2
    assert list((tmp_path.parent / "broken").iterdir()) == []


def test_a_full_disk_is_named(run: Path, folder: Path, tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys
from seeall import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sys.exit(cli.run(["embed", {str(run)!r}, {str(folder)!r}, "--out", {str(tmp_path / "z")!r}, "--quiet"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: --out {tmp_path / 'z'}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_under_torchrun_write_what_one_writes(run: Path, folder: Path, tmp_path: Path) -> None:
    from seeall import cli

    assert cli.run(["embed", str(run), str(folder), "--out", str(tmp_path / "one"), "--quiet"]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "seeall"]
    args = ["embed", str(run), str(folder), "--out", str(tmp_path / "two"), "--json"]
    done = subprocess.run([*command, *args], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("{") == 1
    one, two = (np.load(tmp_path / f"{name}.npy") for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.npy", "one.parquet", "two.npy", "two.parquet"]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
