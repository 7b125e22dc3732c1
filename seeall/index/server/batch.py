"""Many callers, one thread that works: what comes in within a few milliseconds is done in one go.

The thread owns whatever `work` uses. Callers get a future; a caller that has gone is not worked for. Between
batches, and at least every TICK seconds, the thread calls `idle`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar, final

from seeall.console import log

Job = TypeVar("Job")
Answer = TypeVar("Answer")

MOST = 64
"""Jobs in one batch."""
WAIT = 0.004
"""Seconds that the first job of a batch waits for others."""
TICK = 0.5
WAITING = 512
"""Jobs that may wait; the next is refused."""


class Full(Exception):
    """Too many jobs wait, or there is nobody left to do them."""


@final
class Batcher(Generic[Job, Answer]):
    """work: jobs → an answer for each, or an exception in its place · seen: is told how many jobs a batch had."""

    def __init__(
        self,
        work: Callable[[Sequence[Job]], Sequence[Answer | Exception]],
        idle: Callable[[], None],
        seen: Callable[[int], None],
        *,
        most: int = MOST,
        wait: float = WAIT,
    ) -> None:
        self._work, self._idle, self._seen, self._most, self._wait = work, idle, seen, most, wait
        self._jobs: queue.Queue[tuple[Job, Future[Answer]] | None] = queue.Queue(WAITING)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="seeing", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Answer]:
        """The future of the answer. Raises Full."""
        future: Future[Answer] = Future()
        if self._closed.is_set():
            raise Full
        try:
            self._jobs.put_nowait((job, future))
        except queue.Full:
            raise Full from None
        return future

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        if not self._closed.is_set():
            self._closed.set()
            self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._next()
            try:
                self._idle()
            except Exception:  # whatever it is, those who wait are not to wait for ever
                log.exception("a look at the index failed")
            if batch:
                self._seen(len(batch))
                self._do(batch)

    def _next(self) -> tuple[list[tuple[Job, Future[Answer]]], bool]:
        """The next batch, empty after TICK seconds without a job, and whether it is the last."""
        batch: list[tuple[Job, Future[Answer]]] = []
        until = time.monotonic() + TICK
        while len(batch) < self._most:
            left = until - time.monotonic()
            try:
                job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, True
            if not batch:
                until = time.monotonic() + self._wait
            if job[1].set_running_or_notify_cancel():
                batch.append(job)
        return batch, False

    def _do(self, batch: Sequence[tuple[Job, Future[Answer]]]) -> None:
        try:
            answers = self._work([job for job, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except Exception as fault:
            for _, future in batch:
                if not future.done():
                    future.set_exception(fault)
