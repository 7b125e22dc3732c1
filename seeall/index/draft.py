"""A new index, built out of sight and put in its place whole.

It grows in a hidden folder beside its own, `.NAME.tmp-…`, and takes its name at its first commit, in one
step; with `overwrite` it changes places with the old index, which is then deleted. A draft whose builder died
is recognised by its free lock, and cleared away when the next one of that name is begun. An old index that
was moved aside for a new one which never came is given its name back: see `durable.restore`.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, final

from seeall.durable import PARTIAL, sync_folder
from seeall.index import durable, items
from seeall.index import manifest as manifests
from seeall.index.durable import ERASING, LOCK, Lock
from seeall.index.manifest import Manifest
from seeall.types import SeeallError

_BUILDING = "building"
_FOLDERS = ("vectors", "index")
_OWN = {manifests.NAME, items.NAME, LOCK, ERASING, _BUILDING, *_FOLDERS}
_MADE = re.compile(
    r"items\.sqlite-(wal|shm|journal)|skipped\.csv|vectors/\d{6,}(\.ids)?\.npy|index/\d{8,}\.faiss"
    r"|(.*/)?\.nfs[0-9a-f]+"
)
"""What else comes into an index folder in its life; some names with PARTIAL behind them for a moment."""


@final
class Draft:
    """An empty index on its way to `target`.

    retired: the manifests of those that went for it, drafts and the index in whose place it came, for whoever keeps
    something of theirs elsewhere.

    Raises: SeeallError where something is in the way that may not be replaced, and where the disk cannot
    take it.
    """

    def __init__(self, target: Path, fields: Mapping[str, Any], files: Mapping[str, Path], overwrite: bool) -> None:
        self.target, self._overwrite, self._names = target.resolve(), overwrite, frozenset(files)
        self.retired: list[Manifest] = []
        durable.restore(self.target)
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
        """Take the target's place; waits for whoever is writing there.

        Raises: SeeallError where that cannot be, and leaves the target and the draft as they are.
        """
        durable.restore(self.target)
        with durable.reported(self.target), ExitStack() as held:
            self._check_target()
            if not self.target.exists() or not any(self.target.iterdir()):
                self.root.replace(self.target)
                sync_folder(self.target.parent)
            else:
                for name in (LOCK, _BUILDING):
                    held.enter_context(closing(Lock(self.target / name, wait=True)))
                self._check_target()
                durable.exchange(self.root, self.target)
                self._delete(self.root)
        with suppress(OSError):  # it is there, whatever becomes of the mark
            (self.target / _BUILDING).unlink()
        self._lock.close()

    def discard(self) -> None:
        """Give it up."""
        _delete(self.root)
        self._lock.close()

    def _delete(self, folder: Path) -> None:
        with suppress(SeeallError):  # what is damaged has none
            self.retired.append(Manifest.read(folder))
        _delete(folder)

    def _fill(self, fields: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        if not fields.get("store"):
            for folder in _FOLDERS:
                (self.root / folder).mkdir()
            items.Items.create(self.root)
        digests = {name: self._copy(name, source) for name, source in files.items()}
        time = manifests.now()
        Manifest(**fields, files=digests, created=time, updated=time, uuid=secrets.token_hex(16)).write(self.root)

    def _copy(self, name: str, source: Path) -> str:
        if name in _OWN or Path(name).name != name:
            raise SeeallError(f"a file in an index cannot be called {name!r}: choose another name")
        with source.open("rb") as original:
            return durable.write(self.root / name, lambda file: shutil.copyfileobj(original, file))

    def _check_target(self) -> None:
        """Only an index, whole or not, is ever replaced: nobody loses a folder of photographs to --overwrite."""
        if self.target.is_file():
            raise SeeallError(f"{self.target} is a file: choose another folder for the index")
        if not self.target.exists() or not any(self.target.iterdir()):
            return
        other = next(_strangers(self.target, self._names), None)
        if other:
            raise SeeallError(f"{self.target} holds other files ({other}): choose a folder of its own for the index")
        if not self._overwrite:
            raise SeeallError(f"there is already an index at {self.target}: --overwrite replaces it")

    def _clear_dead_drafts(self) -> None:
        """Of this name, and an old index that was not deleted to the end; never the only one there is."""
        for folder in durable.hidden(self.target):
            if durable.retired(folder) and not (self.target / manifests.NAME).is_file():
                continue
            with suppress(SeeallError, OSError):
                if (folder / _BUILDING).is_file():
                    with closing(Lock(folder / _BUILDING)):
                        self._delete(folder)
                else:  # it died before its first file, or after its last
                    folder.rmdir()


def _strangers(root: Path, files: Collection[str]) -> Iterator[str]:
    """What is in the folder `root` and in no index, `files` being the names that a caller gives to his own."""
    try:
        raw = json.loads((root / manifests.NAME).read_bytes())
        ours = isinstance(raw, dict) and {"format", "checksum"} <= raw.keys()
        files = {*files, *raw.get("files", ())} if ours else files
    except (OSError, ValueError, TypeError):  # missing or damaged: an index nevertheless if its database is there
        ours = (root / items.NAME).is_file()
    found = list(root.iterdir())
    for folder in _FOLDERS:
        found += (root / folder).iterdir() if (root / folder).is_dir() else ()
    for path in sorted(found):
        name = path.relative_to(root).as_posix()
        known = name.removesuffix(PARTIAL)
        file = name in _OWN or known in (*files, manifests.NAME) or _MADE.fullmatch(known)
        if not (name in _FOLDERS if path.is_dir() else file):
            yield name
    if not ours:
        yield manifests.NAME if (root / manifests.NAME).exists() else min(found).name


def _delete(folder: Path) -> None:
    """Delete an index or a draft, its mark last: so whoever finds the rest knows what it was."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != _BUILDING:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
