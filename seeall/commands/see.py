"""`ssl evaluate` and `ssl embed`: what a backbone sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seeall import catalog
from seeall.commands.common import (
    AllowSkipped,
    Data,
    Json,
    Limit,
    Overwrite,
    Quiet,
    RunFolder,
    Seed,
    first,
    listen,
    tell,
)
from seeall.types import SeeallError


def evaluate(
    run: RunFolder,
    data: Data,
    val: Annotated[
        str | None, typer.Option(help="Labelled pictures to test on; else DATA's own splits, or a fifth.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that shows it, NAME.html.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page of --html.")] = False,
    limit: Limit = None,
    seed: Seed = 0,
    set: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="How to read the annotations, to judge a head.")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """How good is a backbone, or a head? Neighbours, probes, retrieval and pairs; or the head's own measures."""
    listen(quiet)
    from seeall.html import refuse

    refuse(html, overwrite)
    if (run / "head.safetensors").exists() or run.name == "head.safetensors":
        from seeall.heads import build, examine, kinds
        from seeall.heads import report as heads_report

        if val is not None:
            raise SeeallError(
                f"--val {val}: {run} is a head, which has learnt already; give what to judge it by as DATA"
            )
        finding = kinds.KINDS[build.describe(run).task].finder
        settings = catalog.resolve({"annotations": finding}, set or ())["annotations"]
        examined = examine.examine(run, data, limit=limit, seed=seed, **settings)
        if html:
            heads_report.write(html, f"What {run.absolute().name} says of {data}", examined)
        return tell(examined.figures, json_)
    if set:
        raise SeeallError(f"--set {set[0]}: {run} is no head, and a backbone is judged without annotations")
    from seeall.ssl import probes, report

    found = probes.examine(run, data, val, limit=limit, seed=seed)
    if html:
        report.write(html, f"What {run.absolute().name} sees in {data}", found)
    return tell(found.figures, json_)


def embed(
    run: RunFolder,
    data: Data,
    out: Annotated[Path, typer.Option(help="FILE: writes FILE.npy and FILE.parquet.")],
    engine: Annotated[
        str, typer.Option(help="local, or ray: by many processes, of this machine or of the cluster at RAY_ADDRESS.")
    ] = "local",
    limit: Limit = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Threads that read pictures, or processes of ray; 0: one a core, or a GPU.")
    ] = 0,
    overwrite: Overwrite = False,
    allow_skipped: AllowSkipped = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the features of pictures to files."""
    listen(quiet)
    from seeall.data.pictures import find
    from seeall.training.features import embed_files

    pictures = find(data, limit=limit)
    facts = embed_files(
        pictures, run, out, workers=workers, allow_skipped=allow_skipped, overwrite=overwrite, engine=engine
    )
    if first():
        tell(facts, json_)
