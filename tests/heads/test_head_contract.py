"""What every head for still pictures promises, over every family of backbones; a new model is found here by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seeall import catalog
from seeall.backbones.contract import Backbone, average, pad_to
from seeall.backbones.load import build as build_backbone
from seeall.backbones.load import load as load_backbone
from seeall.data.annotations.examples import Example, Examples, load
from seeall.data.annotations.layouts import find_annotated
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.augment import Augment
from seeall.heads.export import TOLERANCE, _checked, apart, export
from seeall.heads.feed import HeadBatch
from seeall.heads.finetune import finetune
from seeall.heads.maps import Maps
from seeall.heads.plan import parts
from seeall.heads.prediction import Prediction
from seeall.training import checkpoint
from seeall.training.loop import Stopped
from seeall.types import SeeallError

FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18": {"stem": "3x3"},
    "vgg16_bn": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "convnext_tiny": {},
    "vit_tiny": {"layers": 2},
    "timm/resnet10t": {},
}
TASK_OF = {model: task for task in catalog.STILL for model in catalog.TASKS[task]}
SMALL: dict[str, dict[str, Any]] = {
    "retinanet": {"width": 16, "score": 0.0},
    "faster-rcnn": {"width": 16, "hidden": 16, "proposals": 20, "sampled": 8, "score": 0.0},
    "mask-rcnn": {"width": 16, "hidden": 16, "proposals": 20, "sampled": 8, "mask_width": 16, "score": 0.0},
    "deconvnet": {"code": 16},
    "fpn": {"width": 16, "branch": 16},
}
WORLD = "scenes:n=8,size=32,things=1-2,classes=3,seed=3"
SIZE = 32
every_model = pytest.mark.parametrize("model", TASK_OF)
every_family = pytest.mark.parametrize("family", FAMILIES)


def examples(task: str) -> Examples:
    return load(find_annotated(WORLD, task), SIZE)


def head_of(model: str, family: str = "shufflenet_v2_x0_5", anchors: Any = None) -> tuple[nn.Module, build.Recipe]:
    torch.manual_seed(0)
    task, settings = TASK_OF[model], FAMILIES[family]
    classes = tuple(find_annotated(WORLD, task).classes)
    recipe = build.Recipe(task, model, classes, SIZE, family, settings, {"model": SMALL.get(model, {})}, anchors)
    backbone, _ = build_backbone(family, **settings)
    head = build.assemble(recipe, backbone, About(SIZE, anchors=anchors))
    if model == "retinanet":  # it begins with equal scores everywhere, of which any may be called the best
        for weight in (p for p in head.network.head.parameters() if p.ndim > 1):  # type: ignore[union-attr,operator]
            nn.init.kaiming_normal_(weight)
    return head, recipe


def batch_of(some: Examples, rows: list[int]) -> HeadBatch:
    return {"examples": some.some(rows), "epoch": 0, "rows": rows}


def test_every_model_does_a_task() -> None:
    assert {model for models in catalog.TASKS.values() for model in models} == set(catalog.MODELS)


@every_model
@every_family
def test_a_step_gives_every_parameter_that_counts_a_gradient(model: str, family: str) -> None:
    head, _ = head_of(model, family)
    told = head.train().training_step(batch_of(examples(TASK_OF[model]), [0, 1, 2]))  # type: ignore[operator]
    assert all(value.ndim == 0 and torch.isfinite(value) for value in told.values()), told
    told["loss"].backward()
    bare = [name for name, p in head.named_parameters() if p.grad is None]
    # the embedding of a ConvNeXt, and, where only the places of largest values count, what finer maps are made with
    known = ("classifier.0", "head.norm", "finer" if model in ("segnet", "deconvnet") else "classifier.0")
    assert [name for name in bare if not any(part in name for part in known)] == []


@every_model
@every_family
def test_predictions_have_the_size_of_the_picture(model: str, family: str) -> None:
    head, recipe = head_of(model, family)
    head.eval()
    sizes = [(32, 32), (37, 61), (50, 33), (32, 32), (20, 90), (2, 150), (90, 1)]
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    said: list[Prediction] = head.predict(pictures)  # type: ignore[operator]
    assert len(said) == len(sizes)
    for prediction, (height, width) in zip(said, sizes):
        if recipe.task == "classification":
            assert prediction.scores is not None
            assert prediction.scores.shape == (len(recipe.classes),) and prediction.scores.sum() == pytest.approx(1)
        elif recipe.task == "segmentation":
            assert prediction.semantic is not None and prediction.semantic.shape == (height, width)
            assert prediction.semantic.max() < len(recipe.classes)
        else:
            found = prediction.found
            assert found is not None and ((found.classes >= 0) & (found.classes < len(recipe.classes))).all()
            assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
            assert (np.diff(found.scores) <= 0).all()
            assert (found.masks is not None) == (recipe.task == "instance")
            assert found.masks is None or found.masks.shape[1:] == (height, width)


@every_model
def test_pictures_are_seen_one_by_one_as_together(model: str) -> None:
    head, _ = head_of(model)
    head.eval()
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((40, 52), (33, 90), (40, 52))]
    together, alone = head.predict(pictures), [head.predict([p])[0] for p in pictures]  # type: ignore[operator]
    for a, b in zip(together, alone):
        if a.scores is not None:
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
        elif a.semantic is not None:
            assert (a.semantic == b.semantic).mean() > 0.999
        else:
            np.testing.assert_allclose(a.found.scores[:20], b.found.scores[:20], atol=1e-4)  # type: ignore[union-attr]


@every_model
def test_saved_and_loaded_it_says_the_same(model: str, tmp_path: Path) -> None:
    head, recipe = head_of(model)
    head.eval()
    build.save(head, recipe, tmp_path)
    again, read = build.load(tmp_path)
    assert read.task == recipe.task and read.model == recipe.model and read.classes == recipe.classes
    one, two = head.network.state_dict(), again.network.state_dict()  # type: ignore[union-attr]
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not again.training


def test_fitted_anchors_are_kept(tmp_path: Path) -> None:
    some = examples("detection")
    boxes = torch.cat([torch.from_numpy(some[i].truth.boxes) for i in range(len(some))])
    torch.manual_seed(0)
    backbone, _ = build_backbone("shufflenet_v2_x0_5")
    settings = {"model": {**SMALL["faster-rcnn"], "anchors": "fit", "finest": 32}}
    recipe = build.Recipe(
        "detection", "faster-rcnn", tuple(some.annotated.classes), SIZE, "shufflenet_v2_x0_5", {}, settings
    )
    about = About(SIZE, lambda: boxes)
    build.assemble(recipe, backbone, about)
    assert about.anchors is not None and [len(level) for level in about.anchors] == [3, 3]
    recipe = build.Recipe(**{**recipe.__dict__, "anchors": about.anchors})
    head = build.assemble(recipe, backbone, About(SIZE, anchors=about.anchors))
    build.save(head, recipe, tmp_path)
    again, _ = build.load(tmp_path)
    cells = again.network.rpn.anchor_generator.cell_anchors  # type: ignore[union-attr]
    widths = [(cell[:, 2] - cell[:, 0]).tolist() for cell in cells]
    assert widths == [pytest.approx([w for w, _ in level]) for level in about.anchors]


def trained(out: Path, model: str, **options: Any) -> dict[str, float]:
    settings = [f"model.{name}={value}" for name, value in SMALL.get(model, {}).items() if name != "score"]
    given = {"start": "none", "backbone": "shufflenet_v2_x0_5", "batch_size": 2, "epochs": 2, "image_size": SIZE}
    sets = (*settings, *options.pop("set", ()))
    return finetune(WORLD, out, task=TASK_OF[model], model=model, **{**given, **options}, set=sets)


@pytest.mark.parametrize(
    ("model", "options"),
    [(model, {}) for model in TASK_OF]
    + [
        ("retinanet", {"set": ("negatives=bootstrap", "every=1", "model.score=0.001"), "epochs": 3}),
        ("unet", {"set": ("loss=cross-entropy", "then=lovasz", "switch=1", "balance=median", "ema=0.9")}),
        ("unet", {"set": ("widen=on", "widen_at=0.01", "widen_by=0.5", "keep=best")}),
        ("linear", {"freeze": "backbone"}),
        ("fpn", {"freeze": "2", "set": ("stage_decay=0.5", "norm=frozen")}),
    ],
)  # fmt: skip
def test_resumed_it_ends_as_if_never_stopped(
    model: str, options: dict[str, Any], tmp_path: Path, at: Callable[[int], None]
) -> None:
    trained(tmp_path / "whole", model, **options)
    at(4)
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", model, **options)
    trained(tmp_path / "cut", model, resume=True, **options)
    one, two = (checkpoint.load(tmp_path / run / "checkpoints" / "last") for run in ("whole", "cut"))
    assert [name for name in one["model"] if not torch.equal(one["model"][name], two["model"][name])] == []
    for file in ("head.safetensors", "backbone.safetensors"):
        a, b = (load_file(tmp_path / run / file) for run in ("whole", "cut"))
        assert all(torch.equal(a[name], b[name]) for name in a)
    load_backbone(tmp_path / "cut")


def patches(side: int) -> Backbone:
    """One stage, as a ViT has it: a convolution that cuts patches."""
    network = nn.Conv2d(3, 8, side, stride=side)

    def walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
        cut = network(pad_to(x, side))
        return [cut], average(cut)

    return Backbone(network, walk, channels=(8,), strides=(side,), embed_dim=8)


@pytest.mark.parametrize(
    ("side", "finest"), [(14, 4), (14, 8), (14, 32), (12, 4), (7, 4), (4, 16), (4, 32), (16, 4), (64, 8)]
)
def test_a_network_of_one_stage_gives_maps_whatever_its_stride(side: int, finest: int) -> None:
    maps = Maps(patches(side), finest)
    assert maps.strides == tuple(s for s in (4, 8, 16, 32) if s >= finest) and len(maps.channels) == len(maps.strides)
    for height, width in ((64, 64), (45, 71), (3, 100)):
        made = maps(torch.rand(2, 3, height, width))
        assert [m.shape[1:] for m in made] == [(8, -(-height // s), -(-width // s)) for s in maps.strides]


def test_a_stride_that_is_no_power_of_two_is_made_the_nearest_one() -> None:
    backbone, x = patches(14), torch.rand(1, 3, 64, 96)
    wanted = nn.functional.interpolate(backbone.stages(x)[0], (4, 6), mode="bilinear")
    assert torch.equal(Maps(backbone, 16)(x)[0], wanted)


@pytest.mark.parametrize("finest", [6, 0, -4])
@pytest.mark.parametrize("family", ["vit_tiny", "shufflenet_v2_x0_5"])
def test_a_finest_stride_that_is_no_power_of_two_is_refused(family: str, finest: int) -> None:
    backbone, _ = build_backbone(family, **FAMILIES[family])
    with pytest.raises(SeeallError, match=f"'finest' is {finest}: choose a power of two"):
        catalog.locate(catalog.MODELS["retinanet"])(backbone, 2, About(SIZE), finest=finest)


def test_a_finest_stride_beyond_the_coarsest_is_refused() -> None:
    with pytest.raises(SeeallError, match="'finest' is 64: choose 32 or less for a backbone of one stage"):
        Maps(patches(16), 64)


def test_boxes_of_large_pictures_may_differ_by_a_step_of_float32() -> None:
    boxes, scores = np.array([[10, 20, 3000, 1500.0]], np.float32), np.array([0.5], np.float32)
    said = [boxes, np.array([1]), scores]
    step = np.nextafter(boxes, np.float32(np.inf))
    assert np.abs(step - boxes).max() > TOLERANCE >= apart(said, [step, *said[1:]], boxes=True)
    assert apart(said, [boxes + 1, *said[1:]], boxes=True) > TOLERANCE
    assert apart(said, [boxes, said[1], scores + 0.001], boxes=True) == pytest.approx(0.001, rel=1e-3)
    small = np.array([[0.0, 0.0, 0.5, 0.5]], np.float32)
    assert apart([small], [small + 0.01], boxes=True) == pytest.approx(0.01, rel=1e-3)
    nothing = [np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, np.float32)]
    assert apart(nothing, nothing, boxes=True) == 0 and apart(said, nothing, boxes=True) == float("inf")


@pytest.mark.parametrize(("wrong", "passes"), [({0}, True), ({0, 1}, True), ({0, 1, 2}, False)])
def test_a_detector_says_the_same_if_it_does_of_one_picture_with_things(wrong: set[int], passes: bool) -> None:
    def says(picture: Tensor) -> tuple[Tensor, ...]:
        number = len(picture)
        boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0 + number]])
        return boxes, torch.tensor([0]), torch.tensor([1.0])

    def exported(picture: Tensor) -> list[Any]:
        boxes, labels, scores = (part.numpy() for part in says(picture))
        return [boxes + 9 * (len(picture) in wrong), labels, scores]

    pictures = [torch.zeros(number, 3) for number in range(3)]
    difference = _checked(says, exported, pictures, True)  # type: ignore[arg-type]
    assert (difference <= TOLERANCE) is passes


@pytest.mark.slow
def test_what_is_no_number_is_not_exported(tmp_path: Path) -> None:
    head, recipe = head_of("linear", "timm/resnet10t")
    nn.init.constant_(next(p for n, p in head.named_parameters() if not n.startswith("network.backbone")), torch.nan)
    build.save(head, recipe, tmp_path)
    with pytest.raises(SeeallError, match=r"something else than the head \(by nan\): not exported"):
        export(tmp_path, tmp_path / "head.pt2")
    assert not (tmp_path / "head.pt2").exists()


@pytest.mark.slow
@every_model
def test_exported_it_says_the_same(model: str, tmp_path: Path) -> None:
    head, recipe = head_of(model, "timm/resnet10t")  # few layers: exporters take their time over each
    build.save(head, recipe, tmp_path)
    told = export(tmp_path, tmp_path / "head.onnx", height=40, width=48)
    assert told["difference"] <= TOLERANCE
    assert json.loads((tmp_path / "head.onnx.json").read_text())["classes"] == list(recipe.classes)
    if recipe.task in ("detection", "instance"):
        with pytest.raises(SeeallError, match=r"cannot pass torch\.export.*\.onnx"):
            export(tmp_path, tmp_path / "head.pt2")
    else:
        again = export(tmp_path, tmp_path / "head.pt2", height=40, width=48)
        assert again["difference"] <= TOLERANCE and told["batch"] == again["batch"] == "any"


@every_model
def test_settings_that_are_listed_can_be_typed_back(model: str) -> None:
    roles = parts(TASK_OF[model], model, "resnet18", "adamw")
    listed = [
        f"{role}.{n}={'none' if d is None else d}"
        for role, t in roles.items()
        for n, (_, d) in catalog.settings(t).items()
    ]
    assert catalog.resolve(roles, listed)


def test_augmentation_moves_boxes_masks_and_pixels_together() -> None:
    some = load(find_annotated("scenes:n=12,size=64,things=2,classes=3,poles=0", "instance"), 64)
    for i in range(len(some)):
        for k in range(6):
            seen: Example = Augment(crop_min=0.5, crop_max=1.4)(some[i], 64, 0, k, i)
            truth = seen.truth
            assert seen.pixels.shape == (3, 64, 64) and truth.masks is not None
            for box, mask in zip(truth.boxes, truth.masks):
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                np.testing.assert_array_equal(box, tight)
            again = Augment(crop_min=0.5, crop_max=1.4)(some[i], 64, 0, k, i)
            assert torch.equal(again.pixels, seen.pixels) and np.array_equal(again.truth.boxes, truth.boxes)


def test_augmentation_with_nothing_to_do_changes_nothing() -> None:
    some = examples("segmentation")
    seen = Augment(flip=0, crop_min=1, crop_max=1, jitter=0)(some[0], SIZE, 0)
    assert torch.equal(seen.pixels, some[0].pixels)
    assert np.array_equal(seen.truth.semantic, some[0].truth.semantic)  # type: ignore[arg-type]
