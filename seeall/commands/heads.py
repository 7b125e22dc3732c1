"""`ssl predict`, `ssl propagate`, `ssl export` and `ssl compare`: what a head is good for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from seeall.commands.common import Json, Overwrite, Quiet, as_line, listen, tell
from seeall.commands.learning import Set, Settings, listed
from seeall.types import SeeallError

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
        float | None,
        typer.Option(min=0.001, help="Frames a second of a video; 8, or all for flow and keypoints."),
    ] = None,
    reuse: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Of a clip, see anew only what has changed by more than this, pixels being 0 to 1; 0: all.",
        ),
    ] = 0.0,
    keys: Annotated[
        int,
        typer.Option(min=1, help="Name the pixels of one of so many frames of a clip; move that along in the others."),
    ] = 1,
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

    told = say(
        run, inputs, out, score=score, tile=tile, rate=rate, reuse=reuse, keys=keys, ahead=ahead, overwrite=overwrite
    )  # fmt: skip
    tell(told, json_)


def propagate(
    data: Annotated[
        str | None, typer.Argument(help="Clips some of whose frames have a mask, or scenes:….", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write: masks, pictures, videos.")] = None,
    by: Annotated[
        str | None,
        typer.Option("--from", help="A run of flow, or a run or file with a backbone; or true, of scenes:…."),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            help="Use every so manieth frame's mask and judge by the rest; 0: the first's. Else all there are."
        ),
    ] = None,
    reach: Annotated[int | None, typer.Option(help="Carry a mask so many frames at most.")] = None,
    set: Set = None,
    settings: Settings = False,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry masks to the frames that have none: by flow, or by likeness of what a backbone sees."""
    listen(quiet)
    from seeall import catalog
    from seeall.data.motion.masked import find_masked
    from seeall.heads.video.carry import Likeness
    from seeall.heads.video.propagate import propagate as carry

    roles: dict[str, Callable[..., Any]] = {"likeness": Likeness, "annotations": find_masked}
    if settings:
        return listed(roles, json_)
    if data is None or out is None or by is None:
        lacks = "which clips? give a folder, or scenes:…" if data is None else "give --out FOLDER and --from RUN"
        raise SeeallError(lacks)
    chosen = catalog.resolve(roles, set or ())
    if "every" in chosen["annotations"]:
        raise SeeallError("'every' is an option here: --every N")
    how = Likeness(**chosen["likeness"])
    tell(
        carry(data, out, by=by, every=every, reach=reach, how=how, overwrite=overwrite, **chosen["annotations"]), json_
    )
    return None


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
    print(as_line(groups) if json_ else "\n".join(table(groups)))
