"""`ssl index duplicates`, `clusters`, `outliers`, `export`, `merge`: what else a whole index is good for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from seeall.commands.common import Gpu, IndexFolder, Json, Overwrite, Quiet, Seed, as_line, listen, tell
from seeall.console import log

Html = Annotated[Path | None, typer.Option("--html", help="Write a page with thumbnails, NAME.html.")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the page of --html.")]


def duplicates(
    index: IndexFolder,
    threshold: Annotated[float, typer.Option(help="The cosine from which two pictures are alike.")] = 0.95,
    html: Html = None,
    overwrite: Replace = False,
    gpu: Gpu = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Groups of pictures that are nearly the same, the largest first."""
    listen(quiet)
    from seeall.html import refuse
    from seeall.index.album import pictures
    from seeall.index.duplicates import duplicates as look
    from seeall.index.query import opened

    refuse(html, overwrite)
    with opened(index, gpu) as there:
        groups = [pictures(there, *group) for group in look(there, threshold)]
    spare = sum(len(group) - 1 for group in groups)
    log.info("%d groups; %d pictures could go if one of each is kept", len(groups), spare)
    intro = f"Pictures joined by a cosine of {threshold:g} or more; the figure is that with the first of its group."
    found = [({"size": len(group)}, f"{len(group)} pictures", group) for group in groups]
    _tell(found, json_, html, f"Near-duplicates in {index.name}", intro)


def clusters(
    index: IndexFolder,
    k: Annotated[int | None, typer.Option("-k", help="How many; as many as suit best, if not given.")] = None,
    most: Annotated[int, typer.Option(help="How many of its most central pictures to name of each.")] = 8,
    seed: Seed = 0,
    html: Html = None,
    overwrite: Replace = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Groups of pictures that look alike, the largest first, each with its most central pictures."""
    listen(quiet)
    from seeall.html import refuse
    from seeall.index.album import pictures
    from seeall.index.clusters import clusters as look
    from seeall.index.query import opened

    refuse(html, overwrite)
    found = []
    with opened(index, "off") as there:
        for number, cluster in enumerate(look(there, k, most=most, seed=seed), 1):
            facts = {"cluster": number, "size": cluster.size, "cohesion": round(cluster.cohesion, 6)}
            title = f"cluster {number}: {cluster.size} pictures, cohesion {cluster.cohesion:.3f}"
            found.append((facts, title, pictures(there, cluster.ids, cluster.scores)))
    intro = "The most central pictures of each cluster; the figure is the cosine with its centre, cohesion its mean."
    _tell(found, json_, html, f"Clusters in {index.name}", intro)


def outliers(
    index: IndexFolder,
    most: Annotated[int, typer.Option(help="How many pictures to name.")] = 20,
    k: Annotated[int, typer.Option("-k", help="How many neighbours a picture is compared with.")] = 10,
    html: Html = None,
    overwrite: Replace = False,
    gpu: Gpu = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """The pictures that are least like any other, the strangest first."""
    listen(quiet)
    from seeall.html import refuse
    from seeall.index.album import pictures
    from seeall.index.outliers import outliers as look
    from seeall.index.query import opened

    refuse(html, overwrite)
    with opened(index, gpu) as there:
        found = pictures(there, *look(there, most, k))
    intro = f"The figure is the mean cosine with the {k} nearest others: the lower, the stranger."
    _tell([({}, f"{len(found)} pictures", found)], json_, html, f"Outliers in {index.name}", intro)


def export(
    index: IndexFolder,
    out: Annotated[Path, typer.Option(help="FILE.npy gets the vectors, FILE.parquet what each of them is.")],
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the vectors of an index as .npy, and what they are as .parquet, as `ssl embed` does."""
    listen(quiet)
    from seeall.index.query import opened
    from seeall.index.transfer import export

    with opened(index, "off") as there:
        tell(export(there, out, overwrite=overwrite), json_)


def merge(
    out: Annotated[Path, typer.Argument(help="The index folder to write.")],
    indexes: Annotated[list[Path], typer.Argument(help="Indexes of one and the same network.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that is at OUT.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """One index of several; of a picture that is in more than one, the last of them counts."""
    listen(quiet)
    from seeall.index.transfer import merge

    tell(merge(out, indexes, overwrite=overwrite), json_)


def _tell(
    found: Sequence[tuple[dict[str, Any], str, list[dict[str, Any]]]],
    as_json: bool,
    html: Path | None,
    title: str,
    intro: str,
) -> None:
    """Groups, each with facts, a heading and pictures: an object a line, or a table; and the page if one is wanted."""
    if html:
        from seeall.index.album import album

        album(html, title, intro, [(heading, some) for _, heading, some in found])
        log.info("wrote %s", html)
    for facts, heading, some in found:
        if as_json:
            print(as_line({**facts, "pictures": some}))
            continue
        print(heading)
        for picture in some:
            print(f"  {picture['score']:.4f}  {picture['id']:>8}  {picture['path']}  {picture['label'] or ''}".rstrip())
