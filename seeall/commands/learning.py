"""What the commands that train share: settings listed, options of an earlier run, and stopping with all saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from seeall import catalog
from seeall.commands.common import first, tell
from seeall.console import log
from seeall.types import SeeallError

NOT_SETTINGS = ("settings", "config", "resume", "overwrite", "json_", "quiet")
"""Options that say how to run, not what."""

Out = Annotated[Path | None, typer.Option(help="The run folder to write.")]
Precision = Annotated[str, typer.Option(help="auto, 32, bf16 or fp16.")]
Devices = Annotated[int, typer.Option(help="GPUs, or processes on a CPU; 0: all GPUs, or one process.")]
Optimiser = Annotated[str, typer.Option(help=f"{', '.join(catalog.OPTIMISERS)}.")]
Rate = Annotated[float | None, typer.Option(help="Highest learning rate; the optimiser's own if not given.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network first (torch.compile).")]
Set = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other setting; may be repeated.")]
Settings = Annotated[bool, typer.Option("--settings", help="List what --set reaches, and leave.")]
Config = Annotated[Path | None, typer.Option(help="A run.json whose settings hold where no option is given.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]


def listed(parts: Mapping[str, Callable[..., Any]], as_json: bool) -> None:
    """Print every setting of the parts of a run, by role, with its default."""
    found = {
        f"{role}.{name}": "none" if default is None else default
        for role, target in parts.items()
        for name, (_, default) in catalog.settings(target).items()
    }
    print(json.dumps(found) if as_json else "\n".join(f"{name}={value}" for name, value in found.items()))


def asked(ctx: typer.Context, example: str) -> tuple[str, Path, dict[str, Any]]:
    """Data, run folder and options of this run: those typed, over those of the run that it goes on with or repeats.

    Raises: SeeallError where data or folder are missing, naming `example` for the data.
    """
    typed = ctx.params
    options = {name: value for name, value in typed.items() if name not in NOT_SETTINGS}
    if typed["out"] is None:
        raise SeeallError("where should the run go? give --out FOLDER")
    before: Sequence[str] = ()
    if typed["resume"] or typed["config"]:
        from seeall.training.run import Run, read_facts

        facts = Run.open(typed["out"]).facts if typed["resume"] else read_facts(typed["config"])
        if not typed["resume"] and (heads := "task" in facts["settings"]) != ("task" in typed):
            raise SeeallError(f"--config {typed['config']} is of ssl {'finetune' if heads else 'pretrain'}")
        for name, value in facts["settings"].items():
            source = ctx.get_parameter_source(name)
            if name not in ("out", "set") and name in options and (source is None or source.name == "DEFAULT"):
                options[name] = value
        before = facts["settings"].get("set", ())
    options["set"] = (*before, *(options["set"] or ()))
    data, folder = options.pop("data"), options.pop("out")
    if data is None:
        begun = (folder / "run.json").exists()
        raise SeeallError(
            f"{folder} has begun already; go on with it by --resume" if begun
            else f"which pictures? give a folder, a manifest, or {example}"
        )  # fmt: skip
    return data, folder, options


def learn(run: Callable[[], dict[str, float]], folder: Path, as_json: bool, after: str) -> None:
    """Train, and tell what came of it; `after` says what one might do next."""
    from seeall.training.loop import Stopped

    try:
        results = run()
    except Stopped as stop:
        log.warning("stopped at step %d; all is saved in %s, --resume goes on", stop.step, folder)
        raise typer.Exit(128 + stop.signal if first() else 0) from None
    if first():
        tell({"run": str(folder), **results}, as_json)
        log.info("next: %s", after)
