"""Exported heads: how many clips or pictures a file takes at a time is any number, or written beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seeall.backbones.contract import Backbone
from seeall.backbones.load import build as build_backbone
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.export import TOLERANCE, export

FRAMES = 5
MODELS: dict[str, dict[str, Any]] = {"per-frame": {}, "inflated": {}, "slowfast": {"alpha": 2}, "sideways": {}}


class Pinned(nn.Module):
    """A network whose every forward pass asks Python for the number of pictures, which no exporter sees."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone, self.score = backbone, nn.Linear(backbone.embed_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.score(self.backbone(x)).view(len(x), -1)
        return scores


def saved(out: Path, task: str, model: str, settings: dict[str, Any], family: str = "timm/resnet10t") -> nn.Module:
    torch.manual_seed(0)
    family = "resnet18" if model == "slowfast" else family  # few layers: exporters take their time over each
    recipe = build.Recipe(task, model, ("go", "stay", "turn"), 32, family, {}, settings)
    head = build.assemble(recipe, build_backbone(family)[0], About(32))
    build.save(head, recipe, out)
    return head.eval()


def opened(file: Path) -> tuple[list[Any] | None, Callable[[Tensor], np.ndarray]]:
    """The shape that a file asks for, where it says so, and what it does."""
    if file.suffix == ".pt2":
        module = torch.export.load(str(file)).module()
        return None, lambda x: module(x).detach().numpy()
    session = pytest.importorskip("onnxruntime").InferenceSession(str(file))
    return session.get_inputs()[0].shape, lambda x: session.run(None, {"pictures": x.numpy()})[0]


@torch.no_grad()
def says(head: Any, pictures: Tensor) -> np.ndarray:
    """What the head's own network says of pictures or clips in [0, 1]."""
    mean, std = (part.view(1, 3, *[1] * (pictures.ndim - 2)) for part in (head.normalise.mean, head.normalise.std))
    scores: np.ndarray = head.network((pictures - mean) / std).softmax(1).numpy()
    return scores


@pytest.mark.parametrize("name", ["head.onnx", "head.pt2"])
@pytest.mark.parametrize("model", MODELS)
def test_a_head_of_clips_takes_any_number_of_them(model: str, name: str, tmp_path: Path) -> None:
    head = saved(tmp_path, "action", model, {"model": MODELS[model], "task": {"frames": FRAMES}})
    told = export(tmp_path, tmp_path / name)
    assert told["batch"] == "any" and told["input"] == f"B×3×{FRAMES}×32×32" and told["difference"] <= TOLERANCE
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert facts["batch"] == "any" and facts["frames"] == FRAMES and facts["height"] == facts["width"] == 32
    shape, exported = opened(tmp_path / name)
    assert shape is None or (isinstance(shape[0], str) and shape[1:] == [3, FRAMES, 32, 32])
    for number in (1, 2, 3, 5):
        clips = torch.rand(number, 3, FRAMES, 32, 32, generator=torch.Generator().manual_seed(number))
        np.testing.assert_allclose(exported(clips), says(head, clips), atol=TOLERANCE)


@pytest.mark.parametrize("name", ["head.onnx", "head.pt2"])
def test_a_transformer_takes_any_number_of_pictures(name: str, tmp_path: Path) -> None:
    head = saved(tmp_path, "classification", "linear", {}, "vit_tiny")
    assert export(tmp_path, tmp_path / name)["batch"] == "any"
    _, exported = opened(tmp_path / name)
    for number in (1, 4):
        pictures = torch.rand(number, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        np.testing.assert_allclose(exported(pictures), says(head, pictures), atol=TOLERANCE)


@pytest.mark.parametrize("name", ["head.onnx", "head.pt2"])
def test_a_network_for_one_number_alone_takes_one_and_says_so(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = saved(tmp_path, "classification", f"{__name__}:Pinned", {})
    told = export(tmp_path, tmp_path / name)
    assert told["batch"] == 1 and told["input"] == "1×3×32×32"
    assert "the file takes 1, no other" in caplog.text
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert facts["batch"] == 1 and "frames" not in facts
    shape, exported = opened(tmp_path / name)
    assert shape is None or shape == [1, 3, 32, 32]
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(exported(picture), says(head, picture), atol=TOLERANCE)
    with pytest.raises(Exception, match=r"(?i)guard|expected"):
        exported(torch.rand(2, 3, 32, 32))
