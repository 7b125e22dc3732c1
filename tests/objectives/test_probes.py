"""The probes as a whole: on features whose answer is known, and on how pictures are halved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from seeall.data.pictures import Pictures, find
from seeall.ssl import probes
from seeall.types import SeeallError


@pytest.fixture
def labelled(tmp_path: Path) -> Pictures:
    """30 pictures of 3 classes, each of its class's colour, a little off."""
    for i in range(30):
        folder = tmp_path / "rgb"[i % 3]
        folder.mkdir(exist_ok=True)
        colour = [20 + i, 20, 20]
        colour[i % 3] = 200 + i
        Image.new("RGB", (8, 8), tuple(colour)).save(folder / f"{i:02d}.png")
    return find(str(tmp_path))


def mean_colour(pictures: Pictures, label: str) -> tuple[torch.Tensor, list[int]]:
    z = [torch.from_numpy(pictures.read(i).copy()).float().mean((0, 1)) for i in range(len(pictures))]
    return torch.stack(z), list(range(len(pictures)))


def test_features_that_tell_classes_apart_score_full_marks(labelled: Pictures) -> None:
    found = probes.evaluate(mean_colour, *probes.halves(labelled, None, 0))
    assert found["knn20"] == found["linear"] == found["recall@1"] == 100
    assert (found["train_pictures"], found["test_pictures"], found["classes"], found["dim"]) == (24, 6, 3, 3)


def test_features_that_say_nothing_score_at_chance(labelled: Pictures) -> None:
    def noise(pictures: Pictures, label: str) -> tuple[torch.Tensor, list[int]]:
        generator = torch.Generator().manual_seed(len(label))
        return torch.randn(len(pictures), 4, generator=generator), list(range(len(pictures)))

    assert probes.evaluate(noise, *probes.halves(labelled, labelled, 0))["knn20"] < 75


def test_every_fifth_of_each_class_is_held_back(labelled: Pictures) -> None:
    train, test = probes.halves(labelled, None, 0)
    assert not set(train.ids) & set(test.ids)
    assert sorted((test.labels or [])[:]) == ["b", "b", "g", "g", "r", "r"]
    assert (
        list(probes.halves(labelled, None, 0)[1].ids) == list(test.ids) != list(probes.halves(labelled, None, 1)[1].ids)
    )


def test_splits_and_val_are_heeded(labelled: Pictures, tmp_path: Path) -> None:
    lines = [
        f"{i},{name},{'train' if n % 2 else 'test'}"
        for n, (i, name) in enumerate(zip(labelled.ids, labelled.labels or ()))
    ]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(lines))
    train, test = probes.halves(find(str(tmp_path / "list.csv")), None, 0)
    assert len(train) == len(test) == 15
    assert probes.halves(labelled, test, 0) == (labelled, test)


def test_a_class_that_training_has_not_seen_counts_as_wrong(labelled: Pictures) -> None:
    train = labelled.subset([i for i, name in enumerate(labelled.labels or ()) if name != "r"])
    found = probes.evaluate(mean_colour, train, labelled)
    assert found["classes"] == 3 and found["knn20"] == pytest.approx(200 / 3)


def test_no_labels(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    with pytest.raises(SeeallError, match="no labels found"):
        probes.halves(find(str(tmp_path)), None, 0)
