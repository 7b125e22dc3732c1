"""Backbones from timm, as `timm/NAME`, for the names whose networks give feature maps. An optional extra.

A network serves if it has timm's `forward_intermediates`. Its stages are the last map at each stride of 4 px
and more, or all it has. The input is padded to a multiple of the coarsest stride and the maps are cropped to
⌈H / s⌉, which makes the contract hold for networks that refuse or round down other sizes. Padding is seen by
the embedding. A probe of 64 px finds out, when the network is built, whether it keeps the contract.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seeall.backbones.contract import Backbone, pad_to
from seeall.types import SeeallError

PREFIX = "timm/"
PROBE = 64
"""Side of the picture that a new network is tried with, px."""


def _library() -> Any:
    try:
        import timm
    except ImportError:
        raise SeeallError("backbones named timm/… need timm: pip install 'seeall[timm]'") from None
    return timm


def _known(name: str) -> Any:
    """timm, if it knows `name`."""
    timm = _library()
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"did you mean {' or '.join(PREFIX + c for c in close)}?" if close else "see timm.list_models()"
        raise SeeallError(f"unknown timm backbone {PREFIX + name!r}: {hint}")
    return timm


def factory(name: str) -> Callable[[], Backbone]:
    """The function that builds timm's `name` (without "timm/"); it has no settings.

    Raises: SeeallError if timm is not installed or does not know the name.
    """
    _known(name)
    return lambda: _build(name)


def pretrained(name: str) -> dict[str, Tensor]:
    """Tensors of timm's own pretrained weights for `name`; may download."""
    state: dict[str, Tensor] = _known(name).create_model(name, pretrained=True, num_classes=0).state_dict()
    return state


def _network(name: str) -> Any:
    timm = _library()
    try:  # vision transformers must be told to take any size; other networks do not know the word
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(name, num_classes=0)
    except RuntimeError as error:  # a tag, the part after the dot, that timm does not know
        raise SeeallError(f"{PREFIX}{name}: {error}; leave the tag out, or see timm.list_pretrained()") from None


def _walk(network: Any, x: Tensor, *, indices: list[int], strides: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    H, W = x.shape[-2:]
    padded = pad_to(x, max(strides))
    last, maps = network.forward_intermediates(padded, indices=indices, norm=True, output_fmt="NCHW")
    cropped = [m[..., : -(-H // s), : -(-W // s)] for m, s in zip(maps, strides)]
    return cropped, network.forward_head(last, pre_logits=True)


def _build(name: str) -> Backbone:
    network = _network(name)
    facts = getattr(network, "feature_info", None)
    if not hasattr(network, "forward_intermediates") or not isinstance(facts, list):
        raise SeeallError(f"{PREFIX}{name} gives no feature maps: choose another backbone")
    last = {f["reduction"]: i for i, f in enumerate(facts)}
    coarse = {s: i for s, i in last.items() if s >= 4} or last
    strides, indices = tuple(coarse), list(coarse.values())
    channels = tuple(facts[i]["num_chs"] for i in indices)
    walk = partial(_walk, indices=indices, strides=strides)
    network.eval()
    try:
        with torch.no_grad():
            maps, embedding = walk(network, torch.zeros(1, 3, PROBE, PROBE))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SeeallError(f"{PREFIX}{name} does not take any picture size ({reason}): choose another") from None
    wanted = [(1, c, -(-PROBE // s), -(-PROBE // s)) for c, s in zip(channels, strides)]
    if [tuple(m.shape) for m in maps] != wanted:
        raise SeeallError(f"{PREFIX}{name} gives other maps than it names: choose another backbone")
    config = network.pretrained_cfg
    return Backbone(
        network.train(),
        walk,
        channels=channels,
        strides=strides,
        embed_dim=embedding.shape[1],
        preprocessing={"mean": tuple(config["mean"]), "std": tuple(config["std"])},
    )
