"""Pictures side by side on one sheet."""

import math

import numpy as np
from PIL import Image


def sheet(pictures: np.ndarray, columns: int = 0, zoom: int = 1, gap: int = 1) -> Image.Image:
    """Lay pictures out in reading order.

    Takes uint8, shape (N, H, W, C) with C 1 or 3; `columns` 0 makes the sheet about square; `zoom` repeats pixels.
    """
    count, height, width, channels = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for position, picture in enumerate(pictures):
        top = gap + position // columns * (height + gap)
        left = gap + position % columns * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    image = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
