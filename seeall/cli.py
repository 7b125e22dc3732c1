"""The `ssl` command: options in, one call, words and pictures out. Imports no torch until a command runs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from seeall import __version__, catalog, combinations
from seeall.console import log
from seeall.types import SeeallError

_main = typer.Typer(
    help="Learn to see from pictures nobody labelled, and find look-alikes in them.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
_index = typer.Typer(help="Build and keep a searchable index of pictures.", no_args_is_help=True, rich_markup_mode=None)
_main.add_typer(_index, name="index")

Data = Annotated[
    str, typer.Argument(help="A folder of pictures or videos, a manifest (.txt, .csv, .parquet), or scenes:….")
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, or a backbone.safetensors.")]
IndexFolder = Annotated[Path, typer.Argument(help="An index folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")]
Limit = Annotated[int | None, typer.Option(help="Use at most so many pictures, spread over the labels.")]
Workers = Annotated[int, typer.Option(min=0, help="Threads that read pictures; 0: one a core.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")]
AllowSkipped = Annotated[bool, typer.Option("--allow-skipped", help="Go on where over 5 % cannot be read.")]
Gpu = Annotated[str, typer.Option(help="auto, on or off: search on a GPU.")]


def app(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code: 0 well, 2 for what the user can mend."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """The same, returning the exit code."""
    try:
        code = typer.main.get_command(_main).main(args, prog_name="ssl", standalone_mode=False)
    except SeeallError as fault:
        return _fail(str(fault))
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as fault:
        return _fail(f"{fault.filename or 'the disk'}: {fault.strerror or fault}")
    except Exception as fault:
        if not hasattr(fault, "format_message"):  # anything but a fault in how the command was typed is a bug
            raise
        if type(fault).__name__ == "NoArgsIsHelpError":
            print(fault.format_message())
            return 2
        typed = getattr(fault, "ctx", None)
        return _fail(f"{fault.format_message()} See: {typed.command_path if typed else 'ssl'} --help")
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int = 2) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    if not _first():
        time.sleep(2)  # whoever started this process ends the first one when this one ends: let it say its word
    return code


def _first() -> bool:
    """Whether this is the only process, or the first of several."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def _listen(quiet: bool) -> None:
    """Let notes through to standard error; under several processes only those of the first."""
    import warnings

    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with a file is said once, in skipped.csv
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.ERROR if not _first() else logging.WARNING if quiet else logging.INFO)


def _tell(facts: Mapping[str, Any], as_json: bool) -> None:
    """A report: one JSON object, or a line for each figure."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    wide = max(16, *(len(name) + 2 for name in facts))
    for name, value in facts.items():
        shown = f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name:<{wide}}{shown}")


@_main.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


_COMBINATIONS = "What goes together, each objective's own negatives first.\n\n" + "\n\n".join(combinations.lines())


@_main.command(epilog=_COMBINATIONS)
def pretrain(
    ctx: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(help="A folder of pictures or videos, a manifest, or scenes:…; labels are not needed."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to write.")] = None,
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
    optimiser: Annotated[str, typer.Option(help=f"{', '.join(catalog.OPTIMISERS)}.")] = "adamw",
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; the optimiser's own if not given.")] = None,
    precision: Annotated[str, typer.Option(help="auto, 32, bf16 or fp16.")] = "auto",
    devices: Annotated[int, typer.Option(help="GPUs, or processes on a CPU; 0: all GPUs, or one process.")] = 0,
    workers: Workers = 0,
    seed: Seed = 0,
    limit: Limit = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network first (torch.compile).")] = False,
    set: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other setting; may be repeated.")
    ] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List what --set reaches, and leave.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="A run.json whose settings hold where no option is given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Overwrite = False,
    allow_skipped: AllowSkipped = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a backbone from pictures, videos or sounds, without labels or with some."""
    options = dict(ctx.params)
    for name in ("settings", "config", "resume", "overwrite", "json_", "quiet"):
        options.pop(name)
    _listen(quiet)
    if settings:
        from seeall.ssl.pretrain import parts

        apart = combinations.check(objective, positives, negatives)
        listed = {
            f"{role}.{name}": "none" if default is None else default
            for role, target in parts(objective, backbone, optimiser, positives, apart).items()
            for name, (_, default) in catalog.settings(target).items()
        }
        print(json.dumps(listed) if json_ else "\n".join(f"{name}={value}" for name, value in listed.items()))
        return
    if out is None:
        raise SeeallError("where should the run go? give --out FOLDER")
    before: Sequence[str] = ()
    if resume or config:
        from seeall.training.run import Run, read_facts

        facts = Run.open(out).facts if resume else read_facts(config or Path())
        for name, value in facts["settings"].items():
            source = ctx.get_parameter_source(name)
            if name not in ("out", "set") and name in options and (source is None or source.name == "DEFAULT"):
                options[name] = value
        before = facts["settings"].get("set", ())
    options["set"] = (*before, *(options["set"] or ()))
    source_of_pictures, folder = options.pop("data"), options.pop("out")
    if source_of_pictures is None:
        begun = (folder / "run.json").exists()
        raise SeeallError(
            f"{folder} has begun already; go on with it by --resume" if begun
            else "which pictures? give a folder, a manifest, or scenes:n=2000"
        )  # fmt: skip
    from seeall.ssl.pretrain import pretrain as learn
    from seeall.training.loop import Stopped

    search: Any = None
    if options["negatives"] == "neighbours":
        from seeall.index.nearest import nearest

        search = nearest
    try:
        results = learn(source_of_pictures, folder, **options, resume=resume, overwrite=overwrite, search=search)
    except Stopped as stop:
        log.warning("stopped at step %d; all is saved in %s, --resume goes on", stop.step, folder)
        raise typer.Exit(128 + stop.signal if _first() else 0) from None
    if _first():
        _tell({"run": str(folder), **results}, json_)
        log.info("next: ssl index build %s --run %s --out NAME.index", source_of_pictures, folder)


@_main.command()
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
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """How good is a backbone? Neighbours, a linear probe, retrieval, clusters and pairs, on labelled pictures."""
    _listen(quiet)
    from seeall.html import refuse
    from seeall.ssl import probes, report

    refuse(html, overwrite)
    found = probes.examine(run, data, val, limit=limit, seed=seed)
    if html:
        report.write(html, f"What {run.absolute().name} sees in {data}", found)
    _tell(found.figures, json_)


@_main.command()
def embed(
    run: RunFolder,
    data: Data,
    out: Annotated[Path, typer.Option(help="FILE: writes FILE.npy and FILE.parquet.")],
    limit: Limit = None,
    workers: Workers = 0,
    overwrite: Overwrite = False,
    allow_skipped: AllowSkipped = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the features of pictures to files."""
    _listen(quiet)
    from seeall.data.pictures import find
    from seeall.training.features import embed_files

    pictures = find(data, limit=limit)
    facts = embed_files(pictures, run, out, workers=workers, allow_skipped=allow_skipped, overwrite=overwrite)
    if _first():
        _tell(facts, json_)


@_index.command("build")
def index_build(
    data: Data,
    run: Annotated[Path, typer.Option(help="The run whose backbone sees the pictures.")],
    out: Annotated[Path, typer.Option(help="The index folder to write.")],
    limit: Limit = None,
    workers: Workers = 0,
    overwrite: Overwrite = False,
    allow_skipped: AllowSkipped = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Embed pictures and build an index of them."""
    _listen(quiet)
    from seeall.data.pictures import find
    from seeall.index.build import build

    pictures = find(data, limit=limit)
    _tell(build(pictures, run, out, workers=workers, overwrite=overwrite, allow_skipped=allow_skipped), json_)


@_index.command("add")
def index_add(
    index: IndexFolder,
    data: Data,
    run: Annotated[Path | None, typer.Option(help="Not needed; checked against the index if given.")] = None,
    workers: Workers = 0,
    allow_skipped: AllowSkipped = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add pictures; those already there are replaced."""
    _listen(quiet)
    from seeall.data.pictures import find
    from seeall.index.build import add, eye_of
    from seeall.index.store import Index

    with Index.open(index) as opened:
        eye = eye_of(opened, run)
        skipped = add(opened, find(data), eye, workers=workers, allow_skipped=allow_skipped)
        _tell({**opened.info(), "skipped": len(skipped)}, json_)


@_index.command("remove")
def index_remove(
    index: IndexFolder,
    items: Annotated[list[str], typer.Argument(help="Ids, or paths as `search` prints them.")],
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove pictures from an index; the files themselves stay."""
    _listen(quiet)
    from seeall.index.store import Index

    with Index.open(index) as opened:
        removed = opened.remove([_item(opened, text) for text in items])
        _tell({"removed": removed, "count": len(opened)}, json_)


def _item(index: Any, text: str) -> int | str:
    """An item's id or path as typed: a number, a path as stored, or one from here."""
    if text.isascii() and text.isdecimal():
        return int(text)
    return text if text in index else str(Path(text).absolute())


@_index.command("info")
def index_info(index: IndexFolder, json_: Json = False) -> None:
    """What an index holds."""
    from seeall.index.store import Index

    with Index.open(index) as opened:
        _tell(opened.info(), json_)


@_index.command("check")
def index_check(index: IndexFolder, json_: Json = False) -> None:
    """Compare everything in an index with its checksums and counts; exit code 1 where something is wrong."""
    from seeall.index.store import Index

    with Index.open(index) as opened:
        problems, notes = opened.check(), opened.notes()
    if json_:
        print(json.dumps({"problems": problems, "notes": notes}))
    else:
        print("\n".join([*problems, *notes]) if problems or notes else "clean")
    raise typer.Exit(1 if problems else 0)


@_index.command("compact")
def index_compact(index: IndexFolder, json_: Json = False, quiet: Quiet = False) -> None:
    """Give back the room of removed pictures."""
    _listen(quiet)
    from seeall.index.store import Index

    with Index.open(index) as opened:
        _tell({"dropped": opened.compact(), **opened.info()}, json_)


@_main.command()
def search(
    index: IndexFolder,
    images: Annotated[
        list[str], typer.Argument(help="Pictures or folders to find look-alikes of, or ids in the index.")
    ],
    k: Annotated[int, typer.Option("-k", help="How many look-alikes.")] = 10,
    run: Annotated[Path | None, typer.Option(help="Not needed; checked against the index if given.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with thumbnails, NAME.html.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page of --html.")] = False,
    gpu: Gpu = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find look-alikes of pictures in an index."""
    _listen(quiet)
    from seeall.html import refuse
    from seeall.index.query import page, search

    refuse(html, overwrite)
    results = search(index, images, k, run=run, gpu=gpu)
    if html:
        page(html, index, results)
        log.info("wrote %s", html)
    for result in results:
        if json_:
            print(json.dumps(result, ensure_ascii=False))
        else:
            print(result["query"])
            for match in result["matches"]:
                print(f"  {match['score']:.4f}  {match['id']:>8}  {match['path']}  {match['label'] or ''}".rstrip())


@_main.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the demonstration goes.")] = Path("runs/demo"),
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole way on a synthetic world, in a few minutes: pretrain, index, search, and a page to look at."""
    _listen(quiet)
    from seeall.demo import demo

    _tell(demo(out, overwrite=overwrite), json_)


@_main.command()
def doctor(json_: Json = False) -> None:
    """What is installed here, what it can do, what is missing and how to get it."""
    from seeall.doctor import examine

    _tell(examine(), json_)
