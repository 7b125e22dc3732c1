"""The `ssl` command: options in, one call, words and pictures out. Imports no torch until a command runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from seeall import __version__
from seeall.commands import data, faces, finetune, heads, index, pretrain, see, serve
from seeall.commands.common import Json, Overwrite, Quiet, first, listen, tell
from seeall.types import SeeallError

_main = typer.Typer(
    help="Learn to see from pictures nobody labelled, and make use of it.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
_main.command(epilog=pretrain.COMBINATIONS)(pretrain.pretrain)
_main.command(epilog=finetune.MODELS)(finetune.finetune)
_main.command()(heads.predict)
_main.command()(heads.propagate)
_main.command()(see.evaluate)
_main.command()(see.embed)
_main.command()(heads.compare)
_main.command()(heads.export)
_main.add_typer(index.group, name="index")
_main.command()(index.search)
_main.add_typer(faces.group, name="faces")
_main.command()(serve.serve)
_main.add_typer(data.group, name="data")


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
    if not first():
        time.sleep(2)  # whoever started this process ends the first one when this one ends: let it say its word
    return code


@_main.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@_main.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the demonstration goes.")] = Path("runs/demo"),
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole way on a synthetic world, in a few minutes: pretrain, index, search, and a page to look at."""
    listen(quiet)
    from seeall.demo import demo

    tell(demo(out, overwrite=overwrite), json_)


@_main.command()
def doctor(json_: Json = False) -> None:
    """What is installed here, what it can do, what is missing and how to get it."""
    from seeall.doctor import examine

    tell(examine(), json_)
