"""What a service does not take: too much, too slow, too many pixels, from others, by tricks; and it goes on."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.index.server import wire
from seeall.index.server.guard import Limits, is_local
from tests.index.served import Place, everything, host, index_at, served

TOKEN = "a-long-secret-token"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_at(tmp_path_factory.mktemp("refuses"), 6)


@pytest.fixture(scope="module")
def place(index: Path) -> Iterator[Place]:
    with served(index, Limits(body=1 << 20, body_seconds=1.0, seconds=20.0)) as place:
        yield place


@pytest.fixture(autouse=True)
def goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever was tried, the next one who asks is answered, and nothing is left open."""
    yield
    if "place" in request.fixturenames:
        place = request.getfixturevalue("place")
        assert place.post("/v1/search", {"id": 1}).status == 200
        open_ = [
            line
            for line in place.get("/metrics").body.decode().splitlines()
            if line.startswith("seeall_requests_open ")
        ]
        assert open_ == ["seeall_requests_open 1.0"]


def test_100_megabytes_announced(place: Place) -> None:
    """Refused by its head: not a byte of the body is asked for."""
    with place.raw() as sock:
        start = time.monotonic()
        sock.sendall(
            f"POST /v1/search HTTP/1.1\r\nHost: {host(place.url)}\r\nContent-Length: {100 << 20}\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        told = b""
        while b"request_id" not in told and (more := sock.recv(65536)):  # head and body may come one by one
            told += more
        assert b" 413 " in told and b"100 Continue" not in told and time.monotonic() - start < 5
        assert b'"code": "too_large"' in told and b"x-request-id" in told.lower()


@pytest.mark.parametrize("kind", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_100_megabytes_in_pieces(place: Place, kind: str) -> None:
    """Nothing says how much will come: refused as soon as it is too much, long before the end."""
    sent = 0
    with place.raw() as sock:
        sock.sendall(
            f"POST /v1/search HTTP/1.1\r\nHost: {host(place.url)}\r\nContent-Type: {kind}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        opening = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        piece = opening if kind.startswith("multipart") else b"x"
        sock.settimeout(5)
        try:
            while sent < 100 << 20:
                sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                sent += len(piece)
                piece = b"x" * 65536
        except OSError:  # the other side has hung up
            pass
        told = everything(sock)
    assert sent < 100 << 20
    assert b" 413 " in told or told == b""  # the answer may be lost with the connection it came on
    assert place.get("/v1/health").status == 200


def test_a_little_too_much_is_answered(place: Place) -> None:
    answer = place.post("/v1/search", b"x" * ((1 << 20) + 1))
    assert (answer.status, answer.json["error"]["code"]) == (413, "too_large")
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]
    assert place.post("/v1/search", b"x" * (1 << 20)).status == 422


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(50_000, 50_000), (8000, 6251), (2**31 - 1, 1), (1, 2**31 - 1)])
def test_decompression_bombs(place: Place, size: tuple[int, int]) -> None:
    start = time.monotonic()
    answer = place.post("/v1/search", bomb(*size), content_type="image/png")
    assert (answer.status, answer.json["error"]["code"]) == (413, "too_many_pixels") and time.monotonic() - start < 5


def test_a_bomb_in_the_index_is_not_shown(tmp_path: Path) -> None:
    index = index_at(tmp_path, 2)
    (tmp_path / "secret-home/photos/cat/000.png").write_bytes(bomb(9000, 9000))
    with served(index) as place:
        answer = place.get("/v1/items/1/thumb")
        assert (answer.status, answer.json["error"]["code"]) == (404, "too_many_pixels")
        assert place.get("/v1/items/2/thumb").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/items/../../../../etc/passwd", "/v1/items/..%2f..%2f..%2fetc%2fpasswd/thumb",
        "/v1/items/%2e%2e/%2e%2e/etc/passwd",
        "/../../etc/passwd", "//etc/passwd", "/v1/items/%2Fetc%2Fpasswd/thumb",
        "/v1/items/1%00/thumb", "/v1/items/1/thumb/../../..",
        "/page.html", "/v1/items/1/thumb?side=256&path=/etc/passwd&file=/etc/passwd",
        "/static/../app.py", "/v1/items/..;/thumb",
    ],
)  # fmt: skip
def test_no_path_leads_out(place: Place, path: str) -> None:
    with place.raw() as sock:  # as it is: a client would tidy it up
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host(place.url)}\r\nConnection: close\r\n\r\n".encode())
        told = everything(sock)
    assert b"root:" not in told and b"import" not in told
    if "side=" in path:  # an item's own picture, whatever else is asked
        assert b" 200 " in told.splitlines()[0] and b"image/jpeg" in told
    else:
        assert told.split()[1] in (b"404", b"422") and b'"error"' in told


def one(sock: socket.socket) -> bytes:
    """One answer of JSON, on a connection that stays."""
    told = b""
    while not told.endswith(b"}"):
        told += sock.recv(65536)
    return told


def test_slow_heads(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of clients that say nothing, or a letter at a time; also after a first request that was well."""
    monkeypatch.setattr(wire.Protocol, "head_seconds", 0.5)
    whole = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(index) as place:
        for first, then in ((b"", b""), (b"", b"GET / HT"), (whole, b"GET /v1/heal")):
            with place.raw() as sock:
                if first:
                    sock.sendall(first)
                    assert b" 200 " in one(sock)
                start = time.monotonic()
                for letter in then:
                    sock.sendall(bytes([letter]))
                    time.sleep(0.02)
                told = everything(sock)
                assert time.monotonic() - start < 5
                assert (b" 408 " in told and b'"too_slow"' in told) if then else told == b""
        with place.raw() as sock:  # one who is patient between whole requests is not sent away
            for _ in range(2):
                sock.sendall(whole)
                assert b" 200 " in one(sock)
                time.sleep(0.9)


def test_slow_bodies(place: Place) -> None:
    with place.raw() as sock:
        start = time.monotonic()
        sock.sendall(f"POST /v1/search HTTP/1.1\r\nHost: {host(place.url)}\r\nContent-Length: 1000\r\n\r\n".encode())
        try:
            for _ in range(60):
                sock.sendall(b"x")
                time.sleep(0.1)
        except OSError:
            pass
        told = everything(sock)
    assert time.monotonic() - start < 8
    assert b" 408 " in told and b'"too_slow"' in told


def test_clients_that_do_not_read(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for much, read nothing: hung up on, before all has been said."""
    monkeypatch.setattr(wire.Protocol, "read_seconds", 0.5)
    size = len(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with served(index) as place, socket.socket() as sock:
        page = len(place.get("/").body)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", place.port))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 600)
        time.sleep(3)
        assert place.get("/v1/health").status == 200
        assert len(everything(sock)) < 600 * page and size * 600 < 65536


def test_answers_that_take_too_long(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(index, Limits(seconds=0.5)) as place:
        eye = place.service.shelf.now.eye
        see, slow = eye.see, [True]
        monkeypatch.setattr(eye, "see", lambda pixels: (slow[0] and time.sleep(2)) or see(pixels))
        file = io.BytesIO()
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(file, "PNG")
        start = time.monotonic()
        answer = place.post("/v1/search", file.getvalue())
        assert (answer.status, answer.json["error"]["code"]) == (503, "too_slow") and time.monotonic() - start < 1.9
        slow[0] = False
        time.sleep(2)
        assert place.post("/v1/search", file.getvalue()).status == 200


def test_clients_that_go_away(place: Place) -> None:
    for _ in range(5):
        with place.raw() as sock:
            sock.sendall(
                f"POST /v1/search HTTP/1.1\r\nHost: {host(place.url)}\r\nContent-Length: 1000\r\n\r\nxx".encode()
            )
        with place.raw() as sock:
            sock.sendall(f"GET /v1/items HTTP/1.1\r\nHost: {host(place.url)}\r\n\r\n".encode())
    time.sleep(0.3)


LONG = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 9000 + b"\r\n"


@pytest.mark.parametrize("text", [b"\x16\x03\x01\x02\x00\x01\x00", b"HELLO\r\n\r\n", LONG])
def test_what_is_no_http(place: Place, text: bytes) -> None:
    with place.raw() as sock:
        sock.sendall(text)
        sock.settimeout(15)
        if text[0] == 0x16:
            sock.sendall(b"\r\n\r\n")
        told = everything(sock)
    assert told == b"" or (b" 400 " in told and b'"bad_request"' in told and b"X-Request-Id" in told)


def test_tokens(index: Path) -> None:
    with served(index, Limits(token=TOKEN, local=False)) as place:
        for shown in (
            "",
            TOKEN,
            "Bearer",
            "Bearer ",
            f"Basic {TOKEN}",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "Bearer \xe9",
        ):
            for path in (
                "/v1/items",
                "/v1/items/1/thumb",
                "/metrics",
                "/openapi.json",
                "/docs",
                "/nothing",
                "/v1/faces/people",
            ):
                answer = place.get(path, **({"authorization": shown} if shown else {}))
                assert (answer.status, answer.json["error"]["code"]) == (401, "token"), (shown, path)
                assert answer.headers["www-authenticate"] == "Bearer" and TOKEN not in answer.body.decode()
            assert place.post("/v1/search", {"id": 1}, authorization=shown).status == 401
        assert place.get("/").status == place.get("/v1/health").status == 200
        for right in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
            assert place.get("/v1/items", authorization=right, host="photos.example").status == 200
        assert place.post("/v1/search", {"id": 1}, authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("localhost", True), ("localhost:8000", True), ("127.0.0.1:1", True), ("[::1]:8000", True), ("LOCALHOST", True),
        ("evil.example", False), ("evil.example:8000", False), ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False), ("192.168.0.7", False), ("127.0.0.1@evil.example", False), ("[::1", False), ("0.0.0.0", False),
    ],
)  # fmt: skip
def test_names_that_lead_here_from_elsewhere(place: Place, name: str, ours: bool) -> None:
    """A page of another site can have its own name point to this machine: that name is in the header Host."""
    assert is_local(name) == ours
    answer = place.get("/v1/items", host=name)
    assert answer.status == (200 if ours else 403)
    assert ours or answer.json["error"]["code"] == "host"


def test_pages_of_other_sites(place: Place) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        answer = place.post("/v1/search", {"id": 1}, origin=origin)
        assert (answer.status, answer.json["error"]["code"]) == (403, "origin")
    answer = place.post("/v1/search", {"id": 1}, origin=place.url)
    assert answer.status == 200 and "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_too_many_at_once(index: Path) -> None:
    limits = replace(Limits(), requests=3, body_seconds=20.0)
    with served(index, limits) as place:
        begun = f"POST /v1/search HTTP/1.1\r\nHost: {host(place.url)}\r\nContent-Length: 9\r\n\r\n".encode()
        held = [place.raw() for _ in range(3)]
        for sock in held:
            sock.sendall(begun)
        time.sleep(0.5)
        answer = place.get("/v1/health")
        assert (answer.status, answer.json["error"]["code"], answer.headers["retry-after"]) == (503, "busy", "1")
        for sock in held:
            sock.close()
        time.sleep(0.5)
        assert place.get("/v1/health").status == 200


def test_bodies_together_have_a_limit(index: Path) -> None:
    with served(index, Limits(body=1 << 20, bodies=2 << 20)) as place:
        part = b"x" * 900_000
        head = f"POST /v1/search HTTP/1.1\r\nHost: {host(place.url)}\r\nContent-Length: 1000000\r\n\r\n".encode()
        held = [place.raw() for _ in range(2)]
        for sock in held:
            sock.sendall(head + part)
        time.sleep(0.5)
        assert place.post("/v1/search", part).status == 503
        for sock in held:
            sock.close()
        time.sleep(0.5)
        assert place.post("/v1/search", part).status == 422


def test_large_pictures_at_once_are_cut_one_a_core(place: Place) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((5000, 9000, 3), np.uint8)).save(file, "PNG")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: place.post("/v1/search?k=1", file.getvalue()).status, range(6)))
    assert found == [200] * 6
