"""What `ssl predict` writes is what the head says, at the pictures' own sizes; in tiles as in one."""

from __future__ import annotations

import csv
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO
from PIL import Image
from torch import Tensor, nn

from seeall.backbones.load import build as build_backbone
from seeall.data.annotations.draw import palette
from seeall.data.annotations.examples import load
from seeall.data.annotations.layouts import find_annotated
from seeall.data.decode import decode
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.predict import predict
from seeall.heads.prediction import Prediction, answers, filled, together
from seeall.heads.segmentation.task import _likeliest
from seeall.heads.tiles import predict as tiled
from seeall.heads.tiles import tiles
from seeall.metrics.detection import Found
from seeall.types import SeeallError

MODELS = {
    "classification": ("linear", {}),
    "detection": ("retinanet", {"width": 16, "score": 0.0}),
    "instance": ("mask-rcnn", {"width": 16, "hidden": 16, "proposals": 10, "mask_width": 16, "score": 0.0}),
    "segmentation": ("unet", {}),
}
SIZES = {"a.png": (32, 32), "b.jpg": (61, 37), "deep/a.png": (33, 50), "c.jpg": (20, 90)}
"""Width and height."""


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a head that has learnt nothing, by its task."""
    root = tmp_path_factory.mktemp("heads")

    def made(task: str) -> Path:
        if not (root / task).exists():
            (root / task).mkdir()
            torch.manual_seed(0)
            model, settings = MODELS[task]
            classes = ("background", "cat", "dog") if task == "segmentation" else ("cat", "dog")
            recipe = build.Recipe(task, model, classes, 32, "shufflenet_v2_x0_5", {}, {"model": settings})
            head = build.assemble(recipe, build_backbone("shufflenet_v2_x0_5")[0], About(32))
            if task == "detection":
                for weight in (p for p in head.network.head.parameters() if p.ndim > 1):  # type: ignore[union-attr,operator]
                    nn.init.kaiming_normal_(weight)
            build.save(head, recipe, root / task)
        return root / task

    return made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for k, (name, (width, height)) in enumerate(SIZES.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(k)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / name)
    return root


def said_by(run: Path, photos: Path) -> list[Prediction]:
    head, _ = build.load(run)
    pictures = [torch.from_numpy(decode(str(photos / name)).copy()).permute(2, 0, 1) for name in sorted(SIZES)]
    found: list[Prediction] = head.predict(pictures)  # type: ignore[operator]
    return found


@pytest.mark.parametrize("task", MODELS)
def test_what_is_written_is_what_the_head_says(
    task: str, heads: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    facts = predict(heads(task), [str(photos)], out, score=0.0)
    told = json.loads((out / "predictions.json").read_text())
    assert told["task"] == task and facts["pictures"] == len(SIZES) and facts["skipped"] == 0
    assert [entry["file_name"] for entry in told["images"]] == sorted(SIZES)
    for entry, prediction in zip(told["images"], said_by(heads(task), photos)):
        size = SIZES[entry["file_name"]]
        assert (entry["width"], entry["height"]) == size
        with Image.open(out / entry["drawn"]) as drawn:
            larger = 160 // max(size)  # so that words can be read
            assert drawn.size == (larger * size[0], larger * size[1]) and drawn.mode == "RGB"
        if prediction.scores is not None:
            best = np.argsort(-prediction.scores)
            assert [one["name"] for one in entry["classes"]] == [("cat", "dog")[k] for k in best]
            scores = [one["score"] for one in entry["classes"]]
            np.testing.assert_allclose(scores, prediction.scores[best], atol=1e-5)
        if prediction.semantic is not None:
            with Image.open(out / entry["mask"]) as mask:
                assert mask.mode == "P" and (np.array(mask) == prediction.semantic).mean() > 0.999
                assert np.array_equal(np.array(mask.getpalette()).reshape(-1, 3)[:16], palette(16))
        if prediction.found is not None:
            own = [thing for thing in told["annotations"] if thing["image_id"] == entry["id"]]
            assert len(own) == len(prediction.found.boxes)
            np.testing.assert_allclose(sum(t["score"] for t in own), prediction.found.scores.sum(), atol=1e-3)


@pytest.mark.parametrize("task", ["detection", "instance"])
def test_things_are_written_as_coco_has_them(
    task: str, heads: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    facts = predict(heads(task), [str(photos)], tmp_path / "out")
    read = COCO(str(tmp_path / "out" / "predictions.json"), print_function=lambda *_: None)
    assert len(read.anns) == facts["things"] > 0 and [c["name"] for c in read.cats.values()] == ["cat", "dog"]
    for thing in read.anns.values():
        picture = read.imgs[thing["image_id"]]
        x, y, width, height = thing["bbox"]
        assert thing["category_id"] in (1, 2) and 0 <= thing["score"] <= 1
        assert -0.01 <= x <= x + width <= picture["width"] + 0.02
        assert -0.01 <= y <= y + height <= picture["height"] + 0.02
        if task == "instance":
            assert read.annToMask(thing).shape == (picture["height"], picture["width"])


def test_names_that_meet_are_kept_apart_and_what_cannot_be_read_is_left_out(
    heads: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (30, 30)).save(photos / "a.bmp")
    for k in range(9):  # a whole batch, and more
        (photos / f"a{k}.jpg").write_text("words")
    facts = predict(heads("segmentation"), [str(photos), str(photos / "a.png")], tmp_path / "out")
    assert facts == {"out": str(tmp_path / "out"), "pictures": 6, "skipped": 9}
    told = json.loads((tmp_path / "out" / "predictions.json").read_text())
    drawn = [entry["drawn"] for entry in told["images"]]
    assert len(set(drawn)) == 6 and {"pictures/a.png", "pictures/a-2.png", "pictures/deep/a.png"} < set(drawn)
    assert all((tmp_path / "out" / one).exists() for one in drawn)
    with pytest.raises(SeeallError, match=r"none of the pictures can be read; the first: a0\.jpg"):
        predict(heads("segmentation"), [str(photos / "a0.jpg")], tmp_path / "none")
    predict(heads("segmentation"), [str(photos / "c.jpg")], tmp_path / "none")


def test_overwritten_nothing_old_is_left(heads: Callable[[str], Path], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(heads("segmentation"), [str(photos)], out)
    with pytest.raises(SeeallError, match="not empty: choose another, or replace what is there by --overwrite"):
        predict(heads("segmentation"), [str(photos)], out)
    predict(heads("classification"), [str(photos / "c.jpg")], out, overwrite=True)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*")) == ["pictures", "pictures/c.png", "predictions.json"]


def test_frames_of_a_video_are_called_by_their_time(heads: Callable[[str], Path], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "walk.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        for k in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 50 * k, np.uint8), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    predict(heads("classification"), [str(tmp_path / "walk.mp4")], tmp_path / "out")
    drawn = sorted(p.name for p in (tmp_path / "out" / "pictures").iterdir())
    assert drawn[:2] == ["walk.mp4#00:00.000.png", "walk.mp4#00:00.125.png"] and len(drawn) == 5


def test_what_could_not_be_read_is_listed(heads: Callable[[str], Path], photos: Path, tmp_path: Path) -> None:
    (photos / "b.jpg").write_text("words")
    predict(heads("classification"), [str(photos)], tmp_path / "out")
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == "b.jpg" and row["reason"]
    (photos / "b.jpg").unlink()
    predict(heads("classification"), [str(photos)], tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "skipped.csv").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from seeall.heads import predict
from seeall.heads.book import Book
left, write = [3], Book.write
def dying(*given):
    left[0] -= 1
    left[0] or os.kill(os.getpid(), signal.SIGKILL)
    write(*given)
Book.write = dying
predict.predict(sys.argv[1], sys.argv[2:3], Path(sys.argv[3]), overwrite=True)
"""


def test_killed_it_is_begun_anew(heads: Callable[[str], Path], photos: Path, tmp_path: Path) -> None:
    run, out = heads("segmentation"), tmp_path / "out"
    predict(run, [str(photos)], out)
    done = subprocess.run([sys.executable, "-c", KILLED, str(run), str(photos), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL and not (out / "predictions.json").exists()
    assert len([p for p in out.rglob("*.png") if p.parent.name == "masks"]) == 2
    with pytest.raises(SeeallError, match="is not empty"):
        predict(run, [str(photos)], out)
    (out / "notes.txt").write_text("mine")
    predict(run, [str(photos / "c.jpg")], out, overwrite=True)
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert names == {"pictures/c.png", "masks/c.png", "predictions.json", "notes.txt"}


def test_a_folder_of_something_else_is_never_overwritten(
    heads: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "out" / "pictures" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(SeeallError, match="no finished prediction, nor one begun, so it is kept"):
        predict(heads("classification"), [str(photos)], tmp_path / "out", overwrite=True)
    assert mine.read_text() == "mine" and sorted((tmp_path / "out").iterdir()) == [mine.parent]


def test_pictures_are_looked_at_together_up_to_a_number_of_pixels() -> None:
    sizes = [(1000, 1000), (300, 300), (3000, 4000), (1, 9000), (1, 9000)] + [(10, 10)] * 10
    groups = list(together(sizes, lambda size: size))
    assert [one for some in groups for one in some] == sizes
    assert [len(some) for some in groups] == [1, 1, 1, 1, 1, 8, 2]
    assert list(together([], lambda size: size)) == []


def test_predictions_do_not_depend_on_what_is_looked_at_together(
    heads: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    head, _ = build.load(heads("segmentation"))
    some = load(find_annotated("scenes:n=5,size=32", "segmentation"), 32)
    seen, ordinary = list[int](), head.predict
    monkeypatch.setattr(head, "predict", lambda pictures: seen.append(len(pictures)) or ordinary(pictures))
    at_once = list(answers(head, some))  # type: ignore[arg-type]
    monkeypatch.setattr("seeall.heads.prediction.PIXELS", 2 * 32 * 32)
    one_by_one = list(answers(head, some))  # type: ignore[arg-type]
    assert seen == [5, 2, 2, 1]
    assert all((a.semantic == b.semantic).mean() > 0.999 for (a, _), (b, _) in zip(at_once, one_by_one))  # type: ignore[union-attr]
    assert [truth for _, truth in at_once] == [some[i].truth for i in range(5)]


@pytest.mark.parametrize("size", [(28, 28), (40, 61), (2, 150), (90, 33)])
def test_masks_are_those_that_torchvision_pastes(size: tuple[int, int], heads: Callable[[str], Path]) -> None:
    head, _ = build.load(heads("instance"))
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    said = head.predict([picture])[0].found  # type: ignore[operator]
    with torch.no_grad():
        told = head.network([filled(picture).float() / 255])[0]  # type: ignore[operator]
    boxes = told["boxes"].numpy().clip(0, np.array([*size[::-1]] * 2, np.float32))
    there = (boxes[:, 2:] > boxes[:, :2]).all(1)
    assert there.any() and np.array_equal(said.boxes, boxes[there])
    wanted = (told["masks"][:, 0, : size[0], : size[1]] >= 0.5).numpy()[there]
    assert wanted.any() and np.array_equal(np.asarray(said.masks), wanted)


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_the_likeliest_class_of_a_pixel_is_that_of_all_enlarged_at_once(classes: int) -> None:
    logits = torch.randn(2, classes, 9, 13, generator=torch.Generator().manual_seed(classes))
    for shape in ((9, 13), (40, 61), (5, 7)):
        large = nn.functional.interpolate(logits, shape, mode="bilinear", align_corners=False)
        assert torch.equal(_likeliest(logits, torch.Size(shape)), large.argmax(1).to(torch.uint8))


@pytest.mark.parametrize(
    ("height", "width", "side", "overlap"), [(100, 250, 100, 20), (31, 32, 32, 8), (77, 501, 40, 39), (400, 90, 64, 0)]
)
def test_tiles_cover_everything(height: int, width: int, side: int, overlap: int) -> None:
    places = tiles(height, width, side, overlap)
    seen = np.zeros((height, width), int)
    for x0, y0, x1, y1 in places:
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert (x1 - x0, y1 - y0) == (min(side, width), min(side, height))
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1 and len(set(places)) == len(places)
    for columns in (sorted({(x0, x1) for x0, _, x1, _ in places}), sorted({(y0, y1) for _, y0, _, y1 in places})):
        assert all(before[1] - after[0] >= overlap for before, after in itertools.pairwise(columns))


def test_classes_of_pixels_are_stitched_without_a_seam() -> None:
    """What depends on a pixel alone is the same in tiles; what is wrong at the edge of a tile is never taken."""
    picture = torch.randint(0, 255, (3, 90, 130), dtype=torch.uint8)

    def see(pictures: Sequence[Tensor], rim: int = 0) -> list[Prediction]:
        found = []
        for one in pictures:
            classes = one[0].numpy().copy()
            for edge in (
                classes[:rim],
                classes[len(classes) - rim :],
                classes[:, :rim],
                classes[:, classes.shape[1] - rim :],
            ):
                edge[:] = 255
            found.append(Prediction(semantic=classes))
        return found

    assert np.array_equal(tiled(see, picture, 48, 12).semantic, picture[0])
    rimmed = tiled(lambda pictures: see(pictures, 5), picture, 48, 12).semantic
    assert rimmed is not None
    assert np.array_equal(rimmed[5:-5, 5:-5], picture[0, 5:-5, 5:-5]) and (rimmed[:5] == 255).all()


THINGS = [(4, 4, 20, 18), (22, 30, 40, 44), (44, 2, 52, 88), (70, 50, 128, 86), (100, 4, 110, 12), (0, 60, 20, 90)]
"""xyxy, px; with tiles of 48 px, some lie over a border, and two are larger than what tiles share."""


def shapes(pictures: Sequence[Tensor]) -> list[Prediction]:
    """Every rectangle of one colour is a thing of that class, and less sure where less of it is seen."""
    found = []
    for one in pictures:
        values = ((one > 127) * torch.tensor([1, 2, 4])[:, None, None]).sum(0).numpy()
        boxes, masks, classes = [], [], []
        for value in range(1, len(THINGS) + 1):
            mask = values == value
            if mask.any():
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                masks.append(mask)
                classes.append(value - 1)
        scores = [0.5 + mask.sum() / 1e4 for mask in masks]
        things: dict[str, Any] = {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "classes": np.array(classes, int),
        }
        stack = np.array(masks, bool).reshape(-1, *values.shape)
        found.append(Prediction(found=Found(**things, scores=np.array(scores, np.float32), masks=stack)))
    return found


def test_things_that_tiles_cut_come_out_once_and_whole() -> None:
    values = torch.zeros(90, 130, dtype=torch.uint8)
    for value, (x0, y0, x1, y1) in enumerate(THINGS, 1):
        values[y0:y1, x0:x1][values[y0:y1, x0:x1] == 0] = value
    picture = torch.stack([255 * (values >> k & 1) for k in range(3)])
    seen = list[int]()

    def see(pictures: Sequence[Tensor]) -> list[Prediction]:
        seen.extend(one.shape[1] * one.shape[2] for one in pictures)
        return shapes(pictures)

    whole, found = shapes([picture])[0].found, tiled(see, picture, 48, 20).found
    assert whole is not None and found is not None and whole.masks is not None and found.masks is not None
    order = np.argsort(found.classes)
    assert found.classes[order].tolist() == list(range(len(THINGS)))
    fits = np.array([max(x1 - x0, y1 - y0) < 48 for x0, y0, x1, y1 in THINGS])
    assert np.array_equal(found.boxes[order][fits], whole.boxes[fits])
    assert np.array_equal(np.asarray(found.masks[order][fits]), whole.masks[fits])
    pixel = (90 * 130) ** 0.5 / 48  # what is larger is found in the whole picture, made as small as a tile
    assert np.abs(found.boxes[order] - whole.boxes).max() <= pixel and max(seen) <= 48 * 48
    for mask, wanted in zip(found.masks[order], whole.masks):
        assert (mask & wanted).sum() > 0.7 * (mask | wanted).sum()
    assert (np.diff(found.scores) <= 0).all()
    nothing = tiled(shapes, torch.zeros(3, 90, 130, dtype=torch.uint8), 48, 20).found
    assert nothing is not None and nothing.boxes.shape == (0, 4) and nothing.masks is not None


def test_classes_of_a_picture_are_the_mean_over_its_tiles() -> None:
    picture = torch.zeros(3, 10, 30, dtype=torch.uint8)
    picture[:, :, 20:] = 100

    def see(pictures: Sequence[Tensor]) -> list[Prediction]:
        means = [float(one.float().mean()) / 100 for one in pictures]
        return [Prediction(scores=np.array([mean, 1 - mean], np.float32)) for mean in means]

    np.testing.assert_allclose(tiled(see, picture, 10, 0).scores, [1 / 3, 2 / 3], atol=1e-6)


def test_large_pictures_are_looked_at_in_tiles_and_small_ones_as_they_are(
    heads: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    said = []
    for tile in (0, 32):
        predict(heads("classification"), [str(photos)], tmp_path / str(tile), tile=tile)
        images = json.loads((tmp_path / str(tile) / "predictions.json").read_text())["images"]
        said.append({entry["file_name"]: entry["classes"] for entry in images})
    assert said[0]["a.png"] == said[1]["a.png"] and said[0]["c.jpg"] != said[1]["c.jpg"]
