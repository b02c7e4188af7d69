"""Layers with an equalised learning rate: weights of unit variance, scaled when they are used (Karras 2018, 4.1)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear


class EqualisedLinear(nn.Module):
    """A linear layer, weight (outputs, inputs); `rate` multiplies its learning rate.

    The effective weight is weight * rate / sqrt(inputs), the effective bias is bias * rate.
    """

    def __init__(self, inputs: int, outputs: int, bias: float | None = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / rate))
        self.gain, self.rate = rate / inputs**0.5, rate

    def forward(self, values: Tensor) -> Tensor:
        """Map (N, inputs) to (N, outputs)."""
        bias = None if self.bias is None else self.bias * self.rate
        return cast(Tensor, linear(values, self.weight * self.gain, bias))


class EqualisedConv2d(nn.Module):
    """A convolution that keeps the size, weight (outputs, inputs, kernel, kernel), scaled by 1 / sqrt(fan in)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, bias: bool = True, padding: int | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1 / (inputs * kernel**2) ** 0.5
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, values: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        return cast(Tensor, conv2d(values, self.weight * self.gain, self.bias, padding=self.padding))
