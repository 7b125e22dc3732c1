"""What tests of heads share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from torch import Tensor

from seeall.data.sampler import Sampler


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ask to stop when batch t is fetched."""
    ordinary = Sampler.__call__

    def when(t: int) -> None:
        def sampled(self: Sampler, now: int) -> tuple[int, Tensor]:
            if now == t:
                monkeypatch.setattr(Sampler, "__call__", ordinary)
                os.kill(os.getpid(), signal.SIGINT)
            return ordinary(self, now)

        monkeypatch.setattr(Sampler, "__call__", sampled)

    return when
