"""One generation of an index, opened for reading: what a reader sees until it asks for a newer one."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, final

import numpy as np

from seeall.index.items import Items
from seeall.index.manifest import Manifest, Projection, damaged
from seeall.index.segments import Ids, Mask, Rows
from seeall.types import SeeallError

_ATTEMPTS = 20


@final
class Snapshot:
    """manifest, rows and items of one generation; alive: (N,) bool, which positions still have an item.

    trained: the FAISS file, open, since it may be gone from the folder by the time somebody searches.

    No lock is needed. A writer may replace and tidy away files between two of our steps; then the manifest
    has moved on, and we begin again with the new one.

    Raises: SeeallError for a folder that is missing, incomplete, damaged or of a newer format.
    """

    def __init__(self, root: Path) -> None:
        for _ in range(_ATTEMPTS):
            manifest = Manifest.read(root)
            try:
                self._open(root, manifest)
            except SeeallError:
                if Manifest.read(root).generation == manifest.generation:
                    raise
                continue
            if Manifest.read(root).generation == manifest.generation:
                return
            self.close()
        raise SeeallError(f"the index {root} is changing too fast to be opened: try again")

    def _open(self, root: Path, manifest: Manifest) -> None:
        self.root, self.manifest = root, manifest
        self.items, self.trained = Items(root), None
        try:
            self.trained = _opened(root, manifest.projection)
            self.rows = Rows(root, manifest.segments, manifest.dim)
            self.alive: Mask = ~np.isin(self.rows.ids, self.items.removed(manifest.generation))
        except BaseException:
            self.close()
            raise

    @property
    def ids(self) -> Ids:
        """(n,) the items of this generation, ascending."""
        return self.rows.ids[self.alive]

    def close(self) -> None:
        """Let go of the database; the mapped vectors go with the last array that uses them."""
        self.items.close()
        if self.trained:
            self.trained.close()


def _opened(root: Path, projection: Projection | None) -> BinaryIO | None:
    try:
        return (root / projection.path).open("rb") if projection else None
    except OSError as error:
        raise damaged(root, f"{projection and projection.path}: {error.strerror}") from None
