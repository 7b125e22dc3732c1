"""From the files of `ssl embed` and `ssl index export` to an index."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from seeall import cli
from seeall.data.pictures import find
from seeall.index.build import build
from seeall.index.features import build_from
from seeall.index.store import Index
from seeall.index.sync import bring
from seeall.training.features import embed_files
from seeall.types import SeeallError
from tests.index.test_index_build import network


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return network(tmp_path / "run.safetensors", 0)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twenty pictures with labels, and words of which some are empty."""
    (tmp_path / "pictures").mkdir()
    lines = ["path,label,camera,year"]
    for n in range(20):
        pixels = np.random.default_rng(n).integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{n:02d}.png")
        lines.append(f"pictures/{n:02d}.png,{'dog' if n % 2 else 'cat'},{'x' if n % 3 else ''},{2000 + n}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    return tmp_path / "all.csv"


def content(root: Path) -> list[tuple[str, str | None, dict, list[float]]]:
    with Index.open(root, gpu="off") as index:
        words = [{k: v for k, v in item.metadata.items() if v != ""} for item in index.items(index.ids.tolist())]
        return [
            (i.path, i.label, m, i.vector.tolist()) for i, m in zip(index.items(index.ids.tolist()), words)
        ]  # fmt: skip


@pytest.mark.parametrize("kind", ["manifest", "folder"])
def test_the_same_index_as_from_the_pictures(kind: str, manifest: Path, run: Path, tmp_path: Path) -> None:
    data = str(manifest if kind == "manifest" else manifest.parent / "pictures")
    build(find(data), run, tmp_path / "one")
    embed_files(find(data), run, tmp_path / "features")
    made = build_from(tmp_path / "features.npy", run, tmp_path / "two")
    assert made["count"] == 20 and content(tmp_path / "two") == content(tmp_path / "one")
    with Index.open(tmp_path / "two", gpu="off") as index:
        assert index.check() == []
        report = bring(index, find(data), lambda: pytest.fail("nothing is to be seen again"), dry=True)
    assert (len(report.vanished), report.looked_at_again) == (0, 20)


def test_there_and_back(manifest: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(find(str(manifest)), run, tmp_path / "one")
    assert cli.run(["index", "export", str(tmp_path / "one"), "--out", str(tmp_path / "all")]) == 0
    command = ["index", "build", str(tmp_path / "all.npy"), "--run", str(run), "--json", "--out"]
    capsys.readouterr()
    assert cli.run([*command, str(tmp_path / "two")]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 20
    assert cli.run([*command, str(tmp_path / "few"), "--limit", "7"]) == 0
    one, two, few = (content(tmp_path / name) for name in ("one", "two", "few"))
    assert [item[:3] for item in two] == [item[:3] for item in one] and few == two[:7]
    assert np.allclose([item[3] for item in two], [item[3] for item in one], atol=1e-6)  # made unit vectors twice


def test_what_is_refused(manifest: Path, run: Path, tmp_path: Path) -> None:
    embed_files(find(str(manifest)), run, tmp_path / "features")
    array, table = tmp_path / "features.npy", tmp_path / "features.parquet"
    x, rows = np.load(array), pyarrow.parquet.read_table(table)

    def refused(words: str, run: Path = run) -> None:
        with pytest.raises(SeeallError, match=words):
            build_from(array, run, tmp_path / "index")
        assert not (tmp_path / "index").exists()

    refused("was made with model", network(tmp_path / "other.safetensors", 1))
    for wrong, words in (
        (x[:5], "5 rows and .* 20"), (x[:, :9], "9 dimensions"), (x.astype(int), "not what"), (x * 0, "zeros only"),
        (x * np.nan, "NaN"),
    ):  # fmt: skip
        np.save(array, wrong)
        refused(words)
    np.save(array, x)
    pyarrow.parquet.write_table(rows.rename_columns(["name", *rows.column_names[1:]]), table)
    refused("not what `ssl embed` writes")
    table.write_bytes(b"nothing")
    refused("not what `ssl embed` writes")
    table.unlink()
    refused("features.parquet is missing: features.npy and features.parquet are a pair")
    array.write_bytes(b"nothing")
    refused("not what `ssl embed` writes")


def test_features_of_nobody(manifest: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    embed_files(find(str(manifest)), run, tmp_path / "features")
    table = tmp_path / "features.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(table).replace_schema_metadata(None), table)
    assert build_from(tmp_path / "features.npy", run, tmp_path / "index")["count"] == 20
    assert "does not say whose features they are" in caplog.text
    assert content(tmp_path / "index")[0][0] == "pictures/00.png"
