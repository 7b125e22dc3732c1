"""Who is on a picture, where the index is a gallery of people."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, final

from seeall.data.decode import Pixels
from seeall.index.faces.find import Finder
from seeall.index.faces.gallery import Gallery, Match
from seeall.index.faces.settings import NAME, Settings
from seeall.index.protocol import Store
from seeall.index.segments import Floats
from seeall.index.server.errors import Refusal
from seeall.index.store import Index
from seeall.training.embed import Eye
from seeall.types import SeeallError


class Cut(NamedTuple):
    """A face: box: x0, y0, x1, y1 in px of the picture, None where the whole picture is one; pixels: (h, w, 3)."""

    box: tuple[int, int, int, int] | None
    pixels: Pixels


Finding = Callable[[str, str | None], Finder | None]
"""What a gallery remembers of how faces are found, a name and a run → pixels to faces, or None: each picture is one."""


@final
class People:
    """The people of a gallery as it is at one generation. Raises: SeeallError where it is damaged."""

    def __init__(self, index: Index, eye: Eye, finding: Finding) -> None:
        settings = Settings.read(index.path)
        self._gallery = Gallery(index, settings, eye)
        self._finder = finding(settings.find, settings.find_run)
        self._one = threading.Lock()
        self.known: dict[str, int] = self._gallery.people
        self._threshold: float | None = None
        with suppress(SeeallError):  # it says so where it is asked
            self._threshold = self._gallery.threshold() if self.known else None

    @property
    def whole(self) -> bool:
        """Whether each picture is a face as it is."""
        return self._finder is None

    def faces(self, pixels: Pixels) -> list[Cut]:
        """The faces on a picture (H, W, 3)."""
        if self._finder is None:
            return [Cut(None, pixels)]
        with self._one:
            return [Cut(face.box, face.pixels) for face in self._finder(pixels)]

    def require(self) -> None:
        """Raises Refusal where it is not known how like a stranger may be."""
        if self.known and self._threshold is None:
            raise Refusal(409, "not_calibrated", "this gallery cannot tell strangers yet: `ssl faces calibrate` it")

    def identify(self, vectors: Floats, k: int) -> list[list[Match]]:
        """At most k (person, score) for each of `vectors` (n, D), best first; none: unknown."""
        if not self.known or not len(vectors):
            return [[] for _ in vectors]
        return self._gallery.identify(vectors, k, threshold=self._threshold)


def people_of(index: Store, eye: Eye, finding: Finding) -> People | None:
    """The people of an index that is a gallery, else None. Raises: SeeallError where it is damaged."""
    if isinstance(index, Index) and (index.path / NAME).exists():  # no gallery is kept in Milvus
        return People(index, eye, finding)
    return None


def whole(name: str, run: str | None) -> None:
    """How faces are found where nobody says how: not at all. Raises: SeeallError where they must be."""
    if name != "none":
        raise SeeallError(f"this gallery finds faces by {run or name}, which nobody has brought along")
