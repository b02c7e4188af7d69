"""Pictures and videos as data URLs, shrunk or left beside the page where they would make it heavy."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stages.errors import InputError
from stages.sheet import sheet

SHEET_COLUMNS = 8
CHANNELS = (1, 3)
CLIP_BYTES = 1_000_000  # of a video that a page holds; base64 makes them a third more


@dataclass(frozen=True)
class Shown:
    """A picture on a page: its data URL, what it shows in words, and its size in pixels."""

    url: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Clip:
    """A video on a page: its data URL or the file beside the page, and what it shows in words."""

    url: str
    alt: str

    @property
    def inside(self) -> bool:
        """Whether the page holds it."""
        return self.url.startswith("data:")


def clip(film: bytes, path: str, alt: str) -> Clip:
    """Return an MP4 as a data URL, or where it is large, the path from the page to its file."""
    inside = len(film) <= CLIP_BYTES
    return Clip(f"data:video/mp4;base64,{base64.b64encode(film).decode()}" if inside else path, alt)


def encode(picture: np.ndarray, alt: str) -> Shown:
    """Return a uint8 picture (H, W, C) with 1 or 3 channels as a PNG in a data URL."""
    if picture.ndim != 3 or picture.shape[2] not in CHANNELS or picture.dtype != np.uint8:
        found = f"{picture.dtype} of shape {picture.shape}"
        raise InputError(f"a picture of the report ({alt}) is {found}, expected uint8 (H, W, 1 or 3)")
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return Shown(f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}", alt, *image.size)


def shrink(pictures: np.ndarray, pixels: int) -> np.ndarray:
    """Average blocks of uint8 pictures (N, H, W, C) by the least whole factor that leaves at most `pixels` in all."""
    count, height, width, channels = pictures.shape
    factor = 1
    while factor < min(height, width) and count * (height // factor) * (width // factor) > pixels:
        factor += 1
    if factor == 1 or not count:
        return pictures
    cut = pictures[:, : height // factor * factor, : width // factor * factor].astype(np.float32)
    blocks = cut.reshape(count, height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)


def contact_sheet(pictures: np.ndarray, alt: str, pixels: int, columns: int = SHEET_COLUMNS) -> Shown | None:
    """Return pictures (N, H, W, C) laid out in reading order, None where there is none."""
    if pictures.ndim != 4 or not len(pictures):
        return None
    image = np.asarray(sheet(shrink(pictures, pixels), columns=min(columns, len(pictures))))
    return encode(image if image.ndim == 3 else image[..., None], alt)


def cut_sheet(image: np.ndarray, columns: int, name: str) -> np.ndarray:
    """Undo `stages.sheet.sheet` with its gap of one pixel and square pictures: uint8 (H, W, C) to (N, H, W, C).

    Raises:
        InputError: the picture, named `name`, is no such sheet.
    """
    for zoom in range(min(image.shape[:2]) // (columns + 1), 0, -1):
        small = image[::zoom, ::zoom]
        side, left = divmod(small.shape[1] - 1, columns)
        rows, below = divmod(small.shape[0] - 1, max(side, 1))
        if left or below or side < 2 or not np.array_equal(np.kron(small, np.ones((zoom, zoom, 1), np.uint8)), image):
            continue
        grid = small[1:, 1:].reshape(rows, side, columns, side, -1).transpose(0, 2, 1, 3, 4)
        return grid.reshape(rows * columns, side, side, -1)[:, :-1, :-1]
    height, width = image.shape[:2]
    raise InputError(f"{name} is {width} x {height} pixels, which is no sheet of {columns} columns; evaluate it again")
