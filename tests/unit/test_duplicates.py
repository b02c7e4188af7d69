"""Copies are found through what happens to pictures on the web; other drawings are not taken for copies."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from stages.normalize.duplicates import near_duplicates, perceptual_hash, shrink
from tests.conftest import PICTURES

BITS = 4
SIDE = 64


def squares() -> list[Image.Image]:
    white = Image.new("RGBA", (128, 128), "white")
    opened = [Image.open(path).convert("RGBA").resize((128, 128)) for path in sorted(PICTURES.rglob("*.webp"))]
    return [Image.alpha_composite(white, picture).convert("RGB") for picture in opened]


def by_jpeg(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=60)
    return Image.open(stream)


CHANGES = {
    "jpeg": by_jpeg,
    "half": lambda picture: picture.resize((64, 64), Image.Resampling.LANCZOS),
    "larger": lambda picture: picture.resize((192, 192), Image.Resampling.BICUBIC),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    "paler": lambda picture: ImageEnhance.Contrast(picture).enhance(0.85),
}


def as_pixels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(p.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for p in pictures])


def find(pixels: np.ndarray, bits: int = BITS) -> set[tuple[int, int]]:
    hashes = np.array([perceptual_hash(one) for one in pixels], np.uint64)
    return {(first, second) for first, second, _ in near_duplicates(pixels, hashes, bits)}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found(change):
    originals = squares()
    found = find(np.concatenate([as_pixels(originals), as_pixels([CHANGES[change](p) for p in originals])]))
    count = len(originals)
    assert sum((n, n + count) in found for n in range(count)) >= 0.85 * count


def test_other_drawings_are_told_apart():
    """Of 2,278 pairs of faces, only two cats that differ by their eyes are taken for one."""
    assert len(find(as_pixels(squares()))) <= 2


def test_flat_pictures_are_judged_by_their_colour():
    colours = [(250, 0, 0), (251, 1, 0), (0, 0, 250), (0, 250, 0)]
    assert find(np.stack([np.full((16, 16, 3), colour, np.uint8) for colour in colours])) == {(0, 1)}


@pytest.mark.parametrize("side", [8, 16, 64])
def test_thumbnails_are_means_of_blocks(side):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    small = shrink(pixels)
    assert small.shape == (min(16, side), min(16, side), 3)
    assert np.allclose(small.mean(axis=(0, 1)), pixels.mean(axis=(0, 1)), atol=1e-2)


def test_all_pairs_of_close_hashes_are_found_and_no_others():
    random = np.random.default_rng(0)
    pixels = np.repeat(random.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8), 1500, axis=0)
    hashes = random.integers(0, 1 << 62, 1500, dtype=np.uint64)
    hashes[700:] = hashes[:800] ^ np.uint64(1) << random.integers(0, 62, 800, dtype=np.uint64)
    table = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = {(a, b) for a, b in zip(*np.nonzero(table <= 2), strict=True) if a < b}
    found = near_duplicates(pixels, hashes, 2)
    assert {(a, b) for a, b, _ in found} == expected
    assert all(table[a, b] == bits for a, b, bits in found)


def test_the_search_is_quick():
    """20,000 pictures are a 25th of the pairs of 100,000."""
    hashes = np.random.default_rng(0).integers(0, 1 << 62, 20_000, dtype=np.uint64)
    started = time.process_time()
    assert near_duplicates(np.zeros((20_000, 8, 8, 3), np.uint8), hashes, BITS) == []
    assert time.process_time() - started < 4
