"""Doubling and halving with a low-pass filter, as depthwise convolutions that autograd and ONNX express as they are."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d


def low_pass(taps: tuple[int, ...], channels: int) -> Tensor:
    """Return a separable filter of sum 1 for each channel, shape (channels, 1, K, K)."""
    line = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(line, line) / line.sum() ** 2
    return kernel.repeat(channels, 1, 1, 1)


class Double(nn.Module):
    """(N, C, H, W) to (N, C, 2 H, 2 W): zeros between pixels, then a low-pass filter of gain 4.

    Taps are (1, 3, 3, 1), StyleGAN2's (Karras 2020), or (1, 2, 1), R3GAN's (Huang 2024).
    """

    kernel: Tensor

    def __init__(self, channels: int, taps: tuple[int, ...] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.channels, self.odd = channels, len(taps) % 2
        self.register_buffer("kernel", low_pass(taps, channels) * 4, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return the doubled map."""
        return conv_transpose2d(values, self.kernel, stride=2, padding=1, output_padding=self.odd, groups=self.channels)


class Halve(nn.Module):
    """(N, C, H, W) to (N, C, H / 2, W / 2): a low-pass filter, then every second pixel."""

    kernel: Tensor

    def __init__(self, channels: int, taps: tuple[int, ...] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("kernel", low_pass(taps, channels), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return the halved map."""
        return cast(Tensor, conv2d(values, self.kernel, stride=2, padding=1, groups=self.channels))
