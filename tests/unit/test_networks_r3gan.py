"""Grouped residual networks: how they begin, their parts by hand, the paper's size, and their graph."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from stages.networks import r3gan
from stages.networks.layers.spectral import bake_norms
from stages.networks.r3gan import GenerativeBasis, ResidualBlock
from tests.unit.graphs import assert_parity

NAMES = ["cat", "dog", "owl"]
TINY: dict[str, Any] = {
    "resolution": 16,
    "channels": 3,
    "class_names": [],
    "latent": 8,
    "widths": [16, 12, 12],
    "cardinalities": [4, 3, 6],
    "blocks_per_stage": 2,
    "expansion": 2,
    "spectral_norm": False,
    "minibatch_stddev": False,
    "minibatch_kernels": 0,
    "minibatch_group": 2,
    "dropout": 0.0,
}


def networks(move: float = 0.1, **changes: Any) -> tuple[Any, Any]:
    """Return both networks after a step in a random direction, since blocks begin as the identity."""
    torch.manual_seed(5)
    pair = r3gan.build_generator(TINY | changes), r3gan.build_discriminator(TINY | changes)
    for network in pair:
        for parameter in network.parameters():
            parameter.data.add_(torch.randn(parameter.shape) * move)
    return pair


def residual(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, ResidualBlock)]


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (16, 3), (32, 3)])
def test_every_resolution_has_matching_networks(resolution, channels):
    stages = resolution.bit_length() - 2
    sizes: dict[str, Any] = {"widths": [16, 12, 8, 8][:stages], "cardinalities": [4, 3, 2, 8][:stages]}
    generator, discriminator = networks(resolution=resolution, channels=channels, **sizes)
    pictures = generator(torch.randn(3, 8))
    assert pictures.shape == (3, channels, resolution, resolution)
    assert discriminator(pictures).shape == (3,)
    assert len(generator.blocks) == len(discriminator.blocks) == stages


def test_every_block_begins_as_the_identity():
    for network in networks(move=0):
        assert len(residual(network)) == 6
        for block in residual(network):
            features = torch.randn(2, block.widen.in_channels, 4, 4)
            assert torch.equal(block(features), features)
            assert block.widen.weight.std() > 0  # the first step of the last convolution makes it something else


def test_a_block_by_hand():
    block = residual(networks()[0])[0]
    features = torch.randn(2, 16, 4, 4)
    inner = conv2d(features, block.widen.weight) + block.widen.bias[None, :, None, None]
    inner = leaky_relu(inner, 0.2).chunk(4, 1)  # groups
    parts = zip(inner, block.mix.weight.chunk(4), block.mix.bias.chunk(4), strict=True)
    inner = torch.cat([conv2d(part, weight, bias, padding=1) for part, weight, bias in parts], 1)
    expected = features + conv2d(leaky_relu(inner, 0.2), block.narrow.weight)
    torch.testing.assert_close(block(features), expected)
    assert (expected - features).abs().max() > 0.01
    assert block.narrow.bias is None


def test_initial_weights_are_scaled_by_depth():
    """Blocks of three convolutions in a network of L blocks: He's deviation times L**(-1/4) (Zhang 2019)."""
    torch.manual_seed(0)
    changes = {"resolution": 8, "widths": [64, 64], "cardinalities": [8, 8], "blocks_per_stage": 8}
    for network in (r3gan.build_generator(TINY | changes), r3gan.build_discriminator(TINY | changes)):
        he = (2 / 1.04) ** 0.5
        assert len(residual(network)) == 16
        for block in residual(network):
            assert block.widen.weight.std().item() == pytest.approx(he / 64**0.5 / 2, rel=0.05)
            assert block.mix.weight.std().item() == pytest.approx(he / (16 * 9) ** 0.5 / 2, rel=0.05)
            assert not any(bias.any() for bias in (block.widen.bias, block.mix.bias))


def test_pictures_of_a_fresh_generator_by_hand():
    """What is left when blocks are the identity: maps scaled by the latent, doubled twice, a mix of channels."""
    generator, _ = networks(move=0)
    first, second, third = generator.blocks
    latent = torch.randn(2, 8)
    scales = latent @ first[0].scales.weight.T
    features = first[0].maps[None] * scales[:, :, None, None]
    assert second[0].weight.shape == (12, 16, 1, 1)  # where widths change
    assert not isinstance(third[0], nn.Conv2d)
    features = conv2d(features, second[0].weight)
    line = torch.tensor([1.0, 2.0, 1.0]) / 2
    kernel = torch.outer(line, line).repeat(12, 1, 1, 1)
    for _ in range(2):
        features = conv_transpose2d(features, kernel, stride=2, padding=1, output_padding=1, groups=12)
    torch.testing.assert_close(generator(latent), conv2d(features, generator.to_rgb.weight))


def test_logits_of_a_fresh_discriminator_by_hand():
    _, discriminator = networks(move=0)
    pictures = torch.randn(2, 3, 16, 16)
    features = conv2d(pictures, discriminator.blocks[0][0].weight)
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    for _ in range(2):
        features = conv2d(features, torch.outer(line, line).repeat(12, 1, 1, 1), stride=2, padding=1, groups=12)
    features = conv2d(features, discriminator.blocks[1][-1].weight)
    row = (features * discriminator.basis.weight[:, 0]).sum((2, 3))  # a 4 x 4 map for each channel
    torch.testing.assert_close(discriminator(pictures), (row @ discriminator.judge.weight.T).flatten())


def test_the_basis_is_linear_in_the_latent():
    basis = GenerativeBasis(5, 7)
    one, other = torch.randn(2, 1, 5)
    torch.testing.assert_close(basis(2 * one - other), 2 * basis(one) - basis(other))
    assert basis(one).shape == (1, 7, 4, 4)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("names", [[], NAMES])
def test_the_papers_size_for_cifar_10(names):
    """Research table 3.4: 768 channels at 4 sizes, 96 groups, 2 blocks each, expansion 2."""
    changes = {"resolution": 32, "latent": 64, "widths": [768] * 4, "cardinalities": [96] * 4, "class_names": names}
    with torch.device("meta"):
        generator, discriminator = r3gan.build_generator(TINY | changes), r3gan.build_discriminator(TINY | changes)
    block = 768 * 1536 + 1536 + 1536 * 16 * 9 + 1536 + 1536 * 768
    basis, linear = 768 * 16, 64 * 768
    assert count(generator) == 8 * block + basis + linear * (2 if names else 1) + 768 * 3 + len(names) * 64
    assert count(discriminator) == 8 * block + basis + (linear if names else 768) + 768 * 3 + len(names) * 64
    assert all(20e6 < count(network) < 21e6 for network in (generator, discriminator))


def test_sizes_where_widths_and_groups_differ():
    """FFHQ-256's preset has 7 sizes; only a change of width costs a convolution between two of them."""
    widths, groups = [768, 768, 768, 768, 384, 192, 96], [96, 96, 96, 96, 48, 24, 12]
    changes = {"resolution": 256, "latent": 64, "widths": widths, "cardinalities": groups}
    with torch.device("meta"):
        generator, discriminator = r3gan.build_generator(TINY | changes), r3gan.build_discriminator(TINY | changes)
    pairs = zip(widths, groups, strict=True)
    blocks = sum(2 * (4 * w * w + 4 * w + 2 * w * (2 * w // group) * 9) for w, group in pairs)
    between = sum(before * after for before, after in pairwise(widths) if before != after)
    assert count(generator) == blocks + between + 768 * 16 + 64 * 768 + 96 * 3
    assert count(discriminator) == blocks + between + 768 * 16 + 768 + 96 * 3


@pytest.mark.parametrize("kind", ["real", "generated"])
def test_penalties_of_the_gradient_reach_the_weights(kind):
    """R1 and R2 (the same of generated pictures), against a difference of the penalty itself."""
    generator, discriminator = (network.double() for network in networks())
    drawn = generator(torch.randn(4, 8, dtype=torch.float64)).detach()
    pictures = drawn if kind == "generated" else torch.randn(4, 3, 16, 16, dtype=torch.float64)
    pictures.requires_grad_()

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(discriminator(pictures).sum(), pictures, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean()

    weight = residual(discriminator)[2].mix.weight
    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn(weight.shape, dtype=torch.float64)
    ends = []
    for step in (1e-6, -2e-6):
        weight.data.add_(direction, alpha=step)
        ends.append(penalty().item())
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)
    assert gradient.abs().max() > 1e-6


def test_classes_matter_to_both_networks():
    generator, discriminator = networks(class_names=NAMES)
    latent, pictures = torch.randn(1, 8).repeat(3, 1), torch.randn(1, 3, 16, 16).repeat(3, 1, 1, 1)
    images, logits = generator(latent, torch.arange(3)), discriminator(pictures, torch.arange(3))
    for values in (images, logits):
        assert all((values[i] - values[j]).abs().max() > 1e-2 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_conditional_logit_is_a_product_with_the_labels_vector():
    _, discriminator = networks(class_names=NAMES)
    kept: list[Tensor] = []
    discriminator.judge.register_forward_hook(lambda *given: kept.append(given[2]))
    logits = discriminator(torch.randn(2, 3, 16, 16), torch.tensor([2, 0]))
    expected = torch.stack([kept[0][0] @ discriminator.classes.weight[2], kept[0][1] @ discriminator.classes.weight[0]])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("changes", [{"minibatch_stddev": True}, {"minibatch_kernels": 3}])
def test_pictures_of_a_group_are_compared(changes):
    picture = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    for options, matters in (({}, False), (changes, True)):
        _, discriminator = networks(**options)
        alike = discriminator(torch.cat([picture, picture]))[0]
        different = discriminator(torch.cat([picture, torch.randn(1, 3, 16, 16)]))[0]
        assert (abs(alike - different) > 1e-3) == matters


def test_dropout_is_of_training_alone():
    _, discriminator = networks(dropout=0.5)
    pictures = torch.randn(4, 3, 16, 16)
    assert not torch.equal(discriminator(pictures), discriminator(pictures))
    discriminator.eval()
    assert torch.equal(discriminator(pictures), discriminator(pictures))


@pytest.mark.parametrize("names", [[], NAMES])
def test_spectral_norm_holds_for_every_layer(names):
    """Also for the last one of a block, which a zero of norm 1 would make infinite."""
    torch.manual_seed(0)
    discriminator = r3gan.build_discriminator(TINY | {"spectral_norm": True, "class_names": names})
    pictures, label = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]) if names else None
    for _ in range(40):
        discriminator(pictures, label)
    expected = discriminator.eval()(pictures, label)
    assert expected.isfinite().all()
    baked = bake_norms(copy.deepcopy(discriminator))
    torch.testing.assert_close(baked(pictures, label), expected)
    layers = [m for m in baked.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 6 * 3 + 1 + 1 + 2 + bool(names)
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        assert norm == pytest.approx(1, rel=0.05)


def test_memory_formats_and_precision_change_nothing_but_rounding():
    generator, discriminator = networks()
    latent = torch.randn(4, 8)
    pictures = generator(latent)
    striped = pictures.detach().to(memory_format=torch.channels_last)
    moved = copy.deepcopy(discriminator).to(memory_format=torch.channels_last)
    torch.testing.assert_close(moved(striped), discriminator(pictures), atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = generator(latent)
        basis = generator.blocks[0](latent)
    assert rough.dtype == basis.dtype == torch.bfloat16  # nothing on the way is of twice the size
    assert (rough - pictures).abs().max() < 0.1 * pictures.abs().max()


@pytest.mark.parametrize("names", [[], NAMES])
def test_a_graph_draws_what_torch_draws_at_every_batch(names):
    assert_parity(networks(class_names=names)[0], 8, len(names))
