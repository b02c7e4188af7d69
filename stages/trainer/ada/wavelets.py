"""Low-pass filters of orthogonal wavelets, and filtering of reflected pictures as products with small matrices.

A picture is taken as reflected at its borders without end, so that no margin is ever added: line -1 is line 1, line
`size` is line `size` - 2, and so on with a period of 2 * size - 2. On small pictures a product with a dense matrix is
much faster than a convolution with a few long filters.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

# Daubechies 1992, "Ten lectures on wavelets": least asymmetric, 6 and 2 vanishing moments; they sum to sqrt(2).
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
BANDS = 4
# sym6 delays by 5 taps (5.1 at low frequencies, 4.8 at high ones), and halving needs as many lines beyond the borders.
REACH = 5


def reflect(lines: Tensor, size: int) -> Tensor:
    """Return which of `size` lines a reflected picture shows at any whole numbers; the border is not repeated."""
    period = 2 * size - 2
    inside = lines.remainder(period)
    return torch.minimum(inside, period - inside)


def doubled_period(size: int) -> int:
    """Return after how many lines a reflected picture of doubled resolution repeats itself."""
    return 2 * (2 * size - 2)


@cache
def doubling(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix that doubles a reflected picture's resolution with sym6.

    Shape (period + 1, size): one whole period of the reflected picture and the line where the next one starts. Line j
    lies at j / 2 of the picture's own lines: sym6 delays by 5 taps.
    """
    matrix = torch.zeros(doubled_period(size) + 1, size, dtype=torch.float64)
    lines = torch.arange(len(matrix))
    for tap, weight in enumerate(SYM6):
        even = lines[(lines + REACH - tap) % 2 == 0]
        matrix[even, reflect((even + REACH - tap) // 2, size)] += weight * 2**0.5
    return matrix.to(device, dtype)


@cache
def halving(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix that halves the resolution with sym6 mirrored in time: it undoes `doubling`.

    Shape (size, 2 * size + 2 * REACH): it takes the lines -REACH to 2 * size + REACH - 1 of the doubled picture.
    """
    matrix = torch.zeros(size, 2 * size + 2 * REACH, dtype=torch.float64)
    for line in range(size):
        matrix[line, 2 * line : 2 * line + len(SYM6)] = torch.tensor(SYM6, dtype=torch.float64) / 2**0.5
    return matrix.to(device, dtype)


def filter_bank() -> np.ndarray:
    """Return the filters of four octave bands from the lowest to the highest, shape (4, 43); they sum to a pulse.

    Each level splits the lowest band with the squared responses of sym2 and its high-pass mirror (Karras 2020,
    appendix B: zero phase, perfect reconstruction).
    """
    low = np.asarray(SYM2)
    high = low * [1, -1, 1, -1]
    low, high = np.convolve(low, low[::-1]) / 2, np.convolve(high, high[::-1]) / 2
    bank: list[np.ndarray] = []
    lowest, step = np.ones(1), 1
    for _ in range(BANDS - 1):
        bank.insert(0, np.convolve(lowest, _stretched(high, step)))
        lowest, step = np.convolve(lowest, _stretched(low, step)), step * 2
    bank.insert(0, lowest)
    return np.stack([np.pad(band, (len(lowest) - len(band)) // 2) for band in bank])


def _stretched(taps: np.ndarray, step: int) -> np.ndarray:
    """Put step - 1 zeros between taps."""
    stretched = np.zeros((len(taps) - 1) * step + 1)
    stretched[::step] = taps
    return stretched


@cache
def band_filters(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrices that filter a reflected picture's lines to each band, shape (4, size, size)."""
    bank = torch.from_numpy(filter_bank())
    matrices = torch.zeros(BANDS, size, size, dtype=torch.float64)
    lines = torch.arange(size)
    for tap in range(bank.shape[1]):
        source = reflect(lines + tap - bank.shape[1] // 2, size)
        matrices[:, lines, source] += bank[:, tap, None]
    return matrices.to(device, dtype)
