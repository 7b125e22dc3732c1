"""Optimisers by name, and the learning-rate schedule. Every one lets matrices and kernels decay, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from seeall.types import SeeallError

Groups = list[dict[str, Any]]
_NEXT_TO_NONE = 1e-30
_POSITIONS = ("pos_embedding", "pos_embed")
"""How the names of position embeddings end, in torchvision and in timm."""


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> Groups:
    """Parameters that decay (matrices, kernels) and those that do not (biases, norms, scales, tokens, positions).

    A module's attribute `own_rates`, parameter name → rate, takes parameters of its own out, each with its rate and
    without decay. An attribute `rate_factors` of the whole module, parameter name → factor, scales the rate of some.

    Raises: SeeallError for a rate that is not above 0, or a decay below 0.
    """
    if not 0 < lr < math.inf:
        raise SeeallError(f"the learning rate, --lr, is {lr}: choose a number above 0")
    if not 0 <= weight_decay < math.inf:
        raise SeeallError(f"setting 'weight_decay' is {weight_decay}: choose 0 or more")
    own = [
        {"params": [getattr(part, name)], "weight_decay": 0.0, "lr": rate}
        for part in module.modules()
        for name, rate in getattr(part, "own_rates", {}).items()
    ]
    apart = {id(group["params"][0]) for group in own}
    factors: dict[str, float] = getattr(module, "rate_factors", {})
    trained = [
        (factors.get(name, 1.0), _decays(name, p), p)
        for name, p in module.named_parameters()
        if p.requires_grad and id(p) not in apart
    ]
    groups: Groups = []
    for factor in sorted({1.0, *(factor for factor, *_ in trained)}, reverse=True):
        here = [(decays, p) for own_factor, decays, p in trained if own_factor == factor]
        rate = {} if factor == 1.0 else {"lr": lr * factor}
        groups += [
            {"params": [p for decays, p in here if decays], "weight_decay": weight_decay, **rate},
            {"params": [p for decays, p in here if not decays], "weight_decay": 0.0, **rate},
        ]
    return [*groups, *own]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a matrix or a kernel, which torch calls a weight, however few channels it has.

    No scale of (C, 1, 1), as ConvNeXt's, no token of (1, 1, D) and no position embedding is one: vision transformers
    are trained without decay of these (Touvron et al. 2021, arXiv:2012.12877, in the authors' code).
    """
    own = name.rpartition(".")[2]
    if parameter.ndim <= 1 or own.endswith(_POSITIONS):
        return False
    return "weight" in own or parameter.squeeze().ndim > 1


def _shares(**settings: float) -> None:
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise SeeallError(f"setting {name!r} is {value}: choose a share from 0 and below 1")


def adamw(
    module: nn.Module,
    *,
    lr: float = 2e-3,
    weight_decay: float = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), one fused kernel a step."""
    _shares(beta1=beta1, beta2=beta2)
    groups = parameter_groups(module, lr, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), fused=True)


def unfuse(optimiser: torch.optim.Optimizer) -> None:
    """Let gradients be looked at, as clipping must, between their unscaling after fp16 and the step.

    A fused optimiser unscales them itself, in its step.
    """
    for group in optimiser.param_groups:
        if group.get("fused"):
            group["fused"] = None
    optimiser._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def sgd(
    module: nn.Module, *, lr: float = 0.06, weight_decay: float = 5e-4, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    _shares(momentum=momentum)
    return torch.optim.SGD(parameter_groups(module, lr, weight_decay), lr=lr, momentum=momentum)


def lars(
    module: nn.Module,
    *,
    lr: float = 0.4,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    trust: float = 1e-3,
) -> torch.optim.Optimizer:
    """LARS (You et al. 2017), lightly's: for batches of thousands. Biases and norms go by the rate itself.

    trust: the share of its own length that a matrix moves by at a rate of 1

    Raises: SeeallError where trust is not above 0, or as `parameter_groups`.
    """
    _shares(momentum=momentum)
    if not 0 < trust < math.inf:
        raise SeeallError(f"setting 'trust' is {trust}: choose a number above 0; 0.001 is usual")
    from lightly.utils.lars import LARS

    # what does not decay at all is plain SGD to lightly's, so without decay matrices get one that changes no number
    groups = parameter_groups(module, lr, weight_decay or _NEXT_TO_NONE)
    optimiser: torch.optim.Optimizer = LARS(groups, lr=lr, momentum=momentum, trust_coefficient=trust)
    return optimiser


def cosine(t: int, steps: int, warmup: int) -> float:
    """The factor on the learning rate at step t: linear warm-up, then half a cosine down to 0.

    >>> [round(cosine(t, 10, 2), 3) for t in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    if t < warmup:
        return (t + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (t - warmup) / max(1, steps - warmup)))
