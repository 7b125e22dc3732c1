"""Which objective, positives and negatives go together, and what for. Knows no torch.

Who belongs together, what a wrong distance costs and whom to push away are chosen one by one. What makes no
sense is refused, with the reason, before a picture is read.
"""

from __future__ import annotations

from typing import NamedTuple

from seeall import catalog
from seeall.types import SeeallError

VIEWS, LABELS, TIME, SOUND = POSITIVES = ("views", "labels", "time", "sound")
_MINED = ("random", "hard", "semihard", "distance")


class Use(NamedTuple):
    """What an objective is for, and what it goes with; the first of the negatives is what it takes by itself.

    pairs: whether it learns from pairs of rows, so that an odd last one of a group has no part
    """

    purpose: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    pairs: bool = False


USES = {
    "simclr": Use(
        "any pictures; over labels it is SupCon; the one to begin with",
        POSITIVES, ("all", "reweighted", "queue", "neighbours"),
    ),
    "contrastive": Use(
        "same or different? distances that mean something, such as a threshold for faces",
        POSITIVES, ("all", *_MINED, "queue", "neighbours"),
    ),
    "triplet": Use(
        "order of likeness from labels: faces, products",
        POSITIVES, ("semihard", "all", "random", "hard", "distance", "queue", "neighbours"),
    ),
    "margin": Use(
        "the same, with a boundary that is learnt",
        POSITIVES, ("distance", "all", "random", "hard", "semihard", "queue", "neighbours"),
    ),
    "vicreg": Use("small batches, without negatives", POSITIVES, (), pairs=True),
    "barlow_twins": Use("small batches, without negatives; a wide projector", POSITIVES, (), pairs=True),
    "simsiam": Use(
        "small batches, without negatives, nothing besides the network",
        (VIEWS, LABELS, TIME), (), pairs=True,
    ),
    "byol": Use("small batches, without negatives, with a teacher", (VIEWS, LABELS, TIME), (), pairs=True),
    "dino": Use("vision transformers, with a teacher", (VIEWS, LABELS, TIME), (), pairs=True),
    "moco": Use("small batches, with a teacher and its memory", (VIEWS, LABELS), ("queue",), pairs=True),
}  # fmt: skip

_PAIRS = {
    ("time", "queue"): "which frames belong together changes from epoch to epoch, so a memory of them would be wrong",
    ("time", "neighbours"): "the nearest frames of other groups are those just outside the window: late positives, no "
    "negatives",
}


def check(objective: str, positives: str, negatives: str | None) -> str | None:
    """The negatives to take: those asked for, or the objective's own; None where it pushes nothing away.

    An objective of one's own, written "module:Class", goes with everything.

    Raises: SeeallError where the three do not go together, with the reason and what does.
    """
    negatives = None if negatives == "none" and not USES.get(objective, USES["simclr"]).negatives else negatives
    for role, name, names in (("positives", positives, catalog.POSITIVES), ("negatives", negatives, catalog.NEGATIVES)):
        if name is not None and name not in names:
            raise SeeallError(f"unknown {role} {name!r}: {catalog.suggest(name, names)}")
    if objective not in USES:
        return negatives or "all"
    use = USES[objective]
    if positives not in use.positives:
        raise SeeallError(
            f"--objective {objective} does not go with --positives {positives}: "
            f"{_why_not_together(objective, positives)}; it goes with {', '.join(use.positives)}"
        )
    chosen = negatives or (use.negatives[0] if use.negatives else None)
    if chosen is None:
        return None
    if not use.negatives:
        raise SeeallError(f"--objective {objective} pushes nothing away: leave --negatives out")
    rest = [n for n in use.negatives if (positives, n) not in _PAIRS]
    if chosen not in use.negatives:
        raise SeeallError(
            f"--objective {objective} does not go with --negatives {chosen}: {_why_not_apart(objective, chosen)}; "
            f"it goes with {', '.join(rest)}"
        )
    if (positives, chosen) in _PAIRS:
        raise SeeallError(
            f"--positives {positives} does not go with --negatives {chosen}: {_PAIRS[positives, chosen]}; "
            f"choose {', '.join(rest)}"
        )
    return chosen


def whole_pairs(objective: str, views: int, together: int) -> None:
    """That nothing is computed in vain.

    views: of a picture · together: pictures of a group in a batch, 1 where each is a group of its own

    Raises: SeeallError where the rows of a group do not come to pairs, and the objective learns from nothing else.
    """
    if objective not in USES or not USES[objective].pairs or views * together % 2 == 0:
        return
    name, value = ("views", views) if together == 1 else ("together", together)
    raise SeeallError(
        f"setting '{name}' is {value}: --objective {objective} learns from pairs, so the last of {value} would be seen "
        f"for nothing; choose an even number, such as {value + 1}"
    )


def sensible() -> list[tuple[str, str, str | None]]:
    """Every combination that is not refused: objective, positives, negatives."""
    return [
        (objective, positives, negatives)
        for objective, use in USES.items()
        for positives in use.positives
        for negatives in use.negatives or (None,)
        if (positives, negatives) not in _PAIRS
    ]


def _why_not_together(objective: str, positives: str) -> str:
    if positives == SOUND:
        return "one predictor cannot serve pictures and sounds" if objective == "simsiam" else (
            "its teacher looks at pictures alone"
        )  # fmt: skip
    return _PAIRS["time", "queue"]


def _why_not_apart(objective: str, negatives: str) -> str:
    if objective == "moco":
        return "its negatives are what its teacher saw before"
    if negatives == "reweighted":
        return "weights of negatives are those of NT-Xent, which is simclr"
    return "it weighs all negatives, the nearest most, and picks none (reweighted says how much more)"


def lines() -> list[str]:
    """The table in words, a line for each objective."""
    return [
        f"{name}: {use.purpose}. Positives: {', '.join(use.positives)}. "
        f"Negatives: {', '.join(use.negatives) or 'none'}."
        for name, use in USES.items()
    ]


def table() -> str:
    """The same for the README, in Markdown."""
    rows = [("Objective", "What for", "Positives", "Negatives, its own first"), ("---",) * 4]
    rows += [
        (f"`{name}`", use.purpose, ", ".join(use.positives), ", ".join(use.negatives) or "none")
        for name, use in USES.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
