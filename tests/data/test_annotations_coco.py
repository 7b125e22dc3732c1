"""COCO JSON: ids, polygons, run lengths, where pictures are, what is mended and what is not."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seeall.data.annotations import polygons
from seeall.data.annotations.coco import encode
from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.polygons import mask, whole
from seeall.data.annotations.things import Note, Thing, interpret
from seeall.types import SeeallError


def told(three: list[Any], prefix: str = "") -> dict[str, Any]:
    """Categories 3 and 7 for cat and dog, images from 10 on."""
    images, annotations = [], []
    for k, shown in enumerate(three):
        images.append({"id": 10 + k, "file_name": f"{prefix}{shown.stem}.png", "width": shown.w, "height": shown.h})
        for (name, corners), (x0, y0, x1, y1) in zip(shown.things, shown.boxes()):
            annotations.append(
                {
                    "id": len(annotations), "image_id": 10 + k, "category_id": {"cat": 3, "dog": 7}[name], "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [[v for corner in corners for v in corner]],
                }
            )  # fmt: skip
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(root: Path, three: list[Any], change: Callable[[dict[str, Any]], Any] = lambda held: None) -> Path:
    held = told(three)
    change(held)
    for shown in three:
        shown.save(root / f"{shown.stem}.png")
    (root / "all.json").write_text(json.dumps(held))
    return root / "all.json"


@pytest.mark.parametrize("task", ["detection", "instance", "segmentation"])
def test_what_is_true(tmp_path: Path, three: list[Any], same: Callable[[Any], None], task: str) -> None:
    file = write(tmp_path, three)
    for data in (file, tmp_path):
        annotated = find_annotated(str(data), task)
        same(annotated)
        assert list(annotated.repairs) == [
            ("all.json", "category ids with holes: 3 to 7, numbered anew from 0"),
        ]


@pytest.mark.parametrize("where", ["images", "train2017", "images/train2017", "annotations", "annotations/images"])
def test_where_pictures_may_be(tmp_path: Path, three: list[Any], same: Callable[[Any], None], where: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(told(three)))
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    for shown in three:
        shown.save(tmp_path / where / f"{shown.stem}.png")
    annotated = find_annotated(str(tmp_path), "instance")
    same(annotated)
    assert list(annotated.pictures.splits or ()) == ["train"] * 3
    assert annotated.pictures.ids[0] == f"{where}/a.png"
    same(find_annotated(str(tmp_path / "annotations" / "instances_train2017.json"), "instance"))


def test_a_folder_in_the_name_of_a_picture(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "x.json").write_text(json.dumps(told(three, "shots/")))
    for shown in three:
        shown.save(tmp_path / "shots" / f"{shown.stem}.png")
    same(find_annotated(str(tmp_path / "labels" / "x.json"), "detection"))


def test_a_file_for_each_split(tmp_path: Path, three: list[Any]) -> None:
    for split, some in (("train", three[:1]), ("valid", three[1:])):
        for shown in some:
            shown.save(tmp_path / split / f"{shown.stem}.png")
        held = told(some)
        if split == "valid":  # the same classes by other numbers
            for one in held["categories"]:
                one["id"] += 100
            for one in held["annotations"]:
                one["category_id"] += 100
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(held))
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.pictures.ids) == ["train/a.png", "valid/b.png", "valid/c.png"]
    assert list(annotated.pictures.splits or ()) == ["train", "val", "val"]
    assert list(annotated.classes) == ["cat", "dog"]
    assert annotated.truth(1, 30, 20).classes.tolist() == [1]


def decoded(counts: list[int], h: int, w: int) -> np.ndarray:
    """Run lengths pixel by pixel: off and on in turn, down the columns."""
    flat = [k % 2 for k, length in enumerate(counts) for _ in range(length)]
    return np.array([[flat[column * h + row] for column in range(w)] for row in range(h)], bool)


def counted(values: np.ndarray) -> list[int]:
    """The opposite."""
    counts, now = [0], False
    for value in values.T.ravel().tolist():
        if value != now:
            counts.append(0)
            now = value
        counts[-1] += 1
    return counts


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    values = rng.random((h, w)) < rng.choice([0.02, 0.5, 0.98])
    counts = counted(values)
    assert (decoded(counts, h, w) == values).all()
    assert (mask({"size": [h, w], "counts": counts}, h, w, "") == values).all()
    packed = encode(values)
    assert isinstance(packed["counts"], str) and json.loads(json.dumps(packed)) == packed
    assert (mask(packed, h, w, "") == values).all()
    with pytest.raises(SeeallError, match="broken run-length encoding"):
        mask({"size": [h, w], "counts": packed["counts"] + "1"}, h, w, "")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([3], "counts of 3 px for 768 px"),
        ([767, 2], "exceed"),
        ([-1, 769], "-1 among its counts, want whole numbers of 0 to 768"),
        ([3, -5, 770], "-5 among its counts, want whole numbers of 0 to 768"),
        ([2**40], "1099511627776 among its counts, want whole numbers of 0 to 768"),
        ([767.5, 0.5], "767.5 among its counts, want whole numbers of 0 to 768"),
        ([[768]], r"\[768\] among its counts, want whole numbers of 0 to 768"),
        (["a"], "'a' among its counts, want whole numbers of 0 to 768"),
        ([], "no run lengths"),
        ("", "no run lengths"),
        ("h0", "counts of 24 px for 768 px"),
        ("PPP`", "no run lengths"),
        ("\u00e9", ""),
        ("O", "less than nothing"),
        ("P" + "o" * 30 + "0", "too long"),
    ],
)
def test_run_lengths_that_are_broken(counts: Any, words: str) -> None:
    for read in (mask, whole):
        with pytest.raises(SeeallError, match=rf"^a\.json: broken run-length encoding: .*{words}.*; write it again$"):
            read({"size": [24, 32], "counts": counts}, 24, 32, "a.json")


@pytest.mark.parametrize("written", [counted, lambda values: encode(values)["counts"]])
@pytest.mark.parametrize("boxed", [True, False])
def test_run_lengths_are_decoded_once_when_masks_are_asked_for(
    tmp_path: Path, three: list[Any], same: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch,
    written: Callable[[np.ndarray], Any], boxed: bool,
) -> None:  # fmt: skip
    def change(held: dict[str, Any]) -> None:
        values = [values for shown in three for values in shown.masks()]
        for one, shape in zip(held["annotations"], values):
            one["segmentation"] = {"size": list(shape.shape), "counts": written(shape)}
            if not boxed:
                del one["bbox"]

    decoded = list[Any]()
    decode = polygons.coco.decode
    monkeypatch.setattr(polygons.coco, "decode", lambda packed: decoded.append(packed) or decode(packed))
    file = write(tmp_path, three, change)
    for task, times in (("detection", 0), ("instance", 3), ("segmentation", 3)):
        annotated = find_annotated(str(file), task)
        assert not decoded
        same(annotated)
        assert len(decoded) == times
        decoded.clear()


def test_masks_take_no_more_room_than_they_are(tmp_path: Path) -> None:
    h, w, n = 300, 400, 40
    outline = encode(np.ones((h, w), bool))
    note = Note("", tuple(Thing(0, (0, 0, w, h), outline) for _ in range(n)))
    most = {}
    for task in ("instance", "segmentation"):
        tracemalloc.start()
        interpret(note, h, w, task=task)
        most[task] = tracemalloc.get_traced_memory()[1] / (h * w)
        tracemalloc.stop()
    assert n <= most["instance"] < n + 5 and most["segmentation"] < 6


def test_polygons_off_the_grid() -> None:
    """Against a point-in-polygon test of every pixel's middle, but for those near the edge."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        corners = rng.random((3, 2)) * (40, 30)
        y, x = np.mgrid[:30, :40] + 0.5
        sides = []
        for k in range(3):
            (ax, ay), (bx, by) = corners[k], corners[(k + 1) % 3]
            sides.append(((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / np.hypot(bx - ax, by - ay))
        sides = np.array(sides) * np.sign(np.sum(sides, 0)[0, 0] or 1)
        inside, near = (sides > 0).all(0) | (sides < 0).all(0), np.abs(sides).min(0) < 0.75
        assert (mask([corners], 30, 40, "") == inside)[~near].all()


def test_crowds_and_both_run_lengths(tmp_path: Path, three: list[Any]) -> None:
    def change(held: dict[str, Any]) -> None:
        shown = three[0]
        held["annotations"][0] |= {
            "segmentation": {"size": [24, 32], "counts": counted(shown.masks()[0])},
            "iscrowd": 1,
        }
        held["annotations"][1] |= {"segmentation": encode(shown.masks()[1])}
        del held["annotations"][1]["bbox"]

    write(tmp_path, three, change)
    truth = find_annotated(str(tmp_path), "instance").truth(0, 24, 32)
    assert truth.crowd.tolist() == [True, False]
    assert truth.masks is not None and (truth.masks == three[0].masks()).all()
    assert truth.boxes.tolist() == [[2, 3, 14, 13], [10, 5, 30, 20]]
    semantic = find_annotated(str(tmp_path), "segmentation").truth(0, 24, 32).semantic
    assert semantic is not None and set(semantic[three[0].masks()[0] & ~three[0].masks()[1]].tolist()) == {255}
    assert set(semantic[three[0].masks()[1]].tolist()) == {2}


def test_ids_written_with_a_point(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    def change(held: dict[str, Any]) -> None:
        for one in [*held["images"], *held["annotations"], *held["categories"]]:
            one |= {key: float(value) for key, value in one.items() if key in ("id", "category_id")}

    file = write(tmp_path, three, change)
    same(find_annotated(str(file), "instance"))
    change(held := told(three))
    held["annotations"][1]["bbox"] = [1]
    file.write_text(json.dumps(held))
    with pytest.raises(SeeallError, match="annotation 1: bbox is"):
        find_annotated(str(file), "instance")


def test_a_category_listed_twice(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    file = write(tmp_path, three, lambda held: held["categories"].append({"id": 7, "name": "dog"}))
    annotated = find_annotated(str(file), "instance")
    same(annotated)
    assert [what for _, what in annotated.repairs if "numbered anew" not in what] == [
        "category listed more than once, taken once: id 7, dog"
    ]


@pytest.mark.parametrize("task", ["detection", "instance"])
def test_a_broken_file_beside(tmp_path: Path, three: list[Any], same: Callable[[Any], None], task: str) -> None:
    write(tmp_path, three)
    (tmp_path / "notes.json").write_text('{"a": 1}\n{"a": 2}\n')
    annotated = find_annotated(str(tmp_path), task)
    same(annotated)
    assert annotated.repairs[0][0] == "notes.json"
    assert annotated.repairs[0][1].startswith("JSON file that cannot be read left out: broken JSON: Extra data")
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(SeeallError, match=r"train\.json: broken JSON"):
        find_annotated(str(tmp_path), task)


def test_names_choose_and_order(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    assert list(find_annotated(str(tmp_path), "detection", names="dog").classes) == ["dog"]
    with pytest.raises(SeeallError, match="names: no class is called 'cow'"):
        find_annotated(str(tmp_path), "detection", names="dog,cow")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda a: a.__setitem__("bbox", [-5, 3, 19, 10]),
            "box partly outside the picture clipped: cat (-5, 3, 14, 13)",
        ),
        (lambda a: a.__setitem__("bbox", [2, 3, 0, 10]), "box without width or height left out: cat (2, 3, 2, 13)"),
        (lambda a: a.__setitem__("bbox", [50, 3, 9, 10]), "box outside the picture left out: cat (50, 3, 59, 13)"),
        (lambda a: a.__setitem__("image_id", 99), "annotation of no picture left out: image id 99"),
        (lambda a: a.__setitem__("segmentation", []), "thing without an outline left out: cat"),
    ],
)
def test_what_is_mended(tmp_path: Path, three: list[Any], change: Callable[[Any], None], words: str) -> None:
    write(tmp_path, three, lambda held: change(held["annotations"][0]))
    annotated = find_annotated(str(tmp_path), "instance")
    assert any(what.startswith(words) for _, what in annotated.repairs) and len(annotated.repairs) == 2
    assert len(annotated.truth(0, 24, 32).boxes) == (2 if "clipped" in words else 1)


def test_another_size_and_a_missing_picture(tmp_path: Path, three: list[Any]) -> None:
    file = write(tmp_path, three, lambda held: held["images"][1].__setitem__("width", 21))
    repairs = find_annotated(str(file), "detection").repairs
    assert ("b.png", "another size in the annotation: 21x30 px, taken as 20x30 px") in repairs
    (tmp_path / "c.png").unlink()
    with pytest.raises(SeeallError, match=r"1 of 3 annotated pictures are missing, such as c\.png, named in all\.json"):
        find_annotated(str(file), "detection")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h["annotations"][0].__setitem__("category_id", 5), "annotation 0: category id 5 is not among"),
        (lambda h: h["annotations"][0].__setitem__("bbox", [1, 2, "x", 4]), "annotation 0: 'x' among its coordinates"),
        (lambda h: h["annotations"][0].__setitem__("bbox", [1, 2, float("nan"), 4]), "annotation 0: nan among its"),
        (lambda h: h["annotations"][0].__setitem__("bbox", [1, 2, 3]), r"bbox is \[1, 2, 3\], want x, y"),
        (lambda h: h["annotations"][0].__setitem__("segmentation", [[1, 2, 3]]), "segmentation is neither polygons"),
        (lambda h: h["annotations"][0].__setitem__("segmentation", {"size": [1]}), "needs size and counts"),
        (
            lambda h: h["annotations"][0].__setitem__("segmentation", {"size": [5, 5], "counts": [25]}),
            "a mask of 5x5 px for a picture of 32x24 px; scale either",
        ),
        (
            lambda h: h["annotations"][0].__setitem__("segmentation", {"size": [24, 32], "counts": [3]}),
            "broken run-length encoding",
        ),
        (lambda h: h["annotations"][0].pop("image_id"), "an annotation without 'image_id'"),
        (lambda h: h["annotations"][0].__setitem__("image_id", [1]), r"annotation whose 'image_id' is \[1\], want a"),
        (lambda h: h["annotations"][0].__setitem__("category_id", 1.5), "annotation whose 'category_id' is 1.5, want"),
        (lambda h: h["annotations"][0].__setitem__("id", 0.5), "annotation whose 'id' is 0.5, want a whole number"),
        (lambda h: h["images"][0].__setitem__("id", True), "image whose 'id' is True, want a whole number; mend it"),
        (lambda h: h["categories"][0].__setitem__("id", float("nan")), "category whose 'id' is nan, want a whole"),
        (
            lambda h: [a.__setitem__("image_id", f"{a['image_id']}") for a in h["annotations"]],
            r"all\.json: none of its 3 annotations is of .* such as '10', but pictures with ids such as 10; mend",
        ),
        (lambda h: h["images"].append(h["images"][0]), "an image id is there twice"),
        (lambda h: h["images"].append({**h["images"][0], "id": 99}), r"a\.png is listed twice"),
        (lambda h: h["images"][0].pop("file_name"), "an image without 'file_name'"),
        (
            lambda h: h["categories"].append({"id": 3.0, "name": "cow"}),
            r"all\.json: category id 3 is both cat and cow; number the categories anew",
        ),
        (lambda h: h["categories"][0].pop("name"), "a category without 'name'"),
        (lambda h: h.pop("categories"), "COCO JSON without a list 'categories'"),
        (lambda h: h["annotations"].clear(), "3 pictures, but nothing is annotated in any"),
        (lambda h: h["images"].clear(), "COCO JSON without pictures"),
        (lambda h: [i.__setitem__("file_name", "q/" + i["file_name"]) for i in h["images"]], "neither beside it"),
        (lambda h: [a.pop("segmentation") for a in h["annotations"]], "boxes only, which serve --task detection"),
    ],
)  # fmt: skip
def test_what_cannot_be_mended(tmp_path: Path, three: list[Any], change: Callable[[Any], None], words: str) -> None:
    file = write(tmp_path, three, change)
    with pytest.raises(SeeallError, match=words) as caught:
        find_annotated(str(file), "instance")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "broken JSON"), ("[1, 2]", "neither COCO JSON .* nor VIA JSON"), ('{"a": 1}', "neither COCO JSON")],
)
def test_files_that_are_something_else(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SeeallError, match=words):
        find_annotated(str(tmp_path / "x.json"), "detection")
