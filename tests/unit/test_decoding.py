"""Pictures become 8-bit RGB by one rule, and one that cannot is refused before it costs memory."""

import io
import os
import signal
import struct
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.catalogue import Picture
from stages.crops import square_quad
from stages.decoding import MAX_SIDE, UnreadablePicture, decode, flatten, read_picture
from stages.errors import ResourceError
from stages.normalize.resample import resample_square
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


MARKED = np.zeros((24, 16, 3), np.uint8)
MARKED[:8, :8] = (250, 10, 10)
MARKED[16:, 8:] = (10, 10, 250)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(kind, orientation):
    """What EXIF says is what a camera would have to do to the upright picture, undone."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL.Image.Transpose that turns upright into stored
    upright = Image.fromarray(MARKED)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    found = np.asarray(decode(encoded(stored, kind, exif=exif, **options), WHITE)).astype(int)
    assert found.shape == MARKED.shape
    assert np.abs(found - MARKED)[2:6, 2:6].max() < 24
    assert np.abs(found - MARKED)[18:22, 10:14].max() < 24


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(6), b"Exif\0\0", b"II"])
def test_broken_exif_says_nothing(exif):
    data = encoded(Image.fromarray(MARKED), "JPEG", exif=exif, quality=95)
    assert decode(data, WHITE).size == (16, 24)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_many_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (np.asarray(decode(data, WHITE)) == (255, 0, 0)).all()


def test_ten_thousand_frames_cost_what_one_does():
    frames = [Image.new("P", (4, 4), number % 2) for number in range(2)]
    one = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    body = one[one.index(b"\x2c") : -1]
    many = one[:-1] + body * 10_000 + b";"
    started = time.process_time()
    assert decode(many, WHITE).size == (4, 4)
    assert time.process_time() - started < 0.5


def png_of(kind: int, channels: int, rows: list[list[int]]) -> bytes:
    """Put a 16-bit PNG together by hand: Pillow writes grey ones only."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", len(rows[0]) // channels, len(rows), 16, kind, 0, 0, 0)
    pixels = b"".join(b"\0" + struct.pack(f">{len(row)}H", *row) for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_16_bit_colour_and_alpha_are_scaled():
    red = [0xFFFF, 0x8080, 0]
    assert np.abs(np.asarray(decode(png_of(2, 3, [red * 2] * 2), WHITE)).astype(int) - (255, 128, 0)).max() <= 1
    clear = [0x4040, 0xFFFF, 0x4040, 0]
    found = np.asarray(decode(png_of(4, 2, [clear] * 2), (1, 2, 3)))
    assert found[0].tolist() == [[64, 64, 64], [1, 2, 3]]


def detailed(width: int, height: int) -> Image.Image:
    """A picture with edges, gradients and grain, like a photo."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    waves = 128 + 90 * np.sin(x / 37 + np.sin(y / 51)) * np.cos(y / 23)
    grain = random.normal(0, 6, (height, width))
    return Image.fromarray(
        np.stack([waves + grain, waves[::-1] + grain, x * 255 / width + grain], -1).clip(0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize(("shrink", "scale"), [(1.9, 1), (2.0, 2), (4.5, 4), (100.0, 8)])
def test_a_large_jpeg_is_decoded_smaller(shrink, scale):
    data = encoded(detailed(640, 480), "JPEG", quality=90)
    found = read_picture(data, WHITE, shrink)
    assert (found.scale, found.picture.size) == (scale, (640 // scale, 480 // scale))
    assert read_picture(encoded(detailed(64, 48), "PNG"), WHITE, shrink).scale == 1


def test_sides_that_are_no_multiples_are_decoded_whole():
    assert read_picture(encoded(detailed(641, 480), "JPEG"), WHITE, 2.0).scale == 1


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_smaller_decoding_hardly_shows_in_the_result(scale, subsampling):
    """To twice the target's side and more: within 1 of 255 on average, and 40 dB."""
    data = encoded(detailed(1024, 1024), "JPEG", quality=90, subsampling=subsampling)
    target = 1024 // scale // 2
    results = []
    for shrink in (1.0, float(scale)):
        decoded = read_picture(data, WHITE, shrink)
        quad = [c / decoded.scale for c in square_quad(8.5, 3.25, 1000)]
        results.append(resample_square(decoded.picture, quad, target, "lanczos", WHITE).astype(float))
    difference = results[0] - results[1]
    assert np.abs(difference).mean() < 1
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 40


@pytest.mark.parametrize("kind", [2, 5, 7, 11, 12])
def test_tiff_whose_strips_are_at_no_whole_number_is_refused(kind):
    """Pillow fails with a TypeError; one such file must not end the stage."""
    data = bytearray(encoded(Image.new("RGB", (40, 50)), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    entries = range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12)
    strip_offsets = next(entry for entry in entries if struct.unpack_from("<H", data, entry)[0] == 273)
    struct.pack_into("<H", data, strip_offsets + 2, kind)
    with pytest.raises(UnreadablePicture, match="damaged"):
        decode(bytes(data), WHITE)
