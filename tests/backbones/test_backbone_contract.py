"""The contract, over every name of the table: sizes, gradients, half precision, the way through a file."""

from __future__ import annotations

import copy
import importlib.util
import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from seeall import catalog
from seeall.backbones.contract import Backbone
from seeall.backbones.load import build, factory, load, save
from seeall.backbones.vision import resample_positions
from seeall.types import SeeallError

TIMM = ["timm/resnet10t", "timm/mobilenetv3_small_050", "timm/test_vit"]
NAMES = [*catalog.BACKBONES, *TIMM]
BIG = {"resnet34", "resnet50", "resnet101", "convnext_tiny", "vit_b_16"}
LIGHT = [name for name in NAMES if name not in BIG]
SETTINGS = {"vit_tiny": {"layers": 2, "image_size": 32}}


def new(name: str) -> Backbone:
    if name in TIMM and not importlib.util.find_spec("timm"):
        pytest.skip("timm is not installed")
    torch.manual_seed(0)
    return build(name, **SETTINGS.get(name, {}))[0]


def pictures(*size: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_every_map_and_the_embedding_have_the_promised_shape(name: str) -> None:
    with torch.device("meta" if name in BIG else "cpu"), torch.no_grad():
        backbone = new(name).eval()
        for H, W in [(64, 64), (70, 45), (33, 1)]:
            x = torch.zeros(2, 3, H, W)
            shapes = [tuple(m.shape) for m in backbone.stages(x)]
            assert shapes == [
                (2, c, math.ceil(H / s), math.ceil(W / s))
                for c, s in zip(backbone.channels, backbone.strides, strict=True)
            ]
            assert backbone(x).shape == (2, backbone.embed_dim)
    assert list(backbone.strides) == sorted(backbone.strides)
    assert len(backbone.preprocessing["mean"]) == len(backbone.preprocessing["std"]) == 3


@pytest.mark.parametrize("name", sorted(BIG))
def test_big_networks_run(name: str) -> None:
    backbone = new(name).eval()
    with torch.no_grad():
        embedding = backbone(pictures(33, 18, count=1))
    assert embedding.shape == (1, backbone.embed_dim) and embedding.isfinite().all()


@pytest.mark.parametrize("name", LIGHT)
def test_gradients_reach_every_parameter(name: str) -> None:
    backbone = new(name).train()
    backbone(pictures(33, 20)).square().sum().backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    first = next(p for p in backbone.parameters() if p.ndim == 4)
    assert first.shape[1] == 3 and first.grad is not None and first.grad.abs().max() > 0


@pytest.mark.parametrize("name", LIGHT)
def test_bfloat16_stays_finite(name: str) -> None:
    backbone = new(name).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for result in [backbone(pictures(40, 40)), *backbone.stages(pictures(40, 40))]:
            assert result.isfinite().all()


@pytest.mark.parametrize("name", LIGHT)
def test_a_file_gives_back_the_same_network(name: str, tmp_path: Path) -> None:
    backbone, x = new(name), pictures(45, 32)
    backbone.train()(x)  # so that the running statistics are not those of a new network
    backbone.eval()
    facts = {"image_size": 32, "resize": "shorter side, then centre"}
    path = tmp_path / "run" / "backbone.safetensors"
    save(backbone, path, name=name, settings=SETTINGS.get(name, {}), preprocessing=facts, extra={"epoch": 3})
    generator = torch.get_rng_state()
    again = load(path.parent)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(x), backbone(x))
        assert all(torch.equal(a, b) for a, b in zip(again.stages(x), backbone.stages(x)))
    assert again.preprocessing == backbone.preprocessing | facts
    assert (again.channels, again.strides, again.embed_dim) == (
        backbone.channels, backbone.strides, backbone.embed_dim,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "timm/test_vit"])
def test_copies_are_independent_and_pickle_between_processes(name: str) -> None:
    backbone, x = new(name).eval(), pictures(32, 32)
    twin, parcel = copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
        assert torch.equal(twin(x), parcel(x)) and not torch.equal(twin(x), backbone(x))


def _headless(name: str) -> nn.Module:
    """torchvision's own network up to its classifier."""
    if name == "vit_tiny":
        network: nn.Module = VisionTransformer(32, 8, 2, 3, 192, 768)
    else:
        network = models.get_model(name)
    for head in ("fc", "heads", "classifier"):
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
    return network


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vit_tiny"])
def test_torchvision_loads_every_tensor_and_computes_the_same(name: str, tmp_path: Path) -> None:
    backbone = new(name).eval()
    path = tmp_path / "backbone.safetensors"
    save(backbone, path, name=name, settings=SETTINGS.get(name, {}), preprocessing={})
    tensors = load_file(path)
    if name != "vit_tiny":
        report = models.get_model(name).load_state_dict(tensors, strict=False)
        assert not report.unexpected_keys
        assert {key.split(".")[0] for key in report.missing_keys} <= {"fc", "classifier"}
    theirs = _headless(name)
    theirs.load_state_dict(tensors)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pictures(32, 32)), theirs.eval()(pictures(32, 32)))


def test_convnext_computes_what_torchvision_does() -> None:
    backbone, theirs = new("convnext_tiny").eval(), models.convnext_tiny()
    theirs.classifier[2] = nn.Identity()
    theirs.load_state_dict(backbone.network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(backbone(pictures(32, 32)), theirs.eval()(pictures(32, 32)))


def test_timm_loads_every_tensor_and_computes_the_same() -> None:
    timm = pytest.importorskip("timm")
    backbone, theirs = new("timm/resnet10t").eval(), timm.create_model("resnet10t", num_classes=0).eval()
    theirs.load_state_dict(backbone.network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(backbone(pictures(64, 64)), theirs(pictures(64, 64)))


def test_the_small_stem_keeps_the_first_map_at_full_size() -> None:
    backbone, _ = build("resnet18", stem="3x3")
    assert backbone.strides == (1, 2, 4, 8)
    with torch.no_grad():
        assert backbone.stages(pictures(32, 31))[0].shape == (2, 64, 32, 31)


def test_mobilenets_running_statistics_follow_within_a_short_training() -> None:
    norms = [m for m in new("mobilenet_v3_small").modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.momentum == 0.1 for norm in norms)


def test_padding_leaves_what_is_far_from_it_alone() -> None:
    """The maps of a picture cut by three pixels agree with the whole one's, away from the cut."""
    backbone, x = new("convnext_tiny").eval(), pictures(64, 64, count=1)
    with torch.no_grad():
        whole, cut = backbone.stages(x)[0], backbone.stages(x[..., :61])[0]
    assert whole.shape == cut.shape
    torch.testing.assert_close(whole[..., :4], cut[..., :4])


def test_positions_are_resampled_in_both_directions() -> None:
    rows = torch.linspace(0, 1, 8)[:, None].expand(8, 8)
    positions = torch.cat([torch.tensor([[5.0]]), rows.reshape(64, 1)])[None]
    assert resample_positions(positions, 8, 8) is positions
    grid = resample_positions(positions, 4, 16)
    assert grid.shape == (1, 65, 1) and grid[0, 0] == 5
    grid = grid[0, 1:, 0].reshape(4, 16)
    assert (grid.diff(dim=0) > 0.2).all() and grid.diff(dim=1).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("resnet81", {}, "did you mean resnet18"),
        ("resnet18", {"stm": "3x3"}, "did you mean stem"),
        ("resnet18", {"stem": "5x5"}, "not a choice"),
        ("mobilenet_v3_small", {"stem": "3x3"}, "it has none"),
        ("vit_tiny", {"image_size": 4}, "image_size of 8 px"),
        ("timm/resnet10tt", {}, "did you mean timm/resnet10t"),
        ("timm/zzzzzzzz", {}, "timm.list_models"),
        ("timm/test_resnet.zzz", {}, "leave the tag out"),
        ("timm/mixer_s16_224", {}, "any picture size"),
    ],
)
def test_a_wrong_name_or_setting_is_one_line(name: str, settings: dict[str, str], words: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(SeeallError, match=words) as caught:
        build(name, **settings)
    assert "\n" not in str(caught.value)


def test_timm_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(SeeallError, match=r"pip install 'seeall\[timm\]'"):
        build("timm/resnet10t")


def test_settings_stand_in_the_signature() -> None:
    assert catalog.resolve({"backbone": factory("vit_tiny")}, ["patch=16", "layers=3"]) == {
        "backbone": {"patch": 16, "layers": 3}
    }
    pytest.importorskip("timm")
    assert catalog.settings(factory("timm/resnet10t")) == {}
