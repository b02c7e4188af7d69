"""Shows what align decided for a picture: the frames of its crops and the points of its faces."""

import numpy as np
from PIL import Image, ImageDraw

from stages.crops import Crop

SIZE = 128
MARGIN = 1.05
FRAME_COLOUR, POINT_COLOUR = (230, 30, 90), (0, 200, 255)
DOT = 1  # pixels, of a point's radius


def draw_preview(picture: Image.Image, crops: list[Crop], background: tuple[int, int, int]) -> np.ndarray:
    """Return the picture with its crops, uint8, shape (SIZE, SIZE, 3); one that is set aside is crossed out."""
    corners = np.concatenate([[(0, 0), picture.size], *(np.reshape(crop.quad, (-1, 2)) for crop in crops)])
    low, high = corners.min(0), corners.max(0)
    scale = SIZE / (MARGIN * float((high - low).max()))
    shift = (SIZE / 2 - (low + high) / 2 * scale).round()
    canvas = Image.new("RGB", (SIZE, SIZE), background)
    size = [max(1, round(side * scale)) for side in picture.size]
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), (int(shift[0]), int(shift[1])))
    pen = ImageDraw.Draw(canvas)
    for crop in crops:
        _draw_crop(pen, crop, scale, shift)
    return np.asarray(canvas)


def _draw_crop(pen: ImageDraw.ImageDraw, crop: Crop, scale: float, shift: np.ndarray) -> None:
    if crop.skipped:
        pen.line((0, 0, SIZE, SIZE), fill=FRAME_COLOUR)
        pen.line((0, SIZE, SIZE, 0), fill=FRAME_COLOUR)
        return
    frame = (np.reshape(crop.quad, (-1, 2)) * scale + shift).clip(0, SIZE - 1)
    pen.line([tuple(corner) for corner in [*frame, frame[0]]], fill=FRAME_COLOUR)
    for x, y in np.reshape(crop.landmarks, (-1, 2)) * scale + shift:
        pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=POINT_COLOUR)
