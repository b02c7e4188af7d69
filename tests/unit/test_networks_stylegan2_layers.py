"""StyleGAN2's layers against their definitions, computed without torch's convolutions, and twice differentiated."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor, nn

from stages.networks.layers.modulation import (
    ActivatedConv2d,
    FromColours,
    StyledColours,
    StyledConv2d,
    demodulation,
)
from stages.networks.stylegan2 import DiscriminatorBlock
from tests.unit.stylegan2_networks import config, discriminator


def by_hand(layer: StyledConv2d, values: Tensor, style: Tensor, noise: np.ndarray) -> np.ndarray:
    """The layer by its definition, a weight for each picture, in float64 and without torch's convolutions."""
    affine = {name: parameter.double() for name, parameter in layer.affine.named_parameters()}
    gains = style.double() @ affine["weight"].t() / style.shape[1] ** 0.5 + affine["bias"]
    pictures = []
    for picture, gain in zip(values.double(), gains, strict=True):
        weight = (layer.weight.double() * gain[:, None, None]).detach().numpy()
        weight = weight / np.sqrt((weight**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        double = layer.smooth is not None
        rows = [convolved_by_hand(picture.numpy(), kernels, double) for kernels in weight]
        pictures.append(np.stack(rows))
    found = np.stack(pictures) + layer.noise_strength.item() * noise
    found = found + layer.bias.detach().double().numpy()[:, None, None]
    return np.where(found > 0, found, 0.2 * found) * 2**0.5


def convolved_by_hand(maps: np.ndarray, kernels: np.ndarray, double: bool) -> np.ndarray:
    if not double:  # a correlation, as networks call a convolution
        pairs = zip(np.pad(maps, ((0, 0), (1, 1), (1, 1))), kernels, strict=True)
        return sum(convolve2d(values, kernel[::-1, ::-1], "valid") for values, kernel in pairs)
    spread = np.zeros((len(maps), maps.shape[1] * 2 - 1, maps.shape[2] * 2 - 1))
    spread[:, ::2, ::2] = maps
    whole = sum(convolve2d(values, kernel, "full") for values, kernel in zip(spread, kernels, strict=True))
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 * 4
    return convolve2d(np.pad(whole, 1), taps, "valid")


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("own_noise", [False, True])
def test_a_styled_convolution_is_that_of_a_weight_for_each_picture(double, own_noise):
    torch.manual_seed(1)
    layer = StyledConv2d(5, 4, 6, 10 if double else 5, double, None)
    with torch.no_grad():
        layer.noise_strength.fill_(0.7)
        layer.bias.normal_()
    values, style = torch.randn(3, 5, 5, 5), torch.randn(3, 6) * 3
    noise = torch.randn(3, 1, *layer.noise_const.shape) if own_noise else None
    expected = by_hand(layer, values, style, (layer.noise_const if noise is None else noise).double().numpy())
    found = layer(values, style, noise).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_colours_are_those_of_a_weight_for_each_picture():
    torch.manual_seed(1)
    layer = StyledColours(5, 3, 6, None)
    with torch.no_grad():
        layer.bias.normal_()
    values, style = torch.randn(3, 5, 4, 4), torch.randn(3, 6)
    for picture, own, found in zip(values, style, layer(values, style), strict=True):
        gains = (layer.affine.weight @ own / 6**0.5 + layer.get_parameter("affine.bias")) / 5**0.5
        weight = layer.weight[:, :, 0, 0] * gains
        expected = torch.einsum("oi,ihw->ohw", weight, picture) + layer.bias[:, None, None]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_demodulation_gives_unit_variance_whatever_the_style(scale):
    torch.manual_seed(0)
    layer = StyledConv2d(64, 64, 16, 24, False, None)
    styles = torch.randn(4, 16) * scale
    with torch.no_grad():
        layer.get_parameter("affine.bias").mul_(scale)
        found = layer(torch.randn(4, 64, 24, 24), styles)[..., 1:-1, 1:-1]
    leaky = (1 + 0.2**2) / 2 * 2  # E[x^2] of a normal variable behind the leaky ReLU of gain sqrt(2)
    assert found.square().mean((1, 2, 3)).sub(leaky).abs().max() < 0.05


def test_demodulation_needs_no_weight_for_each_picture():
    weight, scales = torch.randn(4, 5, 3, 3), torch.randn(2, 5)
    explicit = (weight * scales[:, None, :, None, None]).square().sum((2, 3, 4)).rsqrt()
    torch.testing.assert_close(demodulation(weight, scales), explicit)


def convolved(maps: np.ndarray, layer: ActivatedConv2d, stride: int, gain: float) -> np.ndarray:
    """The layer by its definition: equalised correlation with every `stride`th result, bias, leaky ReLU, gain."""
    weight = layer.weight.detach().double().numpy() / (9 * len(maps)) ** 0.5
    rows = [sum(map(lambda v, k: convolve2d(v, k[::-1, ::-1], "valid"), maps, kernels)) for kernels in weight]
    found = np.stack(rows)[:, ::stride, ::stride] + layer.bias.detach().numpy()[:, None, None]
    return np.where(found > 0, found, found * 0.2) * 2**0.5 * gain


def filtered(maps: np.ndarray, padding: int) -> np.ndarray:
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    return np.stack([convolve2d(np.pad(values, padding), taps, "valid") for values in maps])


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_a_discriminators_block_is_by_its_definition(architecture):
    block = discriminator(config(resolution=32, discriminator_architecture=architecture)).get_submodule("b16")
    assert isinstance(block, DiscriminatorBlock)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    values = torch.randn(2, 4, 16, 16)
    found = block(values).detach().numpy()
    for picture, mine in zip(values.double().numpy(), found, strict=True):
        gain = 0.5**0.5 if architecture == "resnet" else 1.0
        inner = convolved(np.pad(picture, ((0, 0), (1, 1), (1, 1))), block.conv0, 1, 1.0)
        expected = convolved(filtered(inner, 2), block.conv1, 2, gain)
        if block.skip is not None:
            around = filtered(picture, 1)[:, ::2, ::2] / 4**0.5
            expected += np.einsum("oi,ihw->ohw", block.skip.weight.detach()[:, :, 0, 0].numpy(), around) * gain
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def with_parameters(network: nn.Module, *inputs: Tensor) -> tuple:
    """A function of the inputs and of all parameters of a network, and these."""
    names, values = zip(*network.named_parameters(), strict=True)

    def function(*given: Tensor) -> Tensor:
        parameters = dict(zip(names, given[len(inputs) :], strict=True))
        return torch.func.functional_call(network, parameters, given[: len(inputs)])

    return function, (*(value.requires_grad_() for value in inputs), *values)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("bound", [None, 1.5])
def test_styled_convolutions_can_be_differentiated_twice(double, bound):
    torch.manual_seed(0)
    layer = StyledConv2d(2, 2, 3, 4 if double else 2, double, bound).double()
    nn.init.constant_(layer.noise_strength, 0.3)
    assert torch.autograd.gradgradcheck(
        *with_parameters(layer, torch.randn(2, 2, 2, 2).double(), torch.randn(2, 3).double())
    )


@pytest.mark.parametrize(
    "layer", [ActivatedConv2d(2, 2), ActivatedConv2d(2, 2, halve=True, bound=1.0), FromColours(2, 2, None)]
)
def test_the_discriminators_layers_can_be_differentiated_twice(layer):
    torch.manual_seed(0)
    assert torch.autograd.gradgradcheck(*with_parameters(layer.double(), torch.randn(2, 2, 4, 4).double()))
