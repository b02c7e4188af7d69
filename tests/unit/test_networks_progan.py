"""Growing networks: what each level shows, what fades and how, what a level survives, and the paper's sizes."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, leaky_relu

from stages.networks import progan
from stages.networks.progan import Growth, normalise
from tests.unit.graphs import assert_parity

NAMES = ["cat", "dog", "owl"]
TINY: dict[str, Any] = {
    "resolution": 16,
    "channels": 3,
    "class_names": [],
    "latent": 8,
    "channel_base": 48,
    "channel_max": 10,
    "phase_kimg": 2,
    "spectral_norm": False,
    "minibatch_stddev": True,
    "minibatch_kernels": 0,
    "minibatch_group": 2,
    "dropout": 0.0,
}
WIDER = {"channel_base": 256, "channel_max": 64}  # pixel norm over few channels multiplies the rounding of any runtime
PHASE = 2000  # pictures
GROWN = 4 * PHASE
FADING = [PHASE + 500, 3 * PHASE + 500]  # a quarter of 8 x 8, a quarter of 16 x 16


def networks(seen: int = 0, **changes: Any) -> tuple[Any, Any]:
    torch.manual_seed(5)
    pair = progan.build_generator(TINY | changes), progan.build_discriminator(TINY | changes)
    for network in pair:
        network.grow(seen)
        for parameter in network.parameters():  # biases, too, shall matter
            parameter.data.add_(torch.randn(parameter.shape) * 0.1)
    return pair


def drawn(generator: Any, seen: int, latent: Tensor) -> Tensor:
    generator.grow(seen)
    with torch.no_grad():
        return generator.eval()(latent)


def judged(discriminator: Any, seen: int, pictures: Tensor) -> Tensor:
    discriminator.grow(seen)
    with torch.no_grad():
        return discriminator.eval()(pictures)


def shown(discriminator: Any, block: int, pictures: Tensor) -> Tensor:
    """Return what a block makes features of."""
    kept: list[Tensor] = []
    handle = discriminator.blocks[block].from_rgb.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    discriminator(pictures)
    handle.remove()
    return kept[0]


def doubled(values: Tensor) -> Tensor:
    return values.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_the_level_is_a_function_of_pictures_seen_alone():
    growth = Growth(2, 2)
    expected = {0: 0, 1999: 0, 2000: 0, 2002: 1, 3000: 500, 3999: 999, 4000: 1000, 5999: 1000, 7000: 1500, 8000: 2000}
    for seen, level in [*expected.items(), *reversed(expected.items()), (10**9, 2000)]:
        growth.grow(seen)
        assert int(growth.level) == level, seen
        assert growth.read() == (level // 1000, level % 1000 / 1000)


@pytest.mark.parametrize("seen", [0, PHASE, 2 * PHASE, 3 * PHASE, GROWN])
def test_pictures_are_of_the_full_size_with_blocks_of_the_levels(seen):
    generator, discriminator = networks()
    pictures = drawn(generator, seen, torch.randn(4, 8))
    side = 16 // (4 << seen // PHASE // 2)
    assert pictures.shape == (4, 3, 16, 16)
    corners = pictures[:, :, ::side, ::side]
    assert torch.equal(pictures, corners.repeat_interleave(side, 2).repeat_interleave(side, 3))
    assert side == 1 or not torch.equal(pictures, pictures[:, :, :: 2 * side, :: 2 * side].repeat(1, 1, 2, 2))
    logits = judged(discriminator, seen, torch.randn(4, 3, 16, 16))
    assert logits.shape == (4,)
    assert logits.std() > 0


@pytest.mark.parametrize("level", [0, 1])
def test_pictures_fade_evenly_from_one_level_to_the_next(level):
    """Also before it starts and after it ends: there is no step."""
    generator, _ = networks()
    latent, start = torch.randn(2, 8), (2 * level + 1) * PHASE
    before, after = drawn(generator, start - 1, latent), drawn(generator, start + PHASE, latent)
    assert (after - before).abs().max() > 0.1
    assert torch.equal(drawn(generator, start, latent), before)
    assert torch.equal(drawn(generator, start + 2 * PHASE - 1, latent), after)
    for share in (0.001, 0.25, 0.5, 0.999):
        blend = drawn(generator, start + int(share * PHASE), latent)
        torch.testing.assert_close(blend, before + share * (after - before), atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [0, 1])
def test_logits_have_no_step_where_a_fade_starts_or_ends(level):
    _, discriminator = networks()
    pictures, start = torch.randn(4, 3, 16, 16), (2 * level + 1) * PHASE
    before, after = judged(discriminator, start - 1, pictures), judged(discriminator, start + PHASE, pictures)
    assert torch.equal(judged(discriminator, start, pictures), before)
    whole = (after - before).abs().max()
    assert whole > 0.05
    assert 0 < (judged(discriminator, start + 2, pictures) - before).abs().max() < whole / 50
    assert 0 < (judged(discriminator, start + PHASE - 2, pictures) - after).abs().max() < whole / 50
    assert torch.equal(judged(discriminator, start + 2 * PHASE - 1, pictures), after)


def test_features_of_two_sizes_blend_by_the_share():
    _, discriminator = networks(FADING[0])
    kept: list[Tensor] = []
    discriminator.blocks[2].register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    pictures = avg_pool2d(torch.randn(4, 3, 16, 16), 2)
    discriminator(doubled(pictures))
    coarse = avg_pool2d(pictures, 2)
    faded = 0.25 * pictures + 0.75 * doubled(coarse)
    above, below = discriminator.blocks[1:]
    expected = 0.25 * above(above.enter(faded)) + 0.75 * below.enter(coarse)
    torch.testing.assert_close(kept[0], expected)


def test_real_and_generated_pictures_have_the_same_share_of_details():
    """What is shown is the generator's fade once: of drawn pictures in evaluation mode, and of real ones."""
    generator, discriminator = networks(FADING[1])
    latent, real = torch.randn(2, 8), torch.randn(2, 3, 16, 16)
    plain = drawn(generator, FADING[1], latent)
    torch.testing.assert_close(shown(discriminator, 0, generator.train()(latent)), plain)
    details = real - doubled(avg_pool2d(real, 2))
    seen = shown(discriminator, 0, real)
    torch.testing.assert_close(seen - doubled(avg_pool2d(seen, 2)), 0.25 * details)
    torch.testing.assert_close(avg_pool2d(seen, 2), avg_pool2d(real, 2))


@pytest.mark.parametrize("seen", [0, FADING[0], 2 * PHASE, FADING[1], GROWN])
def test_only_layers_up_to_the_level_are_trained(seen):
    generator, discriminator = networks(seen)
    discriminator(generator(torch.randn(4, 8))).sum().backward()
    whole, fading = seen // PHASE // 2, seen in FADING
    for level in range(3):
        layers = ("first", "second") if level <= whole + fading else ()
        pictures = level in ((whole, whole + 1) if fading else (whole,))
        for block, door in ((generator.blocks[level], "to_rgb"), (discriminator.blocks[2 - level], "from_rgb")):
            trained = {name.split(".")[0] for name, p in block.named_parameters() if p.grad is not None}
            assert trained == {*layers, *([door] if pictures else [])}


@pytest.mark.parametrize("seen", [0, *FADING, GROWN])
def test_a_level_survives_states_copies_and_averages(seen):
    for network, given in zip(networks(seen), (torch.randn(2, 8), torch.randn(2, 3, 16, 16)), strict=True):
        fresh = copy.deepcopy(network.eval())
        expected = network(given)
        fresh.grow(2 * PHASE)
        fresh.load_state_dict(network.state_dict())
        assert fresh.growth.known == network.growth.known
        fresh.grow(2 * PHASE)
        for mine, other in zip(fresh.buffers(), network.buffers(), strict=True):
            mine.copy_(other)  # as an average takes what is no float
        copied = copy.deepcopy(fresh)
        assert copied.growth.known == network.growth.known
        assert torch.equal(fresh(given), expected)
        fresh.grow(2 * PHASE)
        assert torch.equal(copied(given), expected)  # of a buffer of its own


def test_the_level_is_read_without_waiting_for_a_device():
    generator, _ = networks(FADING[0])
    for moved in (generator.to("meta"), generator.half()):
        assert moved.growth.level.device.type == "cpu"
        assert moved.growth.level.dtype == torch.int64
        assert moved.growth.read() == (0, 0.25)


def test_effective_weights_are_equalised():
    """Unit normal weights, scaled by He's constant where they are used; pictures leave through gain 1."""
    torch.manual_seed(0)
    generator: Any = progan.build_generator(TINY | {"channel_max": 64, "channel_base": 512})
    block = generator.blocks[1]
    assert block.first.weight.std().item() == pytest.approx(1, abs=0.02)
    values = torch.randn(1, 64, 4, 4)
    he = (2 / (64 * 9)) ** 0.5
    by_hand = leaky_relu(conv2d(doubled(values), block.first.weight * he, padding=1), 0.2)
    by_hand = by_hand / (by_hand.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()
    by_hand = leaky_relu(conv2d(by_hand, block.second.weight * he, padding=1), 0.2)
    by_hand = by_hand / (by_hand.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()
    torch.testing.assert_close(block(values), by_hand)
    rgb = conv2d(by_hand, block.to_rgb.weight / 64**0.5)
    torch.testing.assert_close(block.to_rgb(by_hand), rgb)


def test_discriminator_blocks_by_hand():
    torch.manual_seed(0)
    discriminator: Any = progan.build_discriminator(TINY | {"channel_max": 6})
    block = discriminator.blocks[0]  # 16 x 16: 6 channels to 6
    pictures = torch.randn(2, 3, 16, 16)
    features = leaky_relu(conv2d(pictures, block.from_rgb.weight * (2 / 3) ** 0.5), 0.2)
    torch.testing.assert_close(block.enter(pictures), features)
    for layer in (block.first, block.second):
        features = leaky_relu(conv2d(features, layer.weight * (2 / 54) ** 0.5, padding=1), 0.2)
    torch.testing.assert_close(block(block.enter(pictures)), avg_pool2d(features, 2))


def test_pixel_norm_by_hand():
    values = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
    expected = torch.tensor([[3.0, 4.0], [0.0, -2.0]]) / torch.tensor([[12.5**0.5], [2**0.5]])
    torch.testing.assert_close(normalise(values), expected)
    features = torch.randn(2, 7, 3, 3) * 30
    torch.testing.assert_close(normalise(features).norm(dim=1), torch.full((2, 3, 3), 7**0.5))
    half = torch.full((1, 2), 600.0, dtype=torch.float16)  # whose square is none
    assert torch.equal(normalise(half), torch.ones(1, 2, dtype=torch.float16))


def test_the_length_of_a_latent_does_not_matter():
    generator, _ = networks(GROWN)
    latent = torch.randn(2, 8)
    torch.testing.assert_close(generator(latent * 7), generator(latent))
    assert not torch.allclose(generator(-latent), generator(latent))


def one_logit(discriminator: nn.Module, others: Tensor) -> Tensor:
    """Return the logit of one and the same picture beside another."""
    picture = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    return discriminator(torch.cat([picture, others]))[0]


@pytest.mark.parametrize("changes", [{"minibatch_stddev": True}, {"minibatch_kernels": 3}])
def test_pictures_of_a_group_are_compared(changes):
    off: dict[str, Any] = {"minibatch_stddev": False, "minibatch_kernels": 0}
    picture = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    for options, matters in ((off, False), (off | changes, True)):
        _, discriminator = networks(GROWN, **options)
        alike, different = one_logit(discriminator, picture), one_logit(discriminator, torch.randn(1, 3, 16, 16))
        assert (abs(alike - different) > 1e-3) == matters


def test_dropout_is_of_training_alone():
    _, discriminator = networks(GROWN, dropout=0.5)
    pictures = torch.randn(4, 3, 16, 16)
    assert not torch.equal(discriminator(pictures), discriminator(pictures))
    discriminator.eval()
    assert torch.equal(discriminator(pictures), discriminator(pictures))


def test_spectral_norm_takes_the_place_of_equalised_scaling():
    _, discriminator = networks(GROWN, spectral_norm=True, class_names=NAMES)
    pictures, label = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    for _ in range(30):
        discriminator(pictures, label)
    discriminator.eval()
    for layer in (discriminator.blocks[0].first, discriminator.blocks[2].second, discriminator.judge):
        effective = (layer.weight * layer.gain).flatten(1)
        assert torch.linalg.matrix_norm(effective, 2).item() == pytest.approx(1, rel=0.02)
    assert discriminator(pictures, label).std() > 1e-3


@pytest.mark.parametrize("seen", [0, FADING[1], GROWN])
def test_classes_matter_to_both_networks(seen):
    generator, discriminator = networks(seen, class_names=NAMES, minibatch_group=3)
    latent, pictures = torch.randn(1, 8).repeat(3, 1), torch.randn(1, 3, 16, 16).repeat(3, 1, 1, 1)
    images, logits = generator(latent, torch.arange(3)), discriminator(pictures, torch.arange(3))
    for values in (images, logits):
        assert all((values[i] - values[j]).abs().max() > 1e-2 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_label_adds_the_features_product_with_its_vector():
    _, discriminator = networks(GROWN, class_names=NAMES)
    kept: list[Tensor] = []
    discriminator.judge.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    label = torch.tensor([2, 0])
    logits = discriminator(torch.randn(2, 3, 16, 16), label)
    product = (kept[0] * discriminator.classes.weight[label]).sum(1) / kept[0].shape[1] ** 0.5
    torch.testing.assert_close(logits - discriminator.judge(kept[0]).flatten(), product)


@pytest.mark.parametrize("seen", [0, FADING[1], GROWN])
def test_a_gradient_penalty_reaches_the_weights(seen):
    """WGAN-GP differentiates the gradient at pictures, here against a difference of the penalty itself."""
    _, discriminator = networks(seen)
    discriminator.double().growth.grow(seen)
    pictures = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(discriminator(pictures).sum(), pictures, create_graph=True)
        return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()

    weight = discriminator.blocks[-1].second.weight
    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn(weight.shape, dtype=torch.float64)
    ends = []
    for step in (1e-4, -2e-4):
        weight.data.add_(direction, alpha=step)
        ends.append(penalty().item())
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=5e-3)


def test_memory_formats_and_precision_change_nothing_but_rounding():
    generator, discriminator = networks(FADING[1])
    latent = torch.randn(4, 8)
    pictures = generator(latent)
    striped = pictures.detach().to(memory_format=torch.channels_last)
    moved = copy.deepcopy(discriminator).to(memory_format=torch.channels_last)
    torch.testing.assert_close(moved(striped), discriminator(pictures), atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = generator(latent)
        logits = discriminator(rough)
    assert rough.dtype == torch.bfloat16
    assert (rough - pictures).abs().max() < 0.1 * pictures.abs().max()
    assert (logits - discriminator(pictures)).abs().max() < 0.3


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_sizes_at_1024_px():
    """Table 2 lists 23.1 M weights for each network; it leaves out what shows pictures at lower levels."""
    full = TINY | {"resolution": 1024, "latent": 512, "channel_base": 8192, "channel_max": 512}
    with torch.device("meta"):
        generator, discriminator = progan.build_generator(full), progan.build_discriminator(full)
    widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    steps = list(pairwise(widths))
    growing = sum(9 * before * after + 9 * after * after + 2 * after for before, after in steps)
    start = 512 * 512 * 16 + 512 + 512 * 512 * 9 + 512
    assert count(generator) == start + growing + sum(3 * width + 3 for width in widths)
    shrinking = sum(9 * after * after + 9 * before * after + after + before for before, after in steps)
    end = 513 * 512 * 9 + 512 + 512 * 512 * 16 + 512 + 512 + 1
    assert count(discriminator) == end + shrinking + sum(4 * width for width in widths)
    assert round(count(generator) / 1e6, 1) == round(count(discriminator) / 1e6, 1) == 23.1


@pytest.mark.parametrize(("seen", "names"), [(FADING[1], []), (GROWN, []), (3 * PHASE - 1000, NAMES)])
def test_a_graph_is_of_the_level_in_the_buffer(seen, names):
    generator, _ = networks(class_names=names, **WIDER)
    generator.growth.level.fill_(networks(seen)[0].growth.level)  # as an average takes it
    graph = assert_parity(generator, 8, len(names)).graph
    assert not any(tensor.name.endswith("level") for tensor in graph.initializer)
