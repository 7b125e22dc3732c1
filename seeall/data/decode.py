"""One picture file → RGB pixels, whatever is in the file; or a reason why not.

Handled: any mode (CMYK, palette, grey, 16-bit, float), transparency (laid on white), EXIF rotation, animation
(first frame). Large pictures are read at a reduced scale where the caller says what it needs: JPEG by its own
scaled decoding, others by a box filter, both by a whole factor, so that no crop asked for later is upsampled.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Pixels = NDArray[np.uint8]

EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".avif",
        ".heic",
        ".heif",
    ]
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what sets the picture upright."""


class Unreadable(Exception):
    """Why a file gives no picture, in a few words."""


def decode(file: str | Path | Any, shortest: int | None = None) -> Pixels:
    """RGB pixels (H, W, 3) uint8 of a picture file.

    shortest: a picture whose shorter side is at least twice this is read at 1/2, 1/3, … of its scale, so
        that the shorter side stays at or above it. None: at full scale.

    Raises: Unreadable with the reason.
    """
    try:
        with Image.open(file) as image:
            if shortest is not None and image.format == "JPEG":
                scale = shortest / min(image.size)
                image.draft("RGB", (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
            return _pixels(image, shortest)
    except Unreadable:
        raise
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except UnidentifiedImageError:
        raise Unreadable(_why_unknown(file)) from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow looks at the header, before any memory is taken
        raise Unreadable(f"too large: over {limit:,} px") from None
    except Exception as fault:  # a damaged file meets a different fault in every decoder
        raise Unreadable(f"damaged: {str(fault).splitlines()[0] if str(fault) else type(fault).__name__}") from None


def _why_unknown(file: Any) -> str:
    try:
        empty = isinstance(file, (str, Path)) and Path(file).stat().st_size == 0
    except OSError as fault:
        return f"unreadable: {fault.strerror}"
    if str(file).lower().endswith((".heic", ".heif")):
        return "HEIC, which Pillow cannot read: convert it to JPEG"
    return "empty file" if empty else "not a picture that Pillow can read"


def _pixels(image: Image.Image, shortest: int | None) -> Pixels:
    orientation = image.getexif().get(0x0112, 1) if "exif" in image.info else 1  # Pillow turns TIFF by itself
    rgb = image if image.mode == "RGB" and "transparency" not in image.info else _rgb(image)
    if min(rgb.size) == 0:
        raise Unreadable("no pixels")
    if shortest is not None and (factor := min(rgb.size) // shortest) > 1:
        rgb = rgb.reduce(factor)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    return np.asarray(rgb)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode → RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of palettes whose transparency is given as bytes
            above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(white, above).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: NDArray[Any]) -> Pixels:
    """Grey values of any range → uint8: 16-bit by its high byte, other ranges stretched."""
    values = np.nan_to_num(values.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 255 and high > 1:
        scaled = values
    elif low >= 0 and high <= 65535 and high > 1:
        scaled = values / 257
    else:
        scaled = (values - low) / max(high - low, 1e-12) * 255
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)
