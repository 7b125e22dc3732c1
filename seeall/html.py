"""One page of HTML that needs nothing else: pictures as data URIs, charts as SVG, light or dark. Knows no torch."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from seeall import durable
from seeall.types import SeeallError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THUMB = 128
"""Longer side of a thumbnail, px."""
STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fafafa; --mat: #fff; --line: #ddd; --soft: #6b6b70;
        --good: #2a8a3e; --bad: #c4472f; --one: #1f6fb4; --two: #d2691e }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #1c1c1e; --mat: #2c2c2e; --line: #48484a;
        --soft: #a0a0a6; --good: #48b662; --bad: #e8705a; --one: #62aef0; --two: #f09a55 } }
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; color: var(--ink);
       background: var(--paper) }
h1 { font-size: 1.4rem; overflow-wrap: anywhere } h2 { font-size: 1rem; margin: 2rem 0 .5rem } p { max-width: 46rem }
figure { margin: 0 } figcaption { font-size: 12px; overflow-wrap: anywhere }
img, .gone { box-sizing: border-box; width: 128px; height: 128px; object-fit: contain; background: var(--mat);
             border: 1px solid var(--line) }
.gone { display: flex; align-items: center; justify-content: center; color: var(--soft) }
table { border-collapse: collapse }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid var(--line) }
td:first-child { text-align: left }
"""
_WIDE, _HIGH, _LEFT, _TOP, _RIGHT, _BOTTOM = 440, 286, 46, 20, 14, 44


def refuse(path: Path | None, overwrite: bool) -> None:
    """Raises SeeallError where no page may be written to `path`: another kind of name, or a file that is there."""
    if path and path.suffix.lower() not in (".html", ".htm"):
        raise SeeallError(f"--html {path}: a page's name ends in .html")
    if path and path.exists() and not overwrite:
        raise SeeallError(f"--html {path} is already there; replace it by --overwrite, or choose another name")


def save(path: Path, text: str) -> None:
    """Write a page, whole or not at all. Raises SeeallError where the disk refuses."""
    durable.save(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def page(title: str, body: Sequence[str], style: str = "") -> str:
    """A whole page. title: plain text · body: HTML · style: CSS besides that of all pages."""
    name = html.escape(title)
    head = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title><style>{STYLE}{style}</style><h1>{name}</h1>",
    ]
    return "\n".join([*head, *body]) + "</html>\n"


def thumbnail(pixels: NDArray[np.uint8], side: int = THUMB) -> str:
    """A data URI of a picture (H, W, 3), at most `side` px a side; small ones are enlarged without smoothing."""
    image = Image.fromarray(pixels)
    if max(image.size) * 2 <= side:
        factor = side // max(image.size)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def picture(name: str, pixels: NDArray[np.uint8] | str, *, side: int = THUMB, style: str = "", title: str = "") -> str:
    """One picture, or a grey box with the reason why there are no pixels; title: what to say of it, if not its name."""
    label, look = html.escape(title or name), f' style="{style}"' if style else ""
    if isinstance(pixels, str):
        return f'<div class="gone" title="{label}"{look}>{html.escape(pixels)}</div>'
    return f'<img src="{thumbnail(pixels, side)}" alt="{html.escape(name)}" title="{label}"{look}>'


class Line(NamedTuple):
    """A curve of a chart. colour: "one" or "two" · filled: down to the bottom."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    filled: bool = False


class Axis(NamedTuple):
    """An axis of a chart from `low` to `high`, with marks where `ticks` say; a logarithm is the caller's to take."""

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Curves over axes, as SVG. A curve with no name is not in the legend."""
    right, bottom = _WIDE - _RIGHT, _HIGH - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (value - x.low) / (x.high - x.low) * (right - _LEFT)

    def up(value: float) -> float:
        return bottom - (value - y.low) / (y.high - y.low) * (bottom - _TOP)

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{html.escape(title)}">']
    for value, text in x.ticks:
        parts.append(f'<path class="grid" d="M{across(value):.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{across(value):.1f}" y="{bottom + 16}" text-anchor="middle">{html.escape(text)}</text>')
    for value, text in y.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {up(value):.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{html.escape(text)}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HIGH - 6}" text-anchor="middle">{html.escape(x.name)}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 7}" class="soft">{html.escape(y.name)}</text>')
    for line in lines:
        path = "L".join(f"{across(a):.1f} {up(b):.1f}" for a, b in line.points)
        if line.filled and line.points:
            ends = f"M{across(line.points[0][0]):.1f} {bottom}L{path}V{bottom}Z"
            parts.append(f'<path class="area {line.colour}" d="{ends}"/>')
        parts.append(f'<path class="line {line.colour}" d="M{path}"/>' if line.points else "")
    keys = "".join(f'<span class="{line.colour}">{html.escape(line.name)}</span>' for line in lines if line.name)
    legend = f'<div class="legend">{keys}</div>' if keys else ""
    return f'<figure class="plot"><h2>{html.escape(title)}</h2>{legend}{"".join(parts)}</svg></figure>'


CHARTS = """
.plot { flex: 1 1 20rem; max-width: 36rem } .chart { width: 100%; height: auto; font-size: 12px }
.chart text { fill: currentColor } .chart .soft { fill: var(--soft) } .chart .grid { stroke: var(--line) }
.chart .line { fill: none; stroke-width: 2 } .chart .area { fill-opacity: .22 }
.chart .line.one { stroke: var(--one) } .chart .line.two { stroke: var(--two) }
.chart .area.one { fill: var(--one) } .chart .area.two { fill: var(--two) }
.legend { font-size: 13px; display: flex; gap: 1rem } .legend span::before { content: "■ " }
.legend .one::before { color: var(--one) } .legend .two::before { color: var(--two) }
"""
"""What `chart` needs besides the style of all pages."""
