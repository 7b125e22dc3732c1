"""Building a backbone by name, writing one to a file, and reading it back as it was.

The file is a safetensors file with the network's tensors under their own library's names, so that torchvision
or timm can load it without this package. Its header holds, as one JSON text under the key "seeall", what is
needed to rebuild the network and to prepare pictures for it: see `describe`. The bytes are a function of the
tensors and the header alone, so `digest` tells whether two backbones are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from seeall import catalog, durable
from seeall.backbones import timm as timm_backbones
from seeall.backbones import weights as weight_files
from seeall.backbones.contract import Backbone
from seeall.types import SeeallError

FORMAT = 1
"""Version of the header. A file with a higher one is refused."""
_KEY = "seeall"


def factory(name: str) -> Callable[..., Backbone]:
    """The function that builds the backbone `name`, a name of `catalog.BACKBONES` or `timm/NAME`.

    Its keyword-only arguments are the backbone's settings.
    Raises: SeeallError for an unknown name, with the names that are close.
    """
    if name.startswith(timm_backbones.PREFIX):
        return timm_backbones.factory(name.removeprefix(timm_backbones.PREFIX))
    function: Callable[..., Backbone] = catalog.find(catalog.BACKBONES, name, "backbone")
    return function


def build(name: str, weights: str | Path | None = "none", **settings: Any) -> tuple[Backbone, weight_files.Report]:
    """A new backbone, and what became of its weights.

    weights: a .safetensors, .pt or .pth file, a run folder, "DEFAULT" (published by torchvision or timm), or
        "none" for a random start from torch's global generator.
    Raises: SeeallError for an unknown name or setting, weights that cannot be read, and weights of which
        nothing fits.
    """
    backbone = _make(name, settings)
    choice = "none" if weights is None else str(weights)
    if choice.lower() == "none":
        return backbone, weight_files.random_start(backbone)
    if choice.upper() == "DEFAULT":
        tensors, source = weight_files.published(name), f"the DEFAULT weights of {name}"
    else:
        tensors, source = weight_files.read(choice), choice
        _check_same_network(name, weight_files.locate(choice))
    return backbone, weight_files.fill(backbone, tensors, source)


def _make(name: str, settings: Mapping[str, Any]) -> Backbone:
    make = factory(name)
    known = catalog.settings(make)
    for key in settings.keys() - known.keys():
        hint = catalog.suggest(key, known) if known else "it has none"
        raise SeeallError(f"unknown setting {key!r} of backbone {name}: {hint}")
    return make(**{key: catalog.convert(key, value, known[key][0]) for key, value in settings.items()})


def _check_same_network(name: str, path: Path) -> None:
    """Two networks can share a few names and shapes by accident; a file of ours says which one it holds."""
    header = _header(path) if path.suffix == ".safetensors" else None
    if header is not None and header.get("backbone") != name:
        held = header.get("backbone")
        raise SeeallError(f"{path} holds a {held}, not a {name}: choose --backbone {held} or other weights")


def save(
    backbone: Backbone,
    path: str | Path,
    *,
    name: str,
    settings: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write `backbone` to `path`, whole or not at all.

    name, settings: what `build` was given. preprocessing: how pictures were prepared, as `image_size` in px
    and `resize`, the rule; it is laid over the backbone's own `mean` and `std`. extra: anything JSON can hold.
    Raises: SeeallError if it cannot be written, or `path` does not end in .safetensors.
    """
    header = {
        "format": FORMAT,
        "backbone": name,
        "settings": dict(settings),
        "channels": backbone.channels,
        "strides": backbone.strides,
        "embed_dim": backbone.embed_dim,
        "preprocessing": {**backbone.preprocessing, **preprocessing},
        "extra": dict(extra or {}),
    }
    tensors = {key: t.detach().cpu().contiguous() for key, t in backbone.network.state_dict().items()}
    path = Path(path)
    if path.suffix != ".safetensors":
        raise SeeallError(f"a backbone is saved as a .safetensors file, not as {path.name}: change the ending")
    content = to_bytes(tensors, {_KEY: json.dumps(header, sort_keys=True)})
    durable.save(path, lambda file: file.write(content))
    return path


def _header(path: Path) -> dict[str, Any] | None:
    """The header of a safetensors file, None if another program wrote it."""
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        header = None if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SeeallError(f"{path} is damaged ({reason}): copy or save it again") from None
    if header is not None and not isinstance(header, dict):
        raise SeeallError(f"{path} is damaged (its header is no object): copy or save it again")
    return header


def describe(source: str | Path) -> dict[str, Any]:
    """The header of a backbone's file or run folder, without its tensors.

    Returns: format, backbone (its name), settings, channels, strides, embed_dim, preprocessing, extra.
    Raises: SeeallError if it is missing, damaged, of another program or of a newer version.
    """
    path = weight_files.locate(source)
    header = _header(path) if path.suffix == ".safetensors" else None
    if header is None:
        raise SeeallError(f"{path} does not say which backbone it holds: name it by --backbone")
    version = header.get("format")
    if not isinstance(version, int):
        raise SeeallError(f"{path} is damaged (its header has no version): copy or save it again")
    if version > FORMAT and "task" not in header:  # a head counts versions of its own
        raise SeeallError(f"{path} is of a newer version ({version}): upgrade seeall to read it")
    return header


def load(source: str | Path) -> Backbone:
    """The backbone of a file or run folder, in evaluation mode, on the CPU, with its `preprocessing`.

    Leaves torch's global generator as it was.
    Raises: SeeallError if it is missing, damaged, of another program or of a newer version.
    """
    path = weight_files.locate(source)
    header = describe(path)
    try:
        with torch.random.fork_rng(devices=[]):
            backbone = _make(header["backbone"], header["settings"])
        backbone.network.load_state_dict(load_file(path))
        facts = header["preprocessing"].items()
        backbone.preprocessing = {key: tuple(v) if isinstance(v, list) else v for key, v in facts}
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise SeeallError(f"{path} is damaged ({reason}): copy or save it again") from None
    return backbone.eval()


def digest(source: str | Path) -> str:
    """SHA-256 of the backbone's file, or of that in a run folder: 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    with weight_files.locate(source).open("rb") as file:
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()
