"""Bytes of a raster or SVG picture to upright sRGB, laid over a background; bad ones are refused by reason."""

import io
import math
import re
import struct
import warnings
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.colour import to_srgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384  # alignment may pad a picture to a square of its longer side
SMALLEST_SIDE = 2
MAX_ASPECT = 32  # of a longer strip, one square shows next to nothing
EXIF_ORIENTATION = 0x0112
TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DAMAGE = (  # Pillow's readers of formats fail with any of them on bytes that are wrong
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
)
Background = tuple[int, int, int]
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


@dataclass(frozen=True)
class Decoded:
    """An upright sRGB picture; `scale` is how many pixels of the file one of its own stands for (1, or 2, 4, 8).

    `ignored` is empty, or tells which part of the file was not heeded.
    """

    picture: Image.Image
    scale: int = 1
    ignored: str = ""


def is_svg(data: bytes) -> bool:
    """Tell whether bytes look like an SVG document."""
    return b"<svg" in data[:4096]


def decode(data: bytes, background: Background) -> Image.Image:
    """Return an upright sRGB picture of the file's own size, transparency composited over the background.

    Raises:
        UnreadablePicture: see `read_picture`.
    """
    return read_picture(data, background).picture


def read_picture(data: bytes, background: Background, shrink: float = 1.0) -> Decoded:
    """Decode a file of any known format, told by its content, to an upright 8-bit sRGB picture without transparency.

    In this order: the size is judged by the header; the first frame or page is decoded; 16 bits become 8; it is
    turned as EXIF says; an embedded colour profile is converted to sRGB (perceptual intent; one that is broken or of
    other channels is ignored and said so, one that means sRGB changes nothing); CMYK, grey and palettes become RGB;
    transparency is composited over the background.

    `shrink` is how many times smaller than the file the result may be. JPEG alone obeys: libjpeg leaves out
    frequencies while it decodes, by the largest of 2, 4 and 8 that is no more than `shrink`.

    Raises:
        UnreadablePicture: unknown format, 32-bit pixels, truncated, too large (checked before decoding), or too small.
    """
    opened, scale = (_rasterise(data), 1) if is_svg(data) else _open(data, shrink)
    upright = _turn(_to_eight_bits(opened))
    converted, ignored = to_srgb(upright, opened.info.get("icc_profile"))
    return Decoded(flatten(converted, background), scale, ignored)


def flatten(picture: Image.Image, background: Background) -> Image.Image:
    """Composite a picture with transparency over a background; opaque ones are only converted to RGB."""
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if picture.mode == "La":  # grey TIFF of premultiplied alpha, for which Pillow has this one conversion
        picture = picture.convert("LA")
    canvas = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(canvas, picture.convert("RGBA")).convert("RGB")


def _open(data: bytes, shrink: float) -> tuple[Image.Image, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # such as of odd EXIF, by which nothing is lost
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            check_size(*picture.size)
            scale = _reduce(picture, shrink)
            picture.load()
    except UnidentifiedImageError as error:
        raise UnreadablePicture("not a picture of a known format") from error
    except DAMAGE as error:
        raise UnreadablePicture(f"damaged: {' '.join(str(error).split())}") from error
    check_palette(picture)
    check_depth(picture)
    return picture, scale


def _reduce(picture: Image.Image, shrink: float) -> int:
    """Have a JPEG decoded smaller and return by how much, if its sides are multiples: then coordinates just scale."""
    width, height = picture.size
    for scale in (8, 4, 2):
        if picture.format == "JPEG" and scale <= shrink and not width % scale and not height % scale:
            picture.draft(picture.mode, (width // scale, height // scale))
            return width // picture.width
    return 1


def check_size(width: int, height: int) -> None:
    """Refuse a size that decoding or padding to a square could not afford, or that shows nothing.

    Raises:
        UnreadablePicture: more than 50 million pixels, a side over 16,384 or under 2, or a strip of more than 32:1.
    """
    if width * height > MAX_PIXELS:
        raise UnreadablePicture(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    if max(width, height) > MAX_SIDE:
        raise UnreadablePicture(f"{width}x{height} pixels: a side is longer than {MAX_SIDE}")
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadablePicture(f"{width}x{height} pixels are too few")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnreadablePicture(f"{width}x{height} pixels: one side is over {MAX_ASPECT} times the other")


def check_palette(picture: Image.Image) -> None:
    """Refuse a picture whose pixels name colours that its palette lacks, which Pillow would draw black.

    Raises:
        UnreadablePicture: the highest colour named, and how many there are.
    """
    if picture.mode != "P":
        return
    colours, highest = len(picture.getpalette() or []) // 3, int(picture.getextrema()[1])  # type: ignore[arg-type]
    if highest >= colours:
        raise UnreadablePicture(f"damaged: a pixel has colour {highest} of a palette of {colours}")


def _turn(picture: Image.Image) -> Image.Image:
    """Turn and mirror a picture as its EXIF orientation says; EXIF that cannot be read says nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = picture.getexif().get(EXIF_ORIENTATION)
    except DAMAGE:
        return picture
    method = TRANSPOSE_OF_ORIENTATION.get(orientation) if isinstance(orientation, int) else None
    return picture if method is None else picture.transpose(method)


def check_depth(picture: Image.Image) -> None:
    """Refuse 32-bit integers or floats, for which no file tells what white is.

    Raises:
        UnreadablePicture: what the pixels are.
    """
    if picture.mode in ("I", "F"):
        kind = "floats" if picture.mode == "F" else "integers"
        raise UnreadablePicture(f"pixels are 32-bit {kind} of unknown range; save it with 8 or 16 bits")


def check_root(document: ElementTree.Element) -> None:
    """Refuse a document that merely holds an SVG, such as a page of the web.

    Raises:
        UnreadablePicture: its root is another element.
    """
    name = document.tag.rpartition("}")[2]
    if name != "svg":
        raise UnreadablePicture(f"not a picture of a known format: a document of type {name[:20]}")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, which Pillow's own conversion would clip to white."""
    if not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    grey.info = {name: picture.info[name] for name in ("exif", "icc_profile") if name in picture.info}
    transparent = picture.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _rasterise(data: bytes) -> Image.Image:
    import resvg_py

    try:
        document = ElementTree.fromstring(data.decode())  # resvg draws nothing for a document that is cut off
        check_root(document)
        _refuse_outside_references(document)
        _fix_size(document)
        text = ElementTree.tostring(document, encoding="unicode")
        png = resvg_py.svg_to_bytes(svg_string=text, width=VECTOR_SIZE, skip_system_fonts=True)
    except (ValueError, RuntimeError, ElementTree.ParseError) as error:
        raise UnreadablePicture(f"damaged SVG: {' '.join(str(error).split())}") from error
    return _open(bytes(png), 1.0)[0]


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
    check_size(VECTOR_SIZE, math.ceil(VECTOR_SIZE * height / width))
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
