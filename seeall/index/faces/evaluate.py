"""How well a gallery knows its people from each other and from strangers: figures, and a page of its mistakes."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seeall.console import log
from seeall.data.decode import decode
from seeall.html import CHARTS, Axis, Line, chart, save
from seeall.index.faces.enrol import SAME, Seen
from seeall.index.faces.gallery import Gallery
from seeall.index.faces.score import Doubles
from seeall.index.page import sheet
from seeall.index.segments import Ids
from seeall.metrics.identification import cmc, decisions, identification
from seeall.metrics.verification import verification
from seeall.types import SeeallError

_SHOWN = 24
"""Mistakes of a kind on the page."""
_RANKS = 50
"""Of the curve on the page, at most."""
_COUNTS = ("known", "unknown", "pairs_same", "pairs_different")


@dataclass(frozen=True)
class Evaluated:
    """figures: by flat name, shares in percent; paths, people: of m pictures; names: of P people; scores: (m, P);
    truth: (m,) columns, -1 for a stranger; threshold: None where the gallery is not calibrated."""

    figures: dict[str, Any]
    paths: list[str]
    people: list[str]
    names: list[str]
    scores: Doubles
    truth: Ids
    threshold: float | None


def evaluate(gallery: Gallery, seen: Seen, *, rule: str | None = None, seed: int = 0) -> Evaluated:
    """Measure on pictures of people of whom some are enrolled, by their names, and the rest are strangers.

    Pictures that are themselves enrolled are left out, under whatever name: they find themselves.
    Raises: SeeallError where the gallery is empty, nothing is left, or nobody who is left is enrolled.
    """
    names, _ = gallery.scores(seen.vectors[:0], rule)
    ids, _ = gallery.index.search(seen.vectors, 1)
    nearest = np.stack([item.vector for item in gallery.index.items(ids[:, 0].tolist())])
    same = np.abs(nearest - seen.vectors).max(1) <= SAME
    fresh = [i for i, path in enumerate(seen.paths) if path not in gallery.index and not same[i]]
    left_out = len(seen.paths) - len(fresh)
    if left_out:
        log.warning("left out %d of %d pictures: they are enrolled", left_out, len(seen.paths))
    if not fresh:
        raise SeeallError(f"all pictures are those that {gallery.path} was made of: evaluate it on others")
    _, scores = gallery.scores(seen.vectors[fresh], rule)
    people = [seen.people[i] for i in fresh]
    truth = np.array([names.index(person) if person in names else -1 for person in people])
    _, who = np.unique(np.array(people), return_inverse=True)
    table, right = torch.from_numpy(scores), torch.from_numpy(truth)
    shares = identification(table, right, torch.from_numpy(who), seed=seed)
    threshold = None
    if gallery.settings.calibration:
        threshold = gallery.threshold(rule)
        shares |= decisions(table, right, threshold)
    if len(set(people)) > 1 and len(set(people)) < len(people):
        found = verification(torch.from_numpy(seen.vectors[fresh]), torch.from_numpy(who), seed=seed)
        kinds = {"accuracy": "same_or_different", "accuracy_std": "same_or_different_std"}
        shares |= {kinds.get(name, name): share for name, share in found.items()}
    figures = {name: value if name in _COUNTS else 100 * value for name, value in shares.items()}
    counts = {
        "known_people": len({p for p, t in zip(people, truth) if t >= 0}),
        "unknown_people": len({p for p, t in zip(people, truth) if t < 0}),
    }
    return Evaluated(
        {**figures, **counts, "left_out": left_out},
        [seen.paths[i] for i in fresh], people, names, scores, truth, threshold,
    )  # fmt: skip


def page(path: Path, gallery: Gallery, evaluated: Evaluated) -> None:
    """Write the figures and the worst mistakes as a page. Raises SeeallError where the disk refuses."""
    best, who = evaluated.scores.max(1), evaluated.scores.argmax(1)
    own = np.where(evaluated.truth >= 0, evaluated.scores[np.arange(len(who)), evaluated.truth.clip(0)], np.inf)
    kinds = {
        "taken for somebody": evaluated.truth < 0,
        "named wrongly": (evaluated.truth >= 0) & (who != evaluated.truth),
        "least like themselves": (evaluated.truth >= 0) & (who == evaluated.truth),
    }
    examples: dict[str, str] = {}
    for item in gallery.index.items(gallery.index.ids):
        examples.setdefault(str(item.label), item.path)
    results: list[dict[str, Any]] = []
    for title, which in kinds.items():
        rows = np.flatnonzero(which)
        order = np.argsort(own[rows] if title.startswith("least") else -best[rows], kind="stable")[:_SHOWN]
        for row in rows[order]:
            person = evaluated.names[who[row]]
            match = {"path": examples[person], "label": person, "score": float(best[row])}
            results.append({
                "title": f"{evaluated.people[row]}: {title}", "query": evaluated.paths[row],
                "label": evaluated.people[row], "matches": [match],
            })  # fmt: skip
    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.2f}</td></tr>" if isinstance(value, float)
        else f"<tr><td>{html.escape(name)}</td><td>{value:,}</td></tr>"
        for name, value in evaluated.figures.items()
    )  # fmt: skip
    intro = f"<style>{CHARTS}</style><table>{cells}</table>{_curve(evaluated)}"
    save(path, sheet(f"Who is who in {gallery.path.name}", results, decode, intro=intro, truth=True))


def _curve(evaluated: Evaluated) -> str:
    """The CMC, up to as many ranks as can be told apart on a chart."""
    shares = cmc(torch.from_numpy(evaluated.scores), torch.from_numpy(evaluated.truth)).tolist()[:_RANKS]
    if len(shares) < 2:
        return ""
    points = [(rank, 100 * share) for rank, share in enumerate(shares, 1)]
    across = Axis("rank", 1, len(shares), [(1, "1"), (len(shares), str(len(shares)))])
    up = Axis("% of pictures of people enrolled", 0, 100, [(v, str(v)) for v in (0, 25, 50, 75, 100)])
    return chart("Is the right person among the first?", across, up, [Line("", "one", points)])
