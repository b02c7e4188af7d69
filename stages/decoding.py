"""Bytes of a raster or SVG picture to RGB, transparency laid over a background; bad ones are refused by reason."""

import io
import warnings
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
SMALLEST_SIDE = 2
VECTOR_SIZE = 256  # pixels of an SVG's raster: at least four times the usual targets, so one resampling still decides


class UnreadablePicture(Exception):  # noqa: N818 - a verdict on a picture, kept in a table
    """Why a picture is set aside."""


def is_svg(data: bytes) -> bool:
    """Tell whether bytes look like an SVG document."""
    return b"<svg" in data[:4096]


def decode(data: bytes, background: tuple[int, int, int]) -> Image.Image:
    """Return an RGB picture, its orientation by EXIF applied, transparency composited over the background.

    Raises:
        UnreadablePicture: unknown format, truncated, too large (checked before decoding), or too small.
    """
    picture = _rasterise(data) if is_svg(data) else _open(data)
    return flatten(picture, background)


def flatten(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Composite a picture with transparency over a background; opaque ones are only converted to RGB."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    canvas = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")


def _open(data: bytes) -> Image.Image:
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(picture)
            picture.load()
            return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError as error:
        raise UnreadablePicture("not a picture of a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadablePicture(f"damaged: {' '.join(str(error).split())}") from error


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise UnreadablePicture(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadablePicture(f"{width}x{height} pixels are too few")


def _rasterise(data: bytes) -> Image.Image:
    import resvg_py

    try:
        text = data.decode()
        _refuse_outside_references(ElementTree.fromstring(text))  # resvg draws nothing for a document that is cut off
        png = resvg_py.svg_to_bytes(svg_string=text, width=VECTOR_SIZE, skip_system_fonts=True)
    except (ValueError, RuntimeError, ElementTree.ParseError) as error:
        raise UnreadablePicture(f"damaged SVG: {' '.join(str(error).split())}") from error
    return _open(bytes(png))


def _refuse_outside_references(document: ElementTree.Element) -> None:
    """Keep a foreign SVG from drawing files of this machine."""
    for element in document.iter():
        for name, value in element.attrib.items():
            if name.endswith("href") and not value.startswith(("#", "data:")):
                raise UnreadablePicture(f"SVG refers to a file outside itself: {value[:60]}")


def content_mask(picture: Image.Image, threshold: int) -> np.ndarray:
    """Return which pixels differ from the border's median colour by more than a threshold of 255, shape (H, W)."""
    pixels = np.asarray(picture).astype(np.int16)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    difference = np.abs(pixels - np.median(border, axis=0)).max(axis=2)
    mask: np.ndarray = difference > threshold
    return mask
