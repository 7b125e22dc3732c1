"""The page of `ssl evaluate --html`: the figures, and the pictures, pairs and sounds that they come from."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seeall.console import log
from seeall.data import keyed
from seeall.data.decode import Pixels, Unreadable
from seeall.data.hearing import SOUND
from seeall.html import CHARTS, THUMB, Axis, Line, chart, page, picture, save
from seeall.metrics.knn import normalised
from seeall.metrics.map2d import apart, tsne
from seeall.metrics.verification import pair_scores, roc
from seeall.ssl.probes import Found, Seen
from seeall.ssl.show import Pair, comparable, distance, hardest

MAPPED = 400
"""Pictures on the map, at most."""
COMPARED = 6000
"""Pictures whose pairs are looked through for the hardest; of more, so many are drawn."""
ASKED, NEAREST = 8, 5
"""Pictures, and sounds, that are asked for their nearest sounds and pictures, and how many of these."""
_BINS, _SMALL, _LEGEND = 50, 64, 24
_DRAW, _ASK = 0x2E90, 0x2E91

_STYLE = (
    """
.cards { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start }
.cards td { font-variant-numeric: tabular-nums; padding: .15rem .5rem } .cards h2 { margin: .8rem 0 .3rem }
.cards th { font-weight: normal; color: var(--soft); text-align: left; padding: .15rem .5rem }
.wide { overflow-x: auto; max-width: 100% } .charts { display: flex; flex-wrap: wrap; gap: 0 2rem }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); gap: .9rem }
.pair > div { display: flex; border: 3px solid var(--one) } .pair.two > div { border-color: var(--two) }
.pair img, .pair .gone { width: 50%; height: auto; aspect-ratio: 1; border: 0 }
.questions { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 0 1.5rem }
.asked { display: flex; gap: .7rem; margin: .7rem 0; align-items: flex-start }
.asked > figure { flex: none; width: 5.5rem }
.asked img, .asked .gone { width: 5.5rem; height: 5.5rem } .asked ol { margin: 0; padding-left: 1.4rem }
.asked li, .asked b { overflow-wrap: anywhere }
.asked.answers { display: grid; grid-template-columns: repeat(5, 1fr); gap: .4rem }
.asked.answers figure { width: auto }
.asked.answers img, .asked.answers .gone { width: 100%; height: auto; aspect-ratio: 1 }
.own { font-weight: bold } .own img { border: 3px solid var(--good) }
.map { position: relative; min-width: 40rem; max-width: 60rem; margin: 1.5rem }
.map img, .map .gone { position: absolute; height: auto; aspect-ratio: 1; border-width: 2px; border-radius: 3px;
                       overflow: hidden; transition: transform .1s }
.map img:hover { transform: scale(3); z-index: 1 }
.labels { display: flex; flex-wrap: wrap; gap: .2rem .9rem; font-size: 13px }
"""
    + CHARTS
)

_GROUPS = (
    ("Which class?", "kNN and a linear classifier, learnt from others", ("knn20", "knn200", "linear", "linear_top5")),
    (
        "Own kind first?", "each test picture among all others",
        ("recall@1", "recall@2", "recall@4", "recall@8", "precision@10", "r-precision", "map@r"),
    ),
    ("Clusters", "as many as there are labels", ("nmi",)),
    (
        "Same or different?", "all pairs of test pictures",
        ("same_or_different", "same_or_different_std", "auc", "eer", "tar@far=1e-1", "tar@far=1e-2", "tar@far=1e-3",
         "tar@far=1e-4"),
    ),
)  # fmt: skip
_ARROWS = {
    "image_image": "picture → picture", "image_sound": "picture → sound",
    "sound_image": "sound → picture", "sound_sound": "sound → sound",
}  # fmt: skip


def write(path: Path, title: str, found: Found) -> None:
    """Write the page to an HTML file. Raises SeeallError where the disk refuses."""
    save(path, report(title, found))
    log.info("wrote %s", path)


def report(title: str, found: Found) -> str:
    """The page as text. title: plain text."""
    seen, targets = found.test, found.test.targets()
    body = [_counts(found), _figures(found.figures)]
    if targets is not None and comparable(targets):
        body += [*_charts(*pair_scores(seen.z, targets), "of one label", "of two labels"), *_hardest(seen, targets)]
    if found.together:
        if targets is None and len(seen.rows) > 1:
            body += _charts(*_couples(*found.together), "heard together", "not heard together")
        body += _sounds(seen, *found.together)
    return page(title, [part for part in [*body, *_map(seen)] if part], _STYLE)


def _counts(found: Found) -> str:
    figures, n = found.figures, len(found.test.rows)
    words = f"{n:,} pictures to test on"
    if "classes" in figures:
        words += (
            f", of {len(set(found.test.labels() or ())):,} labels; {figures['train_pictures']:,} others to learn from"
        )
    return f"<p>{words}; {found.test.z.shape[1]:,} dimensions. Shares are in percent.</p>"


def _figures(figures: dict[str, float]) -> str:
    cards = []
    for name, about, names in _GROUPS:
        rows = "".join(f"<tr><td>{key}</td><td>{figures[key]:.2f}</td></tr>" for key in names if key in figures)
        if rows:
            cards.append(f"<div><h2>{name}</h2><table><tr><th colspan=2>{about}</th></tr>{rows}</table></div>")
    measures = sorted({key.split("_", 2)[2] for key in figures if key[:11] in _ARROWS and "chance" not in key})
    rows = ""
    for way, arrow in _ARROWS.items():
        cells = [_beside_chance(figures, way, measure) for measure in measures]
        rows += f"<tr><td>{arrow}</td>{''.join(cells)}</tr>" if any(key.startswith(way) for key in figures) else ""
    if rows:
        heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in measures)
        table = f"<table><tr><th>(chance)</th>{heads}</tr>{rows}</table>"
        cards.append(f'<div class="wide"><h2>Pictures and sounds</h2>{table}</div>')
    return f'<section class="cards">{"".join(cards)}</section>'


def _beside_chance(figures: dict[str, float], way: str, measure: str) -> str:
    """A cell: a measure in one direction and, in brackets, what a random order would get."""
    if f"{way}_{measure}" not in figures:
        return "<td></td>"
    key = "pair_chance_recall@1" if measure.startswith("pair") else f"{way}_chance_{measure}"
    return f"<td>{figures[f'{way}_{measure}']:.2f} ({figures[key]:.2f})</td>"


def _couples(images: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of pictures with their own sounds (n,), and with others' (n² - n,); of 2,000 pairs at most."""
    drawn = keyed.permutation(len(images), 0, _DRAW)[:2000]
    cosine = normalised(images[drawn]) @ normalised(sounds[drawn]).T
    return cosine.diagonal(), cosine[~torch.eye(len(drawn), dtype=torch.bool)]


def _charts(same: Tensor, different: Tensor, one: str, two: str) -> list[str]:
    """The histogram of distances and the ROC of pairs of both kinds, by their cosines."""
    lines = []
    for name, colour, cosines in ((one, "one", same), (two, "two", different)):
        shares = (100 * torch.histc(distance(cosines.float()), _BINS, 0, 2) / len(cosines)).tolist()
        steps = [(edge * 2 / _BINS, share) for i, share in enumerate(shares) for edge in (i, i + 1)]
        lines.append(Line(f"pairs {name}", colour, steps, filled=True))
    high = max(share for line in lines for _, share in line.points) * 1.05
    across = Axis("distance √(2 - 2 cos): 0 equal, 1.41 unrelated, 2 opposite", 0, 2, _ticks(0, 2, 4))
    histogram = chart("How far apart?", across, Axis("% of pairs", 0, high, _ticks(0, high, 5)), lines)
    far, tar, _ = roc(same, different, points=300)
    least = min(-1.0, math.log10(1 / len(different)))
    decades = [(float(e), f"1e{e}" if e else "1") for e in range(math.ceil(least), 1)]
    curve = [(math.log10(max(a, 10**least)), 100 * b) for a, b in zip(far.tolist(), tar.tolist())]
    accepted = chart(
        "Same or different, by a threshold on the cosine",
        Axis(f"share of pairs {two} accepted too", least, 0, decades),
        Axis(f"% of pairs {one} accepted", 0, 100, _ticks(0, 100, 5)),
        [Line("", "one", curve)],
    )
    return [f'<section class="charts">{histogram}{accepted}</section>']


def _ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Round numbers from `low` to `high`, about `count` steps apart."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next((m * unit for m in (1, 2, 5) if m * unit >= rough * 0.99), 10 * unit)
    return [(low + i * step, f"{low + i * step:g}") for i in range(int((high - low) / step + 1e-9) + 1)]


def _hardest(seen: Seen, targets: Tensor) -> list[str]:
    """Sections of the hardest pairs of one label and of two, where there are any."""
    drawn = keyed.permutation(len(targets), 0, _DRAW)[:COMPARED].sort().values
    among = "" if len(drawn) == len(targets) else f" Looked for among {len(drawn):,} pictures, drawn from all."
    positives, negatives = hardest(seen.z[drawn], targets[drawn])
    parts = []
    for pairs, kind, title, about in (
        (positives, "one", "One label, seen as least alike", "Pairs of one label with the lowest cosine."),
        (negatives, "two", "Two labels, seen as most alike", "Pairs of two labels with the highest cosine."),
    ):
        if pairs:
            cards = "".join(_pair(seen, pair, drawn, kind) for pair in pairs)
            parts.append(
                f"<h2>{title}</h2><p>{about} No picture is in more than two.{among}</p>"
                f'<section class="pairs">{cards}</section>'
            )
    return parts


def _pair(seen: Seen, pair: Pair, drawn: Tensor, kind: str) -> str:
    labels = seen.labels() or []
    rows = [int(drawn[pair.first]), int(drawn[pair.second])]
    both = "".join(picture(seen.pictures.ids[seen.rows[i]], _read(seen, i)) for i in rows)
    names = " · ".join(dict.fromkeys(labels[i] for i in rows))
    return (
        f'<figure class="pair {kind}"><div>{both}</div><figcaption>{pair.cosine:.3f} · {html.escape(names)}'
        "</figcaption></figure>"
    )


def _read(seen: Seen, i: int) -> Pixels | str:
    """Pixels of picture i of those that were seen, or why there are none any more."""
    try:
        return seen.pictures.read(seen.rows[i], THUMB)
    except Unreadable as fault:
        return str(fault)


def _sounds(seen: Seen, images: Tensor, sounds: Tensor) -> list[str]:
    """For some pictures their nearest sounds by name, and for some sounds their nearest pictures."""
    cosine = normalised(images) @ normalised(sounds).T
    asked = keyed.permutation(len(images), 0, _ASK)[:ASKED].sort().values.tolist()
    names = [_sound(seen, i) for i in range(len(images))]
    hearing, seeing = [], []
    for i in asked:
        score, index = cosine[i].topk(min(NEAREST, len(names)))
        items = "".join(
            f"<li{_own(i == j)}>{html.escape(names[j])} · {s:.3f}</li>" for j, s in zip(index.tolist(), score.tolist())
        )
        hearing.append(f'<div class="asked">{_figure(seen, i, _caption(seen, i))}<ol>{items}</ol></div>')
        score, index = cosine[:, i].topk(min(NEAREST, len(names)))
        answers = "".join(_figure(seen, j, f"{s:.3f}", i == j) for j, s in zip(index.tolist(), score.tolist()))
        seeing.append(f'<div><b>{html.escape(names[i])}</b><div class="answers asked">{answers}</div></div>')
    return [
        f"<h2>Pictures, and the sounds that are nearest to them</h2><p>Its own is bold.</p>"
        f'<section class="questions">{"".join(hearing)}</section>',
        f"<h2>Sounds, and the pictures that are nearest to them</h2><p>Its own is framed.</p>"
        f'<section class="questions">{"".join(seeing)}</section>',
    ]


def _own(own: bool) -> str:
    return ' class="own"' if own else ""


def _figure(seen: Seen, i: int, caption: str, own: bool = False) -> str:
    name = seen.pictures.ids[seen.rows[i]]
    return f"<figure{_own(own)}>{picture(name, _read(seen, i))}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _caption(seen: Seen, i: int) -> str:
    """A picture's label, or the name of its file."""
    labels = seen.labels()
    return labels[i] if labels else Path(seen.pictures.ids[seen.rows[i]]).name


def _sound(seen: Seen, i: int) -> str:
    """What to call the sound heard with picture i: the file's name, and its label where there is one."""
    row = seen.rows[i]
    file = (seen.pictures.metadata[row] if seen.pictures.metadata else {}).get(SOUND)
    name = Path(str(file or seen.pictures.ids[row])).name
    labels = seen.labels()
    return f"{name} ({labels[i]})" if labels else name


def _map(seen: Seen) -> list[str]:
    """Some pictures, each at the place that t-SNE gives it."""
    order = [*seen.pictures.subset(seen.rows).limit(MAPPED).ids]
    place = {seen.pictures.ids[row]: i for i, row in enumerate(seen.rows)}
    rows = [place[name] for name in order]
    if len(rows) < 3:
        return []
    at, wide, high, side = _places(seen.z[rows])
    labels, hues = seen.labels(), _hues(seen)
    cells = []
    for i, (x, y) in zip(rows, at.tolist()):
        name, label = seen.pictures.ids[seen.rows[i]], labels[i] if labels else ""
        style = f"left:{x:.2f}%;top:{y:.2f}%;width:{side:.2f}%"
        style += f";border-color:{hues[label]}" if labels else ""
        title = f"{label} · {name}" if labels else name
        cells.append(picture(name, _read(seen, i), side=_SMALL, style=style, title=title))
    keys = "".join(f'<span><b style="color:{hue}">■</b> {html.escape(name)}</span>' for name, hue in hues.items())
    legend = f'<div class="labels">{keys}</div>' if 0 < len(hues) <= _LEGEND else ""
    words = f"{len(rows):,} pictures, laid out by t-SNE: near ones were seen as alike; what is far apart says little."
    colours = " Frames are coloured by label." if labels else ""
    box = f'<div class="map" style="aspect-ratio:{wide:.0f}/{high:.0f}">{"".join(cells)}</div>'
    return [f'<h2>Map</h2><p>{words}{colours}</p>{legend}<div class="wide">{box}</div>']


def _places(z: Tensor) -> tuple[Tensor, float, float, float]:
    """Left and top (n, 2), percent of width and height; width and height, px; the side of a thumbnail, % of width."""
    at = tsne(z)
    size = (at.max(dim=0).values - at.min(dim=0).values).clamp(min=1e-6)
    side = float(size.prod().sqrt() * 0.75 / math.sqrt(len(z)))
    at = apart(at, side)
    at -= at.min(dim=0).values
    wide, high = (at.max(dim=0).values + side).tolist()
    if wide < high:  # a page is wider than high
        at, wide, high = at.flip(1), high, wide
    return 100 * at / torch.tensor([wide, high]), 960.0, 960 * high / wide, 100 * side / wide


def _hues(seen: Seen) -> dict[str, str]:
    """A colour for each label, as far apart as golden angles are."""
    names: Sequence[str] = sorted(set(seen.labels() or ()))
    return {name: f"hsl({i * 137.508 % 360:.0f} 65% {(52, 42, 62)[i % 3]}%)" for i, name in enumerate(names)}
