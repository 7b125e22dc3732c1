"""`ssl predict`, `ssl export` and `ssl compare`: what a head is good for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from seeall.commands.common import Json, Overwrite, Quiet, listen, tell

Head = Annotated[Path, typer.Argument(help="The folder of a finished ssl finetune.")]


def predict(
    run: Head,
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders, manifests, videos, or scenes:….")],
    out: Annotated[Path, typer.Option(help="The folder to write: pictures, JSON and masks.")],
    score: Annotated[float, typer.Option(min=0, max=1, help="Draw what is found at least so surely.")] = 0.5,
    tile: Annotated[
        int, typer.Option(min=0, help="Look at larger pictures in pieces of so many px; 0: each as a whole.")
    ] = 0,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Frames a second taken of a video; 8, or all for flow.")
    ] = None,
    reuse: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Of a clip, see anew only what has changed by more than this, pixels being 0 to 1; 0: all.",
        ),
    ] = 0.0,
    ahead: Annotated[
        int, typer.Option(min=1, help="Frames of a clip that the network works on at once, a thread for each.")
    ] = 1,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is in pictures: drawn, as JSON, as masks, flow and videos, at the pictures' own sizes."""
    listen(quiet)
    from seeall.heads.predict import predict as say

    told = say(run, inputs, out, score=score, tile=tile, rate=rate, reuse=reuse, ahead=ahead, overwrite=overwrite)
    tell(told, json_)


def export(
    run: Head,
    out: Annotated[Path, typer.Option(help="FILE.onnx, or FILE.pt2 for torch.export.")],
    height: Annotated[
        int | None, typer.Option(min=16, help="Of the pictures, px; the head's own if not given.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=16, help="Of the pictures, px; the height if not given.")] = None,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a head as a file that runs elsewhere, and check that it says the same."""
    listen(quiet)
    from seeall.heads.export import export as write

    tell(write(run, out, height=height, width=width, overwrite=overwrite), json_)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs of one task.")], json_: Json = False
) -> None:
    """Runs side by side: those that differ by their seed alone are one row, mean ± standard deviation."""
    from seeall.heads.compare import compare as beside
    from seeall.heads.compare import table

    groups = beside(runs)
    print(json.dumps(groups, ensure_ascii=False) if json_ else "\n".join(table(groups)))
