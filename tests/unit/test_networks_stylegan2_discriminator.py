"""StyleGAN2's discriminator: its options, its projection, and what the gradient penalty needs."""

import copy
import math

import pytest
import torch
from torch import Tensor

from stages.errors import InputError
from stages.networks.layers.equalised import EqualisedLinear
from stages.networks.layers.modulation import ActivatedConv2d, FromColours, Shortcut
from stages.networks.layers.spectral import bake_norms
from tests.unit.stylegan2_networks import LABEL, conditional, config, discriminator, shapes

EQUALISED = (EqualisedLinear, ActivatedConv2d, FromColours, Shortcut)


def test_logits_are_projections_on_the_mapped_label():
    judging = discriminator(conditional(minibatch_stddev=False))
    features: list[Tensor] = []
    judging.b4.out.register_forward_hook(lambda _module, _inputs, output: features.append(output))
    logits = judging(torch.randn(4, 3, 16, 16), LABEL)
    expected = (features[0] * judging.mapping(label=LABEL)).sum(1) / math.sqrt(8)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(judging.mapping(label=LABEL)[1], judging.mapping(label=LABEL)[3])


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_logits_can_be_differentiated_twice_by_pictures(architecture):
    """What R1 needs; minibatch statistics are computed in float32, too coarse for differences in float64."""
    network = discriminator(
        conditional(resolution=8, channel_max=2, discriminator_architecture=architecture, minibatch_stddev=False)
    ).double()
    pictures = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda values: network(values, LABEL[:2]), (pictures,), fast_mode=True)


@pytest.mark.parametrize("options", [{}, {"minibatch_stddev": False, "minibatch_kernels": 3}])
def test_only_pictures_of_a_group_are_compared(options):
    network = discriminator(conditional(**options))
    pictures = torch.randn(4, 3, 16, 16)
    other = pictures.clone()
    other[3] += 1
    before, after = network(pictures, LABEL), network(other, LABEL)
    torch.testing.assert_close(after[:2], before[:2])
    assert (after[2] - before[2]).abs() > 1e-5
    with pytest.raises(InputError, match="minibatch groups of 2"):
        network(pictures[:3], LABEL[:3])


def test_without_minibatch_statistics_each_picture_is_judged_alone():
    network = discriminator(config(minibatch_stddev=False))
    pictures = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(network(pictures)[1:2], network(pictures[1:2]))
    assert network.b4.conv.weight.shape == (8, 8, 3, 3)


def test_dropout_is_of_training_only():
    network = discriminator(config(dropout=0.5, minibatch_stddev=False))
    picture = torch.randn(1, 3, 16, 16).expand(8, -1, -1, -1)
    assert network(picture).std() > 1e-4
    network.eval()
    assert network(picture).std() < 1e-6


def test_spectral_norms_are_one_and_can_be_baked():
    network = discriminator(conditional(spectral_norm=True))
    pictures = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        for _ in range(100):
            network(pictures, LABEL)
    network.eval()
    layers = [m for m in network.modules() if isinstance(m, EQUALISED)]
    assert len(layers) == 1 + 2 * 3 + 1 + 2 + 9
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1) * layer.gain, 2).item() == pytest.approx(1, abs=0.02)
    logits = network(pictures, LABEL)
    baked = bake_norms(copy.deepcopy(network))
    torch.testing.assert_close(baked(pictures, LABEL), logits)
    assert shapes(baked) == shapes(discriminator(conditional()))
