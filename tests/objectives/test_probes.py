"""The probes as a whole: on features whose answer is known, and on how pictures are halved."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from seeall.data.pictures import Pictures, find
from seeall.metrics.crossmodal import crossmodal
from seeall.metrics.retrieval import retrieval
from seeall.metrics.verification import verification
from seeall.ssl import probes
from seeall.ssl.probes import Seen
from seeall.types import SeeallError

ALONE = {"knn20", "knn200", "linear", "linear_top5", "train_pictures", "test_pictures", "classes", "dim"}
RETRIEVAL = {"recall@1", "recall@2", "recall@4", "recall@8", "precision@10", "r-precision", "map@r"}
PAIRS = {"nmi", "eer", "auc", "same_or_different", "same_or_different_std"}


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


def rows(z: torch.Tensor, pictures: Pictures) -> Seen:
    return Seen(pictures, z, list(range(len(z))))


def noise(n: int, dim: int = 4) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def test_every_figure_is_a_share_of_what_the_metrics_say(labelled: Pictures) -> None:
    names = [f"{name}{i % 2}" for i, name in enumerate(labelled.labels or ())]
    labelled, z = dataclasses.replace(labelled, labels=names), noise(30)
    found = probes.measure(rows(z, labelled), rows(z, labelled))
    assert found.keys() == ALONE | RETRIEVAL | PAIRS | {"tar@far=1e-1", "tar@far=1e-2"}
    y = labelled.targets()
    pairs, near = verification(z, y), retrieval(z, y, ks=(1, 2, 4, 8, 10))
    assert found["same_or_different"] == 100 * pairs["accuracy"] != 100
    assert found["same_or_different_std"] == 100 * pairs["accuracy_std"]
    for name in ("eer", "auc", "tar@far=1e-1"):
        assert found[name] == 100 * pairs[name] != 0
    for name in RETRIEVAL:
        assert found[name] == 100 * near[name]


def test_what_cannot_be_measured_is_left_out(labelled: Pictures) -> None:
    one_of_each = labelled.subset([0, 1, 2])
    few = [labelled.labels[i] for i in (0, 1, 2)] if labelled.labels else []
    assert len(set(few)) == 1
    same = probes.measure(rows(noise(30), labelled), rows(noise(3), one_of_each))
    assert same.keys() == ALONE | RETRIEVAL
    different = labelled.subset([0, 10, 20])
    assert probes.measure(rows(noise(30), labelled), rows(noise(3), different)).keys() == ALONE


def test_unreadable_pictures_keep_nobody_elses_label(labelled: Pictures) -> None:
    seen = Seen(labelled, noise(2), [3, 25])
    assert seen.labels() == [(labelled.labels or [])[i] for i in (3, 25)] == ["b", "r"]
    targets = seen.targets()
    assert targets is not None and targets.tolist() == [0, 2]


def test_pairs_without_two_of_a_label_are_measured_as_pairs() -> None:
    images, sounds = noise(5), noise(5) + 0.1 * noise(5).flip(0)
    found = probes._crossmodal(images, sounds, torch.arange(5))
    assert found == probes._crossmodal(images, sounds, None)
    bare = crossmodal(images, sounds)
    assert found["image_sound_pair_recall@1"] == 100 * bare["image_sound_pair_recall@1"]
    assert found["pair_chance_recall@1"] == 20 and found["pairs"] == 5
    assert probes._crossmodal(images[:1], sounds[:1], None) == {"pairs": 1}
    labelled = probes._crossmodal(images, sounds, torch.tensor([0, 0, 1, 1, 2]))
    assert {"sound_image_ndcg@30", "image_image_chance_recall@1", "pairs"} < labelled.keys()
    assert not any("quer" in name for name in labelled)


def test_frames_of_a_clip_stay_on_one_side() -> None:
    pictures = find("scenes:n=40,frames=4,size=16,identities=8")
    train, test = probes.halves(pictures, None, 0)
    clip = {name: moment[0] for name, moment in zip(pictures.ids, pictures.moments or ())}
    assert len(test) == 32 and not {clip[i] for i in train.ids} & {clip[i] for i in test.ids}
