"""`ssl serve`: an index, opened, and answered for until a signal comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seeall.index.gpus import Gpu
from seeall.index.server import wire
from seeall.index.server.app import make
from seeall.index.server.guard import Limits, is_loopback
from seeall.index.server.people import Finding, whole
from seeall.index.server.service import Service
from seeall.types import SeeallError

_SHORTEST = 8
"""Letters of a token, at least."""


def run(
    folder: Path,
    *,
    host: str,
    port: int,
    token: str = "",
    gpu: Gpu = "auto",
    most: int = 20 << 20,
    finding: Finding = whole,
    ready: Callable[[str, Service], None],
) -> None:
    """Serve the index at `folder` until Ctrl-C or SIGTERM.

    most: bytes of one request · finding: how faces are found, where the index is a gallery
    ready: is called with the address once it answers

    Raises: SeeallError where the index cannot be opened, or the address not be listened to; where others than this
        machine could come and no token is asked of them.
    """
    local = is_loopback(host)
    if not local and not token:
        raise SeeallError(f"--host {host} lets other machines in: give a --token, or SEEALL_TOKEN, that they must show")
    if token and (len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token):
        raise SeeallError(
            f"--token: {_SHORTEST} letters, digits or signs at least, no spaces; `openssl rand -hex 16` makes one"
        )
    listening = wire.listen(host, port)
    try:
        service = Service(folder, gpu, finding)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        limits = Limits(token=token, local=local, body=most)
        wire.server(make(service, limits), lambda: ready(address, service)).run(sockets=[listening])
    finally:
        listening.close()
