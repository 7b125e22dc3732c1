"""uvicorn, with what it has no setting for: heads of requests that come in too slowly, as many connections as we
say and no more, the error envelope below the application too, and an end by signal that is no failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from seeall.index.server.errors import REQUEST_ID, body, request_id
from seeall.types import SeeallError

IDLE_SECONDS = 30
"""How long a connection on which nothing is asked stays open after an answer."""
CONNECTIONS = 1024
GRACE = 10
"""Seconds for which requests are still answered after a signal to end."""
_HEAD = 32 << 10
"""Bytes of a request's head, at most."""


@final
class Protocol(H11Protocol):
    """One connection: HTTP/1.1 by h11.

    head_seconds: how long the head of a request may take, from the beginning of its connection or its own first byte
    read_seconds: for how long the other side may leave unread what is said to it
    """

    head_seconds = 10.0
    read_seconds = 20.0
    _unread: asyncio.TimerHandle | None = None
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hang up at once where too many are here already."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.close()
        else:
            self._look()

    def data_received(self, data: bytes) -> None:
        """As ever, with an eye on whether a head is complete."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """The next head may already be on its way."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._stop()

    def pause_writing(self) -> None:
        """What is said is not read: not for ever."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It is read after all."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def timeout_keep_alive_handler(self) -> None:
        """Hang up on who asks nothing more, also where the last answer was not read."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.read_seconds, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, answered in our envelope."""
        self._say(400, b"Bad Request", "bad_request", "this is no HTTP request, or its head is too long")

    def _look(self) -> None:
        """Have the clock run while a head has begun, or a first one is awaited, and is not complete."""
        busy = self.cycle is not None and not self.cycle.response_complete
        waiting = self.cycle is None or bool(self.conn.trailing_data[0])
        if busy or not waiting or self.transport.is_closing():
            self._stop()
        elif self._watch is None:
            self._watch = self.loop.call_later(self.head_seconds, self._too_slow)

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _too_slow(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            message = f"the head of a request did not come in within {self.head_seconds:g} s"
            self._say(408, b"Request Timeout", "too_slow", message)
        else:
            self.transport.close()

    def _say(self, status: int, reason: bytes, code: str, message: str) -> None:
        name = request_id()
        text = body(code, message, name)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(text)).encode()),
            (REQUEST_ID.encode(), name.encode()),
            (b"connection", b"close"),
        ]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer may have been half sent
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(data=text),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


@final
class Server(uvicorn.Server):
    """ready is called when connections are accepted."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As ever, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the service in peace, a second one at once; neither is raised again."""
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port`, 0 taking a free one. Raises: SeeallError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as fault:
        raise SeeallError(f"--host {host}: no address of this machine: {fault}; 127.0.0.1 is its own") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as fault:
        found.close()
        raise SeeallError(
            f"{host}:{port} cannot be listened to: {fault.strerror}; choose another --port, or 0 for a free one"
        ) from None
    return found


def server(app: Any, ready: Callable[[], None]) -> Server:
    """What answers with `app`: `run(sockets=[…])` does until a signal comes, or until its `should_exit` is set."""
    config = uvicorn.Config(
        app, http=Protocol, ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False,
        log_level="error", server_header=False, timeout_keep_alive=IDLE_SECONDS, timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=_HEAD, proxy_headers=False, backlog=CONNECTIONS,
    )  # fmt: skip
    return Server(config, ready)
