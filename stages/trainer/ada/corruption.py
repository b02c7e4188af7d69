"""Filtering, noise and cutout (Karras 2020, appendix B.1)."""

import numpy as np
import torch
from torch import Tensor

from stages.trainer.ada.draws import Parameters
from stages.trainer.ada.wavelets import BANDS, band_filters

EXPECTED_POWER = np.array([10.0, 1.0, 1.0, 1.0]) / 13  # of the bands in pictures: about 1/f
CUTOUT = 0.5  # side of the box, of the picture's side


def band_gains(drawn: Parameters, count: int) -> np.ndarray:
    """Compose the four bands' amplifications, float64, shape (N, 4).

    Each is normalised on its own, so that a picture of the expected spectrum keeps its power.
    """
    gains = np.ones((count, BANDS))
    for band in range(BANDS):
        if f"band{band}" in drawn:
            one = np.ones((count, BANDS))
            one[:, band] = drawn[f"band{band}"]
            power = (EXPECTED_POWER * (one**2 - 1)).sum(1, keepdims=True) + 1  # exactly 1 where nothing was drawn
            gains = gains * one / np.sqrt(power)
    return gains


def amplify_bands(pictures: Tensor, gains: np.ndarray) -> Tensor:
    """Amplify octave bands of reflected pictures, rows and columns alike; gains have shape (N, 4)."""
    size = pictures.shape[-1]
    bank = band_filters(size, pictures.dtype, pictures.device)
    matrix = torch.einsum("nb,bij->nij", torch.from_numpy(gains).to(pictures), bank)[:, None]
    return matrix @ pictures @ matrix.mT


def add_noise(pictures: Tensor, deviation: np.ndarray, random: torch.Generator) -> Tensor:
    """Add normal noise of its own standard deviation, shape (N,), to every picture."""
    noise = torch.randn(pictures.shape, generator=random, dtype=pictures.dtype).to(pictures.device)
    return pictures + noise * torch.from_numpy(deviation).to(pictures)[:, None, None, None]


def cut_out(pictures: Tensor, centre: np.ndarray) -> Tensor:
    """Set a box of half the side to 0, mid-grey; `centre` is in [0, 1], shape (N, 2), x first."""
    size = pictures.shape[-1]
    lines = (np.arange(size) + 0.5) / size
    inside = torch.from_numpy(np.abs(lines - centre[:, :, None]) < CUTOUT / 2).to(pictures.device)
    columns, rows = inside.unbind(1)
    return pictures.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0)
