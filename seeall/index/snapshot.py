"""One generation of an index, opened for reading: what a reader sees until it asks for a newer one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, final

import numpy as np

from seeall.index import durable
from seeall.index.items import Items, Known
from seeall.index.manifest import Manifest, Projection, unreadable
from seeall.index.segments import Floats, Ids, Mask, Rows
from seeall.types import SeeallError

_ATTEMPTS = 20


@final
class Snapshot:
    """manifest, rows and items of one generation; alive: (N,) bool, which positions still have an item.

    trained: the FAISS file, open, since it may be gone from the folder by the time somebody searches; None where
    there is none, or where it is missing: it can be done without.

    No lock is needed. What a commit or `--overwrite` changes between two of our steps shows in the manifest, and we
    begin again with the new one. Once the database stays as it is for us, only a file that is tidied away in the
    moment before it is opened makes us do so.

    Raises: SeeallError for a folder that is missing, incomplete, damaged, unreadable or of a newer format.
    """

    def __init__(self, root: Path) -> None:
        for _ in range(_ATTEMPTS):
            manifest = _current(root)
            try:
                if self._open(root, manifest):
                    return
            except SeeallError:
                if _current(root).edition == manifest.edition:
                    raise
        raise SeeallError(f"the index {root} is changing too fast to be opened: try again")

    def _open(self, root: Path, manifest: Manifest) -> bool:
        """Whether everything that was opened belongs to `manifest`; nothing stays open where it does not."""
        manifest.require_folder(root)
        self.root, self.manifest = root, manifest
        self.items, self.trained = Items(root), None
        good = False
        try:
            self.trained = _opened(root, manifest.projection)
            if _current(root).edition == manifest.edition:
                self.rows = Rows(root, manifest.segments, manifest.dim)
                self.alive: Mask = ~np.isin(self.rows.ids, self.items.removed(manifest.generation))
                good = _current(root).uuid == manifest.uuid  # another index has files of the same names
        finally:
            if not good:
                self.close()
        return good

    @property
    def ids(self) -> Ids:
        """(n,) the items of this generation, ascending."""
        return self.rows.ids[self.alive]

    def walk(self, size: int) -> Iterator[tuple[Ids, Floats]]:
        """See `known.walk`; goes on when this is closed."""
        for positions, vectors in self.rows.blocks(self.alive):
            for start in range(0, len(positions), size):
                part = slice(start, start + size)
                yield self.rows.ids[positions[part]], np.ascontiguousarray(vectors[part])

    def files(self, paths: Sequence[str]) -> dict[str, Known]:
        """See `known.files`."""
        records = self.items.by_path(paths, self.manifest.generation)
        known = self.items.stamps([r.id for r in records.values()])
        return {path: (r, known.get(r.id)) for path, r in records.items()}

    def records(self, ids: Ids) -> list[Known]:
        """See `known.records`."""
        found = self.items.by_id(ids.tolist(), self.manifest.generation)
        known = self.items.stamps(ids.tolist())
        return [(found[i], known.get(i)) for i in ids.tolist()]

    def keys(self) -> set[str]:
        """See `known.keys`."""
        return self.items.keys(self.manifest.generation)

    def beginning(self, start: str) -> list[str]:
        """See `Items.beginning`."""
        return self.items.beginning(start, self.manifest.generation)

    def close(self) -> None:
        """Let go of the database; the mapped vectors go with the last array that uses them."""
        self.items.close()
        if self.trained:
            self.trained.close()


def _current(root: Path) -> Manifest:
    durable.restore(root)
    return Manifest.read(root)


def _opened(root: Path, projection: Projection | None) -> BinaryIO | None:
    if not projection:
        return None
    try:
        return (root / projection.path).open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(root, projection.path, error) from None
