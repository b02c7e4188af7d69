"""Pictures of several generators for the same latents, kept on disk, and how far they are from each other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.errors import GateError
from stages.generators.interface import Generator

RANGE = 2.0  # of pictures in [-1, 1], the peak of PSNR
LEAST_ERROR = 1e-12  # mean squared; 126 dB, below which float32 does not tell
PERCENTILES = {"min": 0, "p1": 1, "p5": 5, "p50": 50, "p95": 95}


def draw(name: str, generator: Generator, seeds: range, batch: int, file: Path) -> np.ndarray:
    """Draw pictures into a file that stays on disk, float32 (N, C, H, W) in [-1, 1].

    Raises:
        GateError: a picture holds NaN or infinity.
    """
    takes = generator.capabilities
    shape = (len(seeds), takes.channels, takes.resolution, takes.resolution)
    drawn = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    position = 0
    for pictures in generator.draw(seeds, batch):
        if not np.isfinite(pictures).all():
            raise GateError(f"{name} draws NaN or infinity among the seeds {seeds[position]} and on")
        drawn[position : position + len(pictures)] = pictures
        position += len(pictures)
    return drawn


def differences(drawn: np.ndarray, expected: np.ndarray, batch: int) -> dict[str, Any]:
    """Return the largest and the mean absolute difference, and percentiles of the pictures' PSNR in dB.

    PSNR = 10 log10(4 / MSE) of pictures in [-1, 1]; 126 where they are equal.
    """
    largest, total, ratios = 0.0, 0.0, list[np.ndarray]()
    for one, other in parts(drawn, expected, batch):
        difference = np.abs(one.astype(np.float64) - other)
        largest, total = max(largest, float(difference.max())), total + float(difference.sum())
        error = np.maximum((difference**2).mean(axis=(1, 2, 3)), LEAST_ERROR)
        ratios.append(10 * np.log10(RANGE**2 / error))
    psnr = np.concatenate(ratios)
    found = {name: round(float(np.percentile(psnr, at)), 3) for name, at in PERCENTILES.items()}
    return {"max_abs_error": largest, "mean_abs_error": total / drawn.size, "psnr": found}


def parts(drawn: np.ndarray, expected: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of both."""
    for start in range(0, len(drawn), batch):
        yield drawn[start : start + batch], expected[start : start + batch]
