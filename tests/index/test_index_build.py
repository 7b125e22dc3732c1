"""From pictures to an index and back: one copy of the network for all, and queries that do not fill the memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seeall.backbones.load import build as make
from seeall.backbones.load import digest, save
from seeall.data.pictures import find
from seeall.index.build import MODEL, Eye, build, eye_of, look
from seeall.index.query import search
from seeall.index.store import Index
from seeall.types import SeeallError

NAME = "shufflenet_v2_x0_5"


def network(path: Path, seed: int, size: int = 32) -> Path:
    torch.manual_seed(seed)
    backbone, _ = make(NAME)
    return save(backbone, path, name=NAME, settings={}, preprocessing={"image_size": size})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for n in range(20):
        pixels = np.random.default_rng(n).integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{n:02d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def index(pictures: Path, tmp_path: Path) -> Path:
    build(find(str(pictures)), network(tmp_path / "one.safetensors", 0), tmp_path / "index")
    return tmp_path / "index"


def test_network_that_is_replaced_meanwhile(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = network(tmp_path / "run.safetensors", 0)
    other = network(tmp_path / "other.safetensors", 1)
    of = Eye.of

    def and_replace(source: str | Path) -> Eye:
        eye = of(source)
        run.write_bytes(other.read_bytes())
        return eye

    first = digest(run)
    monkeypatch.setattr(Eye, "of", and_replace)
    build(find(str(pictures)), run, tmp_path / "index")
    monkeypatch.undo()
    with Index.open(tmp_path / "index", gpu="off") as opened:
        assert opened.info()["model"] == first == digest(tmp_path / "index" / MODEL) and opened.check() == []
        found = opened.search(look(find(str(pictures)), eye_of(opened)), 1)
    assert found[0][:, 0].tolist() == list(range(1, 21)) and np.allclose(found[1], 1, atol=1e-5)


def test_damaged_network_is_named_by_its_own_path(pictures: Path, tmp_path: Path) -> None:
    run = network(tmp_path / "run.safetensors", 0)
    run.write_bytes(run.read_bytes()[:1000])
    with pytest.raises(SeeallError, match=f"^{run} is damaged"):
        build(find(str(pictures)), run, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_queries_are_seen_a_few_at_a_time(
    index: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Index.open(index, gpu="off") as opened:
        vectors = opened.items(opened.ids)
        eye = Eye.of(network(tmp_path / "large.safetensors", 0, 224))
        seen, see = [], eye.see
        monkeypatch.setattr(eye, "see", lambda pixels: seen.append(len(pixels)) or see(pixels))
        assert look(find(str(pictures)), eye).shape == (20, eye.dim) and len(seen) > 1 and sum(seen) == 20
        small = look(find(str(pictures)), eye_of(opened))
        small /= small.norm(dim=1, keepdim=True)
        assert np.allclose(small, np.stack([item.vector for item in vectors]), atol=1e-5)


def test_queries_that_are_no_pictures(index: Path, pictures: Path) -> None:
    for n in range(20):
        (pictures / f"{n:02d}.png").write_bytes(b"")
    for asked in (pictures, pictures / "00.png"):
        with pytest.raises(SeeallError, match=r"00\.png: cannot be searched for: "):
            search(index, [str(asked)], 1)


@pytest.mark.parametrize(
    ("query", "words"),
    [("²", "²"), ("٣", "٣"), (str(10**20), f"{10**20} is not in the index"), ("9" * 300, "is not in the index")],
)
def test_numbers_that_are_no_ids(query: str, words: str, index: Path) -> None:
    with pytest.raises(SeeallError, match=words):
        search(index, [query], 1)


def test_numbers_that_are_ids(index: Path) -> None:
    (found,) = search(index, ["3"], 1)
    assert found["query"].endswith("02.png") and found["matches"][0]["id"] == 3
