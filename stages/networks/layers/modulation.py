"""StyleGAN2's layers: convolutions that a style scales, and those of its discriminator (Karras 2020).

Maps are kept in channels_last, in which depthwise filters are several times faster on the CPU, and each layer makes as
few passes over them as autograd allows: the gain of the leaky ReLU is moved into what is multiplied anyway, since
gain * leaky(x) = leaky(gain * x) for positive gains.
"""

import contextlib
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, hardtanh, leaky_relu, linear

from stages.networks.layers.equalised import EqualisedLinear
from stages.networks.layers.resample import Halve, low_pass

EPSILON = 1e-8
LEAK = 0.2
GAIN = 2**0.5  # restores the variance that the leaky ReLU takes
TAPS = (1, 3, 3, 1)


def activate(values: Tensor, bound: float | None) -> Tensor:
    """Return the leaky ReLU of values, which are overwritten, limited to +-bound."""
    if bound is None:
        return leaky_relu(values, LEAK, inplace=True)
    return hardtanh(leaky_relu(values, LEAK), -bound, bound, inplace=True)


def full_precision(values: Tensor) -> contextlib.AbstractContextManager:
    """Return a context without autocast; a trace for ONNX, which has none, must not meet the context at all."""
    kind = values.device.type
    if torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def not_half(values: Tensor) -> Tensor:
    """Return values in float32 where they were of half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def demodulation(weight: Tensor, scales: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Return what brings outputs back to unit variance, (N, outputs), for inputs of unit variance.

    Scaling the inputs by s gives the same as scaling the weight w, (outputs, inputs, K, K), whose norm for a picture is
    then the root of sum over i of s_i^2 * (sum over k of w_oik^2): a product of two small matrices instead of a weight
    for each picture (Karras 2020, equation 3).
    """
    norms = scales.square() @ weight.square().sum((2, 3)).t()
    return (not_half(norms) + epsilon).rsqrt()


class Smooth(nn.Module):
    """(N, C, H, W) to (N, C, H + 2 padding - 3, ...): the low-pass filter alone, times a gain."""

    kernel: Tensor

    def __init__(self, channels: int, padding: int, gain: float = 1.0) -> None:
        super().__init__()
        self.channels, self.padding = channels, padding
        self.register_buffer("kernel", low_pass(TAPS, channels) * gain, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return the smoothed map."""
        return cast(Tensor, conv2d(values, self.kernel, padding=self.padding, groups=self.channels))


class StyledConv2d(nn.Module):
    """A modulated 3 x 3 convolution, noise and leaky ReLU: (N, inputs, H, W) to (N, outputs, size, size).

    Where it doubles the size, zeros are put between pixels, the weight is spread over them (conv_transpose2d with the
    weight as it is stored, so that the kernel is that of a true convolution, not of a correlation) and the filter
    follows: 9 products per pixel of the small map, where filtering first would need 36.
    """

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, style: int, size: int, double: bool, bound: float | None) -> None:
        super().__init__()
        self.affine = EqualisedLinear(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.smooth = Smooth(outputs, padding=1, gain=4) if double else None
        self.gain, self.bound = (inputs * 9) ** -0.5, bound

    def forward(self, values: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the next map; `noise` is (N, 1, size, size), None: the constant noise."""
        # Demodulation cancels the gain, but without it sums overflow in half precision.
        scales = self.affine(style) * self.gain
        factors = demodulation(self.weight, scales, EPSILON * self.gain**2) * GAIN
        values = self._convolve(values * scales.to(values.dtype)[:, :, None, None])
        kind = values.dtype
        bias = (self.bias * GAIN).to(kind)[:, None, None]
        noise = (self.noise_const if noise is None else noise) * (self.noise_strength * GAIN)
        values = torch.addcmul(bias, values, factors.to(kind)[:, :, None, None]).add_(noise.to(kind))
        return activate(values, self.bound)

    def _convolve(self, values: Tensor) -> Tensor:
        if self.smooth is None:
            return cast(Tensor, conv2d(values, self.weight, padding=1))
        return cast(Tensor, self.smooth(conv_transpose2d(values, self.weight.transpose(0, 1), stride=2)))


class StyledColours(nn.Module):
    """A modulated 1 x 1 convolution without demodulation: (N, inputs, H, W) to colours (N, channels, H, W).

    It has so few outputs that a weight per picture, (N, channels, inputs), costs less than scaling the map.
    """

    def __init__(self, inputs: int, channels: int, style: int, bound: float | None) -> None:
        super().__init__()
        self.affine = EqualisedLinear(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gain, self.bound = inputs**-0.5, bound

    def forward(self, values: Tensor, style: Tensor) -> Tensor:
        """Return colours, not of half precision."""
        weights = self.weight.flatten(1) * (self.affine(style) * self.gain)[:, None]
        colours = (weights @ values.flatten(2)).unflatten(2, values.shape[2:]) + self.bias[:, None, None]
        return colours if self.bound is None else hardtanh(colours, -self.bound, self.bound, inplace=True)


class ActivatedConv2d(nn.Module):
    """An equalised 3 x 3 convolution and leaky ReLU that keep the size, or filter the map first and halve it."""

    def __init__(self, inputs: int, outputs: int, halve: bool = False, bound: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.smooth = Smooth(inputs, padding=2) if halve else nn.Identity()
        self.gain, self.bound = (inputs * 9) ** -0.5, bound
        self.stride, self.padding = (2, 0) if halve else (1, 1)

    def forward(self, values: Tensor, gain: float = 1.0) -> Tensor:
        """Return the next map times `gain`, which moves the bound, too."""
        weight, bias = self.weight * (self.gain * GAIN * gain), self.bias * (GAIN * gain)
        values = conv2d(self.smooth(values), weight, bias, stride=self.stride, padding=self.padding)
        return activate(values, None if self.bound is None else self.bound * gain)


def pixels(values: Tensor) -> Tensor:
    """Return a map (N, C, H, W) as rows of pixels (N H W, C), which is a view of one in channels_last."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)


def as_map(rows: Tensor, like: Tensor) -> Tensor:
    """Return rows of pixels as a map in channels_last, of the batch and size of another map."""
    return rows.view(like.shape[0], *like.shape[2:], -1).permute(0, 3, 1, 2)


class FromColours(nn.Module):
    """An equalised 1 x 1 convolution of pictures and leaky ReLU; it is one product of matrices."""

    def __init__(self, channels: int, outputs: int, bound: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.bound = channels**-0.5, bound

    def forward(self, pictures: Tensor) -> Tensor:
        """Return a map in channels_last."""
        weight, bias = self.weight.flatten(1) * (self.gain * GAIN), self.bias * GAIN
        return as_map(activate(linear(pixels(pictures), weight, bias), self.bound), pictures)


class Shortcut(nn.Module):
    """(N, inputs, H, W) to (N, outputs, H / 2, W / 2): filter, and an equalised linear 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.halve = Halve(inputs, TAPS)
        self.gain = inputs**-0.5

    def forward(self, values: Tensor, branch: Tensor, gain: float) -> Tensor:
        """Return the halved map times `gain` plus the other branch, (N, outputs, H / 2, W / 2)."""
        around = linear(pixels(self.halve(values)), self.weight.flatten(1) * (self.gain * gain))
        return as_map(around.add_(pixels(branch)), branch)
