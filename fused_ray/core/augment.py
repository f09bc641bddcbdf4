"""Random views of images: the crop and flip that small natural images are usually trained with.

One random number per shown image decides its view, so a view depends on the seed, the phase, the round, the client and
the place in that round's order alone. The pixels are changed before they are normalised; padding is black.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Augment = Literal["none", "crop", "flip", "crop-flip"]
Draws = NDArray[np.uint64]

PADDING = 4
"""Pixels on every side of an image before a window of its own size is cut out."""


def augmented(images: NDArray[np.uint8], kind: Augment, draws: Draws) -> NDArray[np.uint8]:
    """Views uint8 of images [b, channels, height, width], each decided by its draw [b].

    The lowest bit flips left and right; the others give the window's row and column among 2 * PADDING + 1 each.
    """
    if "crop" in kind:
        sides = ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING))
        windows = sliding_window_view(np.pad(images, sides), images.shape[2:], axis=(2, 3))
        places = 2 * PADDING + 1
        at = (draws >> np.uint64(1)) % np.uint64(places * places)
        row, column = np.divmod(at.astype(np.int64), places)
        images = windows[np.arange(len(images)), :, row, column]
    if "flip" in kind:
        flipped = (draws & np.uint64(1)).astype(bool)
        images = np.where(flipped[:, None, None, None], images[..., ::-1], images)
    return np.ascontiguousarray(images)
