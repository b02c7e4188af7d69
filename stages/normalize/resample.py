"""One antialiased resampling from the decoded picture to the square that models see, upright or turned."""

import math

import numpy as np
from PIL import Image, ImageFilter, ImageStat

from stages.crops import BACKGROUND

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SUPPORT = 3  # pixels that the widest of these filters reaches, times the scale
REDUCING_GAP = 4.0  # a picture of which a turned crop shrinks by more than twice this is made smaller first
FINE, FINE_BELOW = 2, 3.0  # a crop that shrinks by less is turned on twice as fine a grid, or its finest detail folds
INTERPOLATION_MARGIN = 3  # pixels around a turned crop that bicubic interpolation may ask for
BLUR_SIGMA, BLUR_REACH, FADE_REACH = 0.02, 0.06, 0.5  # of the crop's side: how blurred, and over which way outwards
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]


def resample_square(
    picture: Image.Image,
    quad: list[float],
    resolution: int,
    kernel: str,
    background: Colour,
    border: str = BACKGROUND,
) -> np.ndarray:
    """Return the crop as uint8, shape (resolution, resolution, 3).

    Outside of the picture is the background or, with border `reflect`, the picture's reflection, which blurs and
    fades to its median colour with the distance. Pillow's resize antialiases by widening the kernel to the scale and
    takes the box with its fractions of pixels; a turned crop is laid upright for it at the picture's own resolution.
    """
    corners = np.reshape(quad, (4, 2))
    quarters = _quarter_turns(corners)
    if quarters is None:
        canvas, box = _lay_upright(picture, corners, resolution, background, border)
    else:
        upright = np.roll(corners, -quarters, axis=0)
        canvas, box = _extend(picture, _box(upright[0], upright[2]), background, border)
    pixels = np.asarray(canvas.resize((resolution, resolution), FILTERS[kernel], box=box))
    return np.rot90(pixels, quarters or 0)


def _quarter_turns(corners: np.ndarray) -> int | None:
    """Return by how many quarters a square is turned clockwise, or nothing where its sides are not along the axes."""
    for quarters in range(4):
        (left, top), lower_left, (right, bottom), upper_right = np.roll(corners, -quarters, axis=0).tolist()
        if left < right and top < bottom and lower_left == [left, bottom] and upper_right == [right, top]:
            return quarters
    return None


def _lay_upright(
    picture: Image.Image, corners: np.ndarray, resolution: int, background: Colour, border: str
) -> tuple[Image.Image, Box]:
    """Return a turned square laid upright, with what a filter reaches around it, and the square's box in it."""
    whole = max(1, int(_side(corners) / resolution / REDUCING_GAP))
    if whole > 1:
        smaller = picture.resize([math.ceil(side / whole) for side in picture.size], Image.Resampling.LANCZOS)
        picture, corners = smaller, corners * smaller.size / picture.size
    fine = FINE if _side(corners) < FINE_BELOW * resolution else 1
    count = math.ceil(_side(corners) * fine)
    margin = SUPPORT * math.ceil(max(1, count / resolution))
    x, y = (corners[3] - corners[0]) / count, (corners[1] - corners[0]) / count
    size = count + 2 * margin
    outer = corners[0] - margin * (x + y) + np.array([0 * x, size * x, size * y, size * (x + y)])
    low, high = outer.min(0) - INTERPOLATION_MARGIN, outer.max(0) + INTERPOLATION_MARGIN
    canvas, place = _extend(picture, _box(low, high), background, border)
    start = outer[0] - low + place[:2]
    affine = (x[0], y[0], start[0], x[1], y[1], start[1])
    turned = canvas.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return turned, (margin, margin, margin + count, margin + count)


def _box(low: np.ndarray, high: np.ndarray) -> Box:
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _side(corners: np.ndarray) -> float:
    return math.hypot(*(corners[1] - corners[0]))


def _extend(picture: Image.Image, box: Box, background: Colour, border: str) -> tuple[Image.Image, Box]:
    """Return a picture that holds the whole box, and where the box lies in it."""
    left, top, right, bottom = box
    before_x, before_y = max(0, math.ceil(-left)), max(0, math.ceil(-top))
    after_x, after_y = (max(0, math.ceil(right - picture.width)), max(0, math.ceil(bottom - picture.height)))
    if not any((before_x, before_y, after_x, after_y)):
        return picture, box
    if border != BACKGROUND:
        return _reflect(picture, box)
    size = picture.width + before_x + after_x, picture.height + before_y + after_y
    canvas = Image.new("RGB", size, background)
    canvas.paste(picture, (before_x, before_y))
    return canvas, (left + before_x, top + before_y, right + before_x, bottom + before_y)


def _reflect(picture: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    """Return what the box shows, with the picture's reflection outside of it, blurred and faded with the distance."""
    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = math.ceil(box[2]), math.ceil(box[3])
    part = picture.crop((max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)))
    x = (max(-left, 0), max(right - picture.width, 0))
    y = (max(-top, 0), max(bottom - picture.height, 0))
    canvas = Image.fromarray(np.pad(np.asarray(part), (y, x, (0, 0)), mode="symmetric"))
    side = max(box[2] - box[0], box[3] - box[1])
    away = np.hypot(_outside(canvas.height, y)[:, None], _outside(canvas.width, x)) / side
    blurred = canvas.filter(ImageFilter.GaussianBlur(BLUR_SIGMA * side))
    canvas = Image.composite(blurred, canvas, _rising(away / BLUR_REACH))
    median = Image.new("RGB", canvas.size, tuple(ImageStat.Stat(part).median))
    canvas = Image.composite(median, canvas, _rising(away / FADE_REACH))
    return canvas, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def _outside(length: int, padding: tuple[int, int]) -> np.ndarray:
    """Return how far each pixel of a row lies outside of the part between its paddings."""
    place = np.arange(length, dtype=np.float32)
    return np.maximum(0, np.maximum(padding[0] - place, place - (length - 1 - padding[1])))


def _rising(way: np.ndarray) -> Image.Image:
    """Return a mask that rises smoothly from 0 at the start of a way to 255 at its end, 1."""
    share = way.clip(0, 1)
    return Image.fromarray((255 * share * share * (3 - 2 * share)).round().astype(np.uint8))
