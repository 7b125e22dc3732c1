"""Depth-parallel execution is what an explicit simulation of its ticks says, bit by bit."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, fx, nn

from seeall.backbones.load import build as build_backbone
from seeall.heads import build
from seeall.heads.about import About
from seeall.heads.video.operations import FRAME, Part, _balanced, cut, traced
from seeall.heads.video.parallel import Parallel
from seeall.types import SeeallError

HEADS = {"unet": "resnet18", "fpn": "mobilenet_v3_small", "segnet": "vgg16_bn", "linear": "shufflenet_v2_x0_5"}
"""A backbone for each model."""


@functools.cache
def network(model: str) -> nn.Module:
    """With statistics of its own, so that frames come out as unlike as they go in."""
    torch.manual_seed(0)
    task = "classification" if model == "linear" else "segmentation"
    recipe = build.Recipe(task, model, ("a", "b", "c"), 32, HEADS[model])
    made: nn.Module = build.assemble(recipe, build_backbone(HEADS[model])[0], About(32)).network  # type: ignore[assignment]
    with torch.no_grad():
        made.train()(torch.randn(4, 3, 64, 64))
    return made.eval()


@functools.cache
def graph(model: str) -> fx.GraphModule:
    return traced(network(model), clip(1)[0])


def over(model: str, parts: int, *, wait: bool = True) -> Parallel:
    """For frames as `clip` gives them; its network is traced once for all tests."""
    run = Parallel(network(model), parts=parts, wait=wait, threads=1)
    run._cut, run._shape = cut(graph(model), clip(1)[0], parts), clip(1)[0].shape
    return run


def clip(n: int = 6, height: int = 32, width: int = 48) -> list[Tensor]:
    noise = torch.Generator().manual_seed(n)
    return [torch.randn(1, 3, height, width, generator=noise) for _ in range(n)]


def at_work() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("part")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nothing else sums in another order; nothing is left behind."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    assert torch.get_num_threads() == 1 and not at_work()
    torch.set_num_threads(before)


def plain(model: str, frames: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [network(model)(frame) for frame in frames]


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in zip(found, wanted))


def waiting(parts: list[Part], frames: list[Tensor]) -> list[tuple[int, Tensor]]:
    """Tick by tick, no threads: (tick, result) of each frame. Part p works at tick t on frame t - p."""
    told, values = [], [{FRAME: frame} for frame in frames]
    for tick in range(len(frames) + len(parts) - 1):
        for p, part in enumerate(parts):
            if 0 <= tick - p < len(frames):
                values[tick - p].update(part(values[tick - p]))
        if 0 <= tick - (len(parts) - 1) < len(frames):
            told.append((tick, values[tick - (len(parts) - 1)][parts[-1].gives[0]]))
    return told


def newest(parts: list[Part], frames: list[Tensor]) -> list[Tensor]:
    """By definition: what a part gives at tick t is made of the frame of tick t and what others gave at t - 1; at the
    first tick all is made of the first frame.
    """
    maker = {name: p for p, part in enumerate(parts) for name in part.gives}

    @functools.cache
    def given(p: int, tick: int) -> dict[str, Tensor]:
        before = max(tick - 1, 0)
        return parts[p](
            {name: frames[tick] if name == FRAME else given(maker[name], before)[name] for name in parts[p].takes}
        )

    return [given(len(parts) - 1, tick)[parts[-1].gives[0]] for tick in range(len(frames))]


@pytest.mark.parametrize("model", HEADS)
def test_waiting_is_the_network(model: str) -> None:
    frames = clip()
    wanted = plain(model, frames)
    assert len({float(one.sum()) for one in wanted}) == len(wanted)
    for parts in (1, 2, 3):
        assert same(list(over(model, parts)(frames)), wanted)
    assert same(list(over(model, 1, wait=False)(frames)), wanted)


@pytest.mark.parametrize("model", ["unet", "fpn", "segnet"])
@pytest.mark.parametrize("parts", [2, 4])
def test_threads_do_what_the_simulation_does(model: str, parts: int) -> None:
    frames = clip()
    pieces = cut(graph(model), frames[0], parts)
    told = waiting(pieces, frames)
    assert [tick for tick, _ in told] == [t + parts - 1 for t in range(len(frames))]
    assert same(list(over(model, parts)(frames)), [y for _, y in told])
    fresh = newest(pieces, frames)
    assert same(list(over(model, parts, wait=False)(frames)), fresh)
    assert torch.equal(fresh[0], told[0][1]) and not torch.equal(fresh[-1], told[-1][1])


def test_the_newest_is_mixed_of_the_last_frames_and_of_no_older_ones() -> None:
    """What comes out at tick t depends on the frame of t, which the stems of the U-Net see, to that of t - 2."""
    frames, other = clip(8), clip(9)
    run = over("unet", 3, wait=False)
    wanted = list(run(frames))[7]
    for age in range(8):
        changed = [other[0] if k == 7 - age else frame for k, frame in enumerate(frames)]
        assert torch.equal(list(run(changed))[7], wanted) == (age > 2), age
    still = [frames[0]] * 5
    assert same(list(run(still)), plain("unet", still))


def test_results_come_as_soon_as_they_are_there() -> None:
    for wait, ahead in ((True, 3), (False, 1)):
        asked = 0

        def coming() -> Iterator[Tensor]:
            nonlocal asked
            for frame in clip(7):
                asked += 1
                yield frame

        run = over("fpn", 3, wait=wait)
        assert [asked for _ in run(coming())] == [min(7, k + ahead) for k in range(7)]


def test_clips_of_any_length_and_size() -> None:
    run = Parallel(network("fpn"), parts=3, threads=1)
    for frames in ([], clip(1), clip(2, 40, 33)):
        assert same(list(run(frames)), plain("fpn", frames))
    with pytest.raises(SeeallError, match="of one size, not 33 x 40 px after 32 x 48 px"):
        list(run([*clip(3), *clip(2, 33, 40)]))


def test_parts_cost_about_the_same_and_are_cut_as_well_as_can_be() -> None:
    noise = torch.Generator().manual_seed(0)
    for n, parts in ((1, 1), (6, 3), (8, 4), (5, 7)):
        costs = torch.randint(1, 9, (n,), generator=noise).tolist()
        ends = _balanced(costs, parts)
        some = min(n, parts)
        assert len(ends) == some and ends[-1] == n

        def dearest(ends: tuple[int, ...]) -> float:
            return max(sum(costs[a:b]) for a, b in itertools.pairwise([0, *ends]))  # noqa: B023

        ways = itertools.combinations(range(1, n), some - 1)
        assert dearest(tuple(ends)) == min(dearest((*way, n)) for way in ways)
    costs = [part.cost for part in cut(graph("unet"), clip(1)[0], 2)]
    assert max(costs) < 0.6 * sum(costs)


class Branching(nn.Module):
    """What it does depends on what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if float(x.mean()) > 0 else x - 1


class Drawing(nn.Module):
    """Each time another."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(())


class Several(nn.Module):
    """No tensor comes out."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, 2 * x]


@pytest.mark.parametrize("one", [Branching, Drawing, Several])
def test_what_cannot_be_cut_is_refused_in_one_line(one: type[nn.Module]) -> None:
    with pytest.raises(SeeallError, match=f"^{one.__name__} cannot be cut in parts: .+$"):
        list(Parallel(one())(clip(1)))
    with pytest.raises(SeeallError, match="in 1 part or more, not 0"):
        Parallel(one(), parts=0)


def test_what_goes_wrong_in_a_part_is_raised_and_nothing_is_left() -> None:
    run = over("fpn", 3)
    frames = clip(5)
    part = run.cut(frames[0])[1]

    def broken(*_: Tensor) -> None:
        raise RuntimeError("no such luck")

    part.run.forward = broken
    with pytest.raises(RuntimeError, match="no such luck"):
        list(run(frames))


def test_ctrl_c_and_leaving_early_end_all_threads() -> None:
    run = over("fpn", 2)

    def coming() -> Iterator[Tensor]:
        yield from clip(4)
        os.kill(os.getpid(), signal.SIGINT)
        yield from clip(50)

    with pytest.raises(KeyboardInterrupt):
        list(run(coming()))
    results = run(clip(5))
    next(results)
    assert at_work()
    results.close()
    assert not at_work()


def test_each_part_has_its_share_of_the_cores() -> None:
    seen = set[int]()

    class Asking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    run = Parallel(Asking(), parts=1, threads=3)
    (part,) = run.cut(clip(1)[0])
    ordinary = part.run.forward
    part.run.forward = lambda *given: seen.add(torch.get_num_threads()) or ordinary(*given)
    list(run(clip(3)))
    assert seen == {3}
