"""Seeing a large collection by many processes, on this machine or on all of a Ray cluster, through Ray Data.

The pictures are cut into stretches of whole batches. Each goes to a process that holds the network, and what it saw
comes back as soon as it is done, in any order. A stretch whose process died is seen again by another. Batches hold the
same pictures as those of one process and are seen by one thread, so on the same kind of CPU the features are the same
to the last bit.

Ray starts on this machine unless RAY_ADDRESS names a cluster. All of its machines need seeall, and the pictures under
the same paths.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import pickle
import re
import signal
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from seeall.backbones.weights import locate
from seeall.console import log
from seeall.data.pictures import Pictures
from seeall.data.pixels import cores, stretches
from seeall.training.embed import Eye, Squares, at_once
from seeall.types import SeeallError

_STRETCHES = 4  # for each process at least, so that none waits long for the last one
_BATCHES = {"cpu": 8, "cuda": 32}  # in a stretch, at most: it is what a process that dies has seen in vain
_TRIES = 4  # of a stretch: a picture that kills who sees it must not do so for ever, as Ray would let it
_PATIENCE = 20  # seconds until a cluster must have answered
_STORE = 512 << 20  # bytes of shared memory for stretches that wait, where Ray is started here


@final
class Crowd:
    """The eyes of many processes. As `Eye`: `dim`, and `stream`, but for the order.

    Raises: SeeallError where Ray is missing, or `run` holds no backbone.
    """

    def __init__(self, run: str | Path) -> None:
        try:
            import ray.data  # noqa: F401
        except ImportError:
            raise SeeallError("--engine ray needs Ray: pip install 'seeall[ray]'") from None
        source = locate(run)
        self._model = (str(source), source.read_bytes())
        eye = _eye(*self._model, torch.device("cpu"))  # and an error is said here, once
        self.dim, self._size = eye.dim, eye.size

    def stream(self, pictures: Pictures, *, workers: int = 0) -> Generator[Squares]:
        """As `Eye.stream`, a stretch at a time, as they come.

        workers: processes; 0: one for each GPU, or for each core where there is no GPU
        Raises: SeeallError where the cluster cannot be reached, or Ray gives up.
        """
        import ray
        import ray.data

        with _ray(workers), _said():
            has = ray.cluster_resources()
            gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 1))
            device = "cuda" if gpus else "cpu"
            workers = workers or gpus or cpus
            tally = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tally).remote(_TRIES)
            units = list(map(_packed, _cut(pictures, self._size, device, workers)))
            seen = ray.data.from_arrow(units).map_batches(
                _Eyes,
                fn_constructor_args=([ray.put(self._model)], tally, device, max(1, cpus // gpus) if gpus else 1),
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(units))),
                num_cpus=1,
                num_gpus=1 if gpus else 0,
            )
            for table in seen.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in table.to_pylist():
                    if row["fault"]:
                        raise SeeallError(row["fault"])
                    good = np.frombuffer(row["good"], np.int64)
                    z = np.frombuffer(bytearray(row["z"]), np.float32).reshape(len(good), self.dim)
                    yield good.tolist(), torch.from_numpy(z), [(i, why) for i, why in json.loads(row["bad"])]


def _cut(pictures: Pictures, size: int, device: str, workers: int) -> Iterator[tuple[int, Pictures]]:
    """Stretches of whole batches, each with the row it begins with, and without what seeing takes no notice of."""
    batch = at_once(size, device)
    batches = len(stretches(len(pictures), batch))
    length = min(_BATCHES[device], max(1, batches // (_STRETCHES * workers)))
    bare = dataclasses.replace(pictures, labels=None, splits=None, metadata=None, moments=None, sound=None)
    for rows in stretches(len(pictures), length * batch):
        part = bare.subset(rows)
        keys = [os.path.abspath(key) if isinstance(key, str) else key for key in part.keys]  # noqa: PTH100
        yield rows.start, dataclasses.replace(part, keys=keys)


def _packed(unit: tuple[int, Pictures]) -> Any:
    """A stretch as a table of one row."""
    import pyarrow
    from ray import cloudpickle

    return pyarrow.table({"first": [unit[0]], "pictures": pyarrow.array([cloudpickle.dumps(unit[1])], "binary")})


@final
class _Tally:
    """How often each stretch was begun."""

    def __init__(self, tries: int) -> None:
        self._tries, self._begun = tries, Counter[int]()

    def begin(self, first: int) -> int:
        """0 where the stretch that begins with this row may be seen; else how many have died of it."""
        self._begun[first] += 1
        return self._tries if self._begun[first] > self._tries else 0


@final
class _Eyes:
    """What each process holds: tables of stretches → tables of what was seen."""

    def __init__(self, model: list[Any], tally: Any, device: str, readers: int) -> None:
        import ray

        self._readers, self._tally = readers, tally
        name, content = ray.get(model[0])
        self._eye = _eye(name, content, torch.device(device))

    def __call__(self, units: Any) -> Any:
        import pyarrow

        torch.set_num_threads(1)
        found: list[tuple[bytes, bytes, str, str | None]] = []
        for first, packed in zip(units["first"].to_pylist(), units["pictures"].to_pylist()):
            try:
                for good, z, bad in self._see(first, pickle.loads(packed)):
                    said = json.dumps([(first + row, why) for row, why in bad])
                    found.append(((np.array(good, np.int64) + first).tobytes(), z.numpy().tobytes(), said, None))
            except (SeeallError, OSError) as fault:  # as an exception Ray would make a traceback of it
                found.append((b"", b"", "[]", str(fault)))
        kinds = {"good": "binary", "z": "large_binary", "bad": "string", "fault": "string"}
        columns = list(zip(*found)) or [()] * len(kinds)
        return pyarrow.table({name: pyarrow.array(c, kinds[name]) for name, c in zip(kinds, columns)})

    def _see(self, first: int, pictures: Pictures) -> Iterator[Squares]:
        import ray

        if died := ray.get(self._tally.begin.remote(first)):
            raise SeeallError(
                f"--engine ray: {died} processes died, one after another, over the pictures from {pictures.ids[0]} to "
                f"{pictures.ids[-1]}: is there memory for them? Else leave out what is damaged"
            )
        yield from self._eye.stream(pictures, workers=self._readers)


def _eye(name: str, content: bytes, device: torch.device) -> Eye:
    """The eye of a backbone's file, of which `content` is a copy."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(name).name
        file.write_bytes(content)
        try:
            return Eye.of(file, device)
        except SeeallError as error:
            raise SeeallError(str(error).replace(str(file), name)) from None


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[None]:
    """Ray, started or joined for as long as this lasts, and silent; where there is one in this process, that."""
    import ray

    chatter = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [logger.level for logger in chatter]
    context = ray.data.DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    for logger in chatter:
        logger.setLevel(logging.CRITICAL)
    try:
        if ray.is_initialized():
            yield
        else:
            with contextlib.redirect_stdout(_Notes()):
                try:
                    _start(workers)
                    yield
                finally:
                    ray.shutdown()
    finally:
        context.enable_progress_bars = bars
        for logger, level in zip(chatter, levels):
            logger.setLevel(level)


@final
class _Notes(io.TextIOBase):
    """What Ray prints on standard output, as when a process has died, as notes of one sentence."""

    def write(self, text: str) -> int:
        for line in filter(str.strip, re.sub(r"\x1b\[\d*m", "", text).splitlines()):
            log.info("ray: %s", line.partition(". ")[0])
        return len(text)


def _start(workers: int) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get("RAY_ADDRESS")
    here = {"num_cpus": max(workers, cores()), "object_store_memory": _STORE, "include_dashboard": False}
    main, before = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdecimal():  # else Ray waits for ever for somebody who is not there
            socket.create_connection((host.removeprefix("ray://"), int(port)), _PATIENCE).close()
        with _hushed():
            ray.init(
                address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **({} if address else here)
            )
    except (OSError, RuntimeError, ValueError, TimeoutError) as fault:
        place = f"the cluster at RAY_ADDRESS={address}" if address else "Ray on this machine"
        raise SeeallError(f"--engine ray: {place} cannot be used: {_line(fault)}") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing of what comes onto standard error meanwhile is seen: some of Ray's is no logger's."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """What Ray cannot mend, as one line. A fault of ours in one of its processes keeps its traceback."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as fault:
        raise SeeallError(f"--engine ray: {_line(fault)}") from fault


def _line(fault: BaseException) -> str:
    """The last line of what Ray says, which is what happened."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return lines[-1] if lines else type(fault).__name__
