"""Geometric transforms: one affine matrix per picture, pure pixel moves exactly, the others through sym6 filters.

Matrices are inverse (a point of the result times the matrix is a point of the source), homogeneous, in pixels about the
picture's centre, float64 on the CPU, shape (N, 3, 3).
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from stages.trainer.ada.draws import Parameters
from stages.trainer.ada.wavelets import REACH, doubled_period, doubling, halving, reflect


def linear(xx: np.ndarray, xy: np.ndarray, yx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Return homogeneous matrices of linear maps from their entries, each of shape (N,)."""
    matrix = _ones(len(xx))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = xx, xy, yx, yy
    return matrix


def scaling(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return homogeneous matrices that scale by x and y."""
    return linear(x, np.zeros_like(x), np.zeros_like(x), y)


def turning(angle: np.ndarray) -> np.ndarray:
    """Return homogeneous matrices that turn by an angle in radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return linear(cosine, -sine, sine, cosine)


def quarter_turning(turns: np.ndarray) -> np.ndarray:
    """Return homogeneous matrices that turn by 0 to 3 quarters, without rounding."""
    cosine = np.array([1.0, 0.0, -1.0, 0.0])
    turns = turns.astype(int)
    return linear(cosine[turns], -cosine[(turns + 3) % 4], cosine[(turns + 3) % 4], cosine[turns])


def moving(shift: np.ndarray) -> np.ndarray:
    """Return homogeneous matrices that move by shift, shape (N, 2), x first."""
    matrix = _ones(len(shift))
    matrix[:, :2, 2] = shift
    return matrix


def _ones(count: int) -> np.ndarray:
    return np.tile(np.eye(3), (count, 1, 1))


def blit_matrix(drawn: Parameters, count: int, size: int) -> np.ndarray:
    """Compose the inverses of xflip, rotate90 and xint: their entries are whole numbers."""
    matrix = _ones(count)
    if "xflip" in drawn:
        matrix = matrix @ scaling(1 - 2 * drawn["xflip"], np.ones(count))
    if "rotate90" in drawn:
        matrix = matrix @ quarter_turning(drawn["rotate90"])
    if "xint" in drawn:
        matrix = matrix @ moving(-np.rint(drawn["xint"] * size))
    return matrix


def general_matrix(drawn: Parameters, count: int, size: int) -> np.ndarray:
    """Compose the inverses of scale, rotate (before), aniso, rotate (after) and xfrac."""
    matrix = _ones(count)
    if "scale" in drawn:
        matrix = matrix @ scaling(1 / drawn["scale"], 1 / drawn["scale"])
    if "rotate_before" in drawn:
        matrix = matrix @ turning(drawn["rotate_before"])
    if "aniso" in drawn:
        matrix = matrix @ scaling(1 / drawn["aniso"], drawn["aniso"])
    if "rotate_after" in drawn:
        matrix = matrix @ turning(drawn["rotate_after"])
    if "xfrac" in drawn:
        matrix = matrix @ moving(-drawn["xfrac"] * size)
    return matrix


def acts(matrices: np.ndarray) -> np.ndarray:
    """Tell which of N square matrices are not the identity, shape (N,)."""
    return (matrices != np.eye(matrices.shape[-1])).any((1, 2))


def blit(pictures: Tensor, inverse: np.ndarray) -> Tensor:
    """Move pixels by blit matrices, borders reflected; no value changes."""
    count, channels, size, _ = pictures.shape
    centre = (size - 1) / 2
    lines = torch.arange(size, device=pictures.device) - centre  # halves: float32 holds them exactly
    column, row = (reflect(axis.round().long(), size) for axis in _places(inverse[:, :2], lines, centre))
    moved = pictures.flatten(2).gather(2, (row * size + column).flatten(1)[:, None].expand(-1, channels, -1))
    return moved.view(count, channels, size, size)


def _places(inverse: np.ndarray, lines: Tensor, added: float) -> tuple[Tensor, Tensor]:
    """Map all pairs of lines: x and y of the source for every row and column of the result, each of shape (N, L, L)."""
    entries = torch.from_numpy(inverse).to(lines)[..., None]
    along, down = entries[:, :, 0] * lines, entries[:, :, 1] * lines + (entries[:, :, 2] + added)
    x, y = (along[:, :, None] + down[..., None]).unbind(1)
    return x, y


def resample(pictures: Tensor, inverse: np.ndarray) -> Tensor:
    """Apply affine maps to reflected pictures without aliasing: double the resolution, sample, halve it.

    Shape (N, C, S, S), float32 or float64. Karras 2020, appendix B.1; sampling is bilinear.
    """
    size = pictures.shape[-1]
    maps = _doubled(inverse, size)
    first, length = _window(maps, size)
    lines = (torch.arange(length, device=pictures.device) + first) % doubled_period(size)
    up = doubling(size, pictures.dtype, pictures.device)[lines]
    down = halving(size, pictures.dtype, pictures.device)
    grid = _grid(maps, size, first, length, pictures)
    sampled = grid_sample(up @ (pictures @ up.T), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return down @ (sampled @ down.T)


def _doubled(inverse: np.ndarray, size: int) -> np.ndarray:
    """Return the maps between lines of doubled resolution, shape (N, 2, 3); the picture's centre is at size - 1."""
    maps = inverse[:, :2].copy()
    maps[:, :, 2] = 2 * maps[:, :, 2] + (size - 1) * (1 - maps[:, :, :2].sum(2))
    return maps


def _window(maps: np.ndarray, size: int) -> tuple[int, int]:
    """Return first line and number of lines of the doubled pictures that maps reach, a whole period at most."""
    first, last = -REACH, 2 * size + REACH - 1
    corners = maps @ np.array([[first, first, last, last], [first, last, first, last], [1, 1, 1, 1]])
    first, last = math.floor(corners.min()), math.ceil(corners.max()) + 1
    if last - first < doubled_period(size):
        return first, last - first + 1
    return 0, doubled_period(size) + 1


def _grid(maps: np.ndarray, size: int, first: int, length: int, pictures: Tensor) -> Tensor:
    """Return where each line of the result lies in the window, shape (N, L, L, 2), as `grid_sample` takes it."""
    lines = torch.arange(-REACH, 2 * size + REACH, device=pictures.device, dtype=pictures.dtype)
    unit = 2 / (length - 1)  # grid_sample counts from -1 to 1
    if length <= doubled_period(size):
        return torch.stack(_places(maps * unit, lines, -first * unit - 1), -1)
    x, y = _places(maps * unit, lines, 0)
    return torch.stack([x.remainder(2), y.remainder(2)], -1) - 1  # the window is one whole period
