"""What a service says: the same as the command and as brute force, in exact words, without a path of the disk."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from seeall import __version__
from seeall.data.decode import decode
from seeall.index import query
from seeall.index.server.app import make
from seeall.index.server.guard import Limits
from seeall.index.server.models import DEEPEST
from seeall.index.server.service import Service
from seeall.index.store import Index
from tests.index.served import index_at


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_at(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[TestClient]:
    app = make(Service(index, "off"), Limits())
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture(scope="module")
def files(index: Path) -> list[Path]:
    with Index.open(index, gpu="off") as opened:
        return [Path(item.path) for item in opened.items(opened.ids)]


def test_health(client: TestClient) -> None:
    told = client.get("/v1/health").json()
    assert told == {
        "status": "ok", "version": __version__, "kind": "index", "name": "photos.index", "items": 40, "dim": 1024,
        "generation": 1,
    }  # fmt: skip


@pytest.mark.parametrize("way", ["body", "image", "form"])
def test_a_picture_finds_what_the_command_finds(client: TestClient, index: Path, files: list[Path], way: str) -> None:
    data = files[7].read_bytes()
    if way == "form":
        answer = client.post("/v1/search?k=9", files={"picture": ("a.png", data, "image/png")})
    else:
        answer = client.post(
            "/v1/search?k=9", content=data, headers={"Content-Type": "image/png"} if way == "image" else {}
        )
    (wanted,) = query.search(index, [str(files[7])], 9, gpu="off")
    told = answer.json()
    assert answer.status_code == 200 and told["query"] is None and told["more"] and (told["k"], told["page"]) == (9, 1)
    assert [m["id"] for m in told["matches"]] == [m["id"] for m in wanted["matches"]]
    assert [m["score"] for m in told["matches"]] == pytest.approx([m["score"] for m in wanted["matches"]], abs=2e-6)
    best = told["matches"][0]
    assert (best["id"], best["name"], best["label"], best["score"]) == (
        8,
        "dog/007.png",
        "dog",
        pytest.approx(1, abs=1e-5),
    )
    assert best["metadata"] == {"camera": "c1", "mask": "7.png"}


def test_an_item_and_a_vector_find_what_brute_force_finds(client: TestClient, index: Path) -> None:
    with Index.open(index, gpu="off") as opened:
        items = opened.items(opened.ids)
    vectors = np.stack([item.vector for item in items]).astype(np.float64)
    order = np.lexsort((np.arange(40), -(vectors @ vectors[11]).round(9)))
    by_item = client.post("/v1/search?k=40", json={"id": 12}).json()
    by_vector = client.post("/v1/search?k=40", json={"vector": (3 * vectors[11]).tolist()}).json()
    assert (
        [m["id"] for m in by_item["matches"]] == [int(i) + 1 for i in order] == [m["id"] for m in by_vector["matches"]]
    )
    assert [m["score"] for m in by_item["matches"]] == pytest.approx((vectors @ vectors[11])[order].tolist(), abs=2e-6)
    assert by_item["query"]["id"] == 12 and by_vector["query"] is None and not by_item["more"]


def test_pages_are_stretches_of_one_answer(client: TestClient) -> None:
    whole = client.post("/v1/search?k=40", json={"id": 3}).json()["matches"]
    pages = [client.post(f"/v1/search?k=7&page={page}", json={"id": 3}).json() for page in range(1, 8)]
    assert [m for page in pages for m in page["matches"]] == whole
    assert [page["more"] for page in pages] == [True] * 5 + [False] * 2
    listed = [client.get(f"/v1/items?k=16&page={page}").json() for page in (1, 2, 3, 4, 10**12)]
    assert [item["id"] for page in listed for item in page["items"]] == list(range(1, 41))
    assert [page["more"] for page in listed] == [True, True, False, False, False]
    assert {page["total"] for page in listed} == {40}


def test_item(client: TestClient) -> None:
    wanted = {"id": 5, "name": "cat/004.png", "label": "cat", "metadata": {"camera": "c1", "mask": "4.png"}}
    assert client.get("/v1/items/5").json() == wanted


def test_thumb_is_the_picture_small(client: TestClient, files: list[Path]) -> None:
    answer = client.get("/v1/items/5/thumb?side=30")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == "JPEG" and image.size == (30, 24)
        shown = np.asarray(image).astype(float)
    small = Image.fromarray(decode(files[4])).resize((30, 24), Image.Resampling.BOX)
    assert np.abs(shown - np.asarray(small).astype(float)).mean() < 6
    assert answer.headers["content-type"] == "image/jpeg"
    again = client.get("/v1/items/5/thumb?side=30", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/v1/items/6/thumb?side=30", headers={"If-None-Match": answer.headers["etag"]})
    assert other.status_code == 200 and other.content != answer.content


def test_thumb_of_a_file_that_is_gone(tmp_path: Path) -> None:
    index = index_at(tmp_path, 4)
    with TestClient(make(Service(index, "off"), Limits()), base_url="http://localhost") as client:
        (tmp_path / "secret-home/photos/cat/000.png").unlink()
        (tmp_path / "secret-home/photos/dog/001.png").write_bytes(b"nothing")
        for number in (1, 2):
            answer = client.get(f"/v1/items/{number}/thumb")
            assert answer.status_code == 404 and answer.json()["error"]["code"] == "gone"
            assert "secret" not in answer.text and "000" not in answer.text


BAD = [
    ("GET", "/nothing", None, 404, "not_found"),
    ("GET", "/v1/items/41", None, 404, "no_such_item"),
    ("GET", "/v1/items/41/thumb", None, 404, "no_such_item"),
    ("POST", "/v1/search", {"id": 41}, 404, "no_such_item"),
    ("DELETE", "/v1/items", None, 405, "method_not_allowed"),
    ("GET", "/v1/search", None, 405, "method_not_allowed"),
    ("GET", "/v1/items/0", None, 422, "invalid"),
    ("GET", "/v1/items/99999999999999999999", None, 422, "invalid"),
    ("GET", "/v1/items/one", None, 422, "invalid"),
    ("GET", "/v1/items?k=0", None, 422, "invalid"),
    ("GET", "/v1/items?k=101", None, 422, "invalid"),
    ("GET", "/v1/items?page=-1", None, 422, "invalid"),
    ("GET", "/v1/items?where=" + "x" * 1001, None, 422, "invalid"),
    ("GET", "/v1/items/1/thumb?side=100000", None, 422, "invalid"),
    ("POST", f"/v1/search?k=100&page={DEEPEST // 100 + 1}", {"id": 1}, 422, "too_deep"),
    ("POST", "/v1/search", {}, 422, "invalid"),
    ("POST", "/v1/search", {"id": 1, "vector": [1.0]}, 422, "invalid"),
    ("POST", "/v1/search", {"id": True}, 422, "invalid"),
    ("POST", "/v1/search", {"id": "1"}, 422, "invalid"),
    ("POST", "/v1/search", {"id": 1, "k": 3}, 422, "invalid"),
    ("POST", "/v1/search", [1], 422, "invalid"),
    ("POST", "/v1/search", {"vector": [1.0, 2.0]}, 422, "vector"),
    ("POST", "/v1/search", {"vector": [0.0] * 1024}, 422, "vector"),
    ("POST", "/v1/search", {"vector": ["a"]}, 422, "invalid"),
    ("POST", "/v1/search", '{"vector": [NaN]}', 422, "invalid"),
    ("POST", "/v1/search", "{", 422, "invalid"),
    ("POST", "/v1/search", "[" * 100_000, 422, "invalid"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "sent", "status", "code"), BAD)
def test_what_is_not_possible_is_said(
    client: TestClient, index: Path, method: str, path: str, sent: object, status: int, code: str
) -> None:
    text = sent if isinstance(sent, str) or sent is None else json.dumps(sent)
    answer = client.request(method, path, content=text, headers={"Content-Type": "application/json"} if text else {})
    told = answer.json()
    assert (answer.status_code, told["error"]["code"]) == (status, code), told
    assert told.keys() == {"error"} and told["error"].keys() == {"code", "message", "request_id"}
    assert told["error"]["request_id"] == answer.headers["x-request-id"]
    assert told["error"]["message"] and "\n" not in told["error"]["message"]
    assert str(index.parent) not in answer.text and "secret" not in answer.text
    assert "allow" in answer.headers or status != 405


@pytest.mark.parametrize(
    ("sent", "kind", "status", "code"),
    [
        (b"", "image/png", 422, "no_picture"),
        (b"hello", "image/png", 422, "no_picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/jpeg", 422, "no_picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 422, "no_picture"),
        (b"hello", "application/x-www-form-urlencoded", 422, "no_picture"),  # as curl says
        (b"x", "text/plain", 415, "type"),
        (b"x", "multipart/form-data", 400, "bad_request"),
        (b"--a\r\n\r\n", "multipart/form-data; boundary=a", 400, "bad_request"),
        (b"--a--\r\n", "multipart/form-data; boundary=a", 422, "no_picture"),
    ],
)
def test_bodies_that_are_no_pictures(client: TestClient, sent: bytes, kind: str, status: int, code: str) -> None:
    answer = client.post("/v1/search", content=sent, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_damaged_picture(client: TestClient, files: list[Path]) -> None:
    answer = client.post("/v1/search", content=files[0].read_bytes()[:200])
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_picture")


def test_no_answer_names_a_folder(client: TestClient, index: Path) -> None:
    for answer in (
        client.get("/v1/health"), client.get("/v1/items?k=100"), client.get("/openapi.json"), client.get("/metrics"),
        client.post("/v1/search?k=40", json={"id": 1}), client.get("/"), client.get("/docs"),
    ):  # fmt: skip
        assert answer.status_code == 200
        assert "secret" not in answer.text and str(index.parent) not in answer.text and "/tmp/" not in answer.text


def test_names_of_requests(client: TestClient) -> None:
    assert client.get("/v1/health", headers={"X-Request-Id": "mine-1.2_3"}).headers["x-request-id"] == "mine-1.2_3"
    for odd in ("", "a b", "x" * 65, "<script>"):
        told = client.get("/v1/health", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert told != odd and len(told) == 32
    names = {client.get("/v1/health").headers["x-request-id"] for _ in range(5)}
    assert len(names) == 5


def test_a_mistake_of_ours_is_an_answer(tmp_path: Path, notes: list[str]) -> None:
    service = Service(index_at(tmp_path, 3), "off")
    with TestClient(make(service, Limits()), base_url="http://localhost") as client:
        service.shelf.now.index.close()
        answer = client.get("/v1/items")
        assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
        assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
        assert "closed" not in answer.text and str(tmp_path) not in answer.text
    assert any(answer.headers["x-request-id"] in line for line in notes)


def test_figures_for_prometheus(client: TestClient) -> None:
    def figure(name: str) -> float:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name + " ")]
        return float(lines[0].split()[-1]) if lines else 0.0

    found = 'seeall_requests_total{method="GET",route="/v1/items/{id}",status="200"}'
    missed = 'seeall_requests_total{method="GET",route="/v1/items/{id}",status="404"}'
    before = figure(found), figure(missed), figure("seeall_batch_size_count")
    for path in ("/v1/items/1", "/v1/items/2", "/v1/items/77"):
        client.get(path)
    client.post("/v1/search", json={"id": 1})
    assert (figure(found), figure(missed)) == (before[0] + 2, before[1] + 1)
    assert figure("seeall_batch_size_count") == before[2] + 1
    assert figure("seeall_index_items") == 40 and figure("seeall_requests_open") == 1
    assert figure('seeall_request_seconds_count{route="/v1/items/{id}"}') >= 3
    client.get("/one"), client.get("/two")
    routes = {
        line.split('route="')[1].split('"')[0] for line in client.get("/metrics").text.splitlines() if 'route="' in line
    }
    assert "none" in routes and not any("one" in route.split("/") for route in routes)
