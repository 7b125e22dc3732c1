"""YOLO text: boxes, outlines, names, splits, what is mended and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seeall.data.annotations.layouts import find_annotated
from seeall.data.annotations.yolo import yaml_names
from seeall.types import SeeallError


def boxes(shown: Any) -> str:
    rows = []
    for (name, _), (x0, y0, x1, y1) in zip(shown.things, shown.boxes()):
        shares = (x0 + x1) / 2 / shown.w, (y0 + y1) / 2 / shown.h, (x1 - x0) / shown.w, (y1 - y0) / shown.h
        rows.append(" ".join([{"cat": "0", "dog": "1"}[name], *(f"{v:.6f}" for v in shares)]))
    return "\n".join(rows)


def outlines(shown: Any) -> str:
    rows = []
    for name, corners in shown.things:
        shares = [f"{x / shown.w:.17g} {y / shown.h:.17g}" for x, y in corners]
        rows.append(" ".join([{"cat": "0", "dog": "1"}[name], *shares]))
    return "\n".join(rows) + "\n"


def write(root: Path, three: list[Any], lines: Callable[[Any], str] = boxes, where: str = "{}/{}") -> Path:
    """where: how a split, if any, and images or labels go together."""
    for shown in three:
        shown.save(root / where.format("images", "").strip("/") / f"{shown.stem}.png")
        file = root / where.format("labels", "").strip("/") / f"{shown.stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines(shown))
    (root / "data.yaml").write_text("train: images\nnc: 2\nnames: ['cat', 'dog']  # two\n")
    return root


@pytest.mark.parametrize("task", ["detection", "instance", "segmentation"])
def test_what_is_true(tmp_path: Path, three: list[Any], same: Callable[[Any], None], task: str) -> None:
    write(tmp_path, three, outlines)
    annotated = find_annotated(str(tmp_path), task)
    same(annotated)
    assert not annotated.repairs and annotated.pictures.splits is None


def test_boxes(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    write(tmp_path, three)
    same(find_annotated(str(tmp_path), "detection"))
    for task in ("instance", "segmentation"):
        with pytest.raises(SeeallError, match=f"YOLO text with boxes only, .* detection; {task} needs outlines"):
            find_annotated(str(tmp_path), task)


@pytest.mark.parametrize("way", ["above", "below"])
def test_splits(tmp_path: Path, three: list[Any], way: str) -> None:
    for split, some in (("train", three[:2]), ("valid", three[2:])):
        write(tmp_path, some, where=f"{split}/{{}}" if way == "above" else f"{{}}/{split}")
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.pictures.splits or ()) == ["train", "train", "val"] and not annotated.repairs
    assert len(annotated.truth(0, 24, 32).boxes) == 2


@pytest.mark.parametrize(
    "text",
    [
        "names: [cat, dog]",
        "names: ['cat', \"dog\"] # the classes",
        "names:\n  - cat\n  - 'dog'\nnc: 2",
        "names:\n- cat\n- dog\n",
        "path: x\nnames:\n  0: cat\n  1: dog # a dog\n\ntrain: images",
        "names: {0: cat, 1: dog}",
        "names: [cat,\n  dog]\nnc: 2",
        "names:\n  [\n  cat,\n  dog,\n  ]\n",
        "names: &n [cat, dog]\nnc: 2\nagain: *n",
        "names:\n  '0': cat\n  '1': dog",
        "names:\n  1: dog\n  0: cat",
        '"names": [cat, dog]',
        '{"path": "x", "names": ["cat", "dog"]}',
        "---\nnames: !!seq [!!str cat, dog]\n...\n",
        "names: [cat, dog]\r\n",
    ],
)
def test_names_in_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    assert yaml_names(tmp_path / "data.yaml") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [driver's seat, cat]", ["driver's seat", "cat"]),
        ("names: [cat, drivers', 5\" nail]", ["cat", "drivers'", '5" nail']),
        ("names: {0: 'cat, big', 1: driver's seat}", ["cat, big", "driver's seat"]),
        ("names: ['driver''s seat', \"cat's, dog's\"]", ["driver's seat", "cat's, dog's"]),
        ("names:\n- driver's seat\n- drivers'\n", ["driver's seat", "drivers'"]),
        ("names: [cat, dog,]", ["cat", "dog"]),
        ('names: ["c#", "d # e"]', ["c#", "d # e"]),
        ('names: ["caf\\u00e9", "a \\"b\\""]', ["caf\u00e9", 'a "b"']),
        (
            "names: [no, yes, 1, 2024-01-01, null, 0x10, 1.50, ~]",
            ["no", "yes", "1", "2024-01-01", "null", "0x10", "1.50", "~"],
        ),
        ("names: {0: on, 1: Off}", ["on", "Off"]),
        ("names:\n- big\n  cat\n- dog", ["big cat", "dog"]),
        ("other:\n  names: [cow]\nnames: [cat]", ["cat"]),
        ("other:\n  names: [cow]", None),
        ("names:\nnc: 0", None),
        ("names: []", None),
        ("- names", None),
        ("", None),
    ],
)
def test_names_as_written_in_yaml(tmp_path: Path, text: str, names: list[str] | None) -> None:
    (tmp_path / "data.yaml").write_text(text)
    assert yaml_names(tmp_path / "data.yaml") == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nc: 2\nnames: [cat", r"data\.yaml, line 2: broken YAML: expected ',' or ']', .*; mend it"),
        ("names: [cat, dog", r"data\.yaml, line 1: broken YAML: "),
        ("names:\n\t- cat\n\t- dog", r"line 2: broken YAML: .*'\\t'"),
        ("names: [a\x00b]", r"data\.yaml: broken YAML: .*; mend it"),
        ("names: " + "[" * 9999, r"data\.yaml: broken YAML: .*recursion.*; mend it"),
        ("names: [cat]\n---\nnames: [dog]", "line 2: broken YAML: but found another document"),
        ("names: [cat]\nnames: [dog]", "names is there 2 times; leave one"),
        ("names: cat, dog", "names is 'cat, dog', want a list, or names by number; mend it"),
        ("names: {0: cat, 2: dog}", "the numbers of names are not 0 to 1, but 0, 2; name every class"),
        ("names: {0: cat, 0: dog}", "not 0 to 1, but 0, 0; name every class"),
        ("names: {cat: 0, dog: 1}", "not 0 to 1, but cat, dog; name every class"),
        ("names:\n- cat\n-\n", "line 3: the name of class 1 is empty or no text; name every class"),
        ("names: [cat, [dog]]", "line 1: the name of class 1 is empty or no text"),
        ("names:\n- cat: small\n", "line 2: the name of class 0 is empty or no text"),
    ],
)
def test_names_that_make_no_sense_in_yaml(tmp_path: Path, three: list[Any], text: str, words: str) -> None:
    write(tmp_path, three)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(SeeallError, match=words) as caught:
        find_annotated(str(tmp_path), "detection")
    assert "\n" not in str(caught.value)


def test_a_broken_yaml_beside(tmp_path: Path, three: list[Any], same: Callable[[Any], None]) -> None:
    write(tmp_path, three)
    (tmp_path / "args.yaml").write_text("lr: {{ lr }")
    annotated = find_annotated(str(tmp_path), "detection")
    same(annotated)
    [(where, what)] = annotated.repairs
    assert where == "args.yaml" and what.startswith("YAML file that cannot be read left out: ") and "line 1" in what


def test_names_elsewhere(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "data.yaml").write_text("nc: 2\n")
    assert list(find_annotated(str(tmp_path), "detection").classes) == ["0", "1"]
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.classes) == ["cat", "dog"] and not annotated.repairs
    assert list(find_annotated(str(tmp_path), "detection", names="x,y,z").classes) == ["x", "y", "z"]
    (tmp_path / "data.yaml").write_text("names: {0: cat, 2: dog}")
    with pytest.raises(SeeallError, match="the numbers of names are not 0 to 1"):
        find_annotated(str(tmp_path), "detection")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.0 0.5 0.5 0.5", "box partly outside the picture clipped: cat (-8, 6, 8, 18) in 32x24 px"),
        ("0 1.5 0.5 0.2 0.5", "box outside the picture left out: cat"),
        ("0 0.5 0.5 0.0 0.5", "box without width or height left out: cat"),
    ],
)
def test_boxes_that_are_mended(tmp_path: Path, three: list[Any], line: str, words: str) -> None:
    write(tmp_path, three)
    (tmp_path / "labels" / "a.txt").write_text(line)
    annotated = find_annotated(str(tmp_path), "detection")
    assert [where for where, _ in annotated.repairs] == ["images/a.png"] and annotated.repairs[0][1].startswith(words)
    assert len(annotated.truth(0, 24, 32).boxes) == ("clipped" in words)


def test_labels_and_pictures_that_lack_each_other(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "labels" / "c.txt").unlink()
    assert list(find_annotated(str(tmp_path), "detection").repairs) == [
        ("images/c.png", "picture without annotation taken as empty: no labels/c.txt")
    ]
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(SeeallError, match=r"1 of 3 annotated .* such as images/b, named in labels/b\.txt"):
        find_annotated(str(tmp_path), "detection")


def test_pictures_that_differ_in_their_suffix_alone(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three, where="train/{}")
    three[0].save(tmp_path / "train" / "images" / "a.jpg")
    annotated = find_annotated(str(tmp_path), "detection")
    assert annotated.pictures.ids[0] == "train/images/a.jpg" and len(annotated) == 3
    assert list(annotated.repairs) == [("images/a.png", "file of the same name left out: a.jpg is taken")]


def test_a_link_to_the_folder_above(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "images" / "loop").symlink_to("..")
    annotated = find_annotated(str(tmp_path), "detection")
    assert list(annotated.pictures.ids) == ["images/a.png", "images/b.png", "images/c.png"]
    assert not annotated.repairs


def test_outlines_among_boxes(tmp_path: Path, three: list[Any]) -> None:
    write(tmp_path, three)
    (tmp_path / "labels" / "b.txt").write_text(outlines(three[1]))
    annotated = find_annotated(str(tmp_path), "instance")
    assert [what for _, what in annotated.repairs] == [
        f"thing without an outline left out: {n}" for n in ("cat", "dog")
    ]
    assert [len(annotated.truth(i, s.h, s.w).boxes) for i, s in enumerate(three)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 x 0.5 0.5", r"a\.txt, line 1: '0 0.5 x 0.5 0.5' holds something that is no number; mend it"),
        ("\n0 0.5 nan 0.5 0.5", r"a\.txt, line 2: .* holds no finite number"),
        ("2 0.5 0.5 0.5 0.5", "line 1: class 2, but names are given for 0 to 1; name it or mend it"),
        ("0.5 0.5 0.5 0.5 0.5", r"line 1: class 0\.5 is no whole number"),
        ("-1 0.5 0.5 0.5 0.5", "line 1: class -1 is no whole number from 0"),
        ("0 0.5 0.5 0.5 0.5 0.9", "line 1: 6 numbers, want class x y width height or"),
        ("0 -3 .5 .2 .2", "line 1: -3 is no share of the picture; divide px by its width or height"),
        ("0 12 14 20 9", "line 1: 20 is no share of the picture; divide px by its width or height"),
    ],
)
def test_what_cannot_be_mended(tmp_path: Path, three: list[Any], line: str, words: str) -> None:
    write(tmp_path, three)
    (tmp_path / "labels" / "a.txt").write_text(line)
    with pytest.raises(SeeallError, match=words):
        find_annotated(str(tmp_path), "detection")
