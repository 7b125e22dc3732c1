"""Keyed randomness: a function of the key, uniform, and free of what one would notice."""

from __future__ import annotations

import torch

from seeall.data import keyed
from seeall.data.sampler import Sampler


def test_a_function_of_the_key_alone() -> None:
    index = torch.tensor([3, 9, 4])
    together = keyed.uniform(7, 1, index, n=5)
    for place, i in enumerate(index):
        assert torch.equal(together[place], keyed.uniform(7, 1, i, n=5))
        assert torch.equal(together[place, :2], keyed.uniform(7, 1, i, n=2))
    assert not torch.equal(keyed.uniform(7, 2, index, n=5), together)
    assert keyed.seed(1, 2) != keyed.seed(2, 1)


def test_splitmix_finaliser_against_python_integers() -> None:
    mask = (1 << 64) - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    for parts in [(0,), (1, 2, 3), (2**62, 5)]:
        x = 0
        for part in parts:
            x = mix(((x ^ part) * golden + golden) & mask)
        assert int(keyed.bits(*parts)) & mask == x


def test_uniform_and_normal_are_what_they_say() -> None:
    u = keyed.uniform(0, torch.arange(20_000), n=4)
    assert u.min() >= 0 and u.max() < 1
    assert (u.mean(0) - 0.5).abs().max() < 0.01 and (u.var(0) - 1 / 12).abs().max() < 0.002
    assert torch.corrcoef(u.T).fill_diagonal_(0).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1].abs() < 0.03
    z = keyed.normal(0, torch.arange(20_000), n=2)
    assert z.isfinite().all() and z.mean().abs() < 0.02 and (z.std() - 1).abs() < 0.02


def test_sampler_gives_every_picture_once_an_epoch_and_shares_by_rank() -> None:
    sampler = Sampler(21, batch=4, seed=5)
    epochs = [torch.cat([sampler(t)[1] for t in range(5 * e, 5 * e + 5)]) for e in range(3)]
    for epoch in epochs:
        assert len(epoch.unique()) == 20
    assert not torch.equal(epochs[0], epochs[1])
    left = {int((set(range(21)) - set(e.tolist())).pop()) for e in epochs}
    assert len(left) > 1
    for t in (0, 7):
        shares = [Sampler(21, batch=4, seed=5, rank=r, world=2)(t)[1] for r in range(2)]
        assert torch.equal(torch.cat(shares), sampler(t)[1])
    assert sampler(7)[0] == 1
