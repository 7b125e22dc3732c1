"""A new index, built out of sight and put in its place whole.

It grows in a hidden folder beside its own, `.NAME.tmp-…`, and takes its name at its first commit, in one
step; with `overwrite` it changes places with the old index, which is then deleted. A draft whose builder died
is recognised by its free lock, and cleared away when the next one of that name is begun.
"""

from __future__ import annotations

import glob
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from seeall.durable import sync_folder
from seeall.index import durable, items
from seeall.index import manifest as manifests
from seeall.index.durable import Lock
from seeall.index.manifest import Manifest
from seeall.types import SeeallError

LOCK = "lock"
_BUILDING = "building"
_FOLDERS = ("vectors", "index")
_OWN = {manifests.NAME, items.NAME, LOCK, _BUILDING, *_FOLDERS}


@final
class Draft:
    """An empty index on its way to `target`.

    Raises: SeeallError where something is in the way that may not be replaced, and where the disk cannot
    take it.
    """

    def __init__(self, target: Path, fields: Mapping[str, Any], files: Mapping[str, Path], overwrite: bool) -> None:
        self.target, self._overwrite = target.resolve(), overwrite
        self._check_target()
        self._clear_dead_drafts()
        self.root = self.target.parent / f".{self.target.name}.tmp-{secrets.token_hex(4)}"
        with durable.reported(target):
            self.root.mkdir(parents=True)
        self._lock = Lock(self.root / _BUILDING)
        try:
            with durable.reported(target):
                self._fill(fields, files)
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Take the target's place. Raises SeeallError, and leaves the target alone, where that cannot be."""
        self._check_target()
        with durable.reported(self.target):
            if not self.target.exists() or not any(self.target.iterdir()):
                self.root.replace(self.target)
                sync_folder(self.target.parent)
            else:
                old = [Lock(self.target / LOCK), Lock(self.target / _BUILDING)]
                durable.exchange(self.root, self.target)
                shutil.rmtree(self.root, ignore_errors=True)
                for lock in old:
                    lock.release()
            (self.target / _BUILDING).unlink()
        self._lock.release()

    def discard(self) -> None:
        """Give it up."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._lock.release()

    def _fill(self, fields: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        for folder in _FOLDERS:
            (self.root / folder).mkdir()
        digests = {name: self._copy(name, source) for name, source in files.items()}
        items.Items.create(self.root)
        time = manifests.now()
        Manifest(**fields, files=digests, created=time, updated=time).write(self.root)

    def _copy(self, name: str, source: Path) -> str:
        if name in _OWN or Path(name).name != name:
            raise SeeallError(f"a file in an index cannot be called {name!r}: choose another name")
        with source.open("rb") as original:
            return durable.write(self.root / name, lambda file: shutil.copyfileobj(original, file))

    def _check_target(self) -> None:
        """Only an index, whole or not, is ever replaced: nobody loses a folder of photographs to --overwrite."""
        if self.target.is_file():
            raise SeeallError(f"{self.target} is a file: choose another folder for the index")
        if not self.target.exists():
            return
        names = {p.name for p in self.target.iterdir()}
        if names and not names & {manifests.NAME, items.NAME}:
            raise SeeallError(f"{self.target} holds other files: choose a folder of its own for the index")
        if names and not self._overwrite:
            raise SeeallError(f"there is already an index at {self.target}: --overwrite replaces it")

    def _clear_dead_drafts(self) -> None:
        for draft in self.target.parent.glob(f".{glob.escape(self.target.name)}.tmp-*"):
            with suppress(SeeallError):
                held = Lock(draft / _BUILDING)
                shutil.rmtree(draft, ignore_errors=True)
                held.release()
