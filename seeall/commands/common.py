"""What the commands share: options that mean the same everywhere, notes on standard error, reports on standard out."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from seeall.console import log

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
Wait = Annotated[bool, typer.Option("--wait", help="Where another process is writing, wait for it to be done.")]
Gpu = Annotated[str, typer.Option(help="auto, on or off: search on a GPU.")]


def first() -> bool:
    """Whether this is the only process, or the first of several."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def listen(quiet: bool) -> None:
    """Let notes through to standard error; under several processes only those of the first."""
    import warnings

    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with a file is said once, in skipped.csv
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.ERROR if not first() else logging.WARNING if quiet else logging.INFO)


def as_line(facts: Any) -> str:
    """JSON in one line of UTF-8; names of files that are no text keep their bytes as escapes."""
    text = json.dumps(facts, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(facts)
    return text


def tell(facts: Mapping[str, Any], as_json: bool) -> None:
    """A report: one JSON object, or a line for each figure."""
    if as_json:
        print(as_line(facts))
        return
    wide = max(16, *(len(name) + 2 for name in facts))
    for name, value in facts.items():
        shown = f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
        print(f"{name:<{wide}}{shown}")
