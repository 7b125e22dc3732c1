"""`ssl serve` as it is started and ended: a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.index.served import index_at

Ssl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_at(tmp_path_factory.mktemp("process"), 8)


def ask(url: str, sent: bytes | None = None, **headers: str) -> Any:
    kinds = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, sent, kinds), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "token"), [(signal.SIGTERM, ""), (signal.SIGINT, "a-long-secret-token")])
def test_it_starts_answers_and_ends(
    ssl_process: Callable[..., subprocess.Popen[str]], index: Path, number: int, token: str
) -> None:
    process = ssl_process("serve", index, "--port", "0", "--json", SEEALL_TOKEN=token)
    assert process.stdout and process.stderr
    try:
        told = json.loads(process.stdout.readline())
        assert told.keys() == {"url", "index", "items"} and (told["index"], told["items"]) == ("photos.index", 8)
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        kind = {"Content-Type": "application/json"}
        found = ask(told["url"] + "v1/search?k=8", b'{"id": 3}', **shown, **kind)
        assert found["matches"][0]["id"] == 3 and len(found["matches"]) == 8
        if token:
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                ask(told["url"] + "v1/items")
            refused.value.close()
        wrong: list[BaseException] = []

        def go_on() -> None:  # whoever has been let in is answered, whatever the signal
            try:
                assert len(ask(told["url"] + "v1/items", **shown)["items"]) == 8
            except BaseException as fault:
                wrong.append(fault)

        threads = [threading.Thread(target=go_on) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        process.send_signal(number)
        rest, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and rest == "" and wrong == []
    assert "Traceback" not in err and "error" not in err.lower()


@pytest.mark.slow
def test_a_request_under_way_is_finished(ssl_process: Callable[..., subprocess.Popen[str]], index: Path) -> None:
    process = ssl_process("serve", index, "--port", "0", "--json", "--quiet")
    assert process.stdout
    try:
        port = int(json.loads(process.stdout.readline())["url"].rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            body = b'{"id": 3}'
            kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
            head = f"POST /v1/search HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n"
            sock.sendall(head.encode() + body[:4])
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            with pytest.raises(OSError):  # nobody else is let in
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            sock.sendall(body[4:])
            assert b" 200 " in sock.recv(65536)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "give a --token, or SEEALL_TOKEN"),
        (["--host", "::"], "give a --token, or SEEALL_TOKEN"),
        (["--host", "0.0.0.0", "--token", "short"], "--token: 8 letters"),
        (["--token", "with a space in it"], "--token: 8 letters"),
        (["--host", "no.such.name.invalid", "--token", "long-enough"], "--host no.such.name.invalid: no address"),
        (["--host", "203.0.113.1", "--token", "long-enough"], "203.0.113.1:8000 cannot be listened to"),
        (["--port", "70000"], "--port"),
        (["--gpu", "maybe"], "--gpu maybe: choose from auto, on, off"),
    ],
)
def test_what_it_does_not_start_with(ssl: Ssl, index: Path, options: list[str], words: str) -> None:
    code, out, err = ssl("serve", index, *options)
    assert code == 2 and out == "" and words in err and len(err.splitlines()) == 1, err


def test_no_index(ssl: Ssl, tmp_path: Path) -> None:
    code, _, err = ssl("serve", tmp_path / "none", "--port", "0")
    assert code == 2 and f"there is no index at {tmp_path / 'none'}" in err
    code, _, err = ssl("serve", tmp_path, "--port", "0")
    assert code == 2 and "is no complete index" in err


def test_port_that_is_taken(ssl: Ssl, index: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = ssl("serve", index, "--port", port)
    assert code == 2 and f"127.0.0.1:{port} cannot be listened to" in err and "choose another --port" in err


def test_extra_that_is_missing(index: Path, tmp_path: Path) -> None:
    """A Python in which fastapi cannot be found."""
    code = f"""
import importlib.util, sys

find, gone = importlib.util.find_spec, ("fastapi", "prometheus_client")
importlib.util.find_spec = lambda name, *rest: None if name in gone else find(name, *rest)
from seeall import cli
sys.exit(cli.run(["serve", {str(index)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: ssl serve needs fastapi, prometheus_client: pip install 'seeall[serve]'\n"
