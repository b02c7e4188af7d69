"""StyleGAN2's mapping, truncation and noise, and what training and export ask of both networks."""

import copy

import pytest
import torch
from torch import Tensor, nn

from stages.networks.layers.modulation import ActivatedConv2d, FromColours, StyledColours, StyledConv2d
from stages.networks.stylegan2 import Discriminator, Generator, unit_second_moment
from stages.trainer.memory import checkpoint_layers
from tests.unit.graphs import assert_parity
from tests.unit.stylegan2_networks import LABEL, conditional, config, discriminator, generator, heard


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (32, 3)])
@pytest.mark.parametrize("names", [[], ["a", "b", "c"]])
@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_networks_fit_each_other(resolution, channels, names, architecture):
    settings = config(
        resolution=resolution, channels=channels, class_names=names, discriminator_architecture=architecture
    )
    drawing, judging = generator(settings), discriminator(settings)
    label = LABEL if names else None
    noise = [torch.randn(4, *shape) for shape in drawing.noise_shapes]
    pictures = drawing(torch.randn(4, 6), label, noise=noise)
    assert pictures.shape == (4, channels, resolution, resolution)
    logits = judging(pictures, label)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert all(p.grad is not None for network in (drawing, judging) for p in network.parameters())
    assert any("skip" in name for name, _ in judging.named_parameters()) == (architecture == "resnet")


def test_mapping_depends_on_the_latents_direction_only():
    network = generator(config()).eval()
    latent = torch.randn(4, 6)
    torch.testing.assert_close(network.mapping(latent), network.mapping(latent * 7))
    torch.testing.assert_close(unit_second_moment(latent).square().mean(1), torch.ones(4))


def test_mapping_is_the_papers():
    mapping = generator(conditional()).eval().mapping
    latent, weights = torch.randn(4, 6), dict(mapping.named_parameters())
    embedded = weights["embed.weight"].t()[LABEL] / 3**0.5 + weights["embed.bias"]
    values = torch.cat([part / part.square().mean(1, keepdim=True).sqrt() for part in (latent, embedded)], 1)
    for layer in ("fc0", "fc1"):
        values = values @ weights[f"{layer}.weight"].t() * 0.01 / values.shape[1] ** 0.5
        values = values + weights[f"{layer}.bias"] * 0.01
        values = torch.where(values > 0, values, values * 0.2) * 2**0.5
    torch.testing.assert_close(mapping(latent, LABEL), values)
    assert weights["fc0.weight"].std().item() == pytest.approx(100, rel=0.3)  # so that 0.01 is a rate, not a scale


def test_classes_change_pictures_and_logits():
    drawing, judging = generator(conditional()).eval(), discriminator(conditional())
    latent, pictures = torch.randn(4, 6), torch.randn(4, 3, 16, 16)
    assert (drawing(latent, LABEL) - drawing(latent, (LABEL + 1) % 3)).abs().max() > 1e-2
    assert (judging(pictures, LABEL) - judging(pictures, (LABEL + 1) % 3)).abs().max() > 1e-3


def test_truncation_leads_to_the_mean_style():
    network = heard(generator(config())).eval()
    latent = torch.randn(4, 6)
    mean = network.synthesis(network.mapping.w_avg.expand(4, network.layers, -1))
    torch.testing.assert_close(network(latent, truncation=torch.zeros(4)), mean)
    whole = torch.full((4,), network.no_truncation)
    torch.testing.assert_close(network(latent, truncation=whole), network(latent))
    each = network(latent, truncation=torch.tensor([0.0, 1.0, 0.5, -1.0]))
    torch.testing.assert_close(each[0], mean[0])
    torch.testing.assert_close(each[1], network(latent)[1])
    halfway = (network.mapping.w_avg + network.mapping(latent)) / 2
    torch.testing.assert_close(each[2], network.synthesis(halfway[:, None].expand(-1, network.layers, -1))[2])


def test_the_mean_style_follows_in_training_only():
    network = heard(generator(config()))
    latent, before = torch.randn(4, 6), network.mapping.w_avg.clone()
    network.eval()
    network(latent)
    assert torch.equal(network.mapping.w_avg, before)
    network.train()
    styles = network.mapping(latent)
    torch.testing.assert_close(network.mapping.w_avg, 0.995 * before + 0.005 * styles.detach().mean(0))
    after = network.mapping.w_avg.clone()
    network.synthesis(styles[:, None].expand(-1, network.layers, -1))
    assert torch.equal(network.mapping.w_avg, after)
    assert not network.mapping.w_avg.requires_grad


def test_each_layer_has_its_style():
    network = generator(config())
    styles = torch.randn(1, network.layers, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(network.synthesis(styles).square().sum(), styles)
    assert (gradient[0].abs().sum(1) > 0).all()
    other = styles.detach().clone()
    other[:, 1] += 1  # of the colours at 4 x 4 and of the first convolution at 8 x 8
    outputs: list[Tensor] = []
    for name in ("synthesis.b4.conv1", "synthesis.b8.conv0"):
        keep = lambda _module, _inputs, output: outputs.append(output.clone())  # noqa: E731
        network.get_submodule(name).register_forward_hook(keep)
    network.synthesis(styles.detach())
    network.synthesis(other)
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[1], outputs[3])


def test_noise_without_strength_has_no_effect():
    network = generator(config()).eval()
    latent = torch.randn(2, 6)
    noise = [torch.randn(2, *shape) for shape in network.noise_shapes]
    assert torch.equal(network(latent, noise=noise), network(latent))


def test_noise_of_each_layer_is_heard_by_each_picture_alone():
    network = heard(generator(config())).eval()
    latent, shapes_ = torch.randn(2, 6), network.noise_shapes
    assert shapes_ == ((1, 4, 4), (1, 8, 8), (1, 8, 8), (1, 16, 16), (1, 16, 16))
    noise = [torch.randn(2, *shape) for shape in shapes_]
    drawn = network(latent, noise=noise)
    for layer in range(len(noise)):
        other = [each.clone() for each in noise]
        other[layer][0] += 1
        changed = network(latent, noise=other)
        assert not torch.allclose(changed[0], drawn[0])
        torch.testing.assert_close(changed[1], drawn[1])
    constant = [buffer.expand(2, 1, -1, -1) for name, buffer in network.named_buffers() if "noise" in name]
    torch.testing.assert_close(network(latent, noise=constant), network(latent))


def test_pictures_can_be_differentiated_twice_by_styles():
    """What the path length penalty needs, over the whole synthesis."""
    settings = config(resolution=8, channel_max=2, style_width=3)
    network = heard(generator(settings)).double()
    styles = torch.randn(1, network.layers, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(network.synthesis, (styles,), fast_mode=True)


def test_penalties_reach_every_weight():
    settings = conditional(conv_clamp=256.0)
    drawing, judging = heard(generator(settings)), discriminator(settings)
    real = torch.randn(4, 3, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(judging(real, LABEL).sum(), real, create_graph=True)
    slope.square().sum().backward()
    without = {name for name, p in judging.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all(name.endswith("bias") for name in without)  # piecewise linear: biases do not bend the slope
    styles = drawing.mapping(torch.randn(4, 6), LABEL)[:, None].expand(-1, drawing.layers, -1)
    (slope,) = torch.autograd.grad(
        (drawing.synthesis(styles) * torch.randn(4, 3, 16, 16)).sum(), styles, create_graph=True
    )
    slope.square().sum((1, 2)).sqrt().mean().backward()
    weights = [p for name, p in drawing.named_parameters() if name.endswith("weight")]
    assert all(weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any() for weight in weights)


def test_activations_are_clamped():
    settings = config(conv_clamp=0.5, resolution=8)
    largest: dict[str, float] = {}

    def watch(network: nn.Module) -> None:
        for name, module in network.named_modules():
            if isinstance(module, StyledConv2d | StyledColours | ActivatedConv2d | FromColours):
                keep = lambda _module, _inputs, output, name=name: largest.update({name: output.abs().max().item()})  # noqa: E731
                module.register_forward_hook(keep)

    drawing, judging = generator(settings), discriminator(settings)
    watch(drawing)
    watch(judging)
    judging(drawing(torch.randn(8, 6)) * 20)
    residual = largest.pop("b8.conv1")
    assert residual == pytest.approx(0.5 * 0.5**0.5)  # the bound moves with the gain of the branch
    assert len(largest) == 8
    assert max(largest.values()) == pytest.approx(0.5)
    assert largest["synthesis.b8.conv1"] == largest["b8.conv0"] == pytest.approx(0.5)


def test_blocks_are_the_same_modules_and_stored_once():
    drawing, judging = generator(config()), discriminator(config())
    assert list(drawing.blocks) == [drawing.synthesis.b4, drawing.synthesis.b8, drawing.synthesis.b16]
    assert list(judging.blocks) == [judging.b16, judging.b8]
    twin = copy.deepcopy(drawing)
    assert twin.blocks[0] is twin.synthesis.b4
    assert twin.blocks[0] is not drawing.blocks[0]
    assert not any("blocks" in name for network in (drawing, judging) for name in network.state_dict())


def gradients(drawing: Generator, judging: Discriminator) -> list[Tensor]:
    torch.manual_seed(5)
    noise = [torch.randn(4, *shape) for shape in drawing.noise_shapes]
    judging(drawing(torch.randn(4, 6), LABEL, noise=noise), LABEL).sum().backward()
    return [p.grad for network in (drawing, judging) for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("bound", [None, 256.0])
def test_checkpointing_changes_no_gradient(bound):
    settings = conditional(conv_clamp=bound)
    plain = gradients(heard(generator(settings)), discriminator(settings))
    drawing, judging = heard(generator(settings)), discriminator(settings)
    checkpoint_layers(drawing)
    checkpoint_layers(judging)
    torch.testing.assert_close(gradients(drawing, judging), plain)


def test_half_precision_draws_whole_pictures():
    settings = conditional(conv_clamp=256.0)
    drawing, judging = heard(generator(settings)), discriminator(settings)
    latent = torch.randn(4, 6)
    exact = drawing(latent, LABEL)
    with torch.autocast("cpu", torch.bfloat16):
        pictures = drawing(latent, LABEL)
        logits = judging(pictures, LABEL)
    assert pictures.dtype == logits.dtype == torch.float32
    assert (pictures - exact).abs().max() < 0.05 * exact.abs().max()
    logits.sum().backward()
    grads = [p.grad for network in (drawing, judging) for p in network.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


def test_the_sum_of_colours_is_not_rounded_to_half_precision():
    network = generator(config())
    for parameter in network.synthesis.get_submodule("b16.torgb").parameters():
        nn.init.zeros_(parameter)
    with torch.autocast("cpu", torch.bfloat16):
        pictures = network(torch.randn(4, 6))
    assert (pictures != pictures.bfloat16().float()).float().mean() > 0.5


def test_the_layout_of_memory_changes_nothing():
    settings = config(channel_base=128)
    drawing, judging = heard(generator(settings)).eval(), discriminator(settings)
    latent = torch.randn(4, 6)
    pictures = drawing(latent)
    logits = judging(pictures.contiguous())
    torch.testing.assert_close(judging(pictures.contiguous(memory_format=torch.channels_last)), logits)
    drawing.to(memory_format=torch.channels_last)
    judging.to(memory_format=torch.channels_last)
    torch.testing.assert_close(drawing(latent), pictures)
    torch.testing.assert_close(judging(pictures), logits)


@pytest.mark.parametrize(("labelled", "truncated", "bound"), [(False, False, None), (True, True, 256.0)])
def test_the_exported_graph_draws_the_same(labelled, truncated, bound):
    settings = (conditional if labelled else config)(conv_clamp=bound, resolution=8)
    assert_parity(heard(generator(settings), 0.1), 6, 3 if labelled else 0, (0.3, 0.65, 1.0) if truncated else ())
