"""What only a GPU can show: `pytest -m gpu`. Elsewhere all of it is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seeall.backbones.load import build
from seeall.data.pictures import find
from seeall.data.pixels import load
from seeall.data.sampler import Sampler
from seeall.ssl.pretrain import Feed, Pretraining, pretrain
from seeall.ssl.projector import projector
from seeall.ssl.simclr import SimCLR
from seeall.ssl.views import Views
from seeall.training.embed import Eye, Normalise
from seeall.training.engine import launch
from seeall.training.loop import fit
from seeall.training.optimisers import adamw
from seeall.training.run import Run

pytestmark = pytest.mark.gpu
WORLD = "scenes:n=256,size=32"


def parts(n: int = 64) -> tuple[Pretraining, Feed]:
    device = torch.device("cuda:0")
    torch.manual_seed(0)
    network, _ = build("resnet18")
    normalise = Normalise(network.preprocessing["mean"], network.preprocessing["std"])
    task = Pretraining(network, projector(network.embed_dim), SimCLR(), normalise).to(device)
    store = load(find(WORLD), shortest=32)
    store.to(device)
    return task, Feed(store, Views(), Sampler(len(store), n, 0), task, 32, 0, device)


@pytest.mark.parametrize(("precision", "wanted"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_step_computes_in_half(tmp_path: Path, precision: str, wanted: torch.dtype) -> None:
    """With clipping, which fp16 and a fused optimiser make difficult."""
    task, feed = parts()
    seen = set()
    task.backbone.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    run = Run.create(tmp_path / "r", {}, {"fingerprint": ""})
    results = fit(
        launch(devices=1, precision=precision), task, feed.fetch, adamw, run,
        steps=8, epoch_steps=4, samples=64, clip=1.0, ema=0.9,
    )  # fmt: skip
    assert seen == {wanted} and results["loss"] > 0
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in task.parameters())


def test_a_step_never_waits_for_the_gpu(tmp_path: Path) -> None:
    """Making views, the networks, the loss and the optimiser: nothing asks the GPU for a number."""
    task, feed = parts()
    optimiser = adamw(task)

    def step(t: int) -> None:
        task.training_step(feed.fetch(t))["loss"].backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for t in range(1, 4):
            step(t)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_pretrain_stops_and_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 4, "batch_size": 64, "set": ("checkpoint_seconds=0",), "devices": 1}
    whole = pretrain(WORLD, tmp_path / "a", **options)

    class Killed(Exception): ...

    original = nn.Module.__call__
    calls = 0

    def dies(self: nn.Module, *args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += isinstance(self, SimCLR)
        if calls == 9:
            raise Killed
        return original(self, *args, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(nn.Module, "__call__", dies)
        pretrain(WORLD, tmp_path / "b", **options)
    again = pretrain(WORLD, tmp_path / "b", **options, resume=True)
    assert again["loss"] == pytest.approx(whole["loss"], rel=0.05)


def test_features_are_those_of_the_cpu(tmp_path: Path) -> None:
    network, _ = build("resnet18")
    network.preprocessing["image_size"] = 32
    pictures = find(WORLD)
    found, wanted = (Eye(network, torch.device(d)).see_all(pictures)[0] for d in ("cuda:0", "cpu"))
    cosine = nn.functional.cosine_similarity(found, wanted)
    assert cosine.min() > 0.999


def test_the_loss_is_that_of_the_cpu() -> None:
    z: Tensor = torch.randn(512, 64)
    groups = torch.arange(256).repeat(2)
    on_cpu, on_gpu = (SimCLR()(z.to(d), groups.to(d))["loss"].cpu() for d in ("cpu", "cuda:0"))
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-4)
