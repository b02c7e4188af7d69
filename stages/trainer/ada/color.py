"""Colour transforms: one affine matrix per picture on colours in [-1, 1] (Karras 2020, appendix B.1).

Matrices are homogeneous, float64 on the CPU, shape (N, 4, 4); the luma axis is the diagonal (1, 1, 1) / sqrt(3).
"""

import numpy as np
import torch
from torch import Tensor

from stages.trainer.ada.draws import Parameters

LUMA = np.array([1.0, 1.0, 1.0, 0.0]) / 3**0.5
ON_LUMA = np.outer(LUMA, LUMA)  # projects a colour on the luma axis
AROUND_LUMA = np.array([[0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]]) / 3**0.5
ONES = np.eye(4)
COLORS = np.diag([1.0, 1.0, 1.0, 0.0])


def brightening(added: np.ndarray) -> np.ndarray:
    """Return matrices that add a number to every channel."""
    matrix = np.tile(ONES, (len(added), 1, 1))
    matrix[:, :3, 3] = added[:, None]
    return matrix


def contrasting(factor: np.ndarray) -> np.ndarray:
    """Return matrices that multiply every channel."""
    return ONES + COLORS * (factor - 1)[:, None, None]


def luma_flipping(flips: np.ndarray) -> np.ndarray:
    """Return matrices that mirror colours along the luma axis where `flips` is 1 (a Householder reflection)."""
    return ONES - 2 * ON_LUMA * flips[:, None, None]


def hue_turning(angle: np.ndarray) -> np.ndarray:
    """Return matrices that turn colours about the luma axis (Rodrigues' formula); angle 0 is exactly the identity."""
    sine, versine = np.sin(angle)[:, None, None], (1 - np.cos(angle))[:, None, None]
    return ONES + sine * AROUND_LUMA + versine * (ON_LUMA - COLORS)


def saturating(factor: np.ndarray) -> np.ndarray:
    """Return matrices that multiply what is not luma: 0 leaves grey."""
    return ONES + (COLORS - ON_LUMA) * (factor - 1)[:, None, None]


MATRICES = {
    "brightness": brightening,
    "contrast": contrasting,
    "lumaflip": luma_flipping,
    "hue": hue_turning,
    "saturation": saturating,
}
OF_COLORED = ("hue", "saturation")  # what leaves grey as it is


def color_matrix(drawn: Parameters, count: int, channels: int) -> np.ndarray:
    """Compose the colour transforms; grey pictures take those that act on luma."""
    matrix = np.tile(ONES, (count, 1, 1))
    for name, build in MATRICES.items():
        if name in drawn and not (channels == 1 and name in OF_COLORED):
            matrix = build(drawn[name]) @ matrix
    return matrix


def recolor(pictures: Tensor, matrix: np.ndarray) -> Tensor:
    """Apply colour matrices to pictures, shape (N, C, H, W) with C 1 or 3.

    A grey picture takes the mean of the rows: what the matrix does to the luma of (x, x, x).

    Raises:
        ValueError: the pictures have neither one nor three channels.
    """
    channels = pictures.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"colour transforms need 1 or 3 channels; the pictures have {channels}")
    factor, added = torch.from_numpy(matrix[:, :3]).to(pictures).split([3, 1], 2)
    if channels == 1:
        factor, added = factor.sum(2, keepdim=True).mean(1, keepdim=True), added.mean(1, keepdim=True)
    changed = torch.baddbmm(added, factor, pictures.flatten(2))
    return changed.view_as(pictures)
