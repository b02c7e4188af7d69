"""Labelled pictures whose classes are simple shapes, for tests of what a classifier can learn."""

import numpy as np

NAMES = ("disc", "square", "cross")


def draw(label: int, random: np.random.Generator, size: int = 16) -> np.ndarray:
    """Draw one shape in a random colour on a random ground, uint8 (3, size, size)."""
    rows, columns = np.mgrid[:size, :size]
    centre, reach = random.uniform(0.4 * size, 0.6 * size, 2), size * random.uniform(0.2, 0.32)
    down, right = np.abs(rows - centre[0]), np.abs(columns - centre[1])
    inside = (
        down**2 + right**2 <= reach**2,
        np.maximum(down, right) <= reach,
        (np.minimum(down, right) <= reach / 4) & (np.maximum(down, right) <= reach),
    )[label]
    ground, colour = random.integers(0, 100, 3), random.integers(150, 256, 3)
    clean = np.where(inside[None], colour[:, None, None], ground[:, None, None])
    return np.clip(clean + random.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)


def shapes(counts: tuple[int, ...], seed: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 pictures (N, 3, size, size) and labels int (N,), this many of each class, in random order."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    return np.stack([draw(label, random, size) for label in labels]), labels
