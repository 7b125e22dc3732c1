"""Which pictures a head learns from, and which it is judged by."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from seeall.console import log
from seeall.data import keyed
from seeall.data.annotations.truth import Annotated
from seeall.data.clips import moving
from seeall.types import SeeallError

_STREAM = 0x5917
_HELD = 0.2
_NAMED = 5


def divided(
    annotated: Annotated, val: str | None, find: Callable[[str], Annotated], seed: int
) -> tuple[Annotated, Annotated]:
    """Pictures to learn from, and to judge by.

    val: other data, found by `find`, or a share of these; None takes the data's own splits, "train" and "val" or
        "test", or a fifth where there are none

    Raises: SeeallError where either part is empty, or `val` has other classes.
    """
    share = share_of(val)
    if val is not None and share is None:
        held = find(val)
        if list(held.classes) != list(annotated.classes):
            strange = [name for name in held.classes if name not in annotated.classes]
            raise SeeallError(
                f"--val {val} has other classes: {', '.join(strange) or 'fewer, or in another order'}; "
                "say which they are in both by --set names=…"
            )
        if fingerprint(held) == fingerprint(annotated):
            log.warning("--val %s: these are the pictures to learn from, so it will know them better than others", val)
        splits = set(held.pictures.splits or ())
        own = next((held.split(name) for name in ("val", "test") if name in splits), held)
        return _learnt(annotated), own
    splits = set(annotated.pictures.splits or ())
    if share is None and "train" in splits and splits & {"val", "test"}:
        held = next(annotated.split(name) for name in ("val", "test") if name in splits)
        return _learnt(annotated), held
    pool = _learnt(annotated)
    count = max(1, round((_HELD if share is None else share) * len(pool)))
    if count >= len(pool):
        raise SeeallError(
            f"{annotated.pictures.source}: holding {count} of {len(pool)} pictures back leaves none to learn from; "
            "give more pictures, or by --val a smaller share or other data"
        )
    order, clips = _spread(pool, seed), moving(pool.pictures)
    while count < len(order) and clips[order[count - 1]] == clips[order[count]]:
        count += 1  # the rest of a clip is no test of what was learnt from it
    learnt, held = pool.subset(sorted(order[count:])), pool.subset(sorted(order[:count]))
    alone = sorted(set(_labels(held)) - set(_labels(learnt))) if len(set(clips.tolist())) < len(pool) else []
    if alone or not len(learnt):
        which = f" of {', '.join(pool.classes[label] for label in alone)}" if "label" in pool.knows else ""
        raise SeeallError(
            f"{annotated.pictures.source}: one clip{which} cannot be learnt from and judged by; give more, or --val"
        )
    return learnt, held


def fingerprint(annotated: Annotated) -> str:
    """A digest of what the pictures and the classes are."""
    return hashlib.sha256("\0".join([annotated.pictures.fingerprint(), *annotated.classes]).encode()).hexdigest()[:16]


def same_division(before: str | None, now: str | None) -> bool:
    """Whether two values of --val hold the same pictures back, if the second is where the first was, or a copy."""
    return share_of(before) == share_of(now) and (before is None) == (now is None)


def _spread(annotated: Annotated, seed: int) -> list[int]:
    """The pictures in an order drawn by seed, of whose beginning every class has its share where pictures have one.

    Frames of one clip or video stay together.
    """
    clips = moving(annotated.pictures).tolist()
    labels = dict(zip(clips, _labels(annotated)))
    sizes, come = Counter(labels.values()), Counter[int]()
    places = {}
    for place, clip in enumerate(keyed.permutation(len(labels), seed, _STREAM).tolist()):
        come[labels[clip]] += 1
        places[clip] = ((come[labels[clip]] - 0.5) / sizes[labels[clip]], place)
    return sorted(range(len(annotated)), key=lambda i: places[clips[i]])


def _labels(annotated: Annotated) -> Sequence[int]:
    """The class of each picture; 0 where pictures have none."""
    return annotated.notes if "label" in annotated.knows else [0] * len(annotated)


def _learnt(annotated: Annotated) -> Annotated:
    """Those of split train, or all where there are no splits."""
    return annotated.split("train") if "train" in set(annotated.pictures.splits or ()) else annotated


def share_of(val: str | None) -> float | None:
    """`val` as a share of the data, None where it is none."""
    try:
        percent = val is not None and val.strip().endswith("%")
        share = None if val is None else float(val.strip()[:-1]) / 100 if percent else float(val)
    except ValueError:
        return None
    if share is not None and not 0 < share < 1:
        raise SeeallError(f"--val {val}: choose a share between 0 and 1, such as 0.2 or 20%, or other data")
    return share


def require_classes(learnt: Annotated) -> None:
    """Name classes that no picture to learn from shows. Raises SeeallError where pictures show one class alone."""
    if "label" not in learnt.knows:
        return
    seen = set(learnt.notes)
    if len(seen) < 2:
        raise SeeallError(
            f"{learnt.pictures.source}: the pictures to learn from, {len(learnt)}, are all of "
            f"{learnt.classes[seen.pop()]}, so there is nothing to tell apart; give more, by --labels or --limit if so"
        )
    if lacking := [name for k, name in enumerate(learnt.classes) if k not in seen]:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        log.warning("no picture to learn from is of %s%s", ", ".join(lacking[:_NAMED]), more)


def few(annotated: Annotated, labels: str | None, seed: int) -> Annotated:
    """Some of the pictures, drawn by seed: all classes alike where a picture has one class.

    labels: a share, "10%", or a number, "50"; None takes all

    Raises: SeeallError where it is neither, or more than there are.
    """
    if labels is None:
        return annotated
    text = labels.strip()
    try:
        count = round(float(text[:-1]) / 100 * len(annotated)) if text.endswith("%") else int(text)
    except (ValueError, OverflowError):
        raise SeeallError(f"--labels {labels}: give a share such as 10%, or a number of pictures") from None
    if not 1 <= count <= len(annotated):
        raise SeeallError(
            f"--labels {labels} asks for {count} of the {len(annotated)} pictures to learn from; choose 1 to "
            f"{len(annotated)}, or 100%"
        )
    return limited(annotated, count, seed)


def limited(annotated: Annotated, limit: int | None, seed: int) -> Annotated:
    """At most so many of the pictures, drawn in the same way. Raises SeeallError for a limit below 1."""
    return annotated if limit is None else annotated.subset(_drawn(annotated, limit, seed))


def _drawn(annotated: Annotated, count: int, seed: int) -> list[int]:
    marked = dataclasses.replace(annotated.pictures, metadata=[{"row": i} for i in range(len(annotated))])
    return [int(row["row"]) for row in marked.limit(count, seed).metadata or ()]
