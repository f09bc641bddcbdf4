"""One encoded image as pixels, by rules that docs/data.md states.

Upright as its EXIF orientation says; of several pictures in one file (APNG, MPO) the first; grey (mode L) as one
channel, all others of 8 bits as red, green, blue; transparency is left out; more than 8 bits are refused, since only
their owner knows which of them matter.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from fused_ray.data.reading import reading
from fused_ray.errors import DataError

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by its EXIF orientation; 1 is upright."""


@contextmanager
def strictly() -> Iterator[None]:
    """Decoding inside is what Pillow does unasked, whatever this process has set, in any thread; without warnings."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about EXIF that it cannot read, and large images
        ImageFile.LOAD_TRUNCATED_IMAGES = False  # others set it, and get half images without a word
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def decode(cell: Any, where: str, remarks: Counter[str]) -> NDArray[np.uint8]:
    """uint8 [channels, height, width] of an image's bytes; what was left out of it is counted in `remarks`.

    Raises DataError.
    """
    if cell is None:
        raise DataError(f"{where}: there is no image; one that is only named by its path is not fetched")
    with reading(f"{where}:", "a damaged image"):
        try:
            picture = Image.open(io.BytesIO(cell), formats=("PNG", "JPEG"))
        except UnidentifiedImageError:
            raise DataError(f"{where}: not readable as PNG or JPEG; store images encoded, as {{bytes, path}}") from None
        with picture:
            if picture.mode.startswith(("I", "F")) or (picture.format == "PNG" and cell[24] == 16):
                raise DataError(f"{where}: its values have more than 8 bits ({picture.mode}); store 8-bit images")
            several = getattr(picture, "n_frames", 1) > 1
            picture.load()
            turn = _turn(picture)
            seen = picture if picture.mode == "L" else picture.convert("RGB")
            pixels = np.asarray(seen if turn is None else seen.transpose(turn))
            transparent = picture.mode.endswith("A") or "transparency" in picture.info
            remarks.update(several=several, transparent=transparent)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def notes(remarks: Counter[str], split: str) -> tuple[str, ...]:
    """What there is to say of a split's images, in words."""
    said = {
        "grey": "are grey and were made colour, as others there are",
        "transparent": "have transparency, which is left out",
        "several": "are several pictures in one (an animation, say), of which the first is taken",
    }
    return tuple(f"{remarks[key]} of the {split} images {text}" for key, text in said.items() if remarks[key])


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright, if it is not."""
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF that cannot be read says nothing
        return None
