"""Embedded colour profiles are converted to sRGB; those that cannot be are ignored and told."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from stages.decoding import read_picture
from tests.unit.profiles import grey_profile, ink_profile, rgb_profile

WHITE = (255, 255, 255)
SRGB = [(0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)]
SWAPPED = [SRGB[1], SRGB[0], SRGB[2]]  # red and green of sRGB, exchanged


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def colours(mode: str = "RGB", side: int = 24) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (side, side, 4), dtype=np.uint8), "RGBA").convert(mode)


def to_gamma(values: np.ndarray, gamma: float) -> np.ndarray:
    """Return sRGB values of pixels that mean linear light by a gamma (IEC 61966-2-1)."""
    linear = (values / 255) ** gamma
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_an_srgb_profile_changes_no_byte(mode):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = colours("RGB").quantize(16) if mode == "P" else colours(mode)
    plain, tagged = (read_picture(encoded(picture, icc_profile=p), WHITE) for p in (None, profile))
    assert tagged.ignored == ""
    assert plain.picture.tobytes() == tagged.picture.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exchanged_primaries_exchange_channels(kind):
    """sRGB's own primaries in another order, by its gamma: an exchange of channels and nothing else."""
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = Image.new("RGB", (16, 16), (200, 120, 60))
    data = encoded(picture, kind, icc_profile=rgb_profile(SWAPPED, 2.2), **options)
    expected = to_gamma(np.array([120, 200, 60]), 2.2)
    found = np.asarray(read_picture(data, WHITE).picture)
    assert np.abs(found - expected).max() <= 4


def test_transparency_survives_the_conversion_and_the_background_is_not_converted():
    picture = Image.new("RGBA", (4, 4), (200, 120, 60, 0))
    picture.putpixel((0, 0), (200, 120, 60, 255))
    found = np.asarray(read_picture(encoded(picture, icc_profile=rgb_profile(SWAPPED, 2.2)), (9, 8, 7)).picture)
    assert found[1, 1].tolist() == [9, 8, 7]
    assert abs(int(found[0, 0, 1]) - 200) <= 3


def test_a_grey_profile_of_gamma_1_brightens():
    found = np.asarray(read_picture(encoded(Image.new("L", (4, 4), 64), icc_profile=grey_profile(1.0)), WHITE).picture)
    assert np.abs(found - to_gamma(np.array(64), 1.0)).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_go_through_their_profile(kind):
    """Half an ink of a profile in which one whole ink is black: lightness 50, while Pillow's plain rule gives cyan."""
    data = encoded(Image.new("CMYK", (16, 16), (128, 0, 0, 0)), kind, icc_profile=ink_profile())
    found = np.asarray(read_picture(data, WHITE).picture).astype(int)
    assert np.abs(found - 119).max() <= 4
    assert (
        np.asarray(read_picture(encoded(Image.new("CMYK", (16, 16), (128, 0, 0, 0)), kind), WHITE).picture)[0, 0, 2]
        > 250
    )


def test_inks_of_adobe_are_not_inverted():
    data = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    for file in (data, data[:2] + marker + data[2:]):
        assert np.asarray(read_picture(file, WHITE).picture).min() > 250


@pytest.mark.parametrize(
    ("picture", "profile", "reason"),
    [
        (colours("RGB"), b"junk" * 40, "cannot open profile"),
        (colours("RGB"), rgb_profile(SRGB, 2.2)[:140], "cannot open profile"),
        (colours("RGB"), grey_profile(1.0), "it is for GRAY, the pixels are RGB"),
        (colours("CMYK"), rgb_profile(SWAPPED, 2.2), "it is for RGB, the pixels are CMYK"),
    ],
)
def test_a_profile_that_cannot_be_used_is_ignored_and_told(picture, profile, reason):
    kind = "TIFF" if picture.mode == "CMYK" else "PNG"
    found = read_picture(encoded(picture, kind, icc_profile=profile), WHITE)
    assert reason in found.ignored
    assert found.picture.tobytes() == picture.convert("RGB").tobytes()


def test_a_grey_picture_may_have_an_rgb_profile():
    found = read_picture(encoded(colours("L"), icc_profile=rgb_profile(SRGB, 1.0)), WHITE)
    assert found.ignored == ""
    assert np.asarray(found.picture).mean() > np.asarray(colours("L")).mean() + 20
