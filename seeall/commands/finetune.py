"""`ssl finetune`."""

from __future__ import annotations

from typing import Annotated

import typer

from seeall import catalog
from seeall.commands.common import AllowSkipped, Json, Limit, Overwrite, Quiet, Seed, Workers, listen
from seeall.commands.learning import (
    Compile,
    Config,
    Devices,
    Optimiser,
    Out,
    Precision,
    Resume,
    Set,
    Settings,
    asked,
    learn,
    listed,
)  # fmt: skip
from seeall.types import SeeallError

MODELS = "What does what, the usual one first.\n\n" + "\n\n".join(
    f"{task}: {', '.join(models)}" for task, models in catalog.TASKS.items()
)


def finetune(
    ctx: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Pictures and annotations (VOC, COCO, YOLO, VIA, masks), clips, pairs with flow, or scenes:…."
        ),
    ] = None,
    out: Out = None,
    task: Annotated[str | None, typer.Option(help=f"{', '.join(catalog.TASKS)}.")] = None,
    model: Annotated[
        str | None, typer.Option(help="What does it, see below; the task's usual one if not given.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="A run or file to take the backbone from, DEFAULT for published, or none."),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(help="What to judge by: data, or a share to hold back; else DATA's splits, or a fifth."),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Learn from so many pictures only: 10% or 50.")] = None,
    freeze: Annotated[str, typer.Option(help="none, backbone, or the first N stages.")] = "none",
    backbone: Annotated[
        str | None, typer.Option(help="Not needed where --from says; the task's usual one if not given.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Shorter side of pictures, px, or side of windows for flow; else chosen.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Times that every picture is seen.")] = 30,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, in place of --epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step; 8, or 32 to classify.")] = None,
    optimiser: Optimiser = "adamw",
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; 5e-4 if not given.")] = None,
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
    """Make a head on a backbone: classify, detect, cut out, segment, or say what moves, from a few examples."""
    listen(quiet)
    if settings:
        from seeall.heads.build import check
        from seeall.heads.plan import parts

        task = task or next(iter(catalog.TASKS))
        return listed(parts(task, check(task, model), backbone, optimiser), json_)
    pictures, folder, options = asked(ctx, "scenes:n=200,size=96")
    if resume and options["task"] is None:
        raise SeeallError(f"--resume {folder}: no ssl finetune began this run; to make a head on it, give it as --from")
    if options["task"] is None:
        raise SeeallError(f"which task? give --task {', '.join(catalog.TASKS)}")
    if options["start"] is None:
        raise SeeallError("where does the backbone come from? give --from RUN, or --from none to begin without one")
    from seeall.heads.finetune import finetune as run

    learn(
        lambda: run(pictures, folder, **options, resume=resume, overwrite=overwrite), folder, json_,
        f"ssl predict {folder} PICTURE… --out FOLDER",
    )  # fmt: skip
    return None
