"""What is served, and how it is asked: pictures cut in a few threads, everything else done by the one that sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar, final

from torch import Tensor

from seeall.data.pixels import cores
from seeall.index.gpus import Gpu
from seeall.index.server.batch import Batcher, Full
from seeall.index.server.errors import Refusal
from seeall.index.server.figures import Figures
from seeall.index.server.people import Cut, Finding, whole
from seeall.index.server.pictures import Thumbs, read
from seeall.index.server.shelf import Hit, Query, Shelf
from seeall.training.embed import square

P = ParamSpec("P")
T = TypeVar("T")


@final
class Service:
    """The index at `folder`, ready to be asked. Raises: SeeallError where it cannot be opened."""

    def __init__(self, folder: Path, gpu: Gpu = "auto", finding: Finding = whole) -> None:
        self.shelf = Shelf(folder, gpu, finding)
        self.thumbs = Thumbs()
        self.figures = Figures(lambda: len(self.shelf.now.index), lambda: self.shelf.now.generation)
        self._pool = ThreadPoolExecutor(cores(), "pictures")
        self._batcher: Batcher[Query, Hit] = Batcher(self.shelf.answer, self.shelf.refresh, self.figures.batch)

    def close(self) -> None:
        """Finish what was asked, and let go of the files."""
        self._batcher.close()
        self._pool.shutdown()
        self.shelf.close()

    async def aside(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What `work` returns, done in a thread while others are answered."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **named))

    async def cut(self, data: bytes) -> Tensor:
        """A picture's file → (3, S, S) uint8, as the network of the index sees it. Raises Refusal."""
        size = self.shelf.now.eye.size
        return await self.aside(lambda: square(read(data, size), size))

    async def faces(self, data: bytes) -> tuple[list[Cut], list[Tensor]]:
        """A picture's file → the faces on it, and as the network sees them. Raises Refusal."""
        shelf = self.shelf.now
        if shelf.people is None:
            raise Refusal(404, "no_gallery", "this is no gallery of people: there is nobody to be recognised")
        people, size = shelf.people, shelf.eye.size

        def look() -> tuple[list[Cut], list[Tensor]]:
            faces = people.faces(read(data, size if people.whole else None))
            return faces, [square(face.pixels, size) for face in faces]

        people.require()
        return await self.aside(look)

    async def find(self, query: Query) -> Hit:
        """The answer to `query`, in one batch with others who ask now. Raises Refusal."""
        try:
            future = self._batcher.submit(query)
        except Full:
            raise Refusal(503, "busy", "too many searches wait: try again in a moment") from None
        return await asyncio.wrap_future(future)
