"""Settings are signatures: found, typed, checked, and suggested."""

from __future__ import annotations

from typing import Literal

import pytest

from seeall import catalog
from seeall.types import SeeallError


def first(x: int, *, rate: float = 0.1, name: str = "a", stem: Literal["usual", "3x3"] = "usual") -> None: ...
def second(*, rate: float = 0.5, many: int | None = None, on: bool = True) -> None: ...


TARGETS = {"first": first, "second": second}


def test_pairs_go_where_they_belong_and_get_their_type() -> None:
    found = catalog.resolve(TARGETS, ["first.rate=2e-1", "many=none", "on=off", "stem=3x3"])
    assert found == {"first": {"rate": 0.2, "stem": "3x3"}, "second": {"many": None, "on": False}}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("rate=1", "write first.rate or second.rate"),
        ("nme=x", "did you mean name"),
        ("many=1.5", "'many' wants a whole number, not '1.5'"),
        ("on=perhaps", "wants on or off"),
        ("first.rate=fast", "wants a number"),
        ("name", "wants name=value"),
        ("stem=4x4", "'4x4' is not a choice; choose from: 3x3, usual"),
        ("x=1", "unknown setting 'x'"),
    ],
)
def test_faults_name_the_culprit_and_the_mend(pair: str, words: str) -> None:
    with pytest.raises(SeeallError, match=words.replace("'", ".")) as fault:
        catalog.resolve(TARGETS, [pair])
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("table", [catalog.BACKBONES, catalog.OBJECTIVES, catalog.OPTIMISERS])
def test_every_entry_is_there_and_every_setting_has_a_default(table: catalog.Table) -> None:
    for name in table:
        target = catalog.find(table, name, "entry")
        for setting, (_, default) in catalog.settings(target).items():
            assert default is not catalog.inspect.Parameter.empty, f"{name}: {setting}"


def test_one_of_your_own_by_its_place() -> None:
    assert catalog.find({}, "seeall.ssl.simclr:SimCLR", "objective").__name__ == "SimCLR"
    for name in ("no.such:Thing", "seeall.ssl.simclr:Nothing", ":x"):
        with pytest.raises(SeeallError, match="cannot be imported"):
            catalog.find({}, name, "objective")


def test_unknown_name() -> None:
    with pytest.raises(SeeallError, match="unknown backbone 'resnet81': did you mean resnet18"):
        catalog.find(catalog.BACKBONES, "resnet81", "backbone")
