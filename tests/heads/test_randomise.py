"""Automatic domain randomisation: what a head copes with grows, what it does not shrinks, and only in its own world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seeall.data.annotations.examples import load
from seeall.data.annotations.layouts import find_annotated
from seeall.data.scenes import Scenes, parse
from seeall.data.scenes.dataset import RANGES
from seeall.heads.prediction import Prediction
from seeall.heads.randomise import ELSEWHERE, Randomise
from seeall.training.engine import launch

WORLD = "scenes:n=40,size=32,classes=2,identities=10,light=0.1,noise=0,poles=0"
PLAIN = {"light": 0.1, "noise": 0.0, "poles": 0.0, "small": 0.0, "backdrop": 0.0}


class Sees(torch.nn.Module):
    """Takes for background whatever is not among the pictures shown to it, which it knows by heart."""

    def __init__(self, worlds: Sequence[Scenes] = ()) -> None:
        super().__init__()
        self.known = {w.image(i).tobytes(): w.truth(i).semantic for w in worlds for i in range(len(w))}

    def predict(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        blank = np.zeros((32, 32), np.uint8)
        return [Prediction(semantic=self.known.get(p.permute(1, 2, 0).numpy().tobytes(), blank)) for p in pictures]


def trial(head: Any, folder: Path, text: str = WORLD, at: float = 0.9, by: float = 0.4, size: int = 32) -> Randomise:
    examples = load(find_annotated(text, "segmentation").subset(range(5, 15)), size)
    return Randomise(head, parse(text), "segmentation", examples, launch(precision="32"), 10, by, at, folder)


def elsewhere(**ranges: float) -> Scenes:
    """The pictures that are tried in a world of these ranges."""
    values = PLAIN | ranges
    settings = ",".join(f"{name}={value}" for name, value in values.items())
    return parse(f"scenes:n=32,size=32,classes=2,identities=10,first={ELSEWHERE // 10 * 10},{settings}")


def test_only_what_the_head_copes_with_grows(tmp_path: Path) -> None:
    tried = trial(Sees([elsewhere(noise=0.4), elsewhere(backdrop=0.4)]), tmp_path)
    assert tried.attempt() == PLAIN | {"noise": 0.4, "backdrop": 0.4}


def test_what_the_head_does_not_cope_with_goes_back_but_not_behind_the_start(tmp_path: Path) -> None:
    tried = trial(Sees(), tmp_path)
    tried.take(PLAIN | {"light": 0.3, "poles": 0.8, "small": 1.0})
    assert tried.attempt() == PLAIN | {"poles": 0.4, "small": 0.6}


def test_ranges_end_at_one(tmp_path: Path) -> None:
    tried = trial(Sees(), tmp_path, at=0.01)
    for _ in range(4):
        tried.take(tried.attempt())
    assert tried.ranges == dict.fromkeys(RANGES, 1.0)


def test_examples_are_of_the_world_as_it_is_now(tmp_path: Path) -> None:
    tried = trial(Sees(), tmp_path)
    before = tried(tried_example := load(find_annotated(WORLD, "segmentation").subset([7]), 32)[0], 2)
    assert torch.equal(before.pixels, tried_example.pixels)
    tried.take(PLAIN | {"light": 1.0, "backdrop": 1.0})
    after = tried(tried_example, 2)
    assert not torch.equal(after.pixels, before.pixels)
    assert np.array_equal(after.truth.semantic, before.truth.semantic)  # type: ignore[arg-type]
    picture = parse(WORLD.replace("light=0.1", "light=1.0,backdrop=1.0")).image(7)
    assert torch.equal(after.pixels, torch.from_numpy(picture).permute(2, 0, 1))


def test_what_a_trial_gave_is_recalled(tmp_path: Path) -> None:
    tried = trial(Sees(), tmp_path, at=0.01)
    tried.pause(0)
    assert tried.ranges == PLAIN
    tried.pause(10)
    tried.pause(20)
    late = trial(Sees(), tmp_path)
    late.pause(10)
    assert late.ranges == {name: round(value + 0.4, 6) for name, value in PLAIN.items()}
    late.pause(23)
    assert late.ranges == tried.ranges


def test_pictures_too_small_for_small_things(tmp_path: Path) -> None:
    text = WORLD.replace("size=32", "size=24")
    assert "small" not in trial(Sees(), tmp_path, text, size=24).ranges


def test_the_text_of_a_world_names_it() -> None:
    world = parse("scenes:n=7,things=2-3,labels=identity,small=0.5,size=40")
    again = parse(world.text())
    assert again.text() == world.text() and all((again.image(i) == world.image(i)).all() for i in range(7))
