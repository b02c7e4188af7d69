"""Pictures made to hurt: each is refused for its reason by one guard, and nothing around data/images is touched."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.decoding import MAX_ASPECT, UnreadablePicture, decode
from stages.errors import InputError
from stages.storage import sha256_tree
from tests.stages.datasets import lay_out, normalize, png

GOOD = {f"good-{seed}.png": png(seed) for seed in range(12)}


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width: int, height: int, *extra: bytes) -> bytes:
    """A PNG of a size that its few bytes of pixels do not have."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    packed = struct.pack(form, *values)
    return data[:offset] + packed + data[offset + len(packed) :]


def jpeg_header(width: int, height: int) -> bytes:
    data = encoded(Image.new("RGB", (16, 16)), "JPEG")
    return patched(data, data.index(b"\xff\xc0") + 5, ">HH", height, width)


def small(kind: str) -> bytes:
    return encoded(Image.new("RGB", (16, 16), "teal"), kind)


def inflated_text(name: bytes, before: bytes) -> bytes:
    """16 x 16 pixels and a chunk of 80 MB that takes 80 kB."""
    good = small("PNG")
    return good[:33] + chunk(name, before + zlib.compress(bytes(80_000_000), 9)) + good[33:]


def beyond_palette() -> bytes:
    """Two colours, and a pixel that names the eighth."""
    palette = chunk(b"PLTE", bytes(6))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\7\0\0\0" * 4))
    return b"\x89PNG\r\n\x1a\n" + header + palette + pixels + chunk(b"IEND", b"")


def svg(attributes: str, content: str = "") -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{content}</svg>'.encode()


WEBP = small("WEBP")
TIFF = encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF")
HTML = b'<html xmlns="http://www.w3.org/1999/xhtml" width="9" height="9"><svg></svg></html>'
LINK = svg('viewBox="0 0 9 9"', '<image href="/etc/passwd" width="9" height="9"/>')


def nothing(*arguments: Any, **options: Any) -> None:
    """Stand in for a guard that is taken out."""


def as_it_is(value: Any, *rest: Any) -> Any:
    """Stand in for a guard whose result is used."""
    return value


def unlimited(data: bytes, *rest: Any) -> bytes:
    return zlib.decompress(data)


@dataclass(frozen=True)
class Case:
    """A file, the reason for which it is refused, and the guard that does it with what takes its place."""

    name: str
    data: Callable[[], bytes]
    reason: str
    guard: str
    instead: Any = nothing


SIZE = "stages.decoding.check_size"
PILLOW = "PIL.Image._decompression_bomb_check"
CASES = (
    Case("png-bomb.png", lambda: png_header(60_000, 60_000), "Image size (3600000000 pixels) exceeds limit", PILLOW),
    Case("png-bomb-below-pillows-limit.png", lambda: png_header(8_000, 8_000), "8000x8000 pixels are more", SIZE),
    Case("jpeg-bomb.jpg", lambda: jpeg_header(65_000, 65_000), "Image size (4225000000 pixels) exceeds limit", PILLOW),
    Case(
        "gif-bomb.gif",
        lambda: patched(small("GIF"), 6, "<HH", 65_535, 65_535),
        "Image size (4294836225 pixels) exceeds limit",
        PILLOW,
    ),
    Case(
        "bmp-bomb.bmp",
        lambda: patched(small("BMP"), 18, "<ii", 50_000, 50_000),
        "Image size (2500000000 pixels) exceeds limit",
        PILLOW,
    ),
    Case("long.png", lambda: png_header(20_000, 2_000), "20000x2000 pixels: a side is longer than 16384", SIZE),
    Case("one-pixel.png", lambda: encoded(Image.new("RGB", (1, 1)), "PNG"), "1x1 pixels are too few", SIZE),
    Case("one-row.jpg", lambda: encoded(Image.new("RGB", (20, 1)), "JPEG"), "20x1 pixels are too few", SIZE),
    Case("strip.png", lambda: encoded(Image.new("RGB", (2_000, 3)), "PNG"), "2000x3 pixels: one side is over 32", SIZE),
    Case("column.gif", lambda: encoded(Image.new("L", (3, 900)), "GIF"), "3x900 pixels: one side is over 32", SIZE),
    Case("svg-bomb.svg", lambda: svg('viewBox="0 0 1 300000"'), "256x76800000 pixels are more", SIZE),
    Case("svg-link.svg", lambda: LINK, "outside itself: /etc/passwd", "stages.decoding._refuse_outside_references"),
    Case("page-with-svg.png", lambda: HTML, "a document of type html", "stages.decoding.check_root"),
    Case(
        "page.png",
        lambda: b"<!doctype html><p>404",
        "not a picture of a known",
        "PIL.Image.open",
        lambda *a, **o: Image.new("RGB", (9, 9)),
    ),
    Case(
        "targa.png",
        lambda: encoded(Image.new("RGB", (9, 9)), "TGA"),
        "not a picture of a known",
        "stages.decoding.FORMATS",
        ("TGA",),
    ),
    Case(
        "ppm.jpg", lambda: b"P6 2 2 255 " + bytes(12), "not a picture of a known", "stages.decoding.FORMATS", ("PPM",)
    ),
    Case(
        "profile-bomb.png",
        lambda: inflated_text(b"iCCP", b"x\0\0"),
        "damaged: Decompressed data too large",
        "PIL.PngImagePlugin._safe_zlib_decompress",
        unlimited,
    ),
    Case(
        "text-bomb.png",
        lambda: inflated_text(b"zTXt", b"x\0\0"),
        "damaged: Decompressed data too large",
        "PIL.PngImagePlugin._safe_zlib_decompress",
        unlimited,
    ),
    Case("cut.png", lambda: png(1)[:-40], "image file is truncated", "PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True),
    Case(
        "cut.jpg",
        lambda: encoded(Image.effect_noise((64, 64), 60), "JPEG")[:1200],
        "image file is truncated",
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES",
        True,
    ),
    Case(
        "beyond.png", beyond_palette, "damaged: a pixel has colour 7 of a palette of 2", "stages.decoding.check_palette"
    ),
    Case("nan.tiff", lambda: TIFF, "32-bit floats of unknown range", "stages.decoding.check_depth"),
    Case(
        "empty.png", lambda: b"", "not a picture of a known", "PIL.Image.open", lambda *a, **o: Image.new("RGB", (9, 9))
    ),
)
named = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def verdict(data: bytes) -> str:
    """Return why a file is refused, or nothing."""
    try:
        decode(data, (255, 255, 255))
    except UnreadablePicture as refusal:
        return str(refusal)
    return ""


@pytest.fixture
def around(tmp_path: Path) -> Path:
    """A folder with data/raw and neighbours that nothing may touch."""
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "notes.txt").write_text("kept")
    (tmp_path / "beside.txt").write_text("kept")
    return tmp_path


@named
def test_it_is_set_aside_and_the_others_are_used(case: Case, around: Path):
    lay_out(around, {case.name: case.data(), **GOOD})
    before = sha256_tree(around)
    with pytest.raises(InputError) as refusal:
        normalize(around, max_reject_share=0.0)
    assert refusal.value.code == 2
    assert f"1 of 13 pictures are unreadable, more than data.max_reject_share 0.0: {case.name}: " in str(refusal.value)
    assert case.reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert sha256_tree(around) == before
    images = normalize(around)
    assert case.reason in (images / "rejects.json").read_text()
    assert len(list(images.glob("*.spool"))) == 0
    for path in [*images.iterdir()]:
        path.unlink()
    images.rmdir()
    assert sha256_tree(around) == before


@named
def test_without_its_guard_it_would_not_be(case: Case, monkeypatch):
    data = case.data()
    told = verdict(data)
    assert case.reason in told
    monkeypatch.setattr(case.guard, case.instead)
    monkeypatch.setattr("resvg_py.svg_to_bytes", lambda **options: small("PNG"))  # it would end the process
    try:
        assert case.reason not in verdict(data)
    except Exception as error:  # what the guard keeps away may end in anything but its reason
        assert case.reason not in str(error)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("png-called.jpg", png(1)),
        ("webp-called.png", WEBP),
        ("inks-without-a-profile.jpg", encoded(Image.new("CMYK", (8, 8), (0, 255, 0, 0)), "JPEG")),
        ("broken-exif.jpg", encoded(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0broken")),
        ("broken-profile.png", encoded(Image.new("RGB", (8, 8)), "PNG", icc_profile=b"broken" * 30)),
        ("thin-enough.png", encoded(Image.new("RGB", (MAX_ASPECT * 3, 3)), "PNG")),
        ("two-by-two.png", encoded(Image.new("RGB", (2, 2)), "PNG")),
        (
            "many-frames.gif",
            encoded(Image.new("P", (8, 8)), "GIF", save_all=True, append_images=[Image.new("P", (8, 8), 1)] * 99),
        ),
    ],
)
def test_what_only_looks_odd_is_used(name, data, around):
    lay_out(around, {name: data, **GOOD})
    assert (normalize(around, max_reject_share=0.0) / "rejects.json").read_text().strip() == "{}"


def test_it_is_refused_before_it_costs_memory():
    """A gigabyte of pixels stands in these headers."""
    import tracemalloc

    tracemalloc.start()
    for data in (png_header(60_000, 60_000), jpeg_header(65_000, 65_000), svg('viewBox="0 0 1 300000"')):
        assert "pixels" in verdict(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
