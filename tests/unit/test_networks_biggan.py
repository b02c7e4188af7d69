"""BigGAN: the authors' sizes, latents in chunks, attention, truncation, spectral norm in both networks, the graph."""

import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.errors import InputError
from stages.networks import biggan
from stages.networks.layers.attention import Attended, SelfAttention
from stages.networks.layers.residual import ConditionalBatchNorm
from stages.networks.layers.spectral import bake_norms
from stages.networks.layers.truncated_normal import complement, inverse_erf, truncate
from stages.trainer.adversarial.regularisers import orthogonality
from tests.unit.graphs import assert_parity
from tests.unit.test_networks_sngan import assert_second_derivative, count

NAMES = ["cat", "dog", "owl"]
TINY: dict[str, Any] = {
    "resolution": 16,
    "channels": 3,
    "class_names": NAMES,
    "latent": 12,
    "width": 2,
    "discriminator_width": 2,
    "shared_embedding": 5,
    "attention": 8,
    "spectral_norm": True,
    "minibatch_stddev": False,
    "minibatch_kernels": 0,
    "minibatch_group": 2,
    "dropout": 0.0,
}
CONDITIONS = pytest.mark.parametrize("names", [[], NAMES])


def networks(gamma: float = 0.5, **changes: Any) -> tuple[Any, Any]:
    """Build both networks, their attention, which begins without effect, at work."""
    torch.manual_seed(5)
    pair = biggan.build_generator(TINY | changes), biggan.build_discriminator(TINY | changes)
    for network in pair:
        for module in network.modules():
            if isinstance(module, SelfAttention):
                nn.init.constant_(module.gamma, gamma)
    return pair


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (16, 3), (32, 1), (64, 3)])
@pytest.mark.parametrize(("names", "stddev"), [([], True), (NAMES, False)])
def test_every_resolution_has_matching_networks(resolution, channels, names, stddev):
    latent = 2 * (resolution.bit_length() - 2)
    sizes: Any = {
        "resolution": resolution,
        "channels": channels,
        "latent": latent,
        "attention": 8 if resolution > 8 else 0,
    }
    generator, discriminator = networks(**sizes, class_names=names, minibatch_stddev=stddev)
    maps = []
    discriminator.head.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    label = torch.tensor([0, 1]) if names else None
    pictures = generator(torch.randn(2, latent), label)
    assert pictures.shape == (2, channels, resolution, resolution)
    assert pictures.abs().max() <= 1
    assert discriminator(pictures, label).shape == (2,)
    assert maps[0].shape[2:] == ((8, 8) if resolution in (16, 32) else (4, 4))


@pytest.mark.parametrize(
    ("resolution", "latent", "up", "down"),
    [
        (128, 120, [16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16]),
        (256, 140, [16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16]),
        (512, 160, [16, 16, 8, 8, 4, 2, 1, 1], [1, 1, 2, 4, 8, 8, 16, 16]),
    ],
)
def test_the_papers_tables_of_channels(resolution, latent, up, down):
    """Brock 2019, appendix B, tables 4 to 6; all maps fit one another."""
    with torch.device("meta"):
        generator, discriminator = networks(resolution=resolution, latent=latent, attention=64, spectral_norm=False)
        pictures = generator(torch.empty(2, latent), torch.zeros(2, dtype=torch.int64))
        assert discriminator(pictures, torch.zeros(2, dtype=torch.int64)).shape == (2,)
    blocks: list[Any] = [block.block if isinstance(block, Attended) else block for block in generator.blocks]
    assert [block.conv1.in_channels for block in blocks] == [2 * multiple for multiple in up[:-1]]
    assert [block.conv2.out_channels for block in blocks] == [2 * multiple for multiple in up[1:]]
    blocks = [block.block if isinstance(block, Attended) else block for block in discriminator.blocks]
    assert [block.conv1.out_channels for block in blocks] == [2 * multiple for multiple in down]
    assert [block.halve for block in blocks] == [True] * (len(down) - 1) + [False]
    assert pictures.shape == (2, 3, resolution, resolution)


@pytest.mark.parametrize(
    ("width", "normalised", "generator_size", "discriminator_size"),
    [(96, True, 70_433_988, 87_982_370), (64, False, 31_850_628 + 1000 * 128, 39_448_258)],
)
def test_the_sizes_of_the_authors_networks(width, normalised, generator_size, discriminator_size):
    """128 px, 1000 classes: ajbrock/BigGAN-PyTorch (which leaves out the shared embedding) and google/compare_gan."""
    names = [str(number) for number in range(1000)]
    sizes: Any = {"resolution": 128, "class_names": names, "latent": 120, "shared_embedding": 128, "attention": 64}
    with torch.device("meta"):
        generator, discriminator = networks(**sizes, width=width, discriminator_width=width, spectral_norm=normalised)
    assert (count(generator), count(discriminator)) == (generator_size, discriminator_size)


def test_an_impossible_latent_is_refused():
    sizes = {"resolution": 128, "attention": 64}
    with pytest.raises(InputError, match=r"latent is 128; .* 128 px .* 6 equal chunks.* 126 or 132"):
        biggan.build_generator(TINY | sizes | {"latent": 128})
    with pytest.raises(InputError, match=r"latent is 4; .* such as 6$"):
        biggan.build_generator(TINY | sizes | {"latent": 4})


@pytest.mark.parametrize("build", [biggan.build_generator, biggan.build_discriminator])
def test_impossible_maps_are_refused(build):
    for size in (4, 12, 16):
        with pytest.raises(InputError, match=rf"attention is {size}; .* at 16 px: 8$"):
            build(TINY | {"attention": size})
    with pytest.raises(InputError, match=r"there is none"):
        build(TINY | {"attention": 8, "resolution": 8})
    with pytest.raises(InputError, match=r"no networks for 1024 px; expected one of 8, .*512"):
        build(TINY | {"resolution": 1024})


@pytest.mark.parametrize(("resolution", "attention"), [(16, 8), (32, 8), (32, 16), (64, 32)])
def test_attention_is_over_one_map_of_the_size_in_each_network(resolution, attention):
    latent = resolution.bit_length() - 2
    for network in networks(resolution=resolution, attention=attention, latent=latent):
        sizes: list[int] = []
        for module in network.modules():
            if isinstance(module, SelfAttention):
                module.register_forward_hook(lambda _, inputs, output, sizes=sizes: sizes.append(output.shape[3]))
        values = torch.randn(2, latent) if hasattr(network, "latent") else torch.randn(2, 3, resolution, resolution)
        network(values, torch.tensor([0, 1]))
        assert sizes == [attention]
    for network in networks(attention=0):
        assert not any(isinstance(module, SelfAttention) for module in network.modules())


def test_attention_begins_without_effect():
    torch.manual_seed(0)
    values = torch.randn(2, 16, 6, 4)
    assert torch.equal(SelfAttention(16)(values), values)


def test_attention_place_by_place():
    torch.manual_seed(0)
    attention = SelfAttention(8)
    nn.init.constant_(attention.gamma, 0.7)
    values = torch.randn(1, 8, 4, 4)
    layers: dict[str, Any] = {name: getattr(attention, name).weight[:, :, 0, 0] for name in ("theta", "phi", "g", "o")}
    assert [layers[name].shape for name in layers] == [(1, 8), (1, 8), (4, 8), (8, 4)]

    def pooled(weight: Tensor) -> list[Tensor]:
        """The largest of each channel over 2x2 places."""
        corners = [(row, column) for row in (0, 2) for column in (0, 2)]
        places = [[values[0, :, row + i, column + j] for i in (0, 1) for j in (0, 1)] for row, column in corners]
        return [torch.stack([weight @ place for place in four]).amax(0) for four in places]

    keys, contents = pooled(layers["phi"]), pooled(layers["g"])
    found = attention(values)
    for row in range(4):
        for column in range(4):
            query = layers["theta"] @ values[0, :, row, column]
            shares = [math.exp((query @ key).item()) for key in keys]
            mixed = sum(share / sum(shares) * content for share, content in zip(shares, contents, strict=True))
            expected = values[0, :, row, column] + 0.7 * (layers["o"] @ mixed)
            torch.testing.assert_close(found[0, :, row, column], expected)


def test_a_conditional_batch_norm_by_hand():
    torch.manual_seed(0)
    norm = ConditionalBatchNorm(2, 3)
    norm.gain.weight.data.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]]))
    norm.bias.weight.data.copy_(torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 4.0]]))
    values = torch.randn(4, 2, 3, 3)
    cat, dog = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.0, 1.0, -0.5])  # one-hot classes, then a chunk of one
    found = norm(values, torch.stack([cat, dog, dog, cat]))
    mean, deviation = values.mean((0, 2, 3)), (values.var((0, 2, 3), correction=0) + 1e-5).sqrt()
    plain = (values - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(found[0, 0], plain[0, 0] * (1 + 1 + 1))
    torch.testing.assert_close(found[0, 1], plain[0, 1] + 2)
    torch.testing.assert_close(found[1, 0], plain[1, 0] * (1 - 1) + 3)
    torch.testing.assert_close(found[1, 1], plain[1, 1] * (1 - 1) - 2)


@CONDITIONS
def test_conditions_are_the_shared_embedding_and_a_chunk(names):
    generator, _ = networks(class_names=names)
    seen: list[Tensor] = []
    for block in generator.blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    latent, label = torch.randn(2, 12), torch.tensor([2, 0])
    generator(latent, label if names else None)
    shared = generator.embedding.weight[label] if names else torch.empty(2, 0)
    for number, condition in enumerate(seen, 1):
        assert torch.equal(condition, torch.cat([shared, latent[:, 4 * number : 4 * number + 4]], 1))
    assert len(seen) == 2


@CONDITIONS
def test_each_chunk_of_the_latent_reaches_the_picture_at_its_own_place(names):
    generator, _ = networks(class_names=names)
    generator.eval()
    latent, label = torch.randn(2, 12, requires_grad=True), torch.tensor([0, 1]) if names else None
    pictures = generator(latent, label)
    weights = torch.randn(pictures.shape)
    (gradient,) = torch.autograd.grad((pictures * weights).sum(), latent)
    assert (gradient.unflatten(1, (3, 4)).abs().amax((0, 2)) > 1e-4).all()
    maps: list[Tensor] = []
    generator.blocks[0].register_forward_hook(lambda _, inputs, output: maps.append(output))
    changed = latent.detach().clone()
    changed[:, 8:] += 1
    before, after = generator(latent, label), generator(changed, label)
    assert torch.equal(maps[0], maps[1])
    assert (before - after).abs().max() > 1e-3


def test_a_label_changes_its_own_picture_and_logit_alone():
    generator, discriminator = (network.eval() for network in networks())
    latent, pictures = torch.randn(3, 12), torch.randn(3, 3, 16, 16)
    for network, values in ((generator, latent), (discriminator, pictures)):
        before, after = network(values, torch.tensor([0, 1, 2])), network(values, torch.tensor([0, 2, 2]))
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
        assert (after[1] - before[1]).abs().max() > 1e-3


def test_weights_begin_orthogonal():
    for network in networks(spectral_norm=False):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                matrix = module.weight.flatten(1)
                square = matrix @ matrix.t() if matrix.shape[0] <= matrix.shape[1] else matrix.t() @ matrix
                torch.testing.assert_close(square, torch.eye(len(square)), atol=1e-5, rtol=0)
                bias: Any = getattr(module, "bias", None)
                assert bias is None or not bias.any()


def test_spectral_norm_holds_for_every_layer_but_the_shared_embedding():
    generator, discriminator = networks(width=1, discriminator_width=1)
    for parameter in [*generator.parameters(), *discriminator.parameters()]:
        parameter.data.add_(torch.randn(parameter.shape) * 0.3)  # orthogonal weights have the norm 1 by themselves
    latent, pictures, label = torch.randn(2, 12), torch.randn(2, 3, 16, 16), torch.tensor([0, 2])
    for _ in range(200):
        generator(latent, label)
        discriminator(pictures, label)
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    for network, plain in ((generator, {"embedding"}), (discriminator, set())):
        weights: dict[str, Any] = {n: m for n, m in network.eval().named_modules() if isinstance(m, kinds)}
        named = set(weights) - plain
        assert named == {n for n, m in network.named_modules() if parametrize.is_parametrized(m)}
        for name in named:
            original = weights[name].parametrizations.weight.original.flatten(1)
            assert abs(torch.linalg.svdvals(original)[0].item() - 1) > 0.01
            assert torch.linalg.svdvals(weights[name].weight.flatten(1))[0].item() == pytest.approx(1, rel=0.01)
    for network in networks(spectral_norm=False):
        assert not any(parametrize.is_parametrized(module) for module in network.modules())


def test_orthogonal_regularisation_leaves_the_shared_embedding_out():
    generator, _ = networks()
    orthogonality(generator).backward()
    untouched = {name for name, parameter in generator.named_parameters() if parameter.grad is None}
    assert {name for name in untouched if dict(generator.named_parameters())[name].dim() > 1} == {"embedding.weight"}


@CONDITIONS
def test_r1_can_be_differentiated_through_attention(names):
    _, discriminator = networks(class_names=names)
    assert_second_derivative(discriminator, 16, torch.tensor([0, 1, 2]) if names else None)
    assert discriminator.blocks[0].attention.gamma.grad.abs() > 0


def test_copies_and_baked_copies_are_independent_and_equal():
    latent, pictures, label = torch.randn(4, 12), torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    for network, values in zip(networks(), (latent, pictures), strict=True):
        network(values, label)
        network.eval()
        expected = network(values, label)
        twin = copy.deepcopy(network)
        baked = bake_norms(copy.deepcopy(network))
        assert torch.equal(twin(values, label), expected)
        torch.testing.assert_close(baked(values, label), expected)
        assert not any("parametrizations" in name for name in baked.state_dict())
        for parameter in [*twin.parameters(), *baked.parameters()]:
            parameter.data.normal_()
        assert torch.equal(network(values, label), expected)


def test_the_inverse_error_function_is_torchs_and_finite():
    x = torch.cat([torch.linspace(-1, 1, 20001), 1 - torch.logspace(-7, -1, 500), torch.logspace(-30, -1, 500)])
    found, expected = inverse_erf(x, 1 - x.abs()), torch.erfinv(x)
    inside = x.abs() < 1
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-6, atol=0)
    assert found.isfinite().all()
    assert found[-501 - 500] > 5  # at 1, where torch's is infinite
    torch.testing.assert_close(inverse_erf(-x, 1 - x.abs()), -found, rtol=0, atol=0)


def test_the_complementary_error_function_is_exact_far_out():
    x = torch.linspace(0, 7.2, 5001)
    expected = special.erfc(x.double().numpy())
    assert np.abs(complement(x).double().numpy() / expected - 1).max() < 3e-6


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 2.0, 3.5, 5.0, 8.0, 9.99])
def test_truncated_noise_is_the_quantile_of_the_truncated_normal(threshold):
    latent = torch.linspace(-5, 5, 4001)[None]
    found = truncate(latent, torch.tensor([threshold]), 10.0)
    quantiles = stats.norm.sf(latent.abs().double().numpy())  # from the nearer end, so that nothing is rounded to 1
    law = stats.truncnorm(-threshold, threshold)
    expected = law.isf(quantiles) * np.sign(latent.numpy())
    expected[:, 2000] = 0
    assert np.abs(found.double().numpy() - expected).max() < 2e-6
    assert found.abs().max() <= threshold
    assert found.diff().min() >= -2e-7 * max(threshold, 1)  # but for rounding
    assert found.diff()[0, 500:-500].min() > 0


@pytest.mark.parametrize("threshold", [0.3, 1.0, 1.5])
def test_truncated_noise_has_the_law_of_resampling(threshold):
    """Kolmogorov and Smirnov's test against the law of values that are drawn again until they lie inside."""
    noise = torch.randn(8, 2500, generator=torch.Generator().manual_seed(0))
    found = truncate(noise, torch.full((8,), threshold), 10.0).flatten().numpy()
    assert stats.kstest(found, stats.truncnorm(-threshold, threshold).cdf).pvalue > 0.01
    assert stats.kstest(found, stats.norm.cdf).pvalue < 1e-6


def test_each_picture_has_a_threshold_of_its_own():
    latent = torch.randn(4, 50)
    found = truncate(latent, torch.tensor([0.0, 0.5, 10.0, 12.0]), biggan.NO_TRUNCATION)
    assert not found[0].any()
    torch.testing.assert_close(found[1:2], truncate(latent[1:2], torch.tensor([0.5]), 10.0), rtol=0, atol=0)
    assert torch.equal(found[2:], latent[2:])


def test_truncation_lets_gradients_pass():
    latent = torch.tensor([[0.0, 1e-20, 1.0, -8.0, 20.0]], requires_grad=True)
    truncate(latent, torch.tensor([1.0]), 10.0).sum().backward()
    assert latent.grad is not None
    assert latent.grad.isfinite().all()
    assert latent.grad[0, 0].item() == pytest.approx(math.erf(1 / 2**0.5), rel=1e-5)  # the slope of z' at 0


def test_truncation_changes_pictures_until_it_is_none():
    generator, _ = networks()
    generator.eval()
    latent, label = torch.randn(3, 12), torch.tensor([0, 1, 2])
    plain = generator(latent, label)
    assert torch.equal(generator(latent, label, torch.full((3,), generator.no_truncation)), plain)
    cut = generator(latent, label, torch.tensor([0.5, 0.5, 10.0]))
    assert torch.equal(cut[2], plain[2])
    assert (cut[:2] - plain[:2]).abs().amax((1, 2, 3)).min() > 1e-3
    near = truncate(latent, torch.full((3,), 0.5), 10.0)
    torch.testing.assert_close(cut[:2], generator(near, label)[:2])


@pytest.mark.parametrize("changes", [{"minibatch_stddev": True}, {"minibatch_kernels": 3}])
def test_pictures_of_a_group_are_compared(changes):
    torch.manual_seed(1)
    picture, other = torch.randn(2, 1, 3, 16, 16)
    for options, matters in (({}, False), (changes, True)):
        _, discriminator = networks(**options, class_names=[])
        discriminator.eval()
        alike, different = discriminator(torch.cat([picture] * 2)), discriminator(torch.cat([picture, other]))
        assert ((alike[0] - different[0]).abs() > 1e-3) == matters


def test_half_precision_changes_nothing_but_rounding():
    generator, discriminator = (network.eval() for network in networks())
    latent, label = torch.randn(3, 12), torch.tensor([0, 1, 2])
    pictures = generator(latent, label)
    logits = discriminator(pictures, label)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = generator(latent, label)
        judged = discriminator(rounded.to(memory_format=torch.channels_last), label)
    judged.sum().backward()
    assert (rounded - pictures).abs().max() < 0.05
    assert (judged - logits).abs().max() < 0.05 * (1 + logits.abs().max())
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())


@CONDITIONS
def test_a_graph_draws_what_torch_draws_at_every_batch(names):
    """Without truncation, too: its thresholds are inputs like any other."""
    generator, _ = networks(class_names=names)
    graph = assert_parity(generator, 12, len(names), (0.5, 10.0, 2.0, 4.0, 8.0)).graph
    operations = Counter(node.op_type for node in graph.node)
    assert operations["Erf"] == 2  # of the latent and of the threshold
