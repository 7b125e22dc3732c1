"""One of so many frames is looked at; what was said of it moves along with the picture, within its clip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.heads.video.keys import Keyed
from seeall.heads.video.skip import Unchanged
from seeall.types import SeeallError

STD = [0.2, 0.25, 0.3]
STEP = 4


class Counting(nn.Module):
    """Logits of each pixel from that pixel alone, which is what moving them along can do without loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.looked = nn.Conv2d(3, 5, 1), 0

    def forward(self, x: Tensor) -> Tensor:
        self.looked += 1
        named: Tensor = self.name(x)
        return named


def pan(frames: int, step: int = STEP, size: tuple[int, int] = (64, 96)) -> list[Tensor]:
    """A camera that pans over noise that is smooth, (1, 3, H, W) each, normalised."""
    noise = torch.rand(1, 3, 18, 60, generator=torch.Generator().manual_seed(0))
    world = F.interpolate(noise, scale_factor=4, mode="bicubic")
    crops = (world[..., : size[0], step * k : step * k + size[1]] for k in range(frames))
    return [(crop - 0.45) / torch.tensor(STD).view(1, 3, 1, 1) for crop in crops]


@pytest.mark.parametrize("every", [2, 3, 5])
def test_between_keys_logits_move_with_the_picture(every: int) -> None:
    network = Counting()
    keyed, frames = Keyed(network, STD, every=every), pan(7)
    for k, frame in enumerate(frames):
        logits, wanted = keyed(frame), network.name(frame)
        assert network.looked == k // every + 1 == keyed.seen
        right = (logits - wanted).abs().amax(1) < 1e-4
        assert logits.shape == wanted.shape and bool(right.all()) == (k % every == 0)
        shown = slice(8, 88 - STEP * every)  # what has come into view since the key is not known
        assert right[:, 8:-8, shown].float().mean() > 0.97
        kept = (network.name(frames[k // every * every]) - wanted).abs().amax(1) < 1e-4
        assert k % every == 0 or kept.float().mean() < 0.1
    assert keyed.shown == 7 and keyed.share == (6 // every + 1) / 7


def test_a_frame_that_is_the_one_before_again_costs_nothing_and_is_no_step_to_the_next_key() -> None:
    network = Counting()
    keyed, (a, b, c, *_) = Keyed(network, STD, every=3, threshold=0.02), pan(4)
    first = keyed(a)
    for near in (a, a + 0.01, a - 0.01):
        with pytest.raises(Unchanged):
            keyed(near)
    assert not torch.equal(keyed(b), first) and network.looked == 1
    keyed(c)
    assert network.looked == 1
    keyed(b)
    assert network.looked == 2 and keyed.shown == 7


def test_what_creeps_is_noticed() -> None:
    network = Counting()
    keyed, frame = Keyed(network, STD, every=2, threshold=0.05), pan(1)[0]
    keyed(frame)
    moved = 0
    for k in range(1, 20):
        try:
            keyed(frame + 0.1 * k)
            moved += 1
        except Unchanged:
            continue
    assert moved >= 5 and network.looked >= 2


def test_another_clip_and_another_size_are_looked_at() -> None:
    network = Counting()
    keyed, (a, b) = Keyed(network, STD, every=9), pan(2)
    keyed(a)
    keyed(b[..., :60])
    assert network.looked == 2
    keyed.forget()
    keyed(b[..., :60])
    assert network.looked == 3


@pytest.mark.parametrize(("settings", "words"), [
    ({"every": 1}, "'every' is 1: choose 2"), ({"every": 2, "threshold": 1.5}, "'threshold' is 1.5"),
])  # fmt: skip
def test_settings_out_of_bounds(settings: dict[str, float], words: str) -> None:
    with pytest.raises(SeeallError, match=words):
        Keyed(Counting(), STD, **settings)  # type: ignore[arg-type]
