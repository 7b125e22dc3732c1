"""How good is a frozen backbone? Neighbours, a linear classifier, retrieval, clusters and pairs, on its features.

The protocol never changes: the backbone in eval mode, never trained here; cosine kNN with k = 20 and 200 at
temperature 0.1 (Wu et al. 2018); multinomial logistic regression; what is measured on pictures alone is measured on
those to test on. The last epoch counts, not the best one. A run that has learnt from sound is also asked which sound
was heard with which of these pictures. What there are too few pictures for is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seeall.console import log
from seeall.data import keyed
from seeall.data.clips import moving
from seeall.data.hearing import find_heard
from seeall.data.pictures import Pictures, find
from seeall.metrics.clustering import nmi
from seeall.metrics.crossmodal import crossmodal
from seeall.metrics.knn import knn_accuracy
from seeall.metrics.linear import linear_accuracy
from seeall.metrics.retrieval import retrieval
from seeall.metrics.verification import verification
from seeall.ssl.listening import FILE, Together
from seeall.ssl.show import comparable
from seeall.training.embed import Eye
from seeall.types import SeeallError

HELD_BACK = 0.2
RANKS = (1, 2, 4, 8, 10)
Embed = Callable[[Pictures, str], tuple[Tensor, list[int]]]


@dataclass(frozen=True)
class Seen:
    """Features z (n, D) of the n pictures that could be read, at `rows` of `pictures`."""

    pictures: Pictures
    z: Tensor
    rows: list[int]

    def labels(self) -> list[str] | None:
        """The label of each row, where there are labels."""
        return [self.pictures.labels[i] for i in self.rows] if self.pictures.labels else None

    def targets(self) -> Tensor | None:
        """(n,) int64: equal where labels are."""
        return self.pictures.targets()[self.rows] if self.pictures.labels else None


@dataclass(frozen=True)
class Found:
    """What `examine` found: figures by flat name, percent where they are shares, and what they were measured on.

    test: the pictures to test on
    together: z (n, D) of their pictures and of what was heard with them in one space, or None without sound
    """

    figures: dict[str, float]
    test: Seen
    together: tuple[Tensor, Tensor] | None = None


def halves(pictures: Pictures, val: Pictures | None, seed: int) -> tuple[Pictures, Pictures]:
    """Pictures to learn from and to test on: `val`, else the splits `pictures` come with, else every fifth of a class.

    Raises: SeeallError where labels are missing, or a half would be empty.
    """
    if val is None and pictures.splits:
        train, val = pictures.split("train"), _held_back(pictures)
    elif val is None:
        train, val = _stratified(pictures, seed)
    else:
        train = pictures
    for half, name in ((train, "learn from"), (val, "test on")):
        half.targets()
        if not len(half):
            raise SeeallError(f"{pictures.source}: no pictures to {name}; give more pictures, or those with --val")
    if not set(train.classes()) & set(val.classes()):
        raise SeeallError(f"{val.source}: has no label in common with {train.source}, so nothing can be tested")
    return train, val


def _held_back(pictures: Pictures) -> Pictures:
    test = pictures.split("test")
    return test if len(test) else pictures.split("val")


def _stratified(pictures: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    """A fifth of each label held back. Frames of one clip stay on one side: they show almost the same."""
    targets = pictures.targets()
    held = torch.zeros(len(pictures), dtype=torch.bool)
    pieces = moving(pictures)
    of_each = torch.split(targets.argsort(stable=True), targets.bincount().tolist())
    for c, rows in enumerate(of_each):
        own = pieces[rows].unique()  # type: ignore[no-untyped-call]
        order = keyed.permutation(len(own), seed, 0x4A1F, c)
        chosen = own[order[: max(1, round(HELD_BACK * len(own)))]]
        held[rows[torch.isin(pieces[rows], chosen)]] = len(own) > 1
    if not bool(held.any()):
        raise SeeallError(
            f"{pictures.source}: each label has one picture or clip alone, so none can be held back; give those to "
            "test on by --val"
        )
    return pictures.subset(torch.nonzero(~held).flatten().tolist()), pictures.subset(
        torch.nonzero(held).flatten().tolist()
    )


def examine(run: Path, data: str, val: str | None = None, *, limit: int | None = None, seed: int = 0) -> Found:
    """Every figure there is of a run folder, or a backbone's file, on the pictures that `data` names.

    val: labelled pictures to test on; else what `halves` finds. Where the run has learnt from sound and the pictures
        come with sounds, figures of both; such pictures need no labels.

    Raises: SeeallError where pictures have neither labels nor, for a run that knows what to do with them, sounds.
    """
    hears = (run / FILE).exists()
    pictures, sounds = _find(data, hears, limit, seed)
    other, others = _find(val, hears) if val else (None, True)
    unlabelled = pictures.labels is None or (other is not None and other.labels is None)
    both = Together.of(run) if sounds and others else None
    if both and unlabelled:
        held = other or (_held_back(pictures) if pictures.splits else pictures)
        seen = look(both.eye.see_all, held if len(held) else pictures, "embedding pictures")
        return _with_sounds(Found({}, seen), both)
    train, test = halves(pictures, other, seed)
    eye = both.eye if both else Eye.of(run)
    learnt = look(eye.see_all, train, "embedding pictures to learn from")
    seen = look(eye.see_all, test, "embedding pictures to test on")
    found = Found(measure(learnt, seen), seen)
    if both is None:
        return found
    try:
        return _with_sounds(found, both)
    except SeeallError as fault:
        log.warning("nothing is measured by sound: %s", fault)
        return found


@torch.no_grad()
def _with_sounds(found: Found, both: Together) -> Found:
    """The same with figures of what was heard. Raises SeeallError where a sound cannot be read."""
    seen = found.test
    images = torch.cat([both.eyes(part.to(both.eye.device)).cpu() for part in torch.split(seen.z, 256)])
    sounds = both.hear(seen.pictures, seen.rows)
    return Found(found.figures | _crossmodal(images, sounds, seen.targets()), seen, (images, sounds))


def _find(data: str, hears: bool, limit: int | None = None, seed: int = 0) -> tuple[Pictures, bool]:
    """The pictures that `data` names, and whether it is known what was heard with them."""
    if hears:
        try:
            return find_heard(data, limit=limit, seed=seed), True
        except SeeallError as fault:
            pictures = find(data, limit=limit, seed=seed)  # says better what is wrong, if it is with the pictures
            log.info("nothing is measured by sound: %s", fault)
            return pictures, False
    return find(data, limit=limit, seed=seed), False


def look(embed: Embed, pictures: Pictures, label: str) -> Seen:
    """The pictures through `embed`, which is told `label` for its progress bar."""
    return Seen(pictures, *embed(pictures, label))


def evaluate(embed: Embed, train: Pictures, test: Pictures) -> dict[str, float]:
    """Every probe on one backbone; see `measure`.

    embed: (pictures, what to call it) → features (n, D) and the rows they belong to, as `Eye.see_all`
    """
    return measure(
        look(embed, train, "embedding pictures to learn from"), look(embed, test, "embedding pictures to test on")
    )


def measure(train: Seen, test: Seen) -> dict[str, float]:
    """Every probe on labelled pictures.

    Returns: in percent knn20, knn200, linear, linear_top5; of every test picture against all others recall@k,
        precision@10, r-precision, map@r; of as many clusters as labels nmi; of their pairs tar@far=…, eer, auc,
        same_or_different, as LFW's protocol measures it, and the deviation of a fold; and how many pictures, classes
        and dimensions that was.
    """
    classes = sorted({*train.pictures.classes(), *test.pictures.classes()})
    place = {name: i for i, name in enumerate(classes)}
    x, y = train.z, _numbers(train, place)
    u, v = test.z, _numbers(test, place)
    top1, top5 = linear_accuracy(x, y, u, v)
    shares = {
        "knn20": knn_accuracy(x, y, u, v, k=20, classes=len(classes)),
        "knn200": knn_accuracy(x, y, u, v, k=200, classes=len(classes)),
        "linear": top1,
        "linear_top5": top5,
    } | _among_themselves(u, v)
    return {name: 100 * share for name, share in shares.items()} | {
        "train_pictures": len(y),
        "test_pictures": len(v),
        "classes": len(classes),
        "dim": x.shape[1],
    }


def _numbers(seen: Seen, place: dict[str, int]) -> Tensor:
    labels: Sequence[str] = seen.labels() or ()
    return torch.tensor([place[name] for name in labels])


def _among_themselves(z: Tensor, labels: Tensor) -> dict[str, float]:
    """What one set of pictures (n, D) and their labels (n,) say by themselves, in [0, 1]."""
    several = int(labels.bincount().max()) > 1
    found = retrieval(z, labels, ks=RANKS) if several else {}
    names = [*(f"recall@{k}" for k in RANKS[:-1]), "precision@10", "r-precision", "map@r"]
    shares = {name: found[name] for name in names if name in found}
    if several and comparable(labels):
        shares["nmi"] = nmi(z, labels)
        called = {"accuracy": "same_or_different", "accuracy_std": "same_or_different_std"}
        pairs = verification(z, labels)
        shares |= {called.get(name, name): x for name, x in pairs.items() if not name.startswith("pairs_")}
    return shares


def _crossmodal(images: Tensor, sounds: Tensor, labels: Tensor | None) -> dict[str, float]:
    """The measures of `crossmodal` that there are, in percent, and how many pairs it was."""
    if len(images) < 2:
        return {"pairs": len(images)}
    if labels is not None and int(labels.bincount().max()) < 2:
        labels = None
    found = crossmodal(images, sounds, labels)
    shares = {name: 100 * share for name, share in found.items() if not name.startswith("queries")}
    return shares | {"pairs": len(images)}
