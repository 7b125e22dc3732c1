"""Faces found by OpenCV's cascade, drawn ones and, where they are there, real ones."""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seeall.data.decode import Unreadable, decode
from seeall.data.pictures import find
from seeall.index.faces.find import one_each, opencv
from seeall.types import SeeallError
from tests.index.people import drawn_face

FACES = Path(__file__).parents[2].parent / "shared" / "data" / "orl_faces.zip"


@pytest.mark.parametrize("faces", [0, 1, 2])
def test_drawn_faces(faces: int) -> None:
    pytest.importorskip("cv2")
    found = opencv()(np.asarray(drawn_face(faces=faces)))
    assert len(found) == faces
    for n, face in enumerate(found):
        x0, y0, x1, y1 = face.box
        assert 200 * n <= x0 < 200 * n + 70 and 200 * n + 130 < x1 <= 200 * n + 200, "each in its half, left to right"
        assert y0 < 70 and y1 > 130 and face.pixels.shape == (y1 - y0, x1 - x0, 3)


def test_one_each(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    for faces in range(3):
        drawn_face(faces=faces).save(tmp_path / f"{faces}.png")
    pictures = one_each(find(str(tmp_path)), opencv())
    with pytest.raises(Unreadable, match="no face found"):
        pictures.read(0)
    whole = decode(tmp_path / "1.png")
    assert 100 < pictures.read(1, 32).shape[0] < whole.shape[0], "cut out of the whole picture, not of a small one"
    with pytest.raises(Unreadable, match="2 faces found: cut it to one"):
        pictures.read(2)
    plain = find(str(tmp_path))
    assert one_each(plain, None) is plain


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SeeallError, match=r"pip install 'seeall\[faces\]'"):
        opencv()


def test_an_opencv_without_cascades(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("__version__ = '5.0.0'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    with pytest.raises(SeeallError, match="OpenCV 5.0.0 has no cascades"):
        opencv()
    monkeypatch.delitem(sys.modules, "cv2")


def test_real_faces() -> None:
    """Portraits, 92 x 112 px: most have one face found in them."""
    pytest.importorskip("cv2")
    if not FACES.exists():
        pytest.skip(f"needs {FACES.name} beside the repository")
    finder = opencv()
    with zipfile.ZipFile(FACES) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))[::10]
        found = [finder(decode(io.BytesIO(archive.read(name)))) for name in names]
    assert len(found) == 40 and sum(len(faces) == 1 for faces in found) >= 30
    assert sum(len(faces) > 1 for faces in found) <= 4
