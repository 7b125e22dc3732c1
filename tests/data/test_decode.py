"""Whatever is in a picture file: the right pixels, or the right reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from seeall.data.annotations.files import sizes
from seeall.data.decode import Unreadable, decode

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right, 40 x 20."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (20, 0, 40, 20))
    return image.convert(mode)


def is_halves(pixels: np.ndarray) -> bool:
    return pixels.shape == (20, 40, 3) and close(pixels[10, 5], RED) and close(pixels[10, 35], BLUE)


def close(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 16)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "RGB"), ("a.png", "RGB"), ("a.png", "RGBA"), ("a.png", "P"), ("a.gif", "P"), ("a.jpg", "CMYK"),
     ("a.webp", "RGB"), ("a.tif", "RGB"), ("a.tif", "CMYK"), ("a.bmp", "RGB"), ("a.ppm", "RGB")],
)  # fmt: skip
def test_colour(tmp_path: Path, name: str, mode: str) -> None:
    halves(mode).save(tmp_path / name)
    assert is_halves(decode(tmp_path / name))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16", "I", "F"])
def test_grey(tmp_path: Path, mode: str) -> None:
    ramp = np.linspace(0, 255, 40, dtype=np.uint8)[None].repeat(20, 0)
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        image = Image.fromarray(ramp.astype({"I": np.int32, "F": np.float32}[mode]))
    else:
        image = Image.fromarray(ramp).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("F", "I") else "a.png")
    image.save(path)
    pixels = decode(path)
    assert pixels.shape == (20, 40, 3)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert pixels[0, 0, 0] < 8 and pixels[0, -1, 0] > 247
    if mode not in ("1",):
        np.testing.assert_allclose(pixels[0, :, 0], ramp[0], atol=1)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    image = halves("RGBA")
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png") == 255).all()
    palette = halves("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    pixels = decode(tmp_path / "p.png")
    assert close(pixels[10, 5], (255, 255, 255)) and close(pixels[10, 35], BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_exif_rotation(tmp_path: Path, orientation: int, name: str) -> None:
    """As Pillow's own `exif_transpose` sets it upright; a TIFF is the same picture in another file."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    image = halves()
    image.paste("white", (0, 0, 8, 4))
    image.save(tmp_path / name, exif=exif, quality=95, lossless=True)
    image.save(tmp_path / "same.png", exif=exif)
    with Image.open(tmp_path / ("same.png" if name == "a.tif" else name)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode(tmp_path / name), expected)
    assert sizes([str(tmp_path / name)]) == [expected.shape[:2]]


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (40, 20), "green")])
    assert is_halves(decode(tmp_path / "a.gif"))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("shortest", [16, 50, 200, 1000])
def test_reduced_scale_never_goes_below_what_is_needed(tmp_path: Path, name: str, shortest: int) -> None:
    image = halves().resize((1003, 401))
    image.save(tmp_path / name, quality=95)
    pixels = decode(tmp_path / name, shortest)
    height, width = pixels.shape[:2]
    assert min(height, width) >= min(shortest, 401)
    if shortest <= 200:
        assert min(height, width) < 401
    assert abs(width / height - 1003 / 401) < 0.1
    assert close(pixels[height // 2, width // 8], RED)


def test_reasons(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture at all")
    halves().resize((400, 400)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    for name, reason in [
        ("empty.jpg", "empty file"), ("text.jpg", "not a picture"), ("cut.jpg", "damaged: .*truncated"),
        ("gone.jpg", "no such file"),
    ]:  # fmt: skip
        with pytest.raises(Unreadable, match=reason):
            decode(tmp_path / name)


def test_too_large_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(Unreadable, match="too large: over 600 px"):
        decode(tmp_path / "a.png")


def test_random_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    """Flip bytes of real files: pixels or a reason, nothing else."""
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "a.png", "a.gif", "a.tif", "a.webp", "a.bmp", *["a.avif"] * features.check("avif")):
        halves().save(tmp_path / name)
        data = bytearray((tmp_path / name).read_bytes())
        for _ in range(60):
            broken = bytearray(data)
            for place in rng.integers(0, len(broken), 6):
                broken[place] = int(rng.integers(256))
            (tmp_path / f"x{name}").write_bytes(broken)
            try:
                assert decode(tmp_path / f"x{name}", 8).shape[2] == 3
            except Unreadable as reason:
                assert str(reason)
