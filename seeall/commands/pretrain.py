"""`ssl pretrain`."""

from __future__ import annotations

from typing import Annotated

import typer

from seeall import catalog, combinations
from seeall.commands.common import AllowSkipped, Json, Limit, Overwrite, Quiet, Seed, Workers, listen
from seeall.commands.learning import (
    Compile,
    Config,
    Devices,
    Optimiser,
    Out,
    Precision,
    Rate,
    Resume,
    Set,
    Settings,
    asked,
    learn,
    listed,
)  # fmt: skip

COMBINATIONS = "What goes together, each objective's own negatives first.\n\n" + "\n\n".join(combinations.lines())


def pretrain(
    ctx: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of pictures or videos, a manifest, or scenes:…; labels are not needed."),
    ] = None,
    out: Out = None,
    objective: Annotated[
        str, typer.Option(help=f"What a wrong distance costs: {', '.join(catalog.OBJECTIVES)}.")
    ] = "simclr",
    positives: Annotated[str, typer.Option(help=f"Who belongs together: {', '.join(catalog.POSITIVES)}.")] = "views",
    negatives: Annotated[
        str | None,
        typer.Option(help=f"Whom to push away: {', '.join(catalog.NEGATIVES)}; the objective's own if not given."),
    ] = None,
    backbone: Annotated[str, typer.Option(help=f"{', '.join(catalog.BACKBONES)}, timm/NAME.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="A file, DEFAULT for published ones, or none.")] = "none",
    image_size: Annotated[
        int | None, typer.Option(help="Side of a view, px; chosen by the pictures if not given.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Times that every picture is seen.")] = 100,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, in place of --epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step; 128, or less where there are few.")] = None,
    optimiser: Optimiser = "adamw",
    lr: Rate = None,
    precision: Precision = "auto",
    devices: Devices = 0,
    workers: Workers = 0,
    seed: Seed = 0,
    limit: Limit = None,
    compile: Compile = False,
    set: Set = None,
    settings: Settings = False,
    config: Config = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    allow_skipped: AllowSkipped = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a backbone from pictures, videos or sounds, without labels or with some."""
    listen(quiet)
    if settings:
        from seeall.ssl.pretrain import parts

        apart = combinations.check(objective, positives, negatives)
        return listed(parts(objective, backbone, optimiser, positives, apart), json_)
    pictures, folder, options = asked(ctx, "scenes:n=2000")
    from seeall.ssl.pretrain import pretrain as run

    if options["negatives"] == "neighbours":
        from seeall.index.nearest import nearest

        options["search"] = nearest
    learn(
        lambda: run(pictures, folder, **options, resume=resume, overwrite=overwrite), folder, json_,
        f"ssl index build {pictures} --run {folder} --out NAME.index",
    )  # fmt: skip
    return None
