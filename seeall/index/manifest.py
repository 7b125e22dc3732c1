"""`manifest.json`, the truth about an index folder: whatever it does not name does not exist.

It is replaced in one step, and with it the whole index goes from one generation to the next. It carries a
checksum of itself, and one of every file it names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar, final

from seeall.index import durable
from seeall.index.plan import Plan
from seeall.types import SeeallError

NAME = "manifest.json"
FORMAT = 3
"""The folder format that this program writes, and the newest that it reads; 1 had no `uuid` and no `bytes`, and
before 3 every trained file was an inverted file, from so many items on as `ivf_from` said."""
Part = TypeVar("Part")


@final
@dataclass(frozen=True)
class Segment:
    """`rows` vectors in `vectors/<name>.npy` and their item ids in `vectors/<name>.ids.npy`."""

    name: str
    rows: int
    vectors_sha256: str
    ids_sha256: str

    @property
    def vectors_path(self) -> str:
        """(rows, D) float32, each of length one."""
        return f"vectors/{self.name}.npy"

    @property
    def ids_path(self) -> str:
        """(rows,) int64, ascending within a segment and from one segment to the next."""
        return f"vectors/{self.name}.ids.npy"


@final
@dataclass(frozen=True)
class Projection:
    """A trained FAISS file over the living rows among the first `rows`; it can always be built again."""

    path: str
    rows: int
    count: int
    structure: str
    """One of `plan.STRUCTURES`."""
    search: Mapping[str, float]
    """The effort of a search: see `structures.Built`."""
    recall: float
    """recall@10 against exact search, of vectors that were held out while it was built."""
    speed: float
    """Queries a second, all at once, when it was built; 0 where it is not known."""
    sha256: str
    bytes: int = 0
    """The file's size; 0 where it is not known."""


@final
@dataclass(frozen=True)
class Manifest:
    """One generation of an index."""

    dim: int
    model: str
    """Digest of the model whose vectors these are; no others may join them."""
    preprocessing: Mapping[str, Any]
    plan: Plan
    """How it is to be searched."""
    files: Mapping[str, str]
    """Name → SHA-256 of what the caller put into the folder at its creation."""
    created: str
    updated: str
    uuid: str = ""
    """Drawn at the creation: an index that replaces another has a new one, though its generations begin anew."""
    metric: str = "cosine"
    generation: int = 0
    count: int = 0
    removed: int = 0
    """Rows whose item has been removed; `compact` drops them."""
    items_checksum: str = "0"
    segments: tuple[Segment, ...] = field(default=())
    next_segment: int = 1
    """Segment names are never used twice."""
    projection: Projection | None = None
    store: str = ""
    """Where items and vectors are, if not in the folder: the address that `--store` took. Written only then."""

    @property
    def edition(self) -> tuple[str, int]:
        """What tells this manifest from any other that was ever at the same place."""
        return self.uuid, self.generation

    def require_folder(self, root: Path) -> None:
        """Raises SeeallError where items and vectors are elsewhere."""
        if self.store:
            raise SeeallError(
                f"the index {root} keeps its items at {self.store}, and this is for an index that is all in a folder:"
                f" `ssl index merge NEW {root}` makes one of it"
            )

    def write(self, root: Path) -> None:
        """Replace the manifest of `root`: this is the moment of a commit. Raises OSError."""
        body = asdict(self)
        if not self.store:
            del body["store"]
        text = json.dumps({"format": FORMAT, "checksum": _checksum(body), **body}, indent=1)
        durable.write(root / NAME, lambda file: file.write(text.encode()))

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """The generation that `root` is at.

        Raises: SeeallError for a folder that is missing, incomplete, damaged or written by a newer program.
        """
        try:
            raw = json.loads((root / NAME).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if (root / NAME).exists():  # another index has taken the place in between
                return cls.read(root)
            if root.is_dir():
                raise SeeallError(f"{root} is no complete index (no {NAME}): build it again") from None
            raise SeeallError(f"there is no index at {root}: build one with `ssl index build`") from None
        except OSError as error:
            raise unreadable(root, NAME, error) from None
        except ValueError as error:
            raise damaged(root, f"{NAME}: {error}") from None
        if not isinstance(raw, dict) or not isinstance(raw.get("format"), int):
            raise damaged(root, f"{NAME} is not the manifest of an index")
        version, checksum = raw.pop("format"), raw.pop("checksum", None)
        if version > FORMAT:
            raise SeeallError(
                f"the index {root} is in format {version} and this program reads up to {FORMAT}: update seeall"
            )
        if version < 1:
            raise damaged(root, f"{NAME} is of format {version}, and there is none below 1")
        if checksum != _checksum(raw):
            raise damaged(root, f"{NAME} does not match its own checksum")
        try:
            if version < 3:
                _renew(raw)
            raw["plan"] = _made(root, Plan, raw["plan"])
            raw["segments"] = tuple(_made(root, Segment, s) for s in raw["segments"])
            raw["projection"] = _made(root, Projection, raw["projection"]) if raw["projection"] else None
            return _made(root, cls, raw)
        except (KeyError, TypeError) as error:
            raise damaged(root, f"{NAME} is incomplete: {error}") from None


def _renew(raw: dict[str, Any]) -> None:
    """Make the fields of formats 1 and 2 those of 3."""
    raw["plan"] = {"exact_below": raw.pop("ivf_from")}
    if trained := raw["projection"]:
        cells = {"nprobe": trained.pop("nprobe")}
        del trained["nlist"]
        raw["projection"] = {**trained, "structure": "ivf", "search": cells, "speed": 0.0}


def now() -> str:
    """The time, to the second, as ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def damaged(root: Path, what: str) -> SeeallError:
    """The error for a folder whose files are not what was written."""
    return SeeallError(
        f"the index {root} is damaged ({what}): restore it from a copy, or build it again with --overwrite"
    )


def unreadable(root: Path, name: str, error: Exception) -> SeeallError:
    """The error for a file that may be whole, and cannot be read now."""
    reason = getattr(error, "strerror", None) or error
    return SeeallError(f"the index {root} cannot be read: {name}: {reason}; mend that and try again")


def _made(root: Path, kind: type[Part], raw: Mapping[str, Any]) -> Part:
    """Raises SeeallError for a field that a newer program has written, TypeError where one is missing."""
    unknown = raw.keys() - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise SeeallError(
            f"the index {root} has {min(unknown)!r} in its {NAME}, which this program does not know: update seeall"
        )
    return kind(**raw)


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
