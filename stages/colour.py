"""Colours of a picture with an embedded ICC profile to sRGB, through LittleCMS."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

COLOUR_SPACE_OF_MODE = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "LA": "GRAY", "CMYK": "CMYK"}
PROBE_LEVELS = 9  # per channel
SAME_WITHIN = 2  # of 255: profiles that mean sRGB differ from it by rounding


def to_srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """Return a picture converted by its profile with perceptual intent, and why a profile was not heeded or nothing.

    Pictures without a profile, and those whose profile means sRGB, are returned as they are.
    """
    if not profile:
        return picture, ""
    plain = _plain(picture)
    if plain.mode in ("L", "LA") and profile[16:20] == b"RGB ":  # bytes 16 to 19 of a profile name its colour space
        plain = plain.convert("RGB" if plain.mode == "L" else "RGBA")
    transform, ignored = _transform(profile, plain.mode)
    if transform is None:
        return picture, ignored
    try:
        return ImageCms.applyTransform(plain, transform) or picture, ""
    except (ImageCms.PyCMSError, ValueError) as error:
        return picture, f"colour profile ignored: {error}"


def _plain(picture: Image.Image) -> Image.Image:
    """Return a picture whose pixels are the colours that a profile speaks of: no palette, no premultiplied alpha."""
    if picture.mode in ("P", "PA"):
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if picture.mode in ("1", "La", "RGBa"):
        return picture.convert({"1": "L", "La": "LA", "RGBa": "RGBA"}[picture.mode])
    if picture.mode in ("RGB", "L") and "transparency" in picture.info:  # one level or colour that is see-through
        return picture.convert("RGBA" if picture.mode == "RGB" else "LA")
    return picture


@lru_cache(maxsize=64)  # a data set has few profiles, and building a transform takes longer than using it
def _transform(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """Return what converts pictures of a mode to sRGB, or nothing and why; no reason if it changes nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != COLOUR_SPACE_OF_MODE.get(mode):
            return None, f"colour profile ignored: it is for {space}, the pixels are {mode}"
        out = "RGBA" if mode in ("RGBA", "LA") else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, out)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return None, f"colour profile ignored: {' '.join(str(error).split())}"
    return (None if _changes_nothing(transform, mode) else transform), ""


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Tell whether a transform leaves a grid of colours as Pillow's plain conversion has them."""
    probe = _probe(mode)
    converted = np.asarray(ImageCms.applyTransform(probe, transform).convert("RGB"))  # type: ignore[union-attr]
    return int(np.abs(converted.astype(int) - np.asarray(probe.convert("RGB"))).max()) <= SAME_WITHIN


def _probe(mode: str) -> Image.Image:
    levels = np.linspace(0, 255, PROBE_LEVELS).round().astype(np.uint8)
    colours = len(mode) - (mode in ("RGBA", "LA"))
    grid = np.stack(np.meshgrid(*[levels] * colours), axis=-1).reshape(1, -1, colours)
    if colours < len(mode):
        grid = np.concatenate([grid, np.full_like(grid[..., :1], 255)], axis=-1)
    return Image.fromarray(grid[..., 0]) if mode == "L" else Image.frombytes(mode, (grid.shape[1], 1), grid.tobytes())
