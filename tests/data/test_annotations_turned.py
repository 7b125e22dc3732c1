"""Pictures that EXIF turns, annotated as they lie in their files: what is told is where the pixels say it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from seeall.data.annotations.check import check
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.polygons import encode
from seeall.types import SeeallError

HEIGHT, WIDTH = 48, 64
"""Of the picture as it lies in its file."""
L_SHAPE = [(40, 4), (60, 4), (60, 14), (46, 14), (46, 30), (40, 30)]
INSIDE = [(40, 4, 60, 14), (40, 4, 46, 30)]
on_its_side = pytest.mark.parametrize("turn", [5, 6, 7, 8])


def lying() -> np.ndarray:
    """(H, W) bool: a thing, drawn a rectangle at a time."""
    there = np.zeros((HEIGHT, WIDTH), bool)
    for x0, y0, x1, y1 in INSIDE:
        there[y0:y1, x0:x1] = True
    return there


def draw(file: Path, turn: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    pixels = np.full((height, width), 20, np.uint8)
    pixels[:HEIGHT, :WIDTH][lying()[:height, :width]] = 250
    exif = Image.Exif()
    exif[0x0112] = turn
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert("RGB").save(file, exif=exif, quality=98)


def coco(root: Path, file: str = "a.png", **thing: Any) -> Path:
    one: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [40, 4, 20, 26], **thing}
    held = {
        "images": [{"id": 1, "file_name": file, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "x"}], "annotations": [one],
    }  # fmt: skip
    (root / "train.json").write_text(json.dumps(held))
    return root / "train.json"


def seen(annotated: Any) -> tuple[np.ndarray, list[int]]:
    """Where the thing is to be seen, pixel by pixel, and the box around that."""
    there = annotated.pictures.read(0).mean(2) > 128
    ys, xs = np.nonzero(there)
    return there, [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def counted(mask: np.ndarray) -> list[int]:
    counts, now = [0], False
    for value in mask.T.ravel().tolist():
        if value != now:
            counts.append(0)
            now = value
        counts[-1] += 1
    return counts


OUTLINES: dict[str, Callable[[], Any]] = {
    "polygon": lambda: [[v for corner in L_SHAPE for v in corner]],
    "numbers": lambda: {"size": [HEIGHT, WIDTH], "counts": counted(lying())},
    "text": lambda: encode(lying()),
}


@on_its_side
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_boxes(tmp_path: Path, turn: int, suffix: str) -> None:
    draw(tmp_path / f"a.{suffix}", turn)
    annotated = find_annotated(str(coco(tmp_path, f"a.{suffix}")), "detection")
    there, box = seen(annotated)
    assert there.shape == (WIDTH, HEIGHT)
    assert annotated.truth(0, *there.shape).boxes.tolist() == [box]
    words = f"annotated on its side, set upright with the picture: {WIDTH}x{HEIGHT} px, EXIF {turn}"
    assert list(annotated.repairs) == [(f"a.{suffix}", words)]
    assert list(check(annotated).kinds) == [words.partition(": ")[0]]


@on_its_side
@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize("written", OUTLINES)
def test_outlines(tmp_path: Path, turn: int, written: str, boxed: bool) -> None:
    """As the pixels have it, and as Pillow turns it."""
    draw(tmp_path / "a.png", turn)
    own = {} if boxed else {"bbox": None}
    file = str(coco(tmp_path, segmentation=OUTLINES[written](), **own))
    for task in ("detection", "instance", "segmentation"):
        annotated = find_annotated(file, task)
        there, box = seen(annotated)
        with Image.open(tmp_path / "a.png") as image:
            assert (np.asarray(ImageOps.exif_transpose(image)).mean(2) > 128).tolist() == there.tolist()
        truth = annotated.truth(0, *there.shape)
        if task == "segmentation":
            assert truth.semantic is not None and (truth.semantic == there).all()
            continue
        assert truth.boxes.tolist() == [box]
        assert task == "detection" or (truth.masks is not None and (truth.masks == there).all())


@on_its_side
def test_pascal_voc(tmp_path: Path, turn: int) -> None:
    draw(tmp_path / "JPEGImages" / "a.jpg", turn)
    (tmp_path / "Annotations").mkdir()
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), (41, 5, 60, 30)))
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    both = [f"<object><name>x</name><difficult>{k}</difficult><bndbox>{corners}</bndbox></object>" for k in (1, 0)]
    (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{size}{''.join(both)}</annotation>")
    annotated = find_annotated(str(tmp_path), "detection")
    truth = annotated.truth(0, WIDTH, HEIGHT)
    assert truth.boxes.tolist() == [seen(annotated)[1]] * 2 and truth.crowd.tolist() == [True, False]


@on_its_side
def test_what_is_wrong_with_a_box_stays_so(tmp_path: Path, turn: int) -> None:
    """What reaches out of the picture as it lies in its file is clipped there; what has no width is left out."""
    draw(tmp_path / "a.png", turn)
    annotated = find_annotated(str(coco(tmp_path, bbox=[40, 4, 20, 100])), "detection")
    assert [what.partition(":")[0] for _, what in annotated.repairs][1:] == ["box partly outside the picture clipped"]
    area = [float(np.prod(box[2:] - box[:2])) for box in annotated.truth(0, WIDTH, HEIGHT).boxes]
    assert area == [20.0 * (HEIGHT - 4)]
    with pytest.raises(SeeallError, match="1 x box without width or height left out, such as in a.png: x"):
        find_annotated(str(coco(tmp_path, bbox=[40, 4, -20, 10])), "detection")


@on_its_side
@pytest.mark.parametrize("outline", [False, True])
def test_things_that_fit_the_upright_picture_alone_are_not_turned(tmp_path: Path, turn: int, outline: bool) -> None:
    """Some tools write the size of the file and show the picture upright."""
    draw(tmp_path / "a.png", turn)
    upright = np.zeros((WIDTH, HEIGHT), bool)
    upright[50:60, 4:14] = True
    thing = {"bbox": [4, 50, 10, 10]} | ({"segmentation": encode(upright)} if outline else {})
    annotated = find_annotated(str(coco(tmp_path, **thing)), "detection")
    assert annotated.truth(0, WIDTH, HEIGHT).boxes.tolist() == [[4, 50, 14, 60]]
    assert list(annotated.repairs) == [("a.png", "another size in the annotation: 64x48 px, taken as 48x64 px")]


@pytest.mark.parametrize(("boxes", "turned"), [([[4, 50, 10, 10], [50, 4, 10, 10]], True), ([[4, 50, 10, 10]], False)])
def test_a_picture_is_annotated_as_most_others_are(tmp_path: Path, boxes: list[list[int]], turned: bool) -> None:
    """One thing fits either way; what fits one way alone tells."""
    held = json.loads(coco(tmp_path, bbox=[2, 4, 6, 8]).read_text())
    draw(tmp_path / "a.png", 6)
    for k, box in enumerate(boxes, 2):
        draw(tmp_path / f"{k}.png", 6)
        held["images"].append({**held["images"][0], "id": k, "file_name": f"{k}.png"})
        held["annotations"].append({**held["annotations"][0], "id": k, "image_id": k, "bbox": box})
    (tmp_path / "train.json").write_text(json.dumps(held))
    annotated = find_annotated(str(tmp_path), "detection")
    assert annotated.truth(0, WIDTH, HEIGHT).boxes.tolist() == [[36, 2, 44, 8] if turned else [2, 4, 8, 12]]
    kind = "annotated on its side" if turned else "another size"
    assert sum(what.startswith(kind) for _, what in annotated.repairs) == len(boxes) + 1


@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_other_orientations_swap_no_sides(tmp_path: Path, turn: int) -> None:
    draw(tmp_path / "a.png", turn)
    annotated = find_annotated(str(coco(tmp_path)), "detection")
    assert annotated.truth(0, HEIGHT, WIDTH).boxes.tolist() == [[40, 4, 60, 30]] and not annotated.repairs
    draw(tmp_path / "a.png", turn, WIDTH, HEIGHT)  # the size is written the wrong way round
    annotated = find_annotated(str(coco(tmp_path, bbox=[4, 4, 20, 26])), "detection")
    assert annotated.truth(0, WIDTH, HEIGHT).boxes.tolist() == [[4, 4, 24, 30]]
    assert list(annotated.repairs) == [("a.png", "another size in the annotation: 64x48 px, taken as 48x64 px")]


@on_its_side
def test_masks_of_another_size_are_still_refused(tmp_path: Path, turn: int) -> None:
    draw(tmp_path / "a.png", turn)
    file = coco(tmp_path, segmentation={"size": [5, 5], "counts": [25]})
    with pytest.raises(SeeallError, match="a mask of 5x5 px for a picture of 64x48 px; scale either"):
        find_annotated(str(file), "instance")
