"""The encoder of sounds: its contract, any number of frames, the way through a file, and that it learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from seeall import catalog
from seeall.backbones.hearing import hearing
from seeall.backbones.load import build, load, save
from seeall.types import SeeallError

NAME = "seeall.backbones.hearing:hearing"


def spectrograms(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_size() -> None:
    torch.manual_seed(0)
    backbone = hearing()
    assert 500_000 <= sum(p.numel() for p in backbone.parameters()) <= 1_000_000
    assert backbone.embed_dim == 256
    assert hearing(width=24).embed_dim == 192
    assert catalog.settings(hearing) == {"width": (int, 32)}


@pytest.mark.parametrize(("mels", "frames"), [(64, 64), (64, 1), (1, 1), (40, 17), (64, 101), (3, 400)])
def test_any_number_of_mels_and_frames(mels: int, frames: int) -> None:
    backbone = hearing(width=4)
    for mode in (True, False):
        backbone.train(mode)
        x = spectrograms(3, 1, mels, frames)
        maps = backbone.stages(x)
        want = [(3, c, math.ceil(mels / s), math.ceil(frames / s)) for c, s in zip(backbone.channels, backbone.strides)]
        assert [tuple(m.shape) for m in maps] == want
        z = backbone(x)
        assert z.shape == (3, backbone.embed_dim)
        assert torch.isfinite(z).all()


def test_the_embedding_is_mean_plus_maximum_of_the_last_map() -> None:
    backbone = hearing(width=4).eval()
    x = spectrograms(2, 1, 40, 50)
    positions = backbone.stages(x)[-1].flatten(2)
    torch.testing.assert_close(backbone(x), positions.mean(2) + positions.max(2).values)


def test_every_parameter_has_a_gradient() -> None:
    backbone = hearing(width=4)
    backbone(spectrograms(4, 1, 64, 32)).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_half_precision_under_autocast() -> None:
    backbone = hearing(width=4).eval()
    x = spectrograms(2, 1, 64, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = backbone(x)
    with torch.no_grad():
        assert (low.float() - backbone(x)).abs().max() < 0.05 * backbone(x).abs().max()


def test_the_way_through_a_file(tmp_path: Path) -> None:
    backbone = build(NAME, width=8)[0].eval()
    file = save(backbone, tmp_path / "ear.safetensors", name=NAME, settings={"width": 8}, preprocessing={"rate": 16000})
    again = load(file)
    x = spectrograms(2, 1, 64, 20)
    with torch.no_grad():
        assert torch.equal(again(x), backbone(x))
    assert again.preprocessing == {"mean": (0.0,), "std": (1.0,), "rate": 16000}
    assert again.embed_dim == 64


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(SeeallError) as fault:
        hearing(width=0)
    assert str(fault.value) == "hearing: width must be at least 1, not 0; 32 is usual"


def test_it_learns_pitch_wherever_it_sounds() -> None:
    """Bands at one of four heights, at any time and loudness, told apart on examples it has not seen."""
    draw = torch.Generator().manual_seed(0)

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.randint(4, (n,), generator=draw)
        x = 0.5 * torch.randn(n, 1, 32, 24, generator=draw)
        for i, c in enumerate(y.tolist()):
            begin = int(torch.randint(16, (1,), generator=draw))
            x[i, 0, 8 * c + 2 : 8 * c + 5, begin : begin + 8] += 1 + 2 * torch.rand(1, generator=draw)
        return x, y

    torch.manual_seed(0)
    network = nn.Sequential(hearing(width=8), nn.Linear(64, 4))
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        x, y = batch(32)
        loss = nn.functional.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, y = batch(200)
    network.eval()
    assert (network(x).argmax(1) == y).float().mean() > 0.9
