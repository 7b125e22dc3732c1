"""What goes wrong, in one envelope: {"error": {"code", "message", "request_id"}}, whatever the status."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

REQUEST_ID = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CODES = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}


class Refusal(Exception):
    """An answer that is no result. code: a word that a program can compare · message: a line for a person."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def request_id(given: str = "") -> str:
    """What a request is called: as its sender says, where that is a plain word, else a new name."""
    return given if _SANE.fullmatch(given) else uuid.uuid4().hex


def envelope(code: str, message: str, name: str) -> dict[str, Any]:
    """The body of an error. name: the request's"""
    return {"error": {"code": code, "message": message, "request_id": name}}


def body(code: str, message: str, name: str) -> bytes:
    """The same as JSON."""
    return json.dumps(envelope(code, message, name)).encode()


def without_paths(text: str, *known: str) -> str:
    """One line in which no folder of the disk is named. known: folders that are certainly on it"""
    for folder in sorted(known, key=len, reverse=True):
        text = text.replace(folder.rstrip("/") + "/", "").replace(folder, folder.rpartition("/")[2])
    return re.sub(r"(?<![\w.])/(?:[^/\s'\",:;]+/)+", "", " ".join(text.split()))


def speak(app: FastAPI) -> None:
    """Have `app` answer every error with the envelope."""

    def answer(request: Request, status: int, code: str, message: str, headers: Any = None) -> JSONResponse:
        name = request.scope.get("request_id", "")
        return JSONResponse(envelope(code, message, name), status, headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, fault: Refusal) -> JSONResponse:
        return answer(request, fault.status, fault.code, fault.message)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, fault: HTTPException) -> JSONResponse:
        status = fault.status_code
        code = _CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))
        told = fault.detail if fault.detail != HTTPStatus(status).phrase else _words(request, status)
        return answer(request, status, code, told, fault.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, fault: RequestValidationError) -> JSONResponse:
        return answer(request, 422, "invalid", wrong(fault.errors()))

    @app.exception_handler(Exception)
    async def broken(request: Request, fault: Exception) -> JSONResponse:
        return answer(request, 500, "internal", "something went wrong here; the log has the request's id")


def _words(request: Request, status: int) -> str:
    path = request.url.path
    if status == 405:
        return f"{path} does not take {request.method}"
    return f"there is nothing at {path}" if status == 404 else HTTPStatus(status).phrase


def wrong(errors: Sequence[Any]) -> str:
    """What pydantic found, in one line that does not repeat what was sent."""
    lines = []
    for error in errors[:3]:
        place = ".".join(str(part) for part in error["loc"] if part not in ("query", "path", "body"))
        lines.append(f"{place}: {error['msg']}" if place else str(error["msg"]))
    return "; ".join(lines) + (f"; and {len(errors) - 3} more" if len(errors) > 3 else "")
