"""Fully connected networks: shapes, layers by hand, sizes, the discriminator's options, and their graph."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, leaky_relu, linear

from stages.networks import gan
from stages.networks.layers.spectral import bake_norms
from tests.unit.graphs import assert_parity

NAMES = ["cat", "dog", "owl"]
TINY: dict[str, Any] = {
    "resolution": 8,
    "channels": 3,
    "class_names": [],
    "latent": 6,
    "widths": [12, 16, 20],
    "discriminator_widths": [24, 10],
    "spectral_norm": False,
    "minibatch_stddev": False,
    "minibatch_kernels": 0,
    "minibatch_group": 2,
    "dropout": 0.0,
}


def networks(**changes: Any) -> tuple[Any, Any]:
    torch.manual_seed(5)
    return gan.build_generator(TINY | changes), gan.build_discriminator(TINY | changes)


@pytest.mark.parametrize(("resolution", "channels"), [(8, 3), (16, 1), (32, 3)])
@pytest.mark.parametrize("widths", [[12], [12, 16, 20]])
def test_every_resolution_has_matching_networks(resolution, channels, widths):
    generator, discriminator = networks(
        resolution=resolution, channels=channels, widths=widths, discriminator_widths=widths
    )
    pictures = generator(torch.randn(4, 6))
    assert pictures.shape == (4, channels, resolution, resolution)
    assert pictures.abs().max() <= 1
    assert discriminator(pictures).shape == (4,)


def test_a_generator_by_hand():
    generator, _ = networks()
    latent = torch.randn(5, 6)
    first, second, third = generator.blocks
    features = leaky_relu(linear(latent, first[0].weight, first[0].bias), 0.2)
    for block in (second, third):
        moved = linear(features, block[0].weight)
        features = leaky_relu(batch_norm(moved, None, None, block[1].weight, block[1].bias, training=True), 0.2)
    pixels = torch.tanh(linear(features, generator.paint[0].weight, generator.paint[0].bias))
    torch.testing.assert_close(generator(latent), pixels.reshape(5, 3, 8, 8))


def test_a_discriminator_by_hand():
    _, discriminator = networks()
    pictures = torch.randn(5, 3, 8, 8)
    features = pictures.reshape(5, -1)
    for block in discriminator.blocks:
        features = leaky_relu(linear(features, block[0].weight, block[0].bias), 0.2)
    expected = linear(features, discriminator.judge.weight, discriminator.judge.bias)[:, 0]
    torch.testing.assert_close(discriminator(pictures), expected)
    striped = pictures.to(memory_format=torch.channels_last)
    torch.testing.assert_close(discriminator(striped), expected)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("names", [[], NAMES])
def test_the_sizes_of_the_well_known_example(names):
    """Hidden layers of 128, 256, 512, 1024 for pictures of 32 x 32, judged by 512, 256."""
    changes = {"resolution": 32, "channels": 1, "latent": 100, "widths": [128, 256, 512, 1024], "class_names": names}
    with torch.device("meta"):
        generator, discriminator = networks(**changes, discriminator_widths=[512, 256])
    told, pixels = len(names), 32 * 32
    hidden = 128 * 256 + 256 * 512 + 512 * 1024 + 2 * (256 + 512 + 1024)
    assert count(generator) == (100 + told) * 128 + 128 + hidden + 1024 * pixels + pixels + told**2
    assert count(discriminator) == (pixels + told) * 512 + 512 + 512 * 256 + 256 + 256 + 1 + told**2


def test_labels_matter_to_both_networks():
    generator, discriminator = (network.eval() for network in networks(class_names=NAMES))
    latent, pictures = torch.randn(1, 6).repeat(3, 1), torch.randn(1, 3, 8, 8).repeat(3, 1, 1, 1)
    images, logits = generator(latent, torch.arange(3)), discriminator(pictures, torch.arange(3))
    for values in (images, logits):
        assert all((values[i] - values[j]).abs().max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_dropout_is_of_training_alone():
    _, discriminator = networks(dropout=0.5)
    pictures = torch.randn(4, 3, 8, 8)
    assert not torch.equal(discriminator(pictures), discriminator(pictures))
    discriminator.eval()
    assert torch.equal(discriminator(pictures), discriminator(pictures))


@pytest.mark.parametrize("changes", [{"minibatch_stddev": True}, {"minibatch_kernels": 3}])
def test_pictures_of_a_group_are_compared(changes):
    picture = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
    for options, matters in (({}, False), (changes, True)):
        _, discriminator = networks(**options)
        alike = discriminator(torch.cat([picture, picture]))[0]
        different = discriminator(torch.cat([picture, torch.randn(1, 3, 8, 8)]))[0]
        assert (abs(alike - different) > 1e-3) == matters


def test_spectral_norm_holds_for_every_layer():
    _, discriminator = networks(spectral_norm=True, class_names=NAMES)
    pictures, label = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    for _ in range(40):
        discriminator(pictures, label)
    expected = discriminator.eval()(pictures, label)
    baked = bake_norms(copy.deepcopy(discriminator))
    torch.testing.assert_close(baked(pictures, label), expected)
    layers = [module for module in baked.modules() if isinstance(module, nn.Linear | nn.Embedding)]
    assert len(layers) == 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, rel=0.02)


def test_a_penalty_of_the_gradient_reaches_the_weights():
    """R1 in closed form: where one hidden layer is on the same side of its kinks, the slope is a product of weights."""
    _, discriminator = networks(discriminator_widths=[10])
    pictures = torch.randn(2, 3, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(discriminator(pictures).sum(), pictures, create_graph=True)
    slope.square().sum().backward()
    found = discriminator.judge.weight.grad.clone()
    first = discriminator.blocks[0][0]
    sides = torch.where(linear(pictures.flatten(1), first.weight, first.bias) > 0, 1.0, 0.2)
    judge = discriminator.judge.weight.detach().clone().requires_grad_()
    (sides.detach() * judge @ first.weight.detach()).square().sum().backward()
    torch.testing.assert_close(found, judge.grad)


def test_half_precision_changes_nothing_but_rounding():
    generator, discriminator = (network.eval() for network in networks())
    latent = torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        pictures = generator(latent)
        logits = discriminator(pictures)
    assert pictures.dtype == logits.dtype == torch.bfloat16
    assert (pictures - generator(latent)).abs().max() < 0.02
    assert (logits - discriminator(generator(latent))).abs().max() < 0.02


@pytest.mark.parametrize("names", [[], NAMES])
def test_a_graph_draws_what_torch_draws_at_every_batch(names):
    generator, _ = networks(class_names=names)
    assert_parity(generator, 6, len(names))
