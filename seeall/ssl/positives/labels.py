"""`labels`: pictures of one class, or of one person, belong together. Batches of P classes with K pictures each.

Hermans, Beyer and Leibe 2017, "In Defense of the Triplet Loss for Person Re-Identification", arXiv:1703.07737,
section 2.
"""

from __future__ import annotations

from collections import Counter

from seeall.console import log
from seeall.data.pictures import Pictures
from seeall.ssl.positives.belonging import Belonging
from seeall.types import SeeallError

NAMED = 5
"""Classes that a note names."""


def labels(pictures: Pictures, seed: int, *, together: int = 4) -> Belonging:
    """together: K, pictures of a class in a batch; a class that has fewer gives all it has.

    Raises: SeeallError where there are no labels, only one, or no class with two pictures.
    """
    at_least_two(together)
    targets = pictures.targets()
    sizes = Counter(pictures.labels or ())
    single = sorted(name for name, size in sizes.items() if size < 2)
    if len(sizes) < 2:
        raise SeeallError(f"{pictures.source}: all pictures have one label, so there is nothing to tell apart")
    if len(single) == len(sizes):
        raise SeeallError(
            f"{pictures.source}: no label has two pictures, so none belong together; give more, or choose "
            "--positives views"
        )
    if single:
        more = f" and {len(single) - NAMED} more" if len(single) > NAMED else ""
        log.warning(
            "left out, as a picture alone in its class has nothing to be near to: %d of %d classes: %s%s",
            len(single), len(sizes), ", ".join(single[:NAMED]), more,
        )  # fmt: skip
    return Belonging(lambda epoch: targets, together)


def at_least_two(together: int) -> None:
    """SeeallError where a group's share of a batch is no group."""
    if together < 2:
        raise SeeallError(f"setting 'together' is {together}: choose 2 pictures of a group or more; 4 is usual")
