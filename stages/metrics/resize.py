"""Resize filters of the field's tools by family: the same pictures score differently through each of them.

Parmar et al. 2022, "On aliased resizing and surprising subtleties in GAN evaluation": the filter alone can change a
FID more than a better model does, so that a score must name its family, and unlike families are never compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from stages.errors import InputError

FAMILIES = {
    "tf": "bilinear without half-pixel centres, not antialiased, as TensorFlow 1 and torch-fidelity do",
    "pytorch": "bilinear with half-pixel centres, not antialiased, as pytorch-fid does",
    "clean": "bicubic, antialiased, each channel in float32, clipped and not rounded, as clean-fid does",
}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Preparation:
    """How pictures become a network's input: a family's resize to `size` pixels, then (x - mean) / std by channel."""

    family: str
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dtype: torch.dtype = torch.float32

    def __call__(self, pictures: np.ndarray, device: torch.device = CPU) -> Tensor:
        """Map pictures (N, 1 or 3, H, W), uint8 or floats in [0, 255], to (N, 3, size, size) on the device.

        Raises:
            InputError: the pictures have another shape or type.
        """
        values = require_rgb(pictures)
        found: Tensor = RESIZES[self.family](self, values, device)
        return found

    def describe(self) -> str:
        """Return the normalisation as a formula on values in [0, 255], of each channel where they differ."""
        parts = dict.fromkeys(f"(x - {mean:g}) / {std:g}" for mean, std in zip(self.mean, self.std, strict=True))
        return "; ".join(parts)

    def constants(self, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and std, shape (3, 1, 1), of values that were divided by `scale`."""
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        mean, std = (np.asarray(values, np.float64) / scale for values in (self.mean, self.std))
        return mean.astype(dtype)[:, None, None], std.astype(dtype)[:, None, None]


def require_family(family: str) -> str:
    """Return a family's name.

    Raises:
        InputError: there is none of this name.
    """
    if family not in FAMILIES:
        raise InputError(f"resize is {family!r}; expected one of {', '.join(FAMILIES)}")
    return family


def require_rgb(pictures: np.ndarray) -> np.ndarray:
    """Return pictures with three channels, grey repeated.

    Raises:
        InputError: they are not (N, 1 or 3, H, W), uint8 or floating point, or have no pixels.
    """
    fits = pictures.ndim == 4 and pictures.shape[1] in (1, 3) and 0 not in pictures.shape[2:]
    if not fits or not (pictures.dtype == np.uint8 or pictures.dtype.kind == "f"):
        found = f"{pictures.dtype} of shape {pictures.shape}"
        raise InputError(
            f"pictures are {found}; expected uint8 or floats (N, 1 or 3, H, W): convert to grey or RGB first"
        )
    return np.broadcast_to(pictures, (len(pictures), 3, *pictures.shape[2:]))


def resize_tensorflow(preparation: Preparation, pictures: np.ndarray, device: torch.device) -> Tensor:
    """Resize as TensorFlow 1 does: output pixel i reads position i * in / out; equal to torch-fidelity bit for bit.

    In numpy on the CPU, since several threads prepare pictures at once and each would start torch's threads anew.
    """
    mean, std = preparation.constants()
    height, width = pictures.shape[2:]
    taps = [_taps(side, preparation.size, mean.dtype) for side in (height, width)]
    values: Any = pictures.astype(mean.dtype)
    if device.type == "cpu":
        return torch.from_numpy((_interpolate(values, *taps) - mean) / std)
    moved = [tuple(torch.from_numpy(part).to(device) for part in tap) for tap in taps]
    resized = _interpolate(torch.from_numpy(values).to(device), *moved)
    return (resized - torch.from_numpy(mean).to(device)) / torch.from_numpy(std).to(device)


def _taps(side: int, size: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each output pixel its two neighbours and the second one's weight."""
    positions = np.arange(size, dtype=dtype) * dtype.type(np.float32(side / size))  # TensorFlow's scale is a float32
    first = positions.astype(np.int64)
    return first, np.minimum(first + 1, side - 1), positions - first.astype(dtype)


def _interpolate(pictures: Any, rows: tuple, columns: tuple) -> Any:
    """Interpolate columns, then rows, of numpy arrays or tensors alike; the order decides the last bits."""
    left, right = pictures[:, :, :, columns[0]], pictures[:, :, :, columns[1]]
    right -= left
    right *= columns[2]
    right += left
    above, below = right[:, :, rows[0]], right[:, :, rows[1]]
    below -= above
    below *= rows[2][:, None]
    below += above
    return below


def resize_pytorch(preparation: Preparation, pictures: np.ndarray, device: torch.device) -> Tensor:
    """Resize as pytorch-fid does, in its order: to [0, 1], interpolate, normalise."""
    values = torch.from_numpy(pictures.copy()).to(device=device, dtype=preparation.dtype) / 255
    resized = F.interpolate(values, (preparation.size, preparation.size), mode="bilinear", align_corners=False)
    mean, std = (torch.from_numpy(values).to(device) for values in preparation.constants(255))
    return (resized - mean) / std


def resize_clean(preparation: Preparation, pictures: np.ndarray, device: torch.device) -> Tensor:
    """Resize as clean-fid does: Pillow's bicubic filter, which widens where it reduces, on each channel alone."""
    mean, std = preparation.constants()
    shape = (preparation.size, preparation.size)
    values = np.empty((*pictures.shape[:2], *shape), np.float32)
    for number in np.ndindex(pictures.shape[:2]):
        plane = Image.fromarray(np.ascontiguousarray(pictures[number], np.float32))
        values[number] = np.asarray(plane.resize(shape, Image.Resampling.BICUBIC))
    values.clip(0, 255, out=values)
    return torch.from_numpy((values.astype(mean.dtype) - mean) / std).to(device)


RESIZES: dict[str, Callable[[Preparation, np.ndarray, torch.device], Tensor]] = {
    "tf": resize_tensorflow,
    "pytorch": resize_pytorch,
    "clean": resize_clean,
}
