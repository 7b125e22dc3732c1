"""Writing and reading a backbone's file: the header, the digest, and everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import seeall
from seeall.backbones.load import FORMAT, build, describe, digest, load, save
from seeall.types import SeeallError

NAME = "shufflenet_v2_x0_5"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "run"
    write(folder / "backbone.safetensors")
    return folder


def write(path: Path, **facts: Any) -> None:
    backbone, _ = build(NAME)
    save(backbone, path, name=NAME, settings={}, preprocessing={"image_size": 64}, extra=facts)


def rewrite(path: Path, **changes: Any) -> None:
    header = describe(path) | changes
    save_file(load_file(path), path, {"seeall": json.dumps(header)})


def test_the_header_says_what_is_needed(run: Path) -> None:
    header = describe(run)
    assert header["format"] == FORMAT and header["backbone"] == NAME and header["settings"] == {}
    assert header["channels"] == [24, 48, 96, 1024] and header["strides"] == [4, 8, 16, 32]
    assert header["embed_dim"] == 1024
    assert header["preprocessing"]["image_size"] == 64 and len(header["preprocessing"]["std"]) == 3


def test_load_is_at_the_top_of_the_package(run: Path) -> None:
    assert seeall.load(run).embed_dim == 1024


def test_settings_come_back(tmp_path: Path) -> None:
    backbone, _ = build("resnet18", stem="3x3")
    path = tmp_path / "backbone.safetensors"
    save(backbone, path, name="resnet18", settings={"stem": "3x3"}, preprocessing={})
    assert load(path).strides == (1, 2, 4, 8)


def test_the_digest_is_of_the_content(run: Path, tmp_path: Path) -> None:
    names = {"same": {}, "other_weights": {}, "other_facts": {"epoch": 1}}
    for name, facts in names.items():
        torch.manual_seed(int(name == "other_weights"))
        write(tmp_path / f"{name}.safetensors", **facts)
    assert digest(run) == digest(run / "backbone.safetensors") == digest(tmp_path / "same.safetensors")
    assert len({digest(tmp_path / f"{name}.safetensors") for name in names}) == 3
    assert len(digest(run)) == 64 and int(digest(run), 16) >= 0


def test_the_order_of_settings_is_no_content(tmp_path: Path) -> None:
    settings = {"layers": 1, "image_size": 32}
    backbone, _ = build("vit_tiny", **settings)
    for order, path in ((list(settings), "a"), (list(settings)[::-1], "b")):
        file = tmp_path / f"{path}.safetensors"
        save(backbone, file, name="vit_tiny", settings={k: settings[k] for k in order}, preprocessing={})
    assert digest(tmp_path / "a.safetensors") == digest(tmp_path / "b.safetensors")


def test_saving_leaves_one_file_and_replaces_the_old(run: Path) -> None:
    path = run / "backbone.safetensors"
    before = digest(path)
    torch.manual_seed(1)
    write(path)
    assert [p.name for p in run.iterdir()] == [path.name] and digest(path) != before


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "backbone.safetensors").mkdir()
    with pytest.raises(SeeallError, match="cannot be saved"):
        write(tmp_path / "backbone.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["backbone.safetensors"]
    with pytest.raises(SeeallError, match=r"\.safetensors file, not as backbone\.pt"):
        write(tmp_path / "backbone.pt")


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(bytes(range(256)) * 8)
    elif how == "newer":
        rewrite(path, format=FORMAT + 1)
    elif how == "versionless":
        rewrite(path, format=None)
    elif how == "settings":
        rewrite(path, settings=None)
    elif how == "tensors":
        tensors = load_file(path)
        tensors.pop("conv1.0.weight")
        save_file(tensors, path, {"seeall": json.dumps(describe(path))})
    elif how == "foreign":
        save_file(load_file(path), path)
    elif how == "gone":
        path.unlink()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "damaged"),
        ("empty", "damaged"),
        ("noise", "damaged"),
        ("newer", "upgrade seeall"),
        ("versionless", "damaged"),
        ("settings", "damaged"),
        ("tensors", "damaged"),
        ("foreign", "does not say which backbone"),
        ("gone", "holds no backbone.safetensors"),
    ],
)
def test_a_bad_file_is_one_line(run: Path, how: str, words: str) -> None:
    spoil(run / "backbone.safetensors", how)
    with pytest.raises(SeeallError, match=words) as caught:
        load(run)
    assert "\n" not in str(caught.value) and str(run) in str(caught.value)
