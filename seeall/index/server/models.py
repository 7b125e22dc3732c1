"""What is asked and answered, as it is documented at /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, model_validator

MOST_ID = 2**63 - 1
MOST_DIM = 65_536
MOST_K = 100
MOST_PAGE = 1000
"""The last page of items; of search, the deepest neighbour is DEEPEST."""
DEEPEST = 1000
WHERE = 1000
"""Most letters in a filter."""


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fault(_Exact):
    """What went wrong."""

    code: str = Field(description="A word that a program can compare.")
    message: str = Field(description="A line for a person.")
    request_id: str = Field(description="Also in the header X-Request-Id.")


class Error(_Exact):
    """Every answer that is no result."""

    error: Fault


class Health(_Exact):
    """How the service is."""

    status: Literal["ok", "stale"] = Field(description="stale: the folder cannot be read now, an older state is served")
    version: str
    kind: Literal["index", "gallery"]
    name: str = Field(description="The folder's name.")
    items: int = Field(ge=0)
    dim: int = Field(ge=1)
    generation: int = Field(ge=0)


class Item(_Exact):
    """One picture of the index."""

    id: int
    name: str = Field(description="Relative to the folder that all have in common, or the file's name alone.")
    label: str | None
    metadata: dict[str, Any]


class Match(Item):
    """A picture that was found."""

    score: float = Field(ge=-1, le=1, description="Cosine, 1 at most.")


class Found(_Exact):
    """The nearest pictures, best first."""

    query: Item | None = Field(description="The item that was asked for, where it was one.")
    matches: list[Match]
    k: int = Field(ge=1, le=MOST_K)
    page: int = Field(ge=1)
    more: bool = Field(description="Whether there is a next page.")


class Items(_Exact):
    """Pictures of the index, by ascending id."""

    items: list[Item]
    total: int = Field(ge=0, description="How many there are on all pages.")
    k: int = Field(ge=1, le=MOST_K)
    page: int = Field(ge=1)
    more: bool


class Candidate(_Exact):
    """Somebody whom a face resembles."""

    person: str
    score: float = Field(description="Likeness, higher is more.")


class Face(_Exact):
    """Who is on a picture."""

    box: tuple[int, int, int, int] | None = Field(description="x0, y0, x1, y1 in px; null: the whole picture")
    person: str | None = Field(description="null: unknown, nobody here is like enough")
    score: float | None
    candidates: list[Candidate] = Field(description="Best first; empty where the face is unknown.")


class Faces(_Exact):
    """The faces on a picture, from left to right where they are looked for."""

    faces: list[Face]


class Person(_Exact):
    """Somebody of the gallery."""

    name: str
    pictures: int = Field(ge=0)


class People(_Exact):
    """Everybody of the gallery, by name."""

    people: list[Person]


class Ask(_Exact):
    """A search that sends no picture: exactly one of the two."""

    id: Annotated[StrictInt, Field(ge=1, le=MOST_ID)] | None = Field(None, description="An item, its own first match.")
    vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=MOST_DIM)] | None = Field(
        None, description="As long as the index has dimensions, not all zero; need not be normalised."
    )

    @model_validator(mode="after")
    def _one(self) -> Ask:
        if (self.id is None) == (self.vector is None):
            raise ValueError("give either an id or a vector")
        return self
