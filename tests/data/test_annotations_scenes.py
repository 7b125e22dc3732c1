"""The synthetic world, labels of folders, and which layout is recognised."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from seeall import catalog
from seeall.data import scenes
from seeall.data.annotations.layouts import find_annotated
from seeall.types import SeeallError

WORLD = "scenes:n=6,size=48,things=2-3,classes=4"


def test_every_task() -> None:
    world = scenes.parse(WORLD)
    known = world.truth(3)
    found = {task: find_annotated(WORLD, task) for task in ("classification", "detection", "instance", "segmentation")}
    truths = {task: annotated.truth(3, 48, 48) for task, annotated in found.items()}
    for task in ("detection", "instance"):
        assert list(found[task].classes) == ["disc", "square", "triangle", "star"]
        assert (truths[task].boxes == known.boxes).all() and (truths[task].classes == known.classes).all()
    masks = truths["instance"].masks
    assert masks is not None and (masks == known.masks).all() and truths["detection"].masks is None
    assert list(found["segmentation"].classes) == ["background", "disc", "square", "triangle", "star"]
    assert np.array_equal(truths["segmentation"].semantic, known.semantic)  # type: ignore[arg-type]
    label = truths["classification"].label
    assert label is not None and found["classification"].classes[label] == world.label(3)
    assert [sorted(a.knows) for a in found.values()] == [["label"], ["boxes"], ["boxes", "masks"], ["semantic"]]


def test_the_notes_of_a_subset_go_along() -> None:
    annotated = find_annotated(WORLD, "detection")
    assert (annotated.subset([4, 1]).truth(0, 48, 48).boxes == annotated.truth(4, 48, 48).boxes).all()
    again = pickle.loads(pickle.dumps(annotated.interpret))
    assert (again(annotated.notes[2], 48, 48).boxes == annotated.truth(2, 48, 48).boxes).all()


def test_labels_of_a_folder(folder: Path) -> None:
    annotated = find_annotated(str(folder), "classification")
    assert list(annotated.classes) == ["cat", "dog"] and annotated.knows == {"label"}
    assert [annotated.truth(i, 1, 1).label for i in (0, 47)] == [0, 1]
    turned = find_annotated(str(folder), "classification", names="cow,dog,cat")
    assert [turned.truth(i, 1, 1).label for i in (0, 47)] == [2, 1]
    with pytest.raises(SeeallError, match="label 'dog' is not among names"):
        find_annotated(str(folder), "classification", names="cat,doge")


def test_a_manifest(folder: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows))
    assert list(find_annotated(str(tmp_path / "list.csv"), "classification").classes) == ["cat", "dog"]
    with pytest.raises(SeeallError, match="which serves --task classification, not detection"):
        find_annotated(str(tmp_path / "list.csv"), "detection")


def test_a_broken_json_file_beside_class_folders(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    (tmp_path / "data" / "notes.json").write_text('{"a": 1}\n{"a": 2}\n')
    annotated = find_annotated(str(tmp_path / "data"), "classification")
    assert list(annotated.classes) == ["cat", "dog"] and len(annotated) == 48
    with pytest.raises(SeeallError, match=r"notes\.json: broken JSON: Extra data"):
        find_annotated(str(tmp_path / "data"), "detection")


def test_one_label_is_nothing_to_learn(folder: Path, tmp_path: Path) -> None:
    rows = [f"{path},cat" for path in sorted((folder / "cat").rglob("*.png"))]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows))
    with pytest.raises(SeeallError, match=r"list\.csv: every picture has the label cat; add pictures of another"):
        find_annotated(str(tmp_path / "list.csv"), "classification")
    assert len(find_annotated(str(tmp_path / "list.csv"), "classification", names="cat,dog").classes) == 2


def test_what_is_no_layout(folder: Path, tmp_path: Path) -> None:
    for data, words in [
        (folder, "no annotations for detection recognised; looked for Pascal VOC, COCO JSON"),
        (tmp_path / "no", "no such file or folder"),
        (Path(__file__), "neither a folder, a JSON file nor a manifest"),
    ]:
        with pytest.raises(SeeallError, match=words):
            find_annotated(str(data), "detection")
    with pytest.raises(SeeallError, match="unknown task 'detect': did you mean detection"):
        find_annotated(str(folder), "detect")
    with pytest.raises(SeeallError, match="looked for Pascal VOC$"):
        find_annotated(str(folder), "classification", layout="voc")
    with pytest.raises(SeeallError, match="masks, ignore and colours are settings of pictures and masks"):
        find_annotated(str(folder), "classification", ignore="1")
    with pytest.raises(SeeallError, match="not of the synthetic world"):
        find_annotated(WORLD, "detection", ignore="disc")
    with pytest.raises(SeeallError, match="has 4 classes; names must be as many, not 1"):
        find_annotated(WORLD, "detection", names="disc")
    with pytest.raises(SeeallError, match="every picture has the label disc"):
        find_annotated("scenes:n=4,classes=1", "classification")


def test_settings_can_be_set() -> None:
    chosen = catalog.resolve({"annotations": find_annotated}, ["layout=voc", "names=a,b", "masks=none"])
    assert chosen == {"annotations": {"layout": "voc", "names": "a,b", "masks": None}}
    with pytest.raises(SeeallError, match="'vic' is not a choice"):
        catalog.resolve({"annotations": find_annotated}, ["layout=vic"])
