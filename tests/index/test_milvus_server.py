"""`ssl serve` of an index in Milvus: the answers of one in a folder, while it changes, goes away and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeall.data.pictures import find
from seeall.index.build import add, build, eye_of
from seeall.index.stores import open_store
from tests.index.served import Place, index_at, network, photos, served
from tests.index.stores import Milvus, needs_milvus
from tests.index.test_server_follows import eventually, health

pytestmark = needs_milvus


@pytest.mark.slow
def test_served(tmp_path: Path) -> None:
    local = index_at(tmp_path, 20)
    listed = tmp_path / "secret-home/photos/list.csv"
    with Milvus(tmp_path / "data") as server:
        kept = tmp_path / "kept" / "photos.index"
        build(find(str(listed)), network(tmp_path / "net.safetensors"), kept, store=server.address)
        with served(local) as one, served(kept) as two, open_store(kept) as writer:
            _agree(one, two, tmp_path)
            more = find(str(photos(tmp_path / "secret-home" / "more", 5, first=50)))
            for index in (writer, open_store(local, gpu="off")):
                add(index, more, eye_of(index))
                index.remove([1, 2])
            eventually(lambda: health(one)["items"] == health(two)["items"] == 23)
            assert health(one) == health(two) and health(two)["generation"] == 3
            _agree(one, two, tmp_path)
            server.kill()
            eventually(lambda: health(two)["status"] == "stale")
            for answer in (
                two.post("/v1/search", {"id": 5}),
                two.get("/v1/items/5"),
                two.get("/v1/items?where=id%3E3"),
            ):
                assert answer.status == 503 and "127.0.0.1" not in answer.json["error"]["message"]
            assert two.get("/v1/items?where=id%20~").status == 422
            server.start()
            eventually(lambda: health(two)["status"] == "ok")
            _agree(one, two, tmp_path)


def _agree(one: Place, two: Place, root: Path) -> None:
    picture = (root / "secret-home/photos/dog/007.png").read_bytes()
    for path in (
        "/v1/items",
        "/v1/items?k=7&page=2",
        "/v1/items/8",
        "/v1/items?where=label%3D%27cat%27",
        "/v1/items/1",
    ):
        assert _bare(one.get(path).json) == _bare(two.get(path).json), path
    for path in ("/v1/search", "/v1/search?k=5&page=2", "/v1/search?where=camera%20%3D%20%27c1%27"):
        odd = [{"vector": [number] * n} for number, n in ((0.5, 1024), (0.0, 1024), (1.0, 1))]
        for body in (picture, {"id": 8}, {"id": 999}, *odd):
            a, b = one.post(path, body), two.post(path, body)
            assert (a.status, _bare(a.json)) == (b.status, _bare(b.json)), path


def _bare(told: dict[str, object]) -> dict[str, object]:
    """Without what no two answers have in common."""
    error = told.get("error")
    return {"error": error["message"]} if isinstance(error, dict) else told
