"""Every setting that is a number, of whatever a run is made of: one that is none is refused, by its name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import nn

from seeall import catalog
from seeall.ssl.projector import projector
from seeall.ssl.views import Views
from seeall.training.options import training
from seeall.types import SeeallError


def numbers() -> Iterator[tuple[str, str, Callable[..., Any], tuple[Any, ...]]]:
    """Of every part its name, each of its settings that takes a float, how it is made, and of what."""
    parts: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [("views", Views, ()), ("training", training, ())]
    parts.append(("projector", projector, (8,)))
    for table, given in ((catalog.OBJECTIVES, (8,)), (catalog.NEGATIVES, ()), (catalog.OPTIMISERS, (nn.Linear(2, 2),))):
        for name in table:
            make = catalog.locate(table[name])
            parts.append(
                (name, make, given if table is not catalog.OBJECTIVES or "dim" in catalog.positional(make) else ())
            )
    for part, make, given in parts:
        for name, setting in inspect.signature(make).parameters.items():
            if setting.kind is setting.KEYWORD_ONLY and "float" in str(setting.annotation):
                yield part, name, make, given


NUMBERS = list(numbers())
assert len(NUMBERS) > 40


@pytest.mark.parametrize(
    ("part", "name", "make", "given"), NUMBERS, ids=[f"{part} {name}" for part, name, *_ in NUMBERS]
)
def test_what_is_no_number_is_refused(part: str, name: str, make: Callable[..., Any], given: tuple[Any, ...]) -> None:
    make(*given)
    for bad in (math.nan, -math.inf):
        with pytest.raises(SeeallError) as error:
            make(*given, **{name: bad})
        assert str(bad) in str(error.value) and "\n" not in str(error.value)
        assert name in str(error.value) or name == "lr"
