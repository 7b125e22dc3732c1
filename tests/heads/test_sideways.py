"""Sideways: against a loop written from the paper, and backpropagation where both are the same; cutting; runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.backbones.load import build as build_backbone
from seeall.heads.about import About
from seeall.heads.action.networks import PerFrame
from seeall.heads.finetune import finetune
from seeall.heads.video.cut import cut
from seeall.heads.video.sideways import Sideways, sideways
from seeall.training import checkpoint
from seeall.training.loop import Stopped
from seeall.types import SeeallError

WORLD = "scenes:n=12,size=32,frames=6,labels=class,classes=3,seed=3"
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18": {"stem": "3x3"}, "vgg16_bn": {}, "mobilenet_v3_small": {}, "shufflenet_v2_x0_5": {},
    "convnext_tiny": {}, "vit_tiny": {"layers": 3}, "timm/resnet10t": {},
}  # fmt: skip


class Layer(nn.Module):
    """tanh(W x + b)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).tanh()


class Skips(nn.Module):
    """Several tensors live at once, some go past a part, and one is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))
        self.scale = nn.Parameter(torch.tensor([0.5, 1, 2, 1, 0.5, 3]))

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu_(self.a(x) * self.scale)
        b = torch.relu_(self.b(a))
        unused = b + 1
        assert unused.shape[1] == 6
        c, half = self.c(b) + a, a.chunk(2, 1)[1]
        return self.d(c) * self.scale + torch.cat([half, half], 1)


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """The order of a sum depends on how many cores share it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Layer(5, 7), Layer(7, 6), Layer(6, 4)).double()


def film(frames: int, step: float, *shape: int) -> list[Tensor]:
    """Frames that move on in a straight line; all alike where step is 0."""
    torch.manual_seed(1)
    first, way = torch.randn(*shape).double(), torch.randn(*shape).double()
    return [first + step * t * way for t in range(frames)]


def loss_of(count: int) -> Callable[[Tensor], Tensor]:
    targets = torch.arange(count) % 3
    return lambda logits: F.cross_entropy(logits, targets)


def exact(network: nn.Module, frames: list[Tensor], loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Gradients of the mean loss over frames, by backpropagation, frame by frame."""
    network.zero_grad()
    for frame in frames:
        (loss(network(frame)) / len(frames)).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def taught(network: nn.Module, frames: list[Tensor], n: int, threads: bool = False) -> list[Tensor]:
    """Gradients by Sideways, by way of `backward`."""
    network.zero_grad()
    told = sideways(cut(network, frames[0], n), frames, loss_of(len(frames[0])), threads=threads)
    told.loss().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def by_hand(network: nn.Sequential, frames: list[Tensor]) -> tuple[float, list[Tensor]]:
    """Section 3.2 in matrices, for layers of tanh(W x + b): loss and gradients."""
    W = [layer.linear.weight.detach() for layer in network]  # type: ignore[union-attr]
    b = [layer.linear.bias.detach() for layer in network]  # type: ignore[union-attr]
    n, ticks, rows = len(W), len(frames), len(frames[0])
    targets = F.one_hot(torch.arange(rows) % 3, W[-1].shape[0])
    h: dict[tuple[int, int], Tensor] = {}
    g: dict[tuple[int, int], Tensor] = {}
    dW, db, met = [0 * w for w in W], [0 * v for v in b], [0] * n
    losses = []
    for t in range(ticks):
        for i in range(n):
            came = frames[t] if i == 0 else h.get((i - 1, t - 1))
            if came is None:
                continue
            h[i, t] = torch.tanh(came @ W[i].T + b[i])
            if i == n - 1:
                e = torch.exp(h[i, t])
                p = e / e.sum(1, keepdim=True)
                losses.append(float(-(targets * p.log()).sum() / rows))
                coming = (p - targets) / rows
            elif (i + 1, t - 1) in g:
                coming = g[i + 1, t - 1]
            else:
                continue
            inner = coming * (1 - h[i, t] ** 2)
            dW[i] += inner.T @ came
            db[i] += inner.sum(0)
            g[i, t] = inner @ W[i]
            met[i] += 1
    assert met == [ticks - 2 * n + i + 2 for i in range(n)]
    gradients = [d / k for dw, dv, k in zip(dW, db, met) for d in (dw, dv)]
    return sum(losses) / len(losses), gradients


def test_it_is_what_the_paper_says() -> None:
    network, frames = mlp(), film(9, 0.3, 4, 5)
    told = sideways(cut(network, frames[0], 3), frames, loss_of(4))
    loss, wanted = by_hand(network, frames)
    assert float(told.loss().detach()) == pytest.approx(loss, abs=1e-12) and len(told.outputs) == 7
    found = taught(network, frames, 3)
    assert all((one - two).abs().max() < 1e-10 for one, two in zip(found, wanted))
    assert all((one - two).abs().max() > 1e-3 for one, two in zip(found[:4], exact(network, frames, loss_of(4))))


def test_the_smoother_the_clip_the_nearer_to_backpropagation() -> None:
    network, errors = mlp(), []
    for step in (0.1, 0.01, 0.001, 0.0):
        frames = film(9, step, 4, 5)
        pairs = zip(taught(network, frames, 3), exact(network, frames, loss_of(4)))
        errors.append(max(float((one - two).abs().max()) for one, two in pairs))
    assert errors[0] > 5 * errors[1] > 25 * errors[2] > 0 and errors[3] < 1e-15


@pytest.mark.parametrize("n", [2, 3, 4])
def test_several_tensors_go_over_a_cut_and_past_a_part(n: int) -> None:
    torch.manual_seed(0)
    network = Skips().double()
    x = torch.randn(4, 6).double()
    parts = cut(network, x, n)
    given, most = [x], 0
    for part in parts:
        given = part(given)
        most = max(most, len(given))
    assert torch.equal(given[0], network(x)) and most == 2
    still = film(2 * n + 1, 0, 4, 6)
    for one, two in zip(taught(network, still, n), exact(network, still, loss_of(4))):
        torch.testing.assert_close(one, two, atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_cut_and_learns_a_still_clip_as_by_backpropagation(family: str) -> None:
    torch.manual_seed(0)
    backbone, _ = build_backbone(family, **FAMILIES[family])
    network = PerFrame(backbone, 3).eval().double()
    still = film(4, 0, 2, 3, 1, 17, 20)
    parts = cut(network, still[0], 3)
    found = [p for part in parts for p in part.parameters]
    assert {id(p) for p in found} == {id(p) for p in network.parameters()} and len(found) == len(set(found))
    given = [still[0]]
    for part in parts:
        given = part(given)
    assert torch.equal(given[0], network(still[0]))
    for one, two in zip(taught(network, still, 2), exact(network, still[:1], loss_of(2))):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-5)  # a ViT resamples its positions in float32


def small(**settings: Any) -> Sideways:
    torch.manual_seed(0)
    backbone, _ = build_backbone("shufflenet_v2_x0_5")
    return Sideways(backbone, 3, About(32), **settings).train()


def test_one_part_is_backpropagation_to_the_last_bit() -> None:
    one, two = small(parts=1), small(parts=1)
    clips = torch.stack(film(5, 0.2, 2, 3, 32, 32), 2).float()
    loss, logits = one.learn(clips, loss_of(2))
    loss.backward()
    wanted = exact(two.frame, list(clips.split(1, 2)), loss_of(2))
    assert all(torch.equal(p.grad, q) for p, q in zip(one.parameters(), wanted))  # type: ignore[arg-type]
    assert all(torch.equal(p, q) for p, q in zip(one.buffers(), two.buffers())) and logits.shape == (2, 3)


@pytest.mark.parametrize("parts", [2, 4])
def test_threads_change_no_bit(parts: int) -> None:
    clips = torch.stack(film(9, 0.2, 2, 3, 32, 32), 2).float()
    seen = []
    for threads in (False, True):
        network = small(parts=parts, threads=threads, dropout=0.5)
        torch.manual_seed(7)
        loss, _ = network.learn(clips, loss_of(2))
        loss.backward()
        seen.append([loss.detach(), *(p.grad for p in network.parameters()), *network.buffers()])
    assert all(torch.equal(one, two) for one, two in zip(*seen))


def test_parts_do_work_side_by_side() -> None:
    """Two parts that wait for each other, which they would forever one after the other."""
    import threading

    class Waits(nn.Module):
        def __init__(self, meet: threading.Barrier) -> None:
            super().__init__()
            self.linear, self.meet, self.waits = nn.Linear(3, 3), [meet], False

        def __deepcopy__(self, memo: Any) -> nn.Module:
            return copy.deepcopy(self.linear, memo)

        def forward(self, x: Tensor) -> Tensor:
            if self.waits:
                self.meet[0].wait(20)
            return self.linear(x)

    meet = threading.Barrier(2)
    network = nn.Sequential(Waits(meet), Waits(meet))
    parts = cut(network, torch.ones(2, 3), 2)
    network[0].waits = network[1].waits = True  # type: ignore[assignment]
    threading.Thread(target=meet.wait, daemon=True).start()  # at the first tick only one has something to do
    assert len(sideways(parts, [torch.ones(2, 3)] * 4, loss_of(2), threads=True).outputs) == 3


def test_precision_is_that_of_backpropagation() -> None:
    network = small(parts=3).eval()
    still = torch.randn(2, 3, 1, 32, 32).expand(-1, -1, 6, -1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = network.learn(still, loss_of(2))
    loss.backward()
    found = [p.grad.clone() for p in network.parameters()]  # type: ignore[union-attr]
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        plain = loss_of(2)(network.frame(still[:, :, :1]))
    plain.backward()
    for one, p in zip(found, network.parameters()):
        assert p.grad is not None and torch.equal(one.isfinite(), p.grad.isfinite())
        assert (one - p.grad).norm() <= 0.02 * p.grad.norm()


def trained(out: Path, **options: Any) -> dict[str, float]:
    given = {
        "start": "none",
        "backbone": "shufflenet_v2_x0_5",
        "batch_size": 2,
        "epochs": 2,
        "image_size": 32,
        "limit": 6,
    }
    sets = ("frames=5", *options.pop("set", ()))
    return finetune(WORLD, out, task="action", model="sideways", **{**given, **options}, set=sets)


def test_accumulated_clipped_and_resumed_it_ends_as_if_never_stopped(tmp_path: Path, at: Callable[[int], None]) -> None:
    sets = ("parts=3", "accumulate=2", "clip=0.1", "dropout=0.3", "ema=0.9")
    trained(tmp_path / "whole", set=sets, steps=3)
    at(2)
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", set=sets, steps=3)
    trained(tmp_path / "cut", set=sets, steps=3, resume=True)
    one, two = (checkpoint.load(tmp_path / run / "checkpoints" / "last") for run in ("whole", "cut"))
    assert [name for name in one["model"] if not torch.equal(one["model"][name], two["model"][name])] == []


def test_a_copy_learns_on_its_own() -> None:
    network = small(parts=2)
    clips = torch.randn(2, 3, 4, 32, 32)
    network.learn(clips, loss_of(2))
    other = copy.deepcopy(network)
    other.learn(clips, loss_of(2))[0].backward()
    assert all(p.grad is None for p in network.parameters()) and all(p.grad is not None for p in other.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"set": ("parts=4",)}, "'frames' is 5: so many parts need clips of 7 frames"),
        ({"set": ("parts=0",)}, "'parts' is 0"), ({"set": ("parts=30", "frames=99")}, "cannot be cut into 30 parts"),
        ({"freeze": "3"}, "part 1 of 2 is frozen"), ({"freeze": "backbone"}, "part 1 of 2 is frozen"),
        ({"set": ("threads=on",), "backbone": "convnext_tiny"}, "draw random numbers"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    if "backbone" in options:
        with pytest.raises(SeeallError, match=words):
            finetune(WORLD, tmp_path / "run", task="action", model="sideways", start="none", **options)
        return
    with pytest.raises(SeeallError, match=words) as told:
        trained(tmp_path / "run", **options)
    assert "\n" not in str(told.value) and not (tmp_path / "run").exists()


def test_what_cannot_be_followed_or_is_too_short_is_said() -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(SeeallError, match="cannot be cut into parts"):
        cut(Asks(), torch.ones(2, 3), 2)
    with pytest.raises(SeeallError, match="3 frames or more, not 2"):
        small().learn(torch.zeros(2, 3, 2, 32, 32), loss_of(2))


@pytest.mark.gpu
@pytest.mark.parametrize("threads", [False, True])
def test_on_a_gpu_it_is_the_same(threads: bool) -> None:
    network, frames = mlp(), film(9, 0.3, 4, 5)
    _, wanted = by_hand(network, frames)
    targets = (torch.arange(4) % 3).cuda()
    frames = [frame.cuda() for frame in frames]
    parts = cut(network.cuda(), frames[0], 3)
    sideways(parts, frames, lambda y: F.cross_entropy(y, targets), threads=threads).loss().backward()
    for p, one in zip(network.parameters(), wanted):
        torch.testing.assert_close(p.grad, one.cuda(), atol=1e-10, rtol=0)
