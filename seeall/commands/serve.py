"""`ssl serve`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from seeall.commands.common import Gpu, Json, Quiet, listen
from seeall.console import log
from seeall.types import SeeallError

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    index: Annotated[Path, typer.Argument(help="An index, or a gallery of faces.")],
    host: Annotated[str, typer.Option(help="The address to listen to; beyond this machine, with a token only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="SEEALL_TOKEN", help="What everybody who asks must show.", show_default=False)
    ] = "",
    max_megabytes: Annotated[float, typer.Option(min=0.01, max=1000, help="The largest picture that is taken.")] = 20,
    gpu: Gpu = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve an index over HTTP, with a page to look at it; ends with Ctrl-C or SIGTERM."""
    listen(quiet)
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SeeallError(f"ssl serve needs {', '.join(missing)}: pip install 'seeall[serve]'")
    if gpu not in ("auto", "on", "off"):
        raise SeeallError(f"--gpu {gpu}: choose from auto, on, off")
    from seeall.commands.faces import finder
    from seeall.index.server.run import run

    def ready(address: str, service: Any) -> None:
        facts = {"url": address, "index": service.shelf.name, "items": len(service.shelf.now.index)}
        print(json.dumps(facts) if json_ else f"{address}  {facts['items']:,} pictures of {facts['index']}", flush=True)
        if not json_:
            log.info("Ctrl-C ends it")

    run(
        index, host=host, port=port, token=token, gpu=gpu,  # type: ignore[arg-type]
        most=int(max_megabytes * 2**20), finding=finder, ready=ready,
    )  # fmt: skip
