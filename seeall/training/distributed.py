"""What several processes need in order to act as one: gathering with gradient, BatchNorm over all of them.

With every process computing the same loss over the gathered batch, and DDP averaging gradients, a two-process
step equals the one-process step on the same global batch.

Threads of gloo that are still at work when the interpreter ends abort the process. They end with the group of
processes, and that ends when nobody holds it any more: see `leave`.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before there is a group: its functions keep for good the one they find
from torch import Tensor, nn


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def leave() -> None:
    """Let go of the other processes, and of gloo's threads, if nobody holds a network that DDP wraps any more."""
    gc.collect()  # such a network refers to itself
    dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """(n, …) of each process → (world·n, …). DDP divides gradients by the world, hence the factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.n = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        start = dist.get_rank() * ctx.n
        return grad[start : start + ctx.n] * world_size()


def gather(x: Tensor) -> Tensor:
    """The rows of all processes, rank by rank, with gradient to one's own; `x` itself where there is one."""
    return x if world_size() == 1 else _Gather.apply(x)


class _Sum(torch.autograd.Function):
    """Sum over processes, in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the batch of all processes, on any device: torch's own runs on GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"want (N, C, …), not {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, …) → same shape."""
        if not self.training or world_size() == 1:
            plain: Tensor = super().forward(input)
            return plain
        x = input if input.dtype == torch.float64 else input.float()
        over = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() / x.shape[1] * world_size()
        mean = _Sum.apply(x.sum(over)) / count
        centred = x - mean.view(shape)
        var = _Sum.apply(centred.square().sum(over)) / count
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean), self.momentum)
            unbiased = (var * count / (count - 1)).detach()
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        out = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = out.to(input.dtype)
        return result


def hold(module: nn.Module) -> None:
    """Keep a module in evaluation mode, whatever mode the network around it is put into."""
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]
    module.held = True  # type: ignore[assignment]


def synchronise_batchnorm(module: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm of `module` but those that are held be over all processes; parameters and names stay."""
    for name, child in module.named_children():
        if not isinstance(child, nn.modules.batchnorm._BatchNorm):
            synchronise_batchnorm(child, device)
        elif not hasattr(child, "held"):
            setattr(module, name, _synchronised(child, device))


def _synchronised(norm: nn.modules.batchnorm._BatchNorm, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        return converted
    synced = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    state = norm.state_dict()
    synced.to(next(iter(state.values()))).load_state_dict(state)
    for new, old in zip(synced.parameters(), norm.parameters()):
        new.requires_grad_(old.requires_grad)
    return synced.train(norm.training)
