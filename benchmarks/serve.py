"""Claim: a service answers many at once without an error, and little is lost on the way to network and FAISS.

    python benchmarks/serve.py [--clients 64] [--seconds 60] [--items 20000] [--json]

`ssl serve` runs as a process of its own over an index of random vectors that belong to a ShuffleNet (x0.5, untrained)
at 32 px. First, in this process, what must be done in any case, in batches as large as the service makes them: decode
JPEG files, see them, search. Then so many clients ask over HTTP, each on one connection and each as soon as it has its
answer, half of them pictures as files of their own and half items by number. Clients are in one process beside the
service: on two cores they take from it what they need themselves, and `share` is the part of the bare rate that is
left. `CPU` is the time that cores worked for an answer, which says more than the rest where others use them, too.
Expect no error, ever, and half as much CPU again as bare. Takes the seconds asked for and half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from seeall.backbones.load import build, digest, save
from seeall.index.build import MODEL, eye_of
from seeall.index.server.batch import MOST
from seeall.index.server.pictures import read
from seeall.index.store import Index
from seeall.training.embed import square

NAME, SIZE, K, FILES = "shufflenet_v2_x0_5", 32, 10, 256


def make(folder: Path, items: int) -> Path:
    """An index of random vectors with a network of its own."""
    torch.manual_seed(0)
    backbone, _ = build(NAME)
    model = save(backbone, folder / "net.safetensors", name=NAME, settings={}, preprocessing={"image_size": SIZE})
    random = np.random.default_rng(0)
    index = Index.create(
        folder / "x.index", dim=backbone.embed_dim, model=digest(model), preprocessing={"image_size": SIZE},
        files={MODEL: model}, gpu="off",
    )  # fmt: skip
    with index:
        vectors = random.standard_normal((items, backbone.embed_dim), dtype=np.float32)
        index.add([f"/none/{i // 100}/{i}.jpg" for i in range(items)], vectors)
    return folder / "x.index"


def files() -> list[bytes]:
    """Pictures of 100 x 80 px as JPEG."""
    found = []
    for n in range(FILES):
        file, small = io.BytesIO(), np.random.default_rng(n).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(small).resize((100, 80), Image.Resampling.BICUBIC).save(file, "JPEG")
        found.append(file.getvalue())
    return found


def bare(path: Path, pictures: list[bytes], seconds: float) -> tuple[float, float]:
    """Answers a second with no service, and CPU seconds of each: half pictures, half items, in batches of MOST."""
    with Index.open(path, gpu="off") as index:
        eye, done, batch, start, worked = eye_of(index), 0, 0, 0.0, 0.0
        while not start or time.perf_counter() - start < seconds:
            if batch == 1:  # the first one is warming up
                start, worked, done = time.perf_counter(), time.process_time(), 0
            some = [pictures[(batch * MOST + i) % len(pictures)] for i in range(MOST // 2)]
            seen = eye.see(torch.stack([square(read(data, SIZE), SIZE) for data in some])).numpy()
            known = np.stack([item.vector for item in index.items(range(1 + batch, 1 + batch + MOST // 2))])
            ids, _ = index.search(np.concatenate([seen, known]), K)
            index.items(np.unique(ids).tolist())
            done, batch = done + MOST, batch + 1
        return done / (time.perf_counter() - start), (time.process_time() - worked) / done


async def client(port: int, number: int, pictures: list[bytes], until: float, seen: list[float]) -> int:
    """Ask until then; seconds of each answer go to `seen`. Returns the number of errors."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = errors = 0
    while time.perf_counter() < until:
        if turn % 2:
            body, kind = json.dumps({"id": 1 + (number * 131 + turn) % 1000}).encode(), "application/json"
        else:
            body, kind = pictures[(number * 17 + turn) % len(pictures)], "image/jpeg"
        start = time.perf_counter()
        head = (
            f"POST /v1/search?k={K} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + body)
        told = await reader.readuntil(b"\r\n\r\n")
        length = int(told.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        seen.append(time.perf_counter() - start)
        errors += not told.startswith(b"HTTP/1.1 200") or len(answer["matches"]) != K
        turn += 1
    writer.close()
    return errors


async def crowd(port: int, clients: int, pictures: list[bytes], seconds: float) -> tuple[list[float], int, float]:
    """Seconds of all answers, errors, and how long it took."""
    seen: list[float] = []
    start = time.perf_counter()
    some = [client(port, number, pictures, start + seconds, seen) for number in range(clients)]
    found = await asyncio.gather(*some, return_exceptions=True)
    errors = sum(one if isinstance(one, int) else 1 for one in found)
    return seen, errors, time.perf_counter() - start


def worked(process: subprocess.Popen[str]) -> float:
    """Seconds for which cores have worked for a process."""
    told = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def measure(clients: int, seconds: float, items: int) -> dict[str, float]:
    """Every figure of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path, pictures = make(Path(folder), items), files()
        alone, alone_cpu = bare(path, pictures, min(10.0, seconds))
        service = subprocess.Popen(
            [sys.executable, "-m", "seeall", "serve", path, "--port", "0", "--json", "--gpu", "off"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert service.stdout
        try:
            port = int(json.loads(service.stdout.readline())["url"].rstrip("/").rpartition(":")[2])
            single, _, _ = asyncio.run(crowd(port, 1, pictures, min(5.0, seconds)))
            before = worked(service)
            seen, errors, took = asyncio.run(crowd(port, clients, pictures, seconds))
            cpu = (worked(service) - before) / len(seen)
        finally:
            service.terminate()
            service.wait()
        left = service.returncode
    p50, p99 = np.percentile(seen, [50, 99])
    return {
        "clients": clients, "seconds": took, "answers": len(seen), "errors": errors, "exit code": left,
        "answers a second": len(seen) / took, "p50 ms": 1e3 * p50, "p99 ms": 1e3 * p99,
        "one client alone, p50 ms": 1e3 * float(np.median(single)),
        "network and FAISS alone, answers a second": alone, "share": len(seen) / took / alone,
        "CPU ms an answer": 1e3 * cpu, "network and FAISS alone, CPU ms": 1e3 * alone_cpu,
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--items", type=int, default=20_000)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    found = measure(asked.clients, asked.seconds, asked.items)
    if asked.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<44}{value:>12,.2f}" if isinstance(value, float) else f"{name:<44}{value:>12,}")


if __name__ == "__main__":
    main()
