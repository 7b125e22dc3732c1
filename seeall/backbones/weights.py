"""Weights from elsewhere: a file, a run folder, or what torchvision and timm publish.

Checkpoints wrap a network in other names: `module.` by DDP, `encoder_q.` by MoCo, `student.` and `teacher.`
by DINO, `online_network.` by BYOL, and so on, often nested under "state_dict" or "model". A tensor of the
file matches a tensor of the network if it has its name once such words are stripped, and its shape. Where
several copies match (a student and a teacher, say), the one with most tensors is taken whole; among equals,
the least wrapped, and the words that come first in `WRAPPERS`. Nothing is ever unpickled.

What fits badly is never passed over in silence: `Report` counts and names it, and if no tensor fits at all
that is an error.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision import models

from seeall.backbones import timm as timm_backbones
from seeall.backbones.contract import Backbone
from seeall.backbones.vision import resample_positions
from seeall.types import SeeallError

RUN_FILE = "backbone.safetensors"
"""The backbone's file in a run folder."""

WRAPPERS = (
    "state_dict", "model_state_dict", "model", "module", "_orig_mod", "net", "network", "task",
    "backbone", "trunk", "visual", "online_network", "encoder", "encoder_q", "base_encoder",
    "teacher", "teacher_backbone", "student", "student_backbone", "target_network", "target_encoder",
    "momentum_encoder", "base_momentum", "backbone_momentum", "encoder_k",
)  # fmt: skip
SHOWN = 4
"""How many names a line of the report gives before it only counts."""


@dataclass(frozen=True)
class Report:
    """What became of the tensors. Names are those of the network, but for `unused`, the file's own.

    loaded: how many of the network's `total` tensors were filled; missing: those that were not, because the
    file has none of that name; mismatched: "name file-shape network-shape", not filled either; unused: what
    the file holds besides. BatchNorm's count of batches, which nothing reads, is left out everywhere.
    """

    source: str
    loaded: int
    total: int
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.source == "none":
            return "no weights: the backbone starts from random"
        parts = [f"loaded {self.loaded} of {self.total} tensors from {self.source}"]
        for words, names in (
            ("not in it", self.missing),
            ("of another shape", self.mismatched),
            ("not used", self.unused),
        ):
            if names:
                rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                parts.append(f"{words}: {', '.join(names[:SHOWN])}{rest}")
        return "; ".join(parts)


def locate(source: str | Path) -> Path:
    """The weights file that `source`, a file or a run folder, stands for.

    Raises: SeeallError if there is none.
    """
    path = Path(source)
    if path.is_dir():
        path = path / RUN_FILE
        if not path.is_file():
            raise SeeallError(f"{source} holds no {RUN_FILE}: give a run folder that has one, or a weights file")
    if not path.is_file():
        raise SeeallError(f"no weights at {source}: give a run folder, or a .safetensors or .pt file")
    return path


def read(source: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt or .pth file or of a run folder; nested names joined by dots.

    Raises: SeeallError if it is missing, damaged, or holds pickled objects other than tensors.
    """
    path = locate(source)
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise SeeallError(f"{path} is damaged ({_first_line(error)}): copy or save it again") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes fail in as many ways as there are opcodes
        raise SeeallError(
            f"{path} is damaged or holds pickled objects, which are not loaded because they can run code: "
            "convert it to .safetensors"
        ) from None
    tensors = dict(_flat(content))
    if not tensors:
        raise SeeallError(f"{path} holds no tensors by name: give a file with a state_dict")
    return tensors


def published(name: str) -> dict[str, Tensor]:
    """The DEFAULT weights of torchvision or timm for the backbone `name`; downloads them once.

    Raises: SeeallError if there are none or the download fails.
    """
    is_timm = name.startswith(timm_backbones.PREFIX)
    if not is_timm and name not in models.list_models(module=models):
        raise SeeallError(f"{name} has no DEFAULT weights: give a file or run as --weights, or none")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if is_timm:
                return timm_backbones.pretrained(name.removeprefix(timm_backbones.PREFIX))
            best = models.get_model_weights(name).DEFAULT
            return dict(best.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        raise SeeallError(
            f"the DEFAULT weights of {name} could not be had ({_first_line(error)}): "
            "check the connection, or give a file as --weights"
        ) from None


def random_start(backbone: Backbone) -> Report:
    """The report for no weights at all."""
    return Report("none", 0, sum(not _is_counter(key) for key in backbone.network.state_dict()))


def fill(backbone: Backbone, tensors: Mapping[str, Tensor], source: str) -> Report:
    """Copy into `backbone` the tensors that match it.

    Position embeddings of a vision transformer are resampled to the backbone's grid.
    Raises: SeeallError if no tensor matches.
    """
    wanted = backbone.network.state_dict()
    counted = {key for key in wanted if not _is_counter(key)}
    prefix = _best_prefix(tensors, wanted)
    used = {prefix + key for key in wanted}
    fitted, mismatched = {}, []
    for key, target in wanted.items():
        found = tensors.get(prefix + key)
        if found is None:
            continue
        found = _fit_positions(key, found, target)
        if found.shape == target.shape:
            fitted[key] = found
        else:
            mismatched.append(f"{key} {_shape(found)} {_shape(target)}")
    loaded = counted & fitted.keys()
    if not loaded:
        raise SeeallError(
            f"no tensor of {source} fits the backbone: it has {_sample(tensors)}, "
            f"the backbone wants {_sample(wanted)}; is it another network?"
        )
    backbone.network.load_state_dict(fitted, strict=False)
    return Report(
        source,
        loaded=len(loaded),
        total=len(counted),
        missing=tuple(k for k in wanted if k in counted and prefix + k not in tensors),
        mismatched=tuple(mismatched),
        unused=tuple(k for k in tensors if k not in used and not _is_counter(k)),
    )


def _best_prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The wrapping under which most of the network's tensors are found, with its last dot; maybe ""."""
    hits: dict[str, int] = {}
    for key, tensor in tensors.items():
        for prefix in _wrappings(key):
            target = wanted.get(key.removeprefix(prefix))
            if target is not None:
                hits[prefix] = hits.get(prefix, 0) + 1 + (tensor.shape == target.shape)
    return max(hits, key=lambda prefix: (hits[prefix], _preference(prefix)), default="")


def _wrappings(key: str) -> Iterator[str]:
    """Every prefix of `key` made of wrapping words only.

    >>> list(_wrappings("module.encoder.conv1.weight"))
    ['', 'module.', 'module.encoder.']
    """
    prefix = ""
    yield prefix
    for word in key.split("."):
        if word not in WRAPPERS:
            return
        prefix += word + "."
        yield prefix


def _preference(prefix: str) -> int:
    return -sum(1 + WRAPPERS.index(word) for word in prefix.split(".")[:-1])


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix.rstrip("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}{key}.")


def _fit_positions(key: str, found: Tensor, target: Tensor) -> Tensor:
    if not key.endswith("pos_embedding") or found.ndim != 3 or found.shape[2] != target.shape[2]:
        return found
    if math.isqrt(found.shape[1] - 1) ** 2 != found.shape[1] - 1:
        return found
    side = math.isqrt(target.shape[1] - 1)
    return resample_positions(found, side, side)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def _sample(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:2]) + (", …" if len(listed) > 2 else "") if listed else "none"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
