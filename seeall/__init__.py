"""seeall: learn to see from pictures nobody labelled, and make use of it."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load": "seeall.backbones.load:load",
    "Index": "seeall.index.store:Index",
    "Gallery": "seeall.index.faces.gallery:Gallery",
}


def __getattr__(name: str) -> Any:
    """`seeall.load`, `seeall.Index` and `seeall.Gallery`, imported when they are first asked for."""
    if name in _LAZY:
        from seeall.catalog import locate

        return locate(_LAZY[name])
    raise AttributeError(f"module 'seeall' has no attribute {name!r}")
