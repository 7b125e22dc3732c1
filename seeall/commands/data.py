"""`ssl data …`: a look at pictures and their truth before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seeall import catalog
from seeall.commands.common import Json, Quiet, listen, tell
from seeall.types import SeeallError

group = typer.Typer(help="Look at data before training on it.", no_args_is_help=True, rich_markup_mode=None)


@group.command("check")
def check(
    data: Annotated[str, typer.Argument(help="What ssl finetune is given.")],
    task: Annotated[str, typer.Option(help=f"{', '.join(catalog.TASKS)}.")],
    sheet: Annotated[Path | None, typer.Option(help="Write a sheet of pictures with their truth, NAME.png.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the sheet of --sheet.")] = False,
    set: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="How to read the annotations.")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read all pictures and annotations, and say what is in them and what is wrong."""
    listen(quiet)
    from seeall import durable
    from seeall.data.annotations import check as checking
    from seeall.data.annotations.draw import draw
    from seeall.heads import build, kinds
    from seeall.heads.flow.draw import on_the_frame
    from seeall.training.run import refuse_inside

    build.check(task, None)
    kind = kinds.KINDS[task]
    settings = catalog.resolve({"annotations": kind.finder}, set or ())["annotations"]
    if sheet is not None and sheet.suffix != ".png":
        raise SeeallError(f"--sheet {sheet}: choose a name that ends in .png")
    if sheet is not None:
        refuse_inside(sheet, Path(data).expanduser(), "--sheet")
    if sheet is not None and sheet.exists() and not overwrite:
        raise SeeallError(f"--sheet {sheet} is already there; replace it by --overwrite, or choose another name")
    found = checking.check(kind.find(data, **settings).known())
    if sheet is not None:
        n = len(found.annotated)
        rows = [k * n // checking.MOST for k in range(checking.MOST)] if n > checking.MOST else range(n)
        drawn = checking.sheet(found.annotated, rows, on_the_frame if task == "flow" else draw)
        durable.save(sheet, lambda file: drawn.save(file, "PNG"))
    if json_:
        tell(found.facts(), True)
    else:
        print("\n".join(found.lines()))
