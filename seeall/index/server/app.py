"""The routes: what can be asked, and what is answered. Errors are the business of `errors`, admission of `guard`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from seeall import __version__
from seeall.index.server import figures, models, page
from seeall.index.server.errors import Refusal, speak, wrong
from seeall.index.server.guard import Guard, Limits
from seeall.index.server.names import clean
from seeall.index.server.service import Service
from seeall.index.server.shelf import Hit
from seeall.index.server.shelf import Query as Search

STYLE = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not say otherwise."""
_JSON_BYTES = 2 << 20
_ATTEMPTS = 5
K = Annotated[int, Query(ge=1, le=models.MOST_K, description="How many on a page.")]
Page = Annotated[int, Query(ge=1, le=models.MOST_ID // models.MOST_K, description="Which page, from 1.")]
Where = Annotated[
    str, Query(max_length=models.WHERE, description="A filter, such as label = 'cat'; as `ssl search --where`.")
]
ItemId = Annotated[int, Path(ge=1, le=models.MOST_ID)]
Side = Annotated[int, Query(ge=16, le=1024, description="Longer side, px.")]
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"picture": {"type": "string", "format": "binary"}},
        "required": ["picture"],
        "additionalProperties": False,
    }
}
_PICTURE = {"image/*": _BINARY, "application/octet-stream": _BINARY, "multipart/form-data": _FORM}
_REASONS = {
    400: "The body is not what its type says.",
    401: "No token, or a wrong one.",
    403: "Asked by a name that is not this machine's, or by another site.",
    404: "There is no such thing.",
    409: "The gallery is not calibrated.",
    408: "The request came in too slowly.",
    413: "Too many bytes or pixels.",
    415: "A body of another type.",
    422: "Something asked is not possible; the message says what.",
    500: "Our mistake.",
    503: "Too much at once: try again in a moment.",
}


def _faults(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {
        code: {"model": models.Error, "description": _REASONS[code]} for code in sorted({401, 403, 500, 503, *codes})
    }


def make(service: Service, limits: Limits) -> Guard:
    """The application; `service` is closed when it ends."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="seeall", version=__version__, description="Look-alikes in a collection of pictures.", lifespan=life,
        docs_url=None, redoc_url=None, redirect_slashes=False,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if limits.token else [],
    )  # fmt: skip
    speak(app)
    _pages(app, service)
    _items(app, service)
    _search(app, service)
    _faces(app, service)
    _schema(app)
    return Guard(app, limits, service.figures, STYLE)


def _schema(app: FastAPI) -> None:
    """Let /openapi.json tell what FastAPI cannot know: a body that is read by hand, a route that needs no token."""
    openapi = app.openapi

    def whole() -> dict[str, Any]:
        if not app.openapi_schema:
            schema = openapi()
            schema["components"]["schemas"]["Ask"] = models.Ask.model_json_schema()
            schema["paths"]["/v1/health"]["get"].pop("security", None)
        return openapi()

    app.openapi = whole  # type: ignore[method-assign]


def _pages(app: FastAPI, service: Service) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    policy = page.policy(text)

    @app.get("/", include_in_schema=False)
    async def front() -> HTMLResponse:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        told = page.documentation(app.openapi())
        return HTMLResponse(told, headers={"Content-Security-Policy": page.policy(told)})

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_faults()},
    )
    async def metrics() -> Response:
        """Figures for Prometheus: requests by route and status, seconds, batch sizes, items."""
        return Response(service.figures.text(), media_type=figures.KIND)

    @app.get("/v1/health", responses=_faults())
    async def health() -> models.Health:
        """How the service is; needs no token."""
        shelf = service.shelf
        return models.Health(
            status="stale" if shelf.stale else "ok", version=__version__, name=shelf.name,
            kind="gallery" if shelf.now.people else "index",
            items=len(shelf.now.index), dim=shelf.now.index.dim, generation=shelf.now.generation,
        )  # fmt: skip


def _items(app: FastAPI, service: Service) -> None:
    @app.get("/v1/items", responses=_faults(422))
    async def items(k: K = 24, page: Page = 1, where: Where = "") -> models.Items:
        """Pictures of the index, by ascending id."""
        filter = where.strip()

        def look() -> models.Items:
            shelf = service.shelf.now
            ids = shelf.select(filter)
            part = ids[(page - 1) * k : page * k]
            shown = [models.Item(**shelf.shown(item)) for item in shelf.items(part.tolist())]
            return models.Items(items=shown, total=len(ids), k=k, page=page, more=page * k < len(ids))

        for _ in range(_ATTEMPTS):  # an item may go between the two
            try:
                return await service.aside(look)
            except Refusal as fault:
                if fault.code != "changed":
                    raise
        return await service.aside(look)

    @app.get("/v1/items/{id}", responses=_faults(404, 422))
    async def item(id: ItemId) -> models.Item:
        """One picture of the index."""
        shelf = service.shelf.now
        return models.Item(**shelf.shown(await service.aside(shelf.get, id)))

    @app.get(
        "/v1/items/{id}/thumb",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": _BINARY}}, 304: {"description": "As before."}, **_faults(404, 422)},
    )
    async def thumb(request: Request, id: ItemId, side: Side = 256) -> Response:
        """A picture of the index, small."""
        shelf = service.shelf.now

        def look() -> bytes:
            return service.thumbs.get(shelf.edition, shelf.get(id).path, side)

        tag = f'"{shelf.edition}-{id}-{side}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(await service.aside(look), media_type="image/jpeg", headers=headers)


def _search(app: FastAPI, service: Service) -> None:
    asked = {"application/json": {"schema": {"$ref": "#/components/schemas/Ask"}}}

    @app.post(
        "/v1/search",
        responses=_faults(400, 404, 408, 413, 415, 422),
        openapi_extra={"requestBody": {"required": True, "content": {**asked, **_PICTURE}}},
    )
    async def search(request: Request, k: K = 10, page: Page = 1, where: Where = "") -> models.Found:
        """The nearest of a picture (sent as it is, or in a form), of an item, or of a vector."""
        first, last = (page - 1) * k, page * k
        if last > models.DEEPEST:
            raise Refusal(422, "too_deep", f"page: the {models.DEEPEST} nearest can be seen, and no more")
        query = Search(first, last, where.strip())
        if _kind(request) == "application/json":
            ask = _ask(await _body(request, _JSON_BYTES))
            vector = None if ask.vector is None else np.array(ask.vector, np.float64)
            query = query._replace(id=ask.id, vector=vector)
        else:
            query = query._replace(pixels=await service.cut(await sent(request)))
        return _found(await service.find(query), k, page)


def _faces(app: FastAPI, service: Service) -> None:
    @app.get("/v1/faces/people", responses=_faults(404))
    async def people() -> models.People:
        """Everybody of the gallery, and of how many pictures."""
        known = service.shelf.now.people
        if known is None:
            raise Refusal(404, "no_gallery", "this is no gallery of people")
        return models.People(people=[models.Person(name=clean(name), pictures=n) for name, n in known.known.items()])

    @app.post(
        "/v1/faces/identify",
        responses=_faults(400, 404, 408, 409, 413, 415, 422),
        openapi_extra={"requestBody": {"required": True, "content": _PICTURE}},
    )
    async def identify(request: Request, k: Annotated[int, Query(ge=1, le=models.MOST_K)] = 5) -> models.Faces:
        """Who is on a picture: for each face the k people who are most like it, or nobody."""
        cuts, faces = await service.faces(await sent(request))
        if not cuts:
            return models.Faces(faces=[])
        hit = await service.find(Search(0, k, faces=faces))
        told = []
        for cut, matches in zip(cuts, hit.who):
            candidates = [models.Candidate(person=clean(m.person), score=round(float(m.score), 6)) for m in matches]
            best = candidates[0] if candidates else None
            told.append(
                models.Face(
                    box=cut.box,
                    person=best.person if best else None,
                    score=best.score if best else None,
                    candidates=candidates,
                )
            )
        return models.Faces(faces=told)


def _found(hit: Hit, k: int, page: int) -> models.Found:
    matches = [
        models.Match(**hit.shelf.shown(item), score=round(score, 6)) for item, score in zip(hit.items, hit.scores)
    ]
    query = models.Item(**hit.shelf.shown(hit.query)) if hit.query else None
    return models.Found(
        query=query, matches=matches, k=k, page=page, more=hit.more and (page + 1) * k <= models.DEEPEST
    )


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _ask(data: bytes) -> models.Ask:
    try:
        return models.Ask.model_validate_json(data)
    except ValidationError as fault:
        raise Refusal(422, "invalid", wrong(fault.errors(include_input=False, include_url=False))) from None


async def _body(request: Request, most: int | None = None) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if most is not None and len(data) > most:
            raise Refusal(413, "too_large", f"{most:,} bytes of JSON at most")
    return bytes(data)


_BYTES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""What those who send a file as it is call it when they are not told; the latter, curl."""


async def sent(request: Request) -> bytes:
    """The file of a picture that a request brings: its body, or the one file of its form. Raises Refusal."""
    kind = _kind(request)
    if kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=0) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
        raise Refusal(422, "no_picture", "the form holds no file: send the picture as `picture`")
    if kind and not kind.startswith("image/") and kind not in _BYTES:
        raise Refusal(415, "type", f"{kind[:60]}: send image/…, a form with a picture, or JSON with an id or a vector")
    return await _body(request)
