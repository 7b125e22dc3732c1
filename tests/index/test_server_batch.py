"""Callers at once: done together, each given its own, and the same as alone."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.index.server import batch
from seeall.index.server.batch import Batcher, Full
from tests.index.served import index_at, served


def test_each_gets_its_own_and_most_go_together() -> None:
    sizes: list[int] = []

    def work(jobs: Sequence[int]) -> list[int | Exception]:
        return [job * job if job % 5 else ValueError(job) for job in jobs]

    batcher: Batcher[int, int] = Batcher(work, lambda: None, sizes.append, most=16, wait=0.2)
    futures = [batcher.submit(n) for n in range(40)]
    wait_for(futures, 10)
    for n, future in enumerate(futures):
        if n % 5:
            assert future.result() == n * n
        else:
            with pytest.raises(ValueError, match=f"^{n}$"):
                future.result()
    assert sum(sizes) == 40 and max(sizes) == 16 and len(sizes) <= 4
    batcher.close()
    with pytest.raises(Full):
        batcher.submit(1)


def test_work_that_breaks_is_told_to_all_of_its_batch_and_no_other() -> None:
    def work(jobs: Sequence[int]) -> list[int | Exception]:
        if 3 in jobs:
            raise RuntimeError("no")
        return list(jobs)

    batcher: Batcher[int, int] = Batcher(work, lambda: None, lambda _: None, wait=0.0)
    with pytest.raises(RuntimeError, match="no"):
        batcher.submit(3).result(5)
    assert batcher.submit(4).result(5) == 4
    batcher.close()


def test_what_waits_is_finished_and_who_has_gone_is_not_worked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "WAITING", 5)
    begun, go, done = threading.Event(), threading.Event(), list[int]()

    def work(jobs: Sequence[int]) -> list[int | Exception]:
        begun.set()
        go.wait(10)
        done.extend(jobs)
        return list(jobs)

    batcher: Batcher[int, int] = Batcher(work, lambda: None, lambda _: None, most=1)
    first = batcher.submit(0)
    assert begun.wait(5)
    waiting = [batcher.submit(n) for n in range(1, 6)]
    with pytest.raises(Full):
        batcher.submit(6)
    assert waiting[2].cancel()
    closing = threading.Thread(target=batcher.close)
    go.set()
    closing.start()
    closing.join(10)
    assert not closing.is_alive() and first.result(0) == 0 and done == [0, 1, 2, 4, 5]


def test_idle_runs_though_nobody_asks_and_survives_its_own_mistakes(notes: list[str]) -> None:
    seen = threading.Event()

    def idle() -> None:
        seen.set()
        raise OSError("away")

    batcher: Batcher[int, int] = Batcher(lambda jobs: list(jobs), idle, lambda _: None)
    assert seen.wait(5) and batcher.submit(1).result(5) == 1
    batcher.close()
    assert any("failed" in line for line in notes)


def test_many_at_once_get_what_each_gets_alone(tmp_path: Path) -> None:
    """Items, vectors, pictures, mistakes and deep pages, in one batch."""

    def png(seed: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file, "PNG")
        return file.getvalue()

    asked: list[tuple[str, object]] = [(f"/v1/search?k={n + 1}&page={n % 3 + 1}", {"id": n + 1}) for n in range(12)]
    asked += [(f"/v1/search?k={3 * n + 1}", png(n)) for n in range(12)]
    asked += [("/v1/search?k=5", {"vector": np.random.default_rng(n).normal(size=1024).tolist()}) for n in range(6)]
    asked += [("/v1/search", {"id": 1000}), ("/v1/search", {"vector": [1.0]})]
    with served(index_at(tmp_path)) as place:
        alone = [place.post(path, sent) for path, sent in asked]
        before = place.get("/metrics").body.decode()
        with ThreadPoolExecutor(len(asked)) as pool:
            together = list(pool.map(lambda one: place.post(*one), asked))
        after = place.get("/metrics").body.decode()
    for one, other in zip(alone, together):
        assert one.status == other.status
        if one.status != 200:
            assert one.json["error"]["message"] == other.json["error"]["message"]
            continue
        assert [m["id"] for m in one.json["matches"]] == [m["id"] for m in other.json["matches"]]
        scores = [[m["score"] for m in answer.json["matches"]] for answer in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=2e-6)
        assert one.json["query"] == other.json["query"] and one.json["more"] == other.json["more"]
    assert {answer.status for answer in alone} == {200, 404, 422}

    def figure(text: str, name: str) -> float:
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))

    batches = figure(after, "seeall_batch_size_count") - figure(before, "seeall_batch_size_count")
    queries = figure(after, "seeall_batch_size_sum") - figure(before, "seeall_batch_size_sum")
    assert queries == len(asked) and batches < len(asked)
