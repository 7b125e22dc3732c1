"""Weights from elsewhere: which names match, what the report says, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models

from seeall.backbones.load import build, save
from seeall.backbones.weights import fill, read
from seeall.types import SeeallError

NAME = "shufflenet_v2_x0_5"
Tensors = dict[str, Tensor]


def donor(name: str = NAME, seed: int = 1, **settings: Any) -> Tensors:
    torch.manual_seed(seed)
    return dict(build(name, **settings)[0].network.state_dict())


def wrapped(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + key: value for key, value in tensors.items()}


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def assert_holds(backbone: Any, tensors: Tensors) -> None:
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, tensors[key]), key


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "backbone.", "encoder.", "encoder_q.", "student.", "teacher.", "online_network.",
     "net.", "module.encoder_q.", "model.backbone.", "_orig_mod.network."],
)  # fmt: skip
@pytest.mark.parametrize("nest", [None, "state_dict"])
def test_the_usual_wrappings_are_taken_off(prefix: str, nest: str | None, tmp_path: Path) -> None:
    tensors = wrapped(donor(), prefix)
    content = {nest: tensors, "epoch": 5} if nest else tensors
    backbone, report = build(NAME, written(tmp_path / "weights.pt", content))
    assert_holds(backbone, donor())
    assert report.loaded == report.total and not (report.missing or report.mismatched or report.unused)
    assert str(report).startswith(f"loaded {report.total} of {report.total} tensors from ")


def test_a_whole_checkpoint_of_ours_matches(tmp_path: Path) -> None:
    backbone, _ = build(NAME)
    optimiser = torch.optim.AdamW(backbone.parameters())
    backbone(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    state = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
    path = written(tmp_path / "last.pt", {"task": state, "optimiser": optimiser.state_dict(), "step": 1})
    again, report = build(NAME, path)
    assert_holds(again, dict(backbone.network.state_dict()))
    assert report.loaded == report.total and report.unused


def test_a_classifier_in_the_file_is_named_and_not_used(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = models.resnet18().state_dict()
    backbone, report = build("resnet18", written(tmp_path / "resnet18.pth", whole))
    assert_holds(backbone, whole)
    assert report.loaded == report.total == 100 and report.unused == ("fc.weight", "fc.bias")
    assert str(report).endswith("not used: fc.weight, fc.bias")


def test_what_does_not_fit_is_named() -> None:
    tensors = donor("resnet18")
    del tensors["layer1.0.conv1.weight"]
    backbone, _ = build("resnet18", stem="3x3")
    report = fill(backbone, tensors, "somewhere")
    assert report.loaded == report.total - 2
    assert report.missing == ("layer1.0.conv1.weight",)
    assert report.mismatched == ("conv1.weight 64×3×7×7 64×3×3×3",)
    assert "not in it: layer1.0.conv1.weight; of another shape: conv1.weight" in str(report)


def test_old_files_without_batch_counts_are_complete() -> None:
    tensors = {k: v for k, v in donor().items() if "num_batches_tracked" not in k}
    report = fill(build(NAME)[0], tensors, "somewhere")
    assert report.loaded == report.total and not report.missing


@pytest.mark.parametrize("order", [("teacher.", "student."), ("student.", "teacher.")])
def test_of_two_copies_the_teacher_is_taken_whole(order: tuple[str, str]) -> None:
    weights = {"teacher.": donor(seed=1), "student.": donor(seed=2)}
    both = wrapped(weights[order[0]], order[0]) | wrapped(weights[order[1]], order[1])
    backbone, _ = build(NAME)
    fill(backbone, both, "somewhere")
    assert_holds(backbone, weights["teacher."])


def test_of_two_copies_the_fuller_is_taken_whole() -> None:
    teacher, student = donor(seed=1), donor(seed=2)
    for key in list(teacher)[:10]:
        del teacher[key]
    backbone, _ = build(NAME)
    report = fill(backbone, wrapped(teacher, "teacher.") | wrapped(student, "student."), "somewhere")
    assert_holds(backbone, student)
    assert report.loaded == report.total and all(k.startswith("teacher.") for k in report.unused)


def test_a_transformers_own_encoder_is_not_taken_for_a_wrapping() -> None:
    small = {"layers": 1, "image_size": 32}
    tensors = donor("vit_tiny", **small)
    backbone, _ = build("vit_tiny", **small)
    report = fill(backbone, wrapped(tensors, "encoder."), "somewhere")
    assert_holds(backbone, tensors)
    assert report.loaded == report.total


def test_positions_of_another_picture_size_are_resampled() -> None:
    tensors = donor("vit_tiny", layers=1, image_size=64)
    backbone, _ = build("vit_tiny", layers=1, image_size=32)
    report = fill(backbone, tensors, "somewhere")
    assert report.loaded == report.total and not report.mismatched
    positions = backbone.network.get_parameter("encoder.pos_embedding")
    assert torch.equal(positions[:, 0], tensors["encoder.pos_embedding"][:, 0])


def test_half_precision_files_fill_a_float32_network() -> None:
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in donor().items()}
    backbone, _ = build(NAME)
    fill(backbone, tensors, "somewhere")
    assert all(p.dtype == torch.float32 for p in backbone.parameters())


def test_nothing_that_fits_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"stem.weight": torch.zeros(3)}, path)
    with pytest.raises(SeeallError, match=r"no tensor of .*stem\.weight.*conv1\.0\.weight"):
        build(NAME, path)
    save_file({"conv1.0.weight": torch.zeros(3)}, path)
    with pytest.raises(SeeallError, match="no tensor of"):
        build(NAME, path)


def test_a_file_of_ours_for_another_network_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    save(build("resnet18")[0], path, name="resnet18", settings={}, preprocessing={})
    with pytest.raises(SeeallError, match="holds a resnet18, not a resnet50"):
        build("resnet50", tmp_path)
    assert build("resnet18", tmp_path)[1].loaded == 100


def test_no_weights_says_so() -> None:
    for choice in ("none", "None", None):
        report = build(NAME, choice)[1]
        assert (report.loaded, report.source) == (0, "none") and "random" in str(report)


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["torch", "plain pickle", "text", "empty", "cut"])
def test_pickles_and_damage_are_refused_and_nothing_runs(how: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "weights.pth", tmp_path / "ran"
    if how == "torch":
        torch.save({"state_dict": donor(), "trap": Trap(marker)}, path)
    elif how == "plain pickle":
        path.write_bytes(pickle.dumps({"conv1.weight": Trap(marker)}))
    elif how == "cut":
        path.write_bytes(written(path, donor()).read_bytes()[:-1000])
    else:
        path.write_bytes(b"" if how == "empty" else b"<html>not found</html>")
    with pytest.raises(SeeallError, match="damaged or holds pickled objects") as caught:
        read(path)
    assert not marker.exists() and "\n" not in str(caught.value)


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SeeallError, match=r"no weights at .*missing\.pt"):
        read(tmp_path / "missing.pt")
    with pytest.raises(SeeallError, match=r"holds no backbone\.safetensors"):
        read(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"12345678rest")
    with pytest.raises(SeeallError, match="is damaged"):
        read(tmp_path / "bad.safetensors")
    with pytest.raises(SeeallError, match="holds no tensors"):
        read(written(tmp_path / "numbers.pt", {"epoch": 3}))


def test_default_weights_come_from_the_hub_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = "mobilenet_v3_small"
    torch.manual_seed(1)
    whole = models.mobilenet_v3_small().state_dict()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(whole, folder / Path(models.get_model_weights(name).DEFAULT.url).name)
    backbone, report = build(name, "DEFAULT")
    assert_holds(backbone, whole)
    assert report.loaded == report.total and all(k.startswith("classifier.") for k in report.unused)
    assert capsys.readouterr().out == ""


def test_a_failed_download_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(SeeallError, match="DEFAULT weights of resnet18 could not be had") as caught:
        build("resnet18", "DEFAULT")
    assert "\n" not in str(caught.value) and capsys.readouterr().out == ""


def test_a_network_nobody_published_has_no_default() -> None:
    with pytest.raises(SeeallError, match="vit_tiny has no DEFAULT weights"):
        build("vit_tiny", "DEFAULT", layers=1)
