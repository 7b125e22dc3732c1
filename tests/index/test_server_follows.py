"""An index that changes while it is served: the service moves on by itself, and goes on where it cannot."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from seeall.data.pictures import find
from seeall.index.build import add, build, eye_of
from seeall.index.store import Index
from tests.index.served import Place, index_at, network, photos, served


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def health(place: Place) -> dict[str, object]:
    told: dict[str, object] = place.get("/v1/health").json
    return told


def test_new_generations(tmp_path: Path) -> None:
    index = index_at(tmp_path, 10)
    more = find(str(photos(tmp_path / "secret-home" / "more", 5, first=50)))
    with served(index) as place, Index.open(index, gpu="off") as opened:
        assert place.get("/v1/items/1").json["name"] == "cat/000.png"
        add(opened, more, eye_of(opened))
        eventually(lambda: health(place)["items"] == 15)
        assert place.get("/v1/items/1").json["name"] == "photos/cat/000.png"  # what all have in common is less now
        data = (tmp_path / "secret-home/more/cat/052.png").read_bytes()
        assert place.post("/v1/search?k=1", data).json["matches"][0]["name"] == "more/cat/052.png"
        opened.remove([1])
        eventually(lambda: health(place)["items"] == 14)
        assert place.get("/v1/items/1").status == 404 and health(place)["generation"] == 3
        opened.remove(opened.ids.tolist())
        eventually(lambda: health(place)["items"] == 0)
        assert place.post("/v1/search", data).json == {"query": None, "matches": [], "k": 10, "page": 1, "more": False}
        assert place.get("/v1/items").json["items"] == [] and health(place)["status"] == "ok"


def test_another_index_in_its_place(tmp_path: Path) -> None:
    """Of another network that sees at another size."""
    index = index_at(tmp_path, 10)
    listed = tmp_path / "secret-home/photos/list.csv"
    data = (tmp_path / "secret-home/photos/dog/003.png").read_bytes()
    with served(index) as place:
        before = place.get("/v1/items/1/thumb").headers["etag"]
        small = photos(tmp_path / "secret-home" / "other", 6, first=3)
        time.sleep(1.1)  # an index tells when it was made to the second
        build(find(str(small)), network(tmp_path / "other.safetensors", 1, 48), index, overwrite=True)
        eventually(lambda: health(place)["items"] == 6)
        best = place.post("/v1/search?k=1", data).json["matches"][0]
        assert (best["id"], best["name"]) == (1, "dog/003.png") and best["score"] > 0.9999
        assert place.get("/v1/items/1/thumb", if_none_match=before).status == 200
        assert health(place)["generation"] == 1 and listed.exists()


def test_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    one = index_at(tmp_path / "one", 4)
    two = index_at(tmp_path / "two", 7)
    link = tmp_path / "link.index"
    link.symlink_to(one)
    with served(link) as place:
        assert health(place)["items"] == 4
        fresh = tmp_path / "fresh"
        fresh.symlink_to(two)
        fresh.rename(link)
        eventually(lambda: health(place)["items"] == 7)


def test_an_index_that_is_gone_is_served_on(tmp_path: Path, notes: list[str]) -> None:
    index = index_at(tmp_path, 5)
    with served(index) as place:
        shutil.move(index, tmp_path / "away")
        eventually(lambda: health(place)["status"] == "stale")
        assert place.post("/v1/search?k=5", {"id": 2}).status == 200 and place.get("/v1/items/2").status == 200
        shutil.move(tmp_path / "away", index)
        eventually(lambda: health(place)["status"] == "ok")
    assert len([line for line in notes if "still served" in line]) == 1


def test_answers_while_somebody_writes(tmp_path: Path) -> None:
    """Nobody is told of a mistake because the index moves on."""
    index = index_at(tmp_path, 12)
    data = (tmp_path / "secret-home/photos/cat/000.png").read_bytes()
    wrong: list[object] = []
    with served(index) as place, Index.open(index, gpu="off") as opened:
        vectors = [item.vector for item in opened.items(opened.ids)]
        stop = threading.Event()

        def ask(path: str, sent: object) -> None:
            while not stop.is_set():
                answer = place.post(path, sent) if sent else place.get(path)
                if answer.status != 200:
                    wrong.append((path, answer.body))

        asked = [("/v1/search?k=12", data), ("/v1/search?k=12", {"id": 1}), ("/v1/items?k=50", None)]
        threads = [threading.Thread(target=ask, args=one) for one in asked]
        for thread in threads:
            thread.start()
        for n in range(30):
            opened.add([f"/secret/{n}.png"], vectors[n % 12][None])
            if n % 3 == 0:
                opened.remove([f"/secret/{n}.png"])
        eventually(lambda: health(place)["items"] == 32)
        stop.set()
        for thread in threads:
            thread.join(20)
    assert wrong == []
