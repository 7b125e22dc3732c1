"""What items are called outside: no folder of the disk is told.

Under the folder that all items have in common, a name is what follows it. Where they have none, or only one just
below the root of the disk, which says whose the files are, a name is the file's alone.
"""

from __future__ import annotations

import os
from typing import Any, final

_SHALLOW = 2
"""A common folder of fewer parts than this below the root is none."""


@final
class Names:
    """span: the first and the last of all absolute paths, in order; None where there is none."""

    def __init__(self, span: tuple[str, str] | None) -> None:
        root = os.path.commonpath([path.rpartition("/")[0] or "/" for path in span]) if span else ""
        self.root = root if len(root.strip("/").split("/")) >= _SHALLOW else ""

    def name(self, path: str) -> str:
        """What the item at `path` is called."""
        if not path.startswith("/"):
            return clean(path)
        if self.root and path.startswith(self.root + "/"):
            return clean(path[len(self.root) + 1 :])
        return clean(path.rpartition("/")[2])

    def bare(self, value: Any) -> Any:
        """A value of an item's metadata, absolute paths in it replaced by names."""
        if isinstance(value, str):
            return self.name(value) if value.startswith("/") else clean(value)
        if isinstance(value, dict):
            return {clean(str(key)): self.bare(inner) for key, inner in value.items()}
        return [self.bare(inner) for inner in value] if isinstance(value, list) else value


def clean(text: str) -> str:
    """Text that JSON can carry: names of files need not be."""
    return text.encode("utf-8", "replace").decode()
