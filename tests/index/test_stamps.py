"""Stamps taken while pictures are read: those of the very bytes, and the pixels and reasons that `decode` gives."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seeall.data.decode import Unreadable, decode
from seeall.index import stamps
from seeall.index.items import Record
from seeall.index.store import Index
from seeall.types import SeeallError

OLD = 1_600_000_000 * 10**9


def picture(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(OLD, OLD))
    return path


@pytest.mark.parametrize("whole", [1 << 24, 10], ids=["small", "large"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_a_picture_and_its_stamp(tmp_path: Path, suffix: str, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_WHOLE", whole)
    file = str(picture(tmp_path / f"a.{suffix}"))
    read = stamps.Reader()
    for shortest in (None, 20):
        np.testing.assert_array_equal(read(file, shortest), decode(file, shortest))
        content = Path(file).read_bytes()
        assert read.taken(file) == (len(content), OLD, hashlib.sha256(content).hexdigest())
        assert read.taken(file) is None
    os.utime(file)  # written just now: its time is not to be trusted
    read(file)
    found = read.taken(file)
    assert found and found.changed == 0 and found == stamps.stamp(file, stamps.look(file))


@pytest.mark.parametrize(("name", "content"), [("a.png", b""), ("a.png", b"no"), ("a.heic", b"no"), ("gone.png", None)])
def test_what_cannot_be_read_has_its_reason_and_no_stamp(tmp_path: Path, name: str, content: bytes | None) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    read = stamps.Reader()
    with pytest.raises(Unreadable) as expected:
        decode(str(file))
    with pytest.raises(Unreadable, match=f"^{expected.value}$"):
        read(str(file))
    assert read.taken(str(file)) is None


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to between its two looks, it has no stamp, and so is looked at again the next time."""
    file = picture(tmp_path / "a.bmp")
    bare = os.read

    def slow(descriptor: int, n: int) -> bytes:
        content = bare(descriptor, n)
        picture(file, 1)
        os.utime(file, ns=(OLD + 1, OLD + 1))
        return content

    read = stamps.Reader()
    monkeypatch.setattr(os, "read", slow)
    first = read(str(file))
    monkeypatch.undo()
    assert read.taken(str(file)) is None and (first != decode(file)).any()


def test_fingerprints_are_of_json() -> None:
    for record in (
        Record(1, "/a/b.jpg", None, "{}"),
        Record(2**40, 'ü"\\\n\udc80.png', "cät\t", json.dumps({"größe": 1.5, "x": None})),
    ):
        digest = hashlib.sha256(json.dumps(record).encode()).digest()
        assert record.fingerprint == int.from_bytes(digest[:16], "big")


def test_twice_in_one_commit_is_refused_in_a_new_index_too(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    with Index.create(tmp_path / "i", dim=3, model="m", preprocessing={}, gpu="off") as index:
        with index.writer() as writer:
            writer.append(["a", "b"], x[:2])
            with pytest.raises(SeeallError, match="'b': added twice in one commit"):
                writer.append(["c", "b"], x[2:])
            assert writer.append(["c", "d"], x[2:]).tolist() == [3, 4]
        assert [item.path for item in index.items(index.ids)] == ["a", "b", "c", "d"] and index.check() == []


def test_time_and_size_are_looked_at_once_more(tmp_path: Path) -> None:
    file = str(picture(tmp_path / "a.bmp"))
    before = stamps.look(file)
    assert stamps.stamp(file, before) and before == (os.path.getsize(file), OLD)  # noqa: PTH202
    os.utime(file, ns=(OLD, time.time_ns()))
    assert stamps.stamp(file, before) is None
