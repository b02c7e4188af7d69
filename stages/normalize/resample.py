"""One antialiased resampling from the decoded picture to the square that models see."""

import math

import numpy as np
from PIL import Image

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resample_square(
    picture: Image.Image, quad: list[float], resolution: int, kernel: str, background: tuple[int, int, int]
) -> np.ndarray:
    """Return the crop as uint8, shape (resolution, resolution, 3); what lies outside the picture is background.

    Pillow's resize antialiases by widening the kernel to the scale and takes the box with its fractions of pixels.
    """
    left, top, right, bottom = quad[0], quad[1], quad[4], quad[5]
    padded, shift_x, shift_y = _pad(picture, left, top, right, bottom, background)
    box = (left + shift_x, top + shift_y, right + shift_x, bottom + shift_y)
    return np.asarray(padded.resize((resolution, resolution), FILTERS[kernel], box=box))


def _pad(
    picture: Image.Image, left: float, top: float, right: float, bottom: float, background: tuple[int, int, int]
) -> tuple[Image.Image, int, int]:
    """Lay the picture on a canvas that holds the whole box; return it with the shift of coordinates."""
    before_x, before_y = max(0, math.ceil(-left)), max(0, math.ceil(-top))
    after_x, after_y = (max(0, math.ceil(right - picture.width)), max(0, math.ceil(bottom - picture.height)))
    if not any((before_x, before_y, after_x, after_y)):
        return picture, 0, 0
    size = picture.width + before_x + after_x, picture.height + before_y + after_y
    canvas = Image.new("RGB", size, background)
    canvas.paste(picture, (before_x, before_y))
    return canvas, before_x, before_y
