"""Batches of neighbours: the table against brute force, what is composed of it, and when pictures are looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from seeall.data.pictures import find
from seeall.data.pixels import Store, load
from seeall.data.sampler import Grouped, Sampler
from seeall.index.nearest import nearest
from seeall.ssl.composing import Composed
from seeall.ssl.negatives.neighbours import Neighbours, clusters, compose
from seeall.ssl.positives.belonging import Belonging
from seeall.ssl.positives.labels import labels
from seeall.ssl.positives.views import views
from seeall.types import SeeallError


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clustered(n: int, centres: int, noise: float = 0.3, dim: int = 16) -> Tensor:
    """Row i lies about centre i mod centres."""
    return normalize(randn(centres, dim, seed=1), dim=1)[torch.arange(n) % centres] + noise * randn(n, dim) / dim**0.5


def exact(vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A search: all cosines, sorted."""
    best = (vectors @ vectors.T).sort(dim=1, descending=True, stable=True)
    return best.values[:, :k], best.indices[:, :k]


def by_loop(how: Neighbours, vectors: Tensor) -> list[list[int]]:
    """The rule, one picture at a time: nearest first, without the first `skip` of them and those above the ceiling."""
    unit = normalize(vectors.double() - vectors.double().mean(0), dim=1)
    cosine = unit @ unit.T
    found = []
    for i, row in enumerate(cosine.tolist()):
        asked = sorted(range(len(row)), key=lambda j: -row[j])[: how.asked]
        others = [j for j in asked if j != i][how.skip :]
        found.append([j for j in others if row[j] <= how.ceiling])
    return found


def told(table: Tensor) -> list[list[int]]:
    """The table without its -1, which stand at the end of a row."""
    for row in table.tolist():
        free = row.index(-1) if -1 in row else len(row)
        assert all(x == -1 for x in row[free:])
    return [[x for x in row if x >= 0] for row in table.tolist()]


@pytest.mark.parametrize("search", [exact, nearest])
@pytest.mark.parametrize("skip", [0, 1, 5])
@pytest.mark.parametrize("ceiling", [1.0, 0.95, 0.5, -0.5])
@pytest.mark.parametrize("n", [60, 12])
def test_the_table_equals_a_loop(search: Callable[..., Any], skip: int, ceiling: float, n: int) -> None:
    """Twelve pictures are fewer than are asked for."""
    how = Neighbours(skip=skip, beside=3, ceiling=ceiling)
    vectors = 7 * clustered(n, 5)  # of any length
    table = how.table(search, vectors)
    assert table.dtype == torch.int64 and len(table) == n
    assert told(table) == by_loop(how, vectors)


def test_where_every_neighbour_is_too_near_there_is_none() -> None:
    def alike(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return torch.ones(len(z), k), torch.arange(k).expand(len(z), -1)

    table = Neighbours(ceiling=0.9).table(alike, randn(30, 4, seed=1))
    assert told(table) == [[]] * 30
    rows = compose(table, torch.arange(30), beside=3, together=1, seed=0, epoch=0)
    assert sorted(rows.tolist()) == list(range(30))


def test_the_same_picture_many_times() -> None:
    """Copies are above the ceiling for each other. And a search may find copies alone, and not the picture itself."""
    vectors = torch.cat([clustered(40, 40), randn(1, 16, seed=9).expand(40, -1)])
    how = Neighbours(skip=0, ceiling=0.999)
    table = told(how.table(nearest, vectors))
    assert all(table[:40]) and table[40:] == [[]] * 40
    how = Neighbours(skip=2, ceiling=1.0, beside=1)

    def copies(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return torch.ones(len(z), k), torch.arange(60, 60 + k).expand(len(z), -1)

    assert told(how.table(copies, vectors))[0] == [62, 63, 64, 65, 66]


def test_a_search_that_finds_little() -> None:
    """-1 where there is no more, itself in the middle of the answer."""

    def some(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        cosine = torch.tensor([[0.9, 0.8, 0.7, 0.6, -1.0]] * 3)
        return cosine, torch.tensor([[1, 0, 2, -1, -1], [-1, -1, -1, -1, -1], [2, 1, 0, -1, -1]])

    z = torch.eye(3)
    assert told(Neighbours(skip=0).table(some, z)) == [[1, 2], [], [1, 0]]
    assert told(Neighbours(skip=1).table(some, z)) == [[2], [], [0]]
    assert told(Neighbours(skip=2).table(some, z)) == [[], [], []]
    assert told(Neighbours(skip=0, ceiling=0.75).table(some, z)) == [[2], [], [0]]


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_pictures(n: int) -> None:
    table = Neighbours(skip=0, ceiling=1.0).table(nearest, randn(n, 4))
    assert told(table) == [[1 - i] * (n - 1) for i in range(n)]
    assert sorted(compose(table, torch.arange(n), beside=3, together=1, seed=0, epoch=0).tolist()) == list(range(n))


def stretches(rows: Tensor, table: Tensor, groups: Tensor, beside: int, together: int) -> list[list[int]]:
    """Read back what was composed, and check it against the rule: (anchor, its neighbours), with their groups' mates.

    At each place the anchor is given; which rows must follow it is decided here, from what is still free.
    """
    left, at, listed, found = set(range(len(table))), 0, rows.tolist(), []
    while at < len(listed):
        anchor = listed[at]
        heads, here = [anchor], {int(groups[anchor])}
        at = _mates(listed, at, anchor, left, groups, together)
        for other in table[anchor].tolist():
            if len(here) <= beside and other in left and int(groups[other]) not in here:
                assert listed[at] == other
                here.add(int(groups[other]))
                heads.append(other)
                at = _mates(listed, at, other, left, groups, together)
        found.append(heads)
    assert not left
    return found


def _mates(listed: list[int], at: int, head: int, left: set[int], groups: Tensor, together: int) -> int:
    """The head and, of its group, as many that are free as belong with it; in any order."""
    left.remove(head)
    free = {row for row in left if groups[row] == groups[head]}
    many = min(together - 1, len(free))
    mates = listed[at + 1 : at + 1 + many]
    assert len(set(mates)) == many and free.issuperset(mates)
    left.difference_update(mates)
    return at + 1 + many


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    n=st.integers(1, 60), kinds=st.integers(1, 70), beside=st.integers(1, 5), together=st.integers(1, 5),
    k=st.integers(0, 12), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_anything_composed_follows_the_rule(n: int, kinds: int, beside: int, together: int, k: int, seed: int) -> None:
    """Every row once, each followed by its free neighbours, no group twice among them but for what belongs together."""
    g = torch.Generator().manual_seed(seed)
    table = torch.randint(-1, n, (n, k), generator=g)
    groups = torch.randint(0, kinds, (n,), generator=g) * 1000 - 7
    key = {"beside": beside, "together": together, "seed": seed, "epoch": 3}
    rows, begun = compose(table, groups, **key), clusters(table, groups, **key)
    assert rows.dtype == torch.int64 and sorted(rows.tolist()) == list(range(n))
    for heads in stretches(
        torch.tensor([row for cluster in begun for row in cluster]), table, groups, beside, together
    ):
        assert len(heads) <= beside + 1
        assert len({int(groups[row]) for row in heads}) == len(heads)
    heads_of = {cluster[0]: cluster for cluster in begun}
    at, alone = 0, list[bool]()
    while at < n:  # the same clusters, one after the other, in another order
        cluster = heads_of.pop(int(rows[at]))
        assert rows[at : at + len(cluster)].tolist() == cluster
        at += len(cluster)
        alone.append(int((groups == groups[cluster[0]]).sum()) == 1)
    assert together == 1 or alone == sorted(alone)


def test_composed_by_its_key_alone() -> None:
    table = Neighbours(skip=0, ceiling=1.0).table(exact, clustered(80, 8))
    groups = torch.arange(80)

    def made(seed: int = 0, epoch: int = 0) -> list[int]:
        torch.rand(1)
        return compose(table, groups, beside=3, together=1, seed=seed, epoch=epoch).tolist()

    assert made() == made()
    assert len({tuple(made(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    first = [made(epoch=epoch)[0] for epoch in range(200)]
    assert len(set(first)) > 60  # who begins differs


@pytest.mark.parametrize("together", [1, 4])
def test_batches_are_harder_than_at_random(together: int) -> None:
    """Pictures about 64 centres. Where 4 belong together a centre is a group, and centres themselves are clustered."""
    n, batch = 256, 32
    vectors = clustered(n, 64) + (0 if together == 1 else 1.5 * clustered(n, 16, noise=0))
    groups = torch.arange(n) if together == 1 else torch.arange(n) % 64
    how = Neighbours(skip=0 if together == 1 else 4, ceiling=1.0)
    table = how.table(nearest, vectors)
    order = Grouped(lambda epoch: groups, together, batch, 0) if together > 1 else Sampler(n, batch, 0).epoch
    hard, usual = [], []
    for epoch in range(5):
        rows = compose(table, groups, beside=3, together=together, seed=0, epoch=epoch)
        for found, made in ((hard, rows), (usual, order(epoch))):
            unit = normalize(vectors, dim=1)
            for part in torch.split(made, batch):
                if len(part) == batch:
                    cosine = (unit[part] @ unit[part].T).masked_fill(groups[part, None] == groups[part], -2)
                    found.append(float(cosine.amax(1).mean()))
    assert sum(hard) / len(hard) > sum(usual) / len(usual) + 0.15
    if together > 1:  # most anchors have a positive
        alone = [int((torch.bincount(groups[part]) == 1).sum()) for part in torch.split(rows, batch)]
        assert sum(alone) < n / 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 0}, "setting 'every' of neighbours is 0: choose 1 or more"),
        ({"beside": 0}, "setting 'beside' of neighbours is 0: choose 1 or more"),
        ({"skip": -1}, "setting 'skip' of neighbours is -1: choose 0 or more"),
        ({"ceiling": -1.0}, "setting 'ceiling' of neighbours is -1.0: choose a cosine up to 1; 0.95 is usual"),
        ({"ceiling": 1.01}, "setting 'ceiling' of neighbours is 1.01: choose a cosine up to 1; 0.95 is usual"),
        ({"ceiling": float("nan")}, "setting 'ceiling' of neighbours is nan: choose a cosine up to 1; 0.95 is usual"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SeeallError) as error:
        Neighbours(**given)
    assert str(error.value) == message


WORLD = "scenes:n=24,size=16,identities=6"


@pytest.fixture(scope="module")
def store() -> Store:
    return load(find(WORLD), shortest=16, workers=1)


class Looked(torch.nn.Module):
    """Sees a picture's mean colour in a 4 x 4 grid; counts how often, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.pictures, self.modes = 0, set[bool]()

    def see(self, pixels: Tensor) -> Tensor:
        self.pictures += len(pixels)
        self.modes.add(self.training)
        x = pixels.float() / (255 if pixels.dtype == torch.uint8 else 1)
        return torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) - 0.4


ALONE = SimpleNamespace(world=1, rank=0, everyone=lambda value: [value])


def composed(store: Store, folder: Path, belonging: Belonging | None = None, batch: int = 8, **how: Any) -> Composed:
    """Three micro-batches an epoch, a search every second epoch."""
    belonging = belonging or views(store.pictures, 0)
    order = Grouped(belonging.groups, belonging.together, batch, 0) if belonging.together > 1 else None
    sampler = Sampler(len(store), batch, 0, order=order)
    given = Neighbours(**{"every": 2, "skip": 0, "ceiling": 1.0, **how})
    return Composed(
        given, nearest, belonging, store, Looked(), ALONE,  # type: ignore[arg-type]
        size=16, seed=0, epoch_steps=sampler.steps_per_epoch, folder=folder, before=sampler.epoch,
    )  # fmt: skip


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


@pytest.mark.parametrize("together", [1, 4])
def test_the_first_epochs_are_as_they_would_be(store: Store, tmp_path: Path, together: int) -> None:
    belonging = labels(store.pictures, 0) if together > 1 else views(store.pictures, 0)
    order = Grouped(belonging.groups, 4, 8, 0) if together > 1 else None
    usual, made = Sampler(24, 8, 0, order=order), composed(store, tmp_path, belonging)
    assert made.every == 6
    made.pause(0)
    assert not files(tmp_path) and made.task.pictures == 0
    for epoch in (0, 1, 0):
        assert torch.equal(made(epoch), usual.epoch(epoch))
    made.pause(6)
    for epoch in (2, 3):
        assert not torch.equal(made(epoch), usual.epoch(epoch))
        assert sorted(made(epoch).tolist()) == list(range(24))


def test_what_is_composed_comes_from_what_is_seen(store: Store, tmp_path: Path) -> None:
    """All pictures once, in eval mode, their middle squares; the table is that of their features."""
    made = composed(store, tmp_path)
    made.task.train()
    made.pause(6)
    assert made.task.pictures == 24 and made.task.modes == {False} and made.task.training
    seen = Looked().see(store.middle(torch.arange(24), 16))
    want = made.how.table(exact, seen)
    assert torch.equal(load_file(tmp_path / "neighbours-1.safetensors")["rows"], want)
    for epoch in (2, 3):
        assert torch.equal(
            made(epoch), compose(want, torch.arange(24), beside=3, together=1, seed=0, epoch=epoch)
        )  # fmt: skip


def test_files_are_kept_read_again_and_put_away(store: Store, tmp_path: Path) -> None:
    made = composed(store, tmp_path)
    (tmp_path / "last").touch()  # what else is there is left alone
    kept = []
    for turn in range(5):
        made.pause(6 * turn)
        kept.append(files(tmp_path))
    names = [f"neighbours-{turn}.safetensors" for turn in range(5)]
    assert kept == [["last"], ["last", names[1]], ["last", *names[1:3]], ["last", *names[2:4]], ["last", *names[3:5]]]
    assert made.task.pictures == 4 * 24

    again = composed(store, tmp_path)
    again.pause(6 * 3 + 2)  # in the middle of a stretch
    assert again.task.pictures == 0 and torch.equal(again(7), made(7))
    again.pause(6 * 4)
    assert again.task.pictures == 0 and torch.equal(again(8), made(8))
    assert files(tmp_path) == ["last", *names[3:5]]


def test_a_table_on_disk_is_what_counts(store: Store, tmp_path: Path) -> None:
    """A resumed run goes by the table that was found, not by what it would find now."""
    table = torch.full((24, 3), -1)
    table[:, 0] = (torch.arange(24) + 12) % 24
    save_file({"rows": table}, tmp_path / "neighbours-1.safetensors")
    made = composed(store, tmp_path)
    made.pause(8)
    rows = made(2).tolist()
    assert all(rows[i + 1] == (rows[i] + 12) % 24 for i in range(0, 24, 2))


@pytest.mark.parametrize("content", [b"", b"not a table", "cut"])
def test_a_damaged_table_is_made_again(
    store: Store, tmp_path: Path, content: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    made = composed(store, tmp_path)
    made.pause(6)
    file = tmp_path / "neighbours-1.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    again = composed(store, tmp_path)
    with caplog.at_level(logging.WARNING):
        again.pause(6)
    assert file.read_bytes() == whole and torch.equal(again(2), made(2))


def test_what_an_epoch_leaves_out_is_another_each_time() -> None:
    """40 pictures, of which a batch of 32 takes 32; eight of the 40 are near to no other."""
    n, batch, epochs = 40, 32, 200
    crowd = clustered(n - 8, 4, noise=0.2)
    vectors = torch.cat([crowd, 3 * torch.eye(16)[:8] - crowd.mean(0)])
    table = Neighbours(skip=0, ceiling=1.0).table(exact, vectors)
    count = torch.zeros(n)
    for epoch in range(epochs):
        rows = compose(table, torch.arange(n), beside=3, together=1, seed=0, epoch=epoch)
        count[rows[:batch]] += 1
    assert float(count.min()) > 0.7 * epochs * batch / n
