"""Writes the pictures of seeds: one picture, a sheet, or a folder with a file per seed."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stages.errors import InputError, ResourceError
from stages.generators.interface import Generator
from stages.progress import progress
from stages.storage import write_bytes

FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
OPTIONS: dict[str, dict] = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
SEED_LIMIT = 1 << 128  # of a Philox key
DISK_FULL = (28, 122)  # ENOSPC, EDQUOT


def check_request(seed: int, count: int, out: Path) -> None:
    """Check what is asked for before a model is opened.

    Raises:
        InputError: seed, count or the kind of output file is impossible.
    """
    if count < 1:
        raise InputError(f"--count is {count}; expected 1 or more")
    if not 0 <= seed <= SEED_LIMIT - count:
        raise InputError(f"--seed is {seed}; expected 0 or more, and all seeds below 2**128")
    suffix = out.suffix.lower()
    if suffix in Image.registered_extensions() and suffix not in FORMATS and not out.is_dir():
        raise InputError(f"--out is {out}; pictures are written as {', '.join(FORMATS)}, or into a folder")


def draw(generator: Generator, seed: int, count: int, out: Path) -> None:
    """Draw the pictures of the seeds `seed` to `seed + count - 1` into a picture file or a folder.

    Raises:
        InputError: the place cannot be written to.
        ResourceError: the disk is full.
    """
    pictures = progress(pixels(generator, range(seed, seed + count)), "drawing", count)
    as_file = out.suffix.lower() in FORMATS and not out.is_dir()
    try:
        (out.parent if as_file else out).mkdir(parents=True, exist_ok=True)  # say it before the work, not after
        if as_file:
            write_picture(out, one_or_sheet(np.stack(list(pictures))))
            return
        for number, picture in enumerate(pictures, start=seed):
            write_picture(out / f"seed-{number:06d}.png", to_image(picture))
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(f"the disk is full while writing {out}") from error
        raise InputError(f"--out {out} cannot be written: {error.strerror or error}") from error


def pixels(generator: Generator, seeds: range) -> Iterator[np.ndarray]:
    """Yield one picture per seed, uint8, shape (H, W, C)."""
    from stages.dataset import to_uint8

    for batch in generator.draw(seeds):
        yield from to_uint8(batch).transpose(0, 2, 3, 1)


def one_or_sheet(pictures: np.ndarray) -> Image.Image:
    """Return the only picture as it is, or several on one sheet; takes uint8, shape (N, H, W, C)."""
    from stages.sheet import sheet

    return to_image(pictures[0]) if len(pictures) == 1 else sheet(pictures)


def to_image(picture: np.ndarray) -> Image.Image:
    """Turn uint8 of shape (H, W, C), C 1 or 3, into an image."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else np.ascontiguousarray(picture))


def write_picture(path: Path, image: Image.Image) -> None:
    """Encode an image by its file's suffix and write it whole."""
    kind = FORMATS[path.suffix.lower()]
    buffer = io.BytesIO()
    image.save(buffer, kind, **OPTIONS[kind])
    write_bytes(path, buffer.getvalue())
