"""DCGAN's shapes and rules."""

import pytest
import torch

from stages.networks.dcgan import Discriminator, Generator, channels_at


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
@pytest.mark.parametrize("upsample", ["transposed", "bilinear", "nearest"])
def test_every_resolution_has_matching_networks(resolution, upsample):
    pictures = Generator(resolution, 3, 10, 8, upsample)(torch.randn(3, 10))
    assert pictures.shape == (3, 3, resolution, resolution)
    assert pictures.abs().max() <= 1
    assert Discriminator(resolution, 3, 8)(pictures).shape == (3,)


def test_the_papers_channels_at_64_px():
    """Radford 2015, figure 1: 1024, 512, 256, 128 channels at 4, 8, 16, 32 pixels."""
    assert [channels_at(size, 64, 128) for size in (4, 8, 16, 32)] == [1024, 512, 256, 128]
    generator = Generator(64, 3, 100, 128, "transposed")
    weights = 100 * 1024 * 16 + (1024 * 512 + 512 * 256 + 256 * 128) * 16 + 128 * 3 * 16 + 3
    norms = 2 * (1024 + 512 + 256 + 128)
    assert sum(parameter.numel() for parameter in generator.parameters()) == weights + norms


def test_initial_weights_have_the_papers_deviation():
    generator = Generator(32, 3, 100, 64, "transposed")
    assert generator.project.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert next(generator.layers.parameters()).mean().item() == pytest.approx(1, abs=0.01)
