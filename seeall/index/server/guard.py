"""What every request passes on its way in and every answer on its way out: who asks, how much, how long.

Around the whole application, so that nothing gets past it: a request's name, refusals (host, origin, token, how
many at once), a limit on a body while it comes in, a limit on time, headers, figures, and an answer where there is
none yet when something breaks.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seeall.console import log
from seeall.index.server.errors import REQUEST_ID, Refusal, body, request_id
from seeall.index.server.figures import Figures

OPEN = frozenset({"/", "/v1/health"})
"""What needs no token: the page, which holds nothing, and whether the service is well."""
_DRAIN = 2.0
"""Seconds for which a refused body, no more of it than would be taken, is read and thrown away: most senders read an
answer only when they have sent all."""


@final
@dataclass(frozen=True)
class Limits:
    """token: what must be shown, or "" · local: whether only this machine is meant, by its own names.

    body: bytes of one request · bodies: of all together · requests: at once · seconds: for one, and for its body
    """

    token: str = ""
    local: bool = True
    body: int = 20 << 20
    bodies: int = 256 << 20
    requests: int = 256
    seconds: float = 60.0
    body_seconds: float = 30.0


class _Gone(Exception):
    """Whoever asked has gone."""


@final
class Guard:
    """app, guarded. style: headers of every answer besides X-Request-Id"""

    def __init__(self, app: ASGIApp, limits: Limits, figures: Figures, style: Mapping[str, str]) -> None:
        self._app, self._limits, self._figures = app, limits, figures
        self._style = [(name.lower().encode(), value.encode()) for name, value in style.items()]
        self._token = _digest(limits.token.encode())
        self._requests = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _Passage(self, scope, receive, send).go()
        # a web socket is closed by the server where nobody answers

    def refuse(self, scope: Scope) -> None:
        """Raises Refusal for a request that is not let in, by what its head says."""
        limits, headers = self._limits, Headers(scope=scope)
        if limits.local and not limits.token and not is_local(headers.get("host", "")):
            raise Refusal(403, "host", "this service is for its own machine: ask for it as localhost or 127.0.0.1")
        origin = headers.get("origin")  # no page of another site knows a token, and proxies may change our name
        if not limits.token and origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise Refusal(403, "origin", "this service is not for pages of other sites")
        if limits.token and scope["path"] not in OPEN:
            kind, _, shown = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(_digest(shown.strip().encode("latin-1")), self._token)
            if not (right and kind.lower() == "bearer"):
                raise Refusal(401, "token", "show the token of this service: Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdecimal() and len(length) < 20 and int(length) > limits.body:
            raise self.too_large()
        if self._requests > limits.requests:
            raise Refusal(503, "busy", f"{limits.requests} requests are being answered: try again in a moment")

    def too_large(self) -> Refusal:
        """The refusal of a body over the limit."""
        return Refusal(413, "too_large", f"{self._limits.body:,} bytes at most")


class _Passage:
    """One request on its way through `guard`."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard, self._scope, self._receive, self._send = guard, scope, receive, send
        self._name = request_id(Headers(scope=scope).get(REQUEST_ID, ""))
        self._began = time.perf_counter()
        self._status, self._complete = 0, False
        self._got, self._ended, self._gone = 0, False, False
        self._fault: Refusal | None = None

    async def go(self) -> None:
        guard, limits = self._guard, self._guard._limits
        self._scope["request_id"] = self._name
        guard._requests += 1
        guard._figures.began()
        try:
            try:
                guard.refuse(self._scope)
                with anyio.fail_after(limits.seconds):
                    await guard._app(self._scope, self._take, self._give)
            except Refusal as fault:
                await self._refuse(fault)
            except TimeoutError:
                await self._refuse(Refusal(503, "too_slow", f"no answer within {limits.seconds:g} s"))
            except Exception:
                if self._gone:
                    self._status = self._status or 499
                    return
                if self._fault:  # whatever the application made of it
                    await self._refuse(self._fault)
                    return
                log.exception("request %s: %s %s", self._name, self._scope["method"], self._scope["path"])
                await self._refuse(Refusal(500, "internal", "something went wrong here; the log has the request's id"))
        finally:
            guard._requests -= 1
            guard._bytes -= self._got
            route = getattr(self._scope.get("route"), "path", "none")
            method = self._scope["method"] if self._scope["method"] in _METHODS else "other"
            guard._figures.ended(route, method, self._status, time.perf_counter() - self._began)

    async def _take(self) -> Message:
        """The next part of the body. Raises Refusal as soon as it is too large or too slow."""
        guard, limits = self._guard, self._guard._limits
        if self._fault:
            raise self._fault
        if self._ended:
            return await self._receive()
        left = limits.body_seconds - (time.perf_counter() - self._began)
        try:
            with anyio.fail_after(max(left, 0.001)):
                message = await self._receive()
        except TimeoutError:
            self._fault = Refusal(408, "too_slow", f"the request did not come in within {limits.body_seconds:g} s")
            raise self._fault from None
        if message["type"] == "http.disconnect":
            self._gone = True
            raise _Gone
        size = len(message.get("body", b""))
        self._got += size
        guard._bytes += size
        self._ended = not message.get("more_body", False)
        if self._got > limits.body:
            self._fault = guard.too_large()
        elif guard._bytes > limits.bodies:
            self._fault = Refusal(503, "busy", "too much is being sent at once: try again in a moment")
        if self._fault:
            raise self._fault
        return message

    async def _give(self, message: Message) -> None:
        """Pass an answer on, with the headers of all answers."""
        if self._gone:
            raise _Gone
        if self._fault and not self._status:  # a refusal that the application made something else of
            raise self._fault
        if message["type"] == "http.response.start":
            self._status = message["status"]
            own = {name for name, _ in message["headers"]}
            style = [(name, value) for name, value in self._guard._style if name not in own]
            named = (REQUEST_ID.lower().encode(), self._name.encode())
            message = {**message, "headers": [*message["headers"], *style, named]}
        elif not message.get("more_body", False):
            self._complete = True
        await self._send(message)

    async def _refuse(self, fault: Refusal) -> None:
        """Answer with `fault` where nothing has been answered; what is left of a body is not waited for."""
        if self._gone:
            return
        if self._status:
            if not self._complete:
                raise RuntimeError(f"request {self._name}: broke off: {fault.message}")  # the server then hangs up
            return
        self._fault = None
        text = body(fault.code, fault.message, self._name)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
        if fault.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if fault.status == 503:
            headers.append((b"retry-after", b"1"))
        unread = not self._ended and _has_body(self._scope)
        if unread:
            headers.append((b"connection", b"close"))
        await self._give({"type": "http.response.start", "status": fault.status, "headers": headers})
        await self._give({"type": "http.response.body", "body": text, "more_body": unread})
        if unread:
            with anyio.move_on_after(_DRAIN):
                more, left = True, self._guard._limits.body
                while more and left > 0:
                    message = await self._receive()
                    more, left = message.get("more_body", False), left - len(message.get("body", b""))
            await self._give({"type": "http.response.body", "body": b"", "more_body": False})


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _digest(text: bytes) -> bytes:
    """Of one length whatever the token is, so that comparing takes the same time."""
    return hashlib.sha256(text).digest()


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def is_local(host: str) -> bool:
    """Whether a header Host, with or without a port, means this machine."""
    try:
        name: Any = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return is_loopback(name or "")


def is_loopback(name: str) -> bool:
    """Whether a name or address is this machine's own, and needs no look-up to be so."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
