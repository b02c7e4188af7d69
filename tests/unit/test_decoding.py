"""Pictures become 8-bit RGB by one rule, and one that cannot is refused before it costs memory."""

import io
import os
import signal
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.catalogue import Picture
from stages.decoding import MAX_SIDE, UnreadablePicture, decode, flatten
from stages.errors import ResourceError
from stages.workers import map_pictures

WHITE = (255, 255, 255)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink" {}>{}</svg>'


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def svg(attributes: str, content: str = '<rect width="50%" height="50%" fill="red"/>') -> bytes:
    return SVG.format(attributes, content).encode()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    data = encoded(Image.fromarray(levels * 257), kind)
    assert Image.open(io.BytesIO(data)).mode.startswith("I;16")
    assert (np.asarray(decode(data, WHITE)) == levels[..., None]).all()


def test_16_bit_grey_of_the_other_byte_order_is_scaled():
    """Pillow writes little-endian TIFF only, so this one is put together by hand: 2x2 pixels, mode I;16B."""
    pixels = struct.pack(">4H", 0, 128 * 257, 64 * 257 + 100, 65535)
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 2), (279, 4, 8)]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    data = b"MM\0*" + struct.pack(">I", 16) + pixels + struct.pack(">H", len(tags)) + entries + bytes(4)
    assert Image.open(io.BytesIO(data)).mode == "I;16B"
    assert np.asarray(decode(data, WHITE))[..., 0].tolist() == [[0, 128], [64, 255]]


def test_the_transparent_level_of_16_bit_grey_is_background():
    levels = np.full((4, 4), 257 * 200, np.uint16)
    levels[0, 0] = 257 * 7
    data = encoded(Image.fromarray(levels), "PNG", transparency=257 * 7)
    pixels = np.asarray(decode(data, (10, 20, 30)))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[1, 1].tolist() == [200, 200, 200]


def test_every_mode_becomes_rgb():
    for mode in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB"):
        assert flatten(Image.new(mode, (2, 2)), WHITE).mode == "RGB"
    half = Image.new("LA", (2, 2), (0, 128)).convert("La")
    assert flatten(half, WHITE).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize(("kind", "word"), [(np.float32, "floats"), (np.int32, "integers")])
def test_32_bit_pixels_are_refused(kind, word):
    data = encoded(Image.fromarray(np.ones((4, 4), kind)), "TIFF")
    with pytest.raises(UnreadablePicture, match=f"32-bit {word} of unknown range"):
        decode(data, WHITE)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('viewBox="0 0 10 20"', (256, 512)),
        ('viewBox="0,0,10,20" width="30" height="30px"', (256, 256)),
        ('width="30" height="15"', (256, 128)),
        ('width="210mm" height="29.7cm"', (256, 363)),
        ('viewBox="0 0 10 20" height="abc"', (256, 512)),
        ('viewBox="0 0 10 10" width="10" height="200%"', (256, 512)),
        ('width="10" height="10" x:width="10" x:height="90"', (256, 256)),
        ('width="20" height="1em" font-size="90000"', (256, 205)),
    ],
)
def test_an_svg_is_drawn_at_its_own_proportions(attributes, size):
    picture = decode(svg(attributes), WHITE)
    assert picture.size == size
    if "viewBox" not in attributes:
        pixels = np.asarray(picture)
        assert pixels[10, 10].tolist() == [255, 0, 0]
        assert pixels[-10, -10].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ('viewBox="0 0 1 400000"', "256x102400000 pixels are more than"),
        ('width="1" height="70"', f"256x17920 pixels: a side is longer than {MAX_SIDE}"),
        ('viewBox="0 0 10 10" height="900000%"', "are more than"),
        ('width="1px" height="1000in"', "are more than"),
        ('viewBox="0 0 400000 1"', "256x1 pixels are too few"),
        ('width="10"', "tells no size"),
        ("", "tells no size"),
        ('viewBox="0 0 10 10" height="0"', "impossible size"),
        ('viewBox="0 0 1e-300 1e300"', "impossible size"),
    ],
)
def test_an_svg_of_absurd_size_is_refused_before_it_is_drawn(attributes, reason, monkeypatch):
    drawn = []
    monkeypatch.setattr("resvg_py.svg_to_bytes", lambda **options: drawn.append(options))
    with pytest.raises(UnreadablePicture, match=reason):
        decode(svg(attributes), WHITE)
    assert not drawn


def test_a_long_thin_picture_is_refused():
    """Padding it to a square would take a hundred gigabytes."""
    with pytest.raises(UnreadablePicture, match="200000x4 pixels: a side is longer"):
        decode(encoded(Image.new("L", (200_000, 4)), "PNG"), WHITE)


def archive(folder: Path, count: int) -> list[Picture]:
    with tarfile.open(folder / "p.tar", "w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(str(number))
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    return [Picture(str(number), "p.tar", str(number)) for number in range(count)]


def die(picture: Picture, data: bytes) -> None:
    if picture.key == "2":
        os.kill(os.getpid(), signal.SIGKILL)


def exhaust(picture: Picture, data: bytes) -> None:
    raise MemoryError


@pytest.mark.parametrize("function", [die, exhaust])
def test_a_worker_that_is_killed_is_one_line(tmp_path, function):
    pictures = archive(tmp_path, 70)
    with pytest.raises(ResourceError, match=r"a worker was killed, .* lower normalize.workers \(here 2\)"):
        map_pictures(tmp_path, pictures, function, 2, "aligning")
