"""Small real indexes, and a real server in a thread of this process: real sockets, real torch, real FAISS."""

from __future__ import annotations

import csv
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from seeall.backbones.load import build as make_backbone
from seeall.backbones.load import save
from seeall.data.pictures import find
from seeall.index.build import build
from seeall.index.server import wire
from seeall.index.server.app import make
from seeall.index.server.guard import Limits
from seeall.index.server.service import Service

NAME = "shufflenet_v2_x0_5"


def network(path: Path, seed: int = 0, size: int = 32) -> Path:
    """An untrained backbone's file."""
    torch.manual_seed(seed)
    backbone, _ = make_backbone(NAME)
    return save(backbone, path, name=NAME, settings={}, preprocessing={"image_size": size})


def photos(folder: Path, n: int = 40, first: int = 0) -> Path:
    """n pictures in two folders, each with a pattern of its own, and a manifest that tells more of them."""
    rows = []
    for i in range(first, first + n):
        kind = ("cat", "dog")[i % 2]
        small = np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((60, 48), Image.Resampling.BICUBIC).save(folder / kind / f"{i:03d}.png")
        rows.append({"path": f"{kind}/{i:03d}.png", "label": kind, "camera": f"c{i % 3}", "mask": f"/secret/{i}.png"})
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "list.csv"


def index_at(folder: Path, n: int = 40) -> Path:
    """An index of `n` pictures in `folder`/secret-home/photos."""
    listed = photos(folder / "secret-home" / "photos", n)
    out = folder / "photos.index"
    build(find(str(listed)), network(folder / "net.safetensors"), out)
    return out


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Place(NamedTuple):
    """A server that listens: where, and what it serves."""

    url: str
    port: int
    service: Service

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own. A dictionary is sent as JSON."""
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"content_type": "application/json", **headers}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def raw(self) -> socket.socket:
        """A connection on which a test may say what it likes."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def served(index: Path, limits: Limits | None = None) -> Iterator[Place]:
    """`index`, served until the block ends."""
    service = Service(index, "off")
    listening, ready = wire.listen("127.0.0.1", 0), threading.Event()
    server = wire.server(make(service, limits or Limits()), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        assert ready.wait(30)
        port = listening.getsockname()[1]
        yield Place(f"http://127.0.0.1:{port}", port, service)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
    assert not thread.is_alive()


def everything(sock: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def host(url: str) -> str:
    return urlsplit(url).netloc
