"""SNGAN: the papers' sizes, blocks and heads by hand, spectral norm, second derivatives, and the graph."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, relu
from torch.nn.utils import parametrize

from stages.errors import InputError
from stages.networks import sngan
from stages.networks.layers.residual import ClassBatchNorm, DownBlock, PlainBatchNorm, UpBlock
from tests.unit.graphs import assert_parity

NAMES = ["cat", "dog", "owl"]
TINY: dict[str, Any] = {
    "resolution": 16,
    "channels": 3,
    "class_names": [],
    "latent": 8,
    "width": 6,
    "discriminator_width": 5,
    "spectral_norm": True,
    "minibatch_stddev": False,
    "minibatch_kernels": 0,
    "minibatch_group": 2,
    "dropout": 0.0,
}


def networks(**changes: Any) -> tuple[Any, Any]:
    torch.manual_seed(5)
    pair = sngan.build_generator(TINY | changes), sngan.build_discriminator(TINY | changes)
    for module in pair[0].modules():
        if isinstance(module, ClassBatchNorm):  # all classes begin alike
            nn.init.normal_(module.embedding.weight, std=0.5)
    return pair


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("resolution", "channels", "last"), [(8, 3, 4), (16, 1, 8), (32, 3, 8), (64, 3, 4)])
@pytest.mark.parametrize("stddev", [False, True])
def test_every_resolution_has_matching_networks(resolution, channels, last, stddev):
    changes = {"resolution": resolution, "channels": channels, "minibatch_stddev": stddev}
    generator, discriminator = networks(**changes, width=16, discriminator_width=16)
    maps = []
    discriminator.head.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    pictures = generator(torch.randn(2, 8))
    assert pictures.shape == (2, channels, resolution, resolution)
    assert pictures.abs().max() <= 1
    assert discriminator(pictures).shape == (2,)
    assert maps[0].shape == (2, 16, last, last)


def test_the_papers_widths():
    """Miyato 2018, appendix B.4, and the projection paper's code."""
    assert sngan.generator_widths(32, 256) == [256, 256, 256, 256]
    assert sngan.generator_widths(64, 1024) == [1024, 512, 256, 128, 64]
    assert sngan.generator_widths(128, 1024) == [1024, 1024, 512, 256, 128, 64]
    assert sngan.discriminator_plan(32, 128) == [(128, True), (128, True), (128, False), (128, False)]
    halving = [(64, True), (128, True), (256, True), (512, True)]
    assert sngan.discriminator_plan(64, 1024) == [*halving, (1024, False)]
    assert sngan.discriminator_plan(128, 1024) == [*halving, (1024, True), (1024, False)]


@pytest.mark.parametrize("build", [sngan.build_generator, sngan.build_discriminator])
def test_a_width_without_a_sixteenth_is_refused(build):
    with pytest.raises(InputError, match=r"width is 24; sngan at 64 px needs a multiple of 16"):
        build(TINY | {"resolution": 64, "width": 24, "discriminator_width": 24})


@pytest.mark.parametrize("classes", [0, 10])
def test_the_size_of_the_networks_for_cifar_10(classes):
    """By the table of layers for 32 px: a convolution has k^2 weights per pair of channels, and biases."""
    g, d = 256, 128
    names = [str(number) for number in range(classes)]
    sizes = {"resolution": 32, "latent": 128, "width": g, "discriminator_width": d, "class_names": names}
    with torch.device("meta"):
        generator, discriminator = networks(**sizes)
    up = 2 * (9 * g * g + g) + (g * g + g) + 2 * 2 * g * (classes or 1)
    assert count(generator) == (128 + 1) * 16 * g + 3 * up + 2 * g + (9 * g + 1) * 3
    first = (9 * 3 + 1) * d + (9 * d + 1) * d + (3 + 1) * d
    plain = 2 * (9 * d * d + d)
    assert count(discriminator) == first + (plain + d * d + d) + 2 * plain + d + 1 + classes * d
    if not classes:
        assert (count(generator), count(discriminator)) == (4_276_739, 1_053_825)


def test_an_inner_width_of_the_larger_networks_is_the_one_before():
    """The authors' code: the first block is as wide inside as it ends, others as they begin."""
    _, discriminator = networks(resolution=64, width=16, discriminator_width=16)
    assert [block.conv1.out_channels for block in discriminator.blocks] == [1, 1, 2, 4, 8]


def test_weights_begin_as_the_authors_code_has_them():
    generator, discriminator = networks(width=32, discriminator_width=32, spectral_norm=False, class_names=NAMES)
    for network in (generator, discriminator):
        for block in network.blocks:
            for layer, gain in ((block.conv1, 2), (block.conv2, 2), (block.shortcut, 1)):
                if isinstance(layer, nn.Conv2d):
                    bound = (gain * 6 / (layer.kernel_size[0] ** 2 * (layer.in_channels + layer.out_channels))) ** 0.5
                    assert 0.9 * bound < layer.weight.abs().max().item() <= bound
                    assert layer.bias is not None and not layer.bias.any()
    fresh = sngan.build_generator(TINY | {"class_names": NAMES})
    assert not any(module.embedding.weight.any() for module in fresh.modules() if isinstance(module, ClassBatchNorm))


def test_a_seed_gives_the_same_networks():
    for first, second in zip(networks(class_names=NAMES), networks(class_names=NAMES), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_an_up_block_by_hand():
    """Both paths double before they convolve."""
    torch.manual_seed(0)
    block: Any = UpBlock(3, 4, PlainBatchNorm).eval()
    values = torch.randn(2, 3, 4, 4)
    doubled = interpolate(relu(values / (1 + 1e-5) ** 0.5), scale_factor=2)
    inner = relu(conv2d(doubled, block.conv1.weight, block.conv1.bias, padding=1) / (1 + 1e-5) ** 0.5)
    path = conv2d(inner, block.conv2.weight, block.conv2.bias, padding=1)
    short = conv2d(interpolate(values, scale_factor=2), block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(values), path + short)


@pytest.mark.parametrize(("outputs", "halve", "first"), [(4, True, True), (4, True, False), (5, False, False)])
def test_a_down_block_by_hand(outputs, halve, first):
    torch.manual_seed(0)
    block: Any = DownBlock(3, outputs, 6, halve, first)
    values = torch.randn(2, 3, 8, 8)
    path = conv2d(values if first else relu(values), block.conv1.weight, block.conv1.bias, padding=1)
    path = conv2d(relu(path), block.conv2.weight, block.conv2.bias, padding=1)
    whole = path + conv2d(values, block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(values), avg_pool2d(whole, 2) if halve else whole)


def test_a_down_block_that_changes_no_size_keeps_its_input():
    block: Any = DownBlock(4, 4, 4, halve=False)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    values = torch.randn(2, 4, 4, 4)
    assert torch.equal(block(values), values)


def test_a_batch_norm_of_two_classes_by_hand():
    torch.manual_seed(0)
    norm = ClassBatchNorm(2, 2)
    norm.embedding.weight.data.copy_(torch.tensor([[0.0, 1.0, 5.0, -5.0], [1.0, -1.0, 0.5, 0.25]]))
    values = torch.randn(4, 2, 3, 3)
    found = norm(values, torch.tensor([0, 1, 1, 0]))
    mean, deviation = values.mean((0, 2, 3)), (values.var((0, 2, 3), correction=0) + 1e-5).sqrt()
    plain = (values - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(found[0, 0], plain[0, 0] + 5)
    torch.testing.assert_close(found[0, 1], 2 * plain[0, 1] - 5)
    torch.testing.assert_close(found[2, 0], 2 * plain[2, 0] + 0.5)
    torch.testing.assert_close(found[2, 1], torch.full((3, 3), 0.25))


@pytest.mark.parametrize("names", [[], NAMES])
def test_moments_can_be_measured_anew(names):
    """The trainer's standing statistics: every batch norm takes plain means over the batches that it then sees."""
    generator, _ = networks(class_names=names)
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2 * len(generator.blocks) + 1
    assert {name.rpartition(".")[2] for name, _ in generator.named_buffers()} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    seen = []
    norms[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    for _ in range(3):
        generator(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]) if names else None)
    torch.testing.assert_close(norms[0].running_mean, torch.stack(seen).mean(0))
    assert all(norm.num_batches_tracked == 3 for norm in norms)


def test_a_label_changes_its_own_picture_and_logit_alone():
    generator, discriminator = (network.eval() for network in networks(class_names=NAMES))
    latent, pictures = torch.randn(3, 8), torch.randn(3, 3, 16, 16)
    for network, values in ((generator, latent), (discriminator, pictures)):
        before, after = network(values, torch.tensor([0, 1, 2])), network(values, torch.tensor([0, 2, 2]))
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
        assert (after[1] - before[1]).abs().max() > 1e-3


def test_the_projection_by_hand():
    _, discriminator = networks(class_names=NAMES)
    pictures, label = torch.randn(4, 3, 16, 16), torch.tensor([2, 0, 1, 2])
    discriminator.eval()
    values = pictures
    for block in discriminator.blocks:
        values = block(values)
    features = values.clamp(min=0).flatten(2).sum(2)
    head = discriminator.head
    by_hand = features @ head.linear.weight[0] + head.linear.bias
    by_hand = by_hand + torch.stack([features[row] @ head.embedding.weight[label[row]] for row in range(4)])
    torch.testing.assert_close(discriminator(pictures, label), by_hand)


def test_spectral_norm_holds_for_every_layer_of_the_discriminator_alone():
    generator, discriminator = networks(class_names=NAMES)
    assert not any(parametrize.is_parametrized(module) for module in generator.modules())
    pictures, label = torch.randn(2, 3, 16, 16), torch.tensor([0, 2])
    for _ in range(150):
        discriminator(pictures, label)
    layers = [module for module in discriminator.eval().modules() if parametrize.is_parametrized(module)]
    assert len(layers) == 8 + 1 + 2  # convolutions of four blocks, a shortcut where sizes change, the head
    for layer in layers:
        original = torch.linalg.svdvals(layer.parametrizations.weight.original.flatten(1))[0].item()
        assert abs(original - 1) > 0.01  # of itself it is none
        assert torch.linalg.svdvals(layer.weight.flatten(1))[0].item() == pytest.approx(1, rel=0.01)
    assert not any(parametrize.is_parametrized(module) for module in networks(spectral_norm=False)[1].modules())


def test_a_copy_is_independent_and_equal():
    _, discriminator = networks(class_names=NAMES)
    pictures, label = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    discriminator(pictures, label)
    discriminator.eval()
    twin = copy.deepcopy(discriminator)
    expected = discriminator(pictures, label)
    assert torch.equal(twin(pictures, label), expected)
    for parameter in twin.parameters():
        parameter.data.normal_()
    assert not torch.allclose(twin(pictures, label), expected)
    assert torch.equal(discriminator(pictures, label), expected)


def r1(discriminator: nn.Module, pictures: Tensor, label: Tensor | None) -> Tensor:
    pictures = pictures.requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(pictures, label).sum(), pictures, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def assert_second_derivative(discriminator: nn.Module, resolution: int, label: Tensor | None) -> None:
    """R1's gradient along itself is the slope that finite differences find."""
    discriminator = discriminator.double().eval()
    pictures = torch.randn(3, 3, resolution, resolution, dtype=torch.float64)
    r1(discriminator, pictures, label).backward()
    moved = [parameter for parameter in discriminator.parameters() if parameter.grad is not None]
    gradients = [parameter.grad.clone() for parameter in moved if parameter.grad is not None]
    length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()
    step = 1e-7 / length

    def moved_by(distance: float) -> float:
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.data.add_(gradient, alpha=distance)
        return r1(discriminator, pictures, label).item()

    above = moved_by(step)
    below = moved_by(-2 * step)
    assert (above - below) / (2 * step) == pytest.approx(length**2, rel=1e-3)
    assert length > 1e-6


@pytest.mark.parametrize("names", [[], NAMES])
def test_r1_can_be_differentiated(names):
    _, discriminator = networks(class_names=names)
    assert_second_derivative(discriminator, 16, torch.tensor([0, 1, 2]) if names else None)


@pytest.mark.parametrize("changes", [{"minibatch_stddev": True}, {"minibatch_kernels": 3}])
def test_pictures_of_a_group_are_compared(changes):
    torch.manual_seed(1)
    picture, other = torch.randn(2, 1, 3, 16, 16)
    for options, matters in (({}, False), (changes, True)):
        _, discriminator = networks(**options)
        discriminator.eval()
        alike, different = discriminator(torch.cat([picture] * 2)), discriminator(torch.cat([picture, other]))
        assert ((alike[0] - different[0]).abs() > 1e-3) == matters


def test_minibatch_kernels_are_heard_from_the_beginning():
    """exp(-distance) of the paper's network: neither 0, where no gradient could reach it, nor 1."""
    torch.manual_seed(0)
    sizes = {"resolution": 32, "discriminator_width": 128, "minibatch_kernels": 16, "minibatch_group": 4}
    head = networks(**sizes)[1].head
    closeness = head._pooled(relu(torch.randn(4, 128, 8, 8)))[:, 128:]
    assert closeness.shape == (4, 16)
    assert 0.05 < closeness.mean() < 2.95


def test_dropout_is_of_training_alone():
    _, discriminator = networks(dropout=0.5, spectral_norm=False)
    pictures = torch.randn(4, 3, 16, 16)
    assert not torch.equal(discriminator(pictures), discriminator(pictures))
    discriminator.eval()
    assert torch.equal(discriminator(pictures), discriminator(pictures))


@pytest.mark.parametrize("names", [[], NAMES])
def test_half_precision_and_another_memory_layout_change_nothing_but_rounding(names):
    generator, discriminator = (network.eval() for network in networks(class_names=names))
    latent, label = torch.randn(3, 8), torch.tensor([0, 1, 2]) if names else None
    pictures = generator(latent, label)
    logits = discriminator(pictures, label)
    striped = pictures.to(memory_format=torch.channels_last)
    torch.testing.assert_close(discriminator.to(memory_format=torch.channels_last)(striped, label), logits)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = generator(latent, label)
        assert (rounded - pictures).abs().max() < 0.05
        judged = discriminator(rounded, label)
    judged.sum().backward()
    assert (judged - logits).abs().max() < 0.05 * (1 + logits.abs().max())
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())


@pytest.mark.parametrize("names", [[], NAMES])
def test_a_graph_draws_what_torch_draws_at_every_batch(names):
    generator, _ = networks(class_names=names)
    assert_parity(generator, 8, len(names))


def test_blocks_take_the_maps_from_4x4_upwards():
    generator, _ = networks(resolution=32)
    shapes: list[tuple[int, ...]] = []
    for block in generator.blocks:
        block.register_forward_hook(lambda _, inputs, output: shapes.extend([inputs[0].shape, output.shape]))
    generator(torch.randn(2, 8))
    assert [shape[2] for shape in shapes] == [4, 8, 8, 16, 16, 32]
    assert all(after == before for after, before in pairwise(shapes) if after[2] == before[2])
