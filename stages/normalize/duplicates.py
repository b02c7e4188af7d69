"""Finds pictures that show the same: identical pixels, or a perceptual hash and a thumbnail that nearly agree."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

HASHED_SIDE = 64  # pixels
THUMBNAIL = 16  # pixels a side
MIN_CORRELATION = (
    0.99  # of thumbnails: copies by JPEG, resizing and brightness keep 0.997, other drawings seldom reach it
)
FLAT_DEVIATION = 1.0  # of 255: below it a thumbnail has no structure to correlate, and its colour decides
FLAT_DIFFERENCE = 2.0  # of 255
BLOCK = 512  # rows of the table of hash distances that are held at a time
PAIRS_AT_A_TIME = 1 << 16


def perceptual_hash(pixels: np.ndarray) -> int:
    """Return the 64 bits of imagehash's pHash (signs of the lowest DCT frequencies) of an RGB picture, uint8 HWC.

    Pictures of 128 pixels and more are averaged to 64 first: four times faster, and pHash itself looks at 32.
    """
    import imagehash

    small = Image.fromarray(pixels).reduce(max(1, len(pixels) // HASHED_SIDE))
    bits = imagehash.phash(small).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_duplicates(pixels: np.ndarray, hashes: np.ndarray, bits: int) -> list[tuple[int, int, int]]:
    """Return (first, second, bits) of pictures that nearly agree, by their positions.

    Takes distinct uint8 pictures (N, H, W, 3) and their perceptual hashes (uint64). They agree if their hashes differ
    in at most `bits`, and their thumbnails, 16 pixels a side, correlate by 0.99: the hash alone takes drawings on one
    background for each other; the correlation over all channels, each without its mean, is blind to brightness and
    contrast, as the hash is, but not to what is drawn.
    """
    found: list[tuple[int, int, int]] = []
    thumbnails = Thumbnails(pixels)
    for first, second, distance in _close_hashes(hashes, bits):
        for start in range(0, len(first), PAIRS_AT_A_TIME):
            part = slice(start, start + PAIRS_AT_A_TIME)
            alike = thumbnails.agree(first[part], second[part])
            columns = (first[part][alike], second[part][alike], distance[part][alike])
            found += zip(*(column.tolist() for column in columns), strict=True)
    return found


def _close_hashes(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield positions of hashes that differ in at most so many bits, and in how many.

    Every pair is looked at: xor and popcount of 100,000 hashes take seconds, and no index could miss one.
    """
    for start in range(0, len(hashes), BLOCK):
        rows = hashes[start : start + BLOCK, None]
        distance = np.bitwise_count(rows ^ hashes[None, start:])
        first, second = np.nonzero(distance <= bits)
        later = second > first
        first, second = first[later], second[later]
        yield first + start, second + start, distance[first, second].astype(np.int64)


class Thumbnails:
    """Small versions of pictures, made when they are first asked for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.made: dict[int, tuple[np.ndarray, np.ndarray, bool]] = {}

    def agree(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Tell for pairs of positions whether their thumbnails show the same, shape (N,), bool."""
        used, inverse = np.unique(np.concatenate([first, second]), return_inverse=True)
        shapes, means, flat = (np.stack(part) for part in zip(*map(self._of, used.tolist()), strict=True))
        one, other = inverse[: len(first)], inverse[len(first) :]
        correlation = np.einsum("nd,nd->n", shapes[one], shapes[other])
        same_colour = np.abs(means[one] - means[other]).max(axis=1) <= FLAT_DIFFERENCE
        both_flat, none_flat = flat[one] & flat[other], ~flat[one] & ~flat[other]
        agreed: np.ndarray = (none_flat & (correlation >= MIN_CORRELATION)) | (both_flat & same_colour)
        return agreed

    def _of(self, position: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return a thumbnail of mean 0 per channel and length 1, its channels' means, and whether it is flat."""
        if position not in self.made:
            small = shrink(self.pixels[position])
            means = small.mean(axis=(0, 1))
            shape = (small - means).ravel()
            flat = bool(shape.std() < FLAT_DEVIATION)
            self.made[position] = shape / (np.linalg.norm(shape) or 1), means, flat
        return self.made[position]


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Return means over equal blocks, float32, shape (16, 16, 3); smaller pictures stay as they are."""
    step = max(1, len(pixels) // THUMBNAIL)
    side = len(pixels) // step
    means: np.ndarray = pixels.reshape(side, step, side, step, 3).mean(axis=(1, 3), dtype=np.float32)
    return means
