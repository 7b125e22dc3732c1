"""What commands, search and server ask of an index, wherever it is kept: in a folder (`store.Index`) or in Milvus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from numpy.typing import ArrayLike

from seeall.index.items import Known
from seeall.index.manifest import Manifest
from seeall.index.segments import Floats, Ids
from seeall.index.stamps import Stamp
from seeall.index.store import Item
from seeall.types import SeeallError

Self = TypeVar("Self")


class Away(SeeallError):
    """An index that is elsewhere cannot be read just now, whatever was asked."""


class View(Protocol):
    """One state of an index, for those who ask it several things. `known` and `items` say what the methods do."""

    @property
    def manifest(self) -> Manifest:
        """What it is of; generation and count are those of the state."""
        ...

    def walk(self, size: int) -> Iterator[tuple[Ids, Floats]]: ...

    def files(self, paths: Sequence[str]) -> dict[str, Known]: ...

    def records(self, ids: Ids) -> list[Known]: ...

    def keys(self) -> set[str]: ...

    def beginning(self, start: str) -> list[str]: ...


class Changes(Protocol):
    """One commit in the making: see `commit.Writer`."""

    def append(
        self,
        paths: Sequence[str],
        vectors: ArrayLike,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Ids: ...

    def remove(self, items: Iterable[int | str]) -> int: ...

    def stamp(self, stamps: Mapping[int, Stamp]) -> None: ...


class Store(Protocol):
    """An index: see `store.Index`, whose words these are."""

    def __enter__(self: Self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...

    def __len__(self) -> int: ...

    def __contains__(self, item: int | str) -> bool: ...

    @property
    def path(self) -> Path: ...

    @property
    def dim(self) -> int: ...

    @property
    def preprocessing(self) -> dict[str, Any]: ...

    @property
    def ids(self) -> Ids: ...

    def generation(self) -> int:
        """The one that is open; of an index that keeps none open, the newest there is."""
        ...

    def span(self) -> tuple[str, str] | None: ...

    def require_model(self, digest: str) -> None: ...

    def writer(self) -> AbstractContextManager[Changes]: ...

    def add(
        self,
        paths: Sequence[str],
        vectors: ArrayLike,
        labels: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Ids: ...

    def remove(self, items: Iterable[int | str]) -> int: ...

    def refresh(self) -> bool: ...

    def search(self, vectors: ArrayLike, k: int, where: str | None = None) -> tuple[Ids, Floats]: ...

    def select(self, where: str) -> Ids: ...

    def get(self, item: int | str) -> Item: ...

    def items(self, items: Iterable[int | str]) -> list[Item]: ...

    def check(self) -> list[str]: ...

    def notes(self) -> list[str]: ...

    def info(self) -> dict[str, Any]: ...

    def reading(self) -> AbstractContextManager[View]: ...

    def close(self) -> None: ...
