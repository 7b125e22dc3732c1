"""The page of `ssl evaluate --html` for a head: figures, what is taken for what, and pictures, the worst first."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seeall.heads.examine import Examined, beside, taken_for, worst
from seeall.html import CHARTS, Axis, Line, chart, page, save, thumbnail
from seeall.metrics.detection import curves

SHOWN = 24
"""Pictures on the page."""
_SIDE, _WIDE, _CHARTS = 720, 2400, 12
_STYLE = (
    """
.sheet.rows { grid-template-columns: 1fr }
.cards { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start } .wide { overflow-x: auto }
td { font-variant-numeric: tabular-nums } td.name, th.name { text-align: left }
.matrix td { padding: .15rem .5rem; min-width: 2.2rem } .matrix th { font-weight: normal; color: var(--soft) }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem }
.sheet img { width: 100%; height: auto }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 0 2rem }
"""
    + CHARTS
)
_TICKS = [(k / 5, f"{20 * k}") for k in range(6)]
_MOVING = {
    "flow": "<h2>Pairs, the worst first</h2><p>The second frame, put back by what the head says; the first frame; the "
    "flow that the head says; the true flow, black where it is not known; errors, from black, none, to white, as large "
    "as the wheel's speed.</p>",
    "keypoints": "<h2>Stretches of clips, the worst first</h2><p>Frames with their keypoints, a colour for each, and "
    "where they have been; crosses on the last one are where those of the first that are on things should be.</p>",
}
"""What is shown of the tasks that have no classes."""


def write(path: Path, title: str, examined: Examined) -> None:
    """The page as a file, whole or not at all."""
    save(path, report(title, examined))


def report(title: str, examined: Examined) -> str:
    """The page as text."""
    body = [
        f'<div class="cards">{_whole(examined.figures)}{_classes(examined)}</div>',
        *(_moving(examined) if examined.recipe.task in _MOVING else _named(examined)),
    ]
    return page(title, body, _STYLE)


def _named(examined: Examined) -> list[str]:
    """Where the truth has classes."""
    return [
        "<h2>What is taken for what</h2><p>Rows are the truth, columns what the head says.</p>",
        _matrix(*taken_for(examined)),
        *_curves(examined),
        "<h2>Pictures, the worst first</h2><p>Left what the head says, right the truth.</p>",
        '<div class="sheet">',
        *_sheet(examined),
        "</div>",
    ]


def _moving(examined: Examined) -> list[str]:
    """Where it is about what moves."""
    return [
        _MOVING[examined.recipe.task],
        '<div class="sheet rows">',
        *_sheet(examined, _WIDE),
        "</div>",
    ]


def _whole(figures: dict[str, float], all_names: bool = False) -> str:
    """Figures of all classes together."""
    rows = "".join(
        f'<tr><td class="name">{html.escape(name)}<td>{value:,.0f}' if isinstance(value, int)
        else f'<tr><td class="name">{html.escape(name)}<td>{value:.2f}'
        for name, value in figures.items() if all_names or "/" not in name
    )  # fmt: skip
    return f"<table>{rows}</table>"


def _classes(examined: Examined) -> str:
    """A row for each class, a column for each of its figures; without classes, a row for each figure of a part."""
    if not examined.recipe.classes:
        return _whole({name: value for name, value in examined.figures.items() if "/" in name}, all_names=True)
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in examined.figures if "/" in name))
    head = "".join(f"<th>{html.escape(kind)}" for kind in kinds)
    rows = []
    for name in examined.recipe.classes:
        values = [examined.figures.get(f"{kind}/{name}") for kind in kinds]
        cells = "".join("<td>–" if value is None else f"<td>{value:.2f}" for value in values)
        rows.append(f'<tr><td class="name">{html.escape(name)}{cells}')
    return f"<table><tr><th>{head}{''.join(rows)}</table>"


def _matrix(table: Tensor, names: Sequence[str]) -> str:
    """Shares of each row in percent, darker the larger."""
    shares = table.double() / table.sum(1, keepdim=True).clamp(min=1)
    head = "".join(f"<th>{html.escape(name)}" for name in names)
    rows = []
    for name, row, counts in zip(names, shares.tolist(), table.tolist()):
        cells = "".join(
            f'<td title="{count:,}" style="background: color-mix(in srgb, var(--one) {90 * share:.0f}%, transparent)">'
            f"{100 * share:.1f}" if count else "<td>"
            for share, count in zip(row, counts)
        )  # fmt: skip
        rows.append(f'<tr><th class="name">{html.escape(name)}{cells}')
    return f'<div class="wide"><table class="matrix"><tr><th>{head}{"".join(rows)}</table></div>'


def _curves(examined: Examined) -> list[str]:
    """Precision against recall, a chart for each class; nothing where things are not found one by one."""
    found = [p.found for p in examined.predictions if p.found is not None]
    if not found:
        return []
    across, up = Axis("recall, %", 0, 1, _TICKS), Axis("precision, %", 0, 1, _TICKS)
    charts = []
    for name, (recall, precision, _) in list(curves(found, examined.truths, examined.recipe.classes).items())[:_CHARTS]:
        best = torch.tensor(precision).flip(0).cummax(0).values.flip(0).tolist() if len(precision) else []
        points = list(zip([0.0, *recall.tolist()], [*best[:1], *best]))
        charts.append(chart(name, across, up, [Line("", "one", points, filled=True)]))
    return ["<h2>Precision and recall, at an IoU of one half</h2>", '<div class="charts">', *charts, "</div>"]


def _sheet(examined: Examined, side: int = _SIDE) -> list[str]:
    ids = examined.examples.annotated.pictures.ids
    return [
        f'<figure><img src="{thumbnail(beside(examined, i), side)}" alt="{html.escape(ids[i])}">'
        f"<figcaption>{html.escape(ids[i])}</figcaption></figure>"
        for i in worst(examined)[:SHOWN]
    ]
