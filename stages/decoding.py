"""Bytes of a raster or SVG picture to RGB, transparency laid over a background; bad ones are refused by reason."""

import io
import math
import re
import warnings
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384  # alignment may pad a picture to a square of its longer side
SMALLEST_SIDE = 2
VECTOR_SIZE = 256  # pixels of an SVG's raster: at least four times the usual targets, so one resampling still decides
PIXELS_OF_UNIT = {
    "": 1.0,
    "px": 1.0,
    "pt": 4 / 3,
    "pc": 16.0,
    "mm": 96 / 25.4,
    "cm": 96 / 2.54,
    "in": 96.0,
    "em": 16.0,
    "ex": 8.0,
}
LENGTH = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(%|[a-z]*)\s*")


class UnreadablePicture(Exception):  # noqa: N818 - a verdict on a picture, kept in a table
    """Why a picture is set aside."""


def is_svg(data: bytes) -> bool:
    """Tell whether bytes look like an SVG document."""
    return b"<svg" in data[:4096]


def decode(data: bytes, background: tuple[int, int, int]) -> Image.Image:
    """Return an RGB picture, its orientation by EXIF applied, transparency composited over the background.

    Raises:
        UnreadablePicture: unknown format, 32-bit pixels, truncated, too large (checked before decoding), or too small.
    """
    picture = _to_eight_bits(_rasterise(data) if is_svg(data) else _open(data))
    return flatten(picture, background)


def flatten(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Composite a picture with transparency over a background; opaque ones are only converted to RGB."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":  # grey TIFF of premultiplied alpha, for which Pillow has this one conversion
        picture = picture.convert("LA")
    canvas = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")


def _open(data: bytes) -> Image.Image:
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(*picture.size)
            picture.load()
            return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError as error:
        raise UnreadablePicture("not a picture of a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadablePicture(f"damaged: {' '.join(str(error).split())}") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadablePicture(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    if max(width, height) > MAX_SIDE:
        raise UnreadablePicture(f"{width}x{height} pixels: a side is longer than {MAX_SIDE}")
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadablePicture(f"{width}x{height} pixels are too few")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, which Pillow's own conversion would clip to white.

    Raises:
        UnreadablePicture: 32-bit integers or floats, for which no file tells what white is.
    """
    if picture.mode in ("I", "F"):
        kind = "floats" if picture.mode == "F" else "integers"
        raise UnreadablePicture(f"pixels are 32-bit {kind} of unknown range; save it with 8 or 16 bits")
    if not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    transparent = picture.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _rasterise(data: bytes) -> Image.Image:
    import resvg_py

    try:
        document = ElementTree.fromstring(data.decode())  # resvg draws nothing for a document that is cut off
        _refuse_outside_references(document)
        _fix_size(document)
        text = ElementTree.tostring(document, encoding="unicode")
        png = resvg_py.svg_to_bytes(svg_string=text, width=VECTOR_SIZE, skip_system_fonts=True)
    except (ValueError, RuntimeError, ElementTree.ParseError) as error:
        raise UnreadablePicture(f"damaged SVG: {' '.join(str(error).split())}") from error
    return _open(bytes(png))


def _fix_size(document: ElementTree.Element) -> None:
    """Refuse an SVG whose raster would be too large, and write the size that was judged where resvg will read it.

    resvg ends the whole process where memory does not suffice. It has more ways to a size than one can foresee
    (fonts, content, attributes of other namespaces), so none of them is left.

    Raises:
        UnreadablePicture: the document tells no size, or one that is too large or too thin.
    """
    box = _view_box(document.get("viewBox", ""))
    width = _length(document.get("width", "100%"), box[2] if box else None)
    height = _length(document.get("height", "100%"), box[3] if box else None)
    if width is None or height is None:
        raise UnreadablePicture("SVG tells no size, by neither viewBox nor width and height")
    if not (0 < width < math.inf and 0 < height < math.inf and height / width < math.inf):
        raise UnreadablePicture(f"SVG of impossible size {width:g}x{height:g}")
    _check_size(VECTOR_SIZE, math.ceil(VECTOR_SIZE * height / width))
    for name in [name for name in document.attrib if name.rpartition("}")[2] in ("width", "height", "viewBox")]:
        del document.attrib[name]
    document.attrib |= {"width": repr(width), "height": repr(height)}
    document.set("viewBox", " ".join(map(repr, box or (0.0, 0.0, width, height))))


def _view_box(text: str) -> tuple[float, ...] | None:
    """Return left, top, width and height, or nothing where they are not four numbers of a positive size."""
    try:
        box = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        return None
    return box if len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) > 0 else None


def _length(text: str, whole: float | None) -> float | None:
    """Return a length in pixels at 96 dpi; percentages, and what is no length, are of the view box's."""
    found = LENGTH.fullmatch(text)
    if found is None or found[2] not in ("%", *PIXELS_OF_UNIT):
        return whole
    if found[2] == "%":
        return None if whole is None else whole * float(found[1]) / 100
    return float(found[1]) * PIXELS_OF_UNIT[found[2]]


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
