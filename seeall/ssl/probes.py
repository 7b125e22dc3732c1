"""How good is a frozen backbone? Nearest neighbours, a linear classifier and retrieval on its features.

The protocol never changes: the backbone in eval mode, never trained here; cosine kNN with k = 20 and 200 at
temperature 0.1 (Wu et al. 2018); multinomial logistic regression. The last epoch counts, not the best one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seeall.data import keyed
from seeall.data.pictures import Pictures
from seeall.metrics.knn import knn_accuracy
from seeall.metrics.linear import linear_accuracy
from seeall.metrics.retrieval import retrieval
from seeall.types import SeeallError

HELD_BACK = 0.2
Embed = Callable[[Pictures, str], tuple[Tensor, list[int]]]


def halves(pictures: Pictures, val: Pictures | None, seed: int) -> tuple[Pictures, Pictures]:
    """Pictures to learn from and to test on: `val`, else the splits `pictures` come with, else every fifth of a class.

    Raises: SeeallError where labels are missing, or a half would be empty.
    """
    if val is None and pictures.splits:
        test = pictures.split("test")
        train, val = pictures.split("train"), test if len(test) else pictures.split("val")
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


def _stratified(pictures: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    targets = pictures.targets()
    held = torch.zeros(len(pictures), dtype=torch.bool)
    of_each = torch.split(targets.argsort(stable=True), targets.bincount().tolist())
    for c, rows in enumerate(of_each):
        order = keyed.permutation(len(rows), seed, 0x4A1F, c)
        held[rows[order[: max(1, round(HELD_BACK * len(rows)))]]] = len(rows) > 1
    return pictures.subset(torch.nonzero(~held).flatten().tolist()), pictures.subset(
        torch.nonzero(held).flatten().tolist()
    )


def evaluate(embed: Embed, train: Pictures, test: Pictures) -> dict[str, float]:
    """Every probe on one backbone.

    embed: (pictures, what to call it) → features (n, D) and the rows they belong to, as `Eye.see_all`

    Returns: knn20, knn200, linear, linear_top5 in percent; recall@1, precision@10, map@r of every test picture
        against all others, in percent; and how many pictures, classes and dimensions that was.
    """
    classes = sorted({*train.classes(), *test.classes()})
    place = {name: i for i, name in enumerate(classes)}

    def half(pictures: Pictures, label: str) -> tuple[Tensor, Tensor]:
        z, rows = embed(pictures, label)
        labels: Sequence[str] = pictures.labels or ()
        return z, torch.tensor([place[labels[i]] for i in rows])

    x, y = half(train, "embedding pictures to learn from")
    u, v = half(test, "embedding pictures to test on")
    top1, top5 = linear_accuracy(x, y, u, v)
    found = retrieval(u, v, ks=(1, 10)) if len(set(v.tolist())) < len(v) else {}
    return {
        "knn20": 100 * knn_accuracy(x, y, u, v, k=20, classes=len(classes)),
        "knn200": 100 * knn_accuracy(x, y, u, v, k=200, classes=len(classes)),
        "linear": 100 * top1,
        "linear_top5": 100 * top5,
        **{name: 100 * found[name] for name in ("recall@1", "precision@10", "map@r") if name in found},
        "train_pictures": len(y),
        "test_pictures": len(v),
        "classes": len(classes),
        "dim": x.shape[1],
    }
