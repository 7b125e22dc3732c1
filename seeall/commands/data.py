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
    task: Annotated[str, typer.Option(help=f"{', '.join(catalog.STILL)}.")],
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
    from seeall.data.annotations.layouts import find_annotated
    from seeall.training.run import refuse_inside

    if task in catalog.TASKS and task not in catalog.STILL:
        raise SeeallError(
            f"--task {task}: only still pictures are checked so; ssl finetune says what is wrong with others"
        )
    settings = catalog.resolve({"annotations": find_annotated}, set or ())["annotations"]
    if sheet is not None and sheet.suffix != ".png":
        raise SeeallError(f"--sheet {sheet}: choose a name that ends in .png")
    if sheet is not None:
        refuse_inside(sheet, Path(data).expanduser(), "--sheet")
    if sheet is not None and sheet.exists() and not overwrite:
        raise SeeallError(f"--sheet {sheet} is already there; replace it by --overwrite, or choose another name")
    found = checking.check(data, task, **settings)
    if sheet is not None:
        n = len(found.annotated)
        rows = [k * n // checking.MOST for k in range(checking.MOST)] if n > checking.MOST else range(n)
        drawn = checking.sheet(found.annotated, rows)
        durable.save(sheet, lambda file: drawn.save(file, "PNG"))
    if json_:
        tell(found.facts(), True)
    else:
        print("\n".join(found.lines()))
