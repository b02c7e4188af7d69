"""R3GAN's grouped residual networks (Huang 2024, "The GAN is dead; long live the GAN! A modern GAN baseline").

Neither network normalises anything: blocks begin as the identity, and their weights are scaled by the network's depth
(Zhang 2019, "Fixup initialization").
"""

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from stages.networks.contract import DiscriminatorNetwork, GeneratorNetwork
from stages.networks.layers.minibatch import MinibatchDiscrimination, MinibatchStddev
from stages.networks.layers.resample import Double, Halve
from stages.networks.layers.spectral import normalise_spectrally

LEAK = 0.2
LEAK_GAIN = (2 / (1 + LEAK**2)) ** 0.5  # keeps the variance through the leaky ReLU (He 2015, equation 15)
SMALLEST = 4
TAPS = (1, 2, 1)  # of the low-pass filter of doubling and halving
BRANCH = 3  # convolutions of a block


class ResidualBlock(nn.Module):
    """(N, width, H, W) to the same: 1x1 widens by `expansion`, 3x3 mixes within `groups`, 1x1 narrows; added.

    `gain` scales the initial weights, `narrow_gain` those of the last convolution: with 0, the block is the identity.
    """

    def __init__(self, width: int, groups: int, expansion: int, gain: float, narrow_gain: float) -> None:
        super().__init__()
        inner = width * expansion
        self.widen = convolution(width, inner, 1, gain, bias=True)
        self.mix = convolution(inner, inner, 3, gain, groups, bias=True)
        self.narrow = convolution(inner, width, 1, narrow_gain)

    def forward(self, features: Tensor) -> Tensor:
        """Return features with what the branch adds."""
        inner = leaky_relu(self.widen(features), LEAK)
        inner = leaky_relu(self.mix(inner), LEAK)
        return cast(Tensor, features + self.narrow(inner))


class GenerativeBasis(nn.Module):
    """(N, inputs) to (N, width, 4, 4): a learned 4x4 map for each channel, scaled by a linear layer of the latent."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(width, SMALLEST, SMALLEST))
        self.scales = linear(inputs, width)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the scaled maps."""
        scales = self.scales(latent)
        return cast(Tensor, self.maps.to(scales.dtype) * scales[:, :, None, None])


class Generator(GeneratorNetwork):
    """A basis of 4x4 maps, then stages of residual blocks, each of double size; `blocks` are the stages.

    With classes, a learned embedding of the label, as wide as the latent and of unit variance, follows the latent.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.latent, widths, classes = config["latent"], config["widths"], len(config["class_names"])
        self.classes = nn.Embedding(classes, self.latent) if classes else None
        basis = GenerativeBasis(self.latent * 2 if classes else self.latent, widths[0])
        starts: list[list[nn.Module]] = [[basis], *(doubling(*pair) for pair in pairwise(widths))]
        parts = zip(starts, residual_blocks(config), strict=True)
        self.blocks = nn.ModuleList(nn.Sequential(*start, *stage) for start, stage in parts)
        self.to_rgb = convolution(widths[-1], config["channels"], 1)

    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures."""
        features = latent if self.classes is None else torch.cat([latent, self.classes(label)], 1)
        for stage in self.blocks:
            features = stage(features)
        return cast(Tensor, self.to_rgb(features))


class Discriminator(DiscriminatorNetwork):
    """The generator's mirror: stages of residual blocks (`blocks`, from the pictures on), then a basis of 4x4 maps.

    With classes, the last layer is as wide as the latent, and the logit is its product with the label's embedding,
    whose entries begin with variance 1 / latent.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        widths, classes = config["widths"][::-1], len(config["class_names"])
        group, kernels = config["minibatch_group"], config["minibatch_kernels"]
        residual = residual_blocks(config, narrow_gain=1.0 if config["spectral_norm"] else 0.0)[::-1]
        ends = [*(halving(*pair) for pair in pairwise(widths)), []]
        starts = [[convolution(config["channels"], widths[0], 1)], *([[]] * (len(widths) - 1))]
        parts = zip(starts, residual, ends, strict=True)
        self.blocks = nn.ModuleList(nn.Sequential(*start, *stage, *end) for start, stage, end in parts)
        width = widths[-1] + config["minibatch_stddev"]
        self.similarity = MinibatchStddev(group) if config["minibatch_stddev"] else nn.Identity()
        self.basis = convolution(width, width, SMALLEST, groups=width, padding=0)
        self.closeness = MinibatchDiscrimination(width, kernels, group) if kernels else nn.Identity()
        self.dropout = nn.Dropout(config["dropout"])
        self.judge = linear(width + kernels, config["latent"] if classes else 1)
        self.classes = embedding(classes, config["latent"]) if classes else None

    def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture."""
        features = pictures
        for stage in self.blocks:
            features = stage(features)
        features = self.basis(self.similarity(features)).flatten(1)
        verdict = self.judge(self.dropout(self.closeness(features)))
        return cast(Tensor, verdict.flatten() if self.classes is None else (verdict * self.classes(label)).sum(1))


def residual_blocks(config: dict, narrow_gain: float = 0.0) -> list[list[nn.Module]]:
    """Return the residual blocks of each size, from 4x4 upwards, with weights for a network of that many blocks."""
    count, expansion = config["blocks_per_stage"], config["expansion"]
    gain = LEAK_GAIN * (count * len(config["widths"])) ** (-1 / (2 * BRANCH - 2))
    pairs = zip(config["widths"], config["cardinalities"], strict=True)
    return [[ResidualBlock(*pair, expansion, gain, narrow_gain) for _ in range(count)] for pair in pairs]


def doubling(before: int, after: int) -> list[nn.Module]:
    """Return layers from (N, before, H, W) to (N, after, 2 H, 2 W): the 1x1 convolution is on the smaller side."""
    return [*([convolution(before, after, 1)] if before != after else []), Double(after, TAPS)]


def halving(before: int, after: int) -> list[nn.Module]:
    """Return layers from (N, before, H, W) to (N, after, H / 2, W / 2)."""
    return [Halve(before, TAPS), *([convolution(before, after, 1)] if before != after else [])]


def convolution(
    before: int,
    after: int,
    kernel: int,
    gain: float = 1.0,
    groups: int = 1,
    bias: bool = False,
    padding: int | None = None,
) -> nn.Conv2d:
    """Return a convolution with weights N(0, gain^2 / fan in), biases zero, that keeps the size if not padded else."""
    padding = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(before, after, kernel, padding=padding, groups=groups, bias=bias)
    nn.init.normal_(layer.weight, 0.0, gain / layer.weight[0].numel() ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer without biases, its weights N(0, 1 / inputs)."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, 0.0, inputs**-0.5)
    return layer


def embedding(classes: int, width: int) -> nn.Embedding:
    """Return vectors of unit length on average."""
    layer = nn.Embedding(classes, width)
    nn.init.normal_(layer.weight, 0.0, width**-0.5)
    return layer


def build_generator(config: dict) -> Generator:
    """Build an untrained generator from a weights folder's config."""
    return Generator(config)


def build_discriminator(config: dict) -> Discriminator:
    """Build an untrained discriminator from a weights folder's config.

    With spectral_norm, blocks do not begin as the identity: there is no zero of norm 1.
    """
    discriminator = Discriminator(config)
    if config["spectral_norm"]:
        normalise_spectrally(discriminator)
    return discriminator
