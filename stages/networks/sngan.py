"""SNGAN's residual networks (Miyato 2018, appendix B.4) with a projection discriminator (Miyato & Koyama 2018).

Up to 32 px they are those of CIFAR-10: one width everywhere, and a discriminator's last map is 8x8 (of 8 px, 4x4). From
64 px on they are those of ImageNet, at 64 px with the generator of the authors' code and the discriminator of STL-10:
`width` is of the widest map, the narrowest has a sixteenth, and a discriminator's last map is 4x4.
"""

from functools import partial
from itertools import pairwise
from typing import Any, cast

from torch import Tensor, nn

from stages.errors import InputError
from stages.networks.contract import GeneratorNetwork
from stages.networks.layers.residual import (
    SMALLEST,
    ClassBatchNorm,
    DownBlock,
    PlainBatchNorm,
    ResidualDiscriminator,
    UpBlock,
    zero_biases,
)
from stages.networks.layers.spectral import normalise_spectrally

CONSTANT = 32  # pictures up to this size have maps of one width
WIDEST = 16  # times the channels of the narrowest map, in networks for larger ones


class Generator(GeneratorNetwork):
    """Latent (N, latent) to pictures (N, channels, resolution, resolution) in [-1, 1]."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.latent = config["latent"]
        widths = generator_widths(config["resolution"], config["width"])
        classes = len(config["class_names"])
        norm = partial(ClassBatchNorm, classes=classes) if classes else PlainBatchNorm
        self.first = nn.Linear(self.latent, widths[0] * SMALLEST**2)
        self.blocks = nn.ModuleList(UpBlock(*pair, norm) for pair in pairwise(widths))
        self.last = nn.Sequential(
            PlainBatchNorm(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], config["channels"], 3, padding=1), nn.Tanh()
        )
        initialise(self)

    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures; this generator has no truncation and no noise of its own."""
        values = self.first(latent).unflatten(1, (-1, SMALLEST, SMALLEST))
        for block in self.blocks:
            values = block(values, label)
        return cast(Tensor, self.last(values))


def generator_widths(resolution: int, width: int) -> list[int]:
    """Return the channels of the maps from 4x4 to the resolution.

    Raises:
        InputError: a width of larger pictures has no sixteenth.
    """
    sizes = range(SMALLEST.bit_length() - 1, resolution.bit_length())
    return [scaled(width, resolution, resolution >> exponent, "width") for exponent in sizes]


def scaled(width: int, resolution: int, multiple: int, setting: str) -> int:
    """Return the channels of a map that is to have `multiple` times those of the narrowest, at most the widest's."""
    if resolution <= CONSTANT:
        return width
    if width % WIDEST:
        raise InputError(f"{setting} is {width}; sngan at {resolution} px needs a multiple of {WIDEST}")
    return width // WIDEST * min(multiple, WIDEST)


def discriminator_plan(resolution: int, width: int) -> list[tuple[int, bool]]:
    """Return each block's channels and whether it halves, the map ending at 8x8 for 16 and 32 px, else at 4x4.

    Raises:
        InputError: a width of larger pictures has no sixteenth.
    """
    if resolution <= CONSTANT:
        return [(width, True), (width, resolution == CONSTANT), (width, False), (width, False)]
    halvings = (resolution // SMALLEST).bit_length() - 1
    halving = [(scaled(width, resolution, 2**number, "discriminator_width"), True) for number in range(halvings)]
    return [*halving, (width, False)]


def discriminator_blocks(config: dict[str, Any]) -> tuple[list[DownBlock], int]:
    """Return the blocks from the pictures on, and the last one's channels."""
    plan = discriminator_plan(config["resolution"], config["discriminator_width"])
    inputs, blocks = config["channels"], list[DownBlock]()
    for number, (outputs, halve) in enumerate(plan):
        extra = int(config["minibatch_stddev"] and number == len(plan) - 1)  # a channel more enters the last block
        hidden = inputs if number else outputs
        blocks.append(DownBlock(inputs + extra, outputs, hidden, halve, first=not number))
        inputs = outputs
    return blocks, inputs


def initialise(network: nn.Module) -> None:
    """Draw weights by Glorot 2010, those of 3x3 convolutions in blocks with gain sqrt(2), as the authors' code does."""
    inner = {id(conv) for block in network.blocks for conv in (block.conv1, block.conv2)}  # type: ignore[union-attr]
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, 2**0.5 if id(module) in inner else 1.0)
    zero_biases(network)


def build_generator(config: dict[str, Any]) -> Generator:
    """Build an untrained generator; config: resolution, channels, class_names, latent, width."""
    return Generator(config)


def build_discriminator(config: dict[str, Any]) -> ResidualDiscriminator:
    """Build an untrained discriminator; config: resolution, channels, class_names, discriminator_width, spectral_norm
    and the parts that the shared discriminator takes.
    """
    blocks, features = discriminator_blocks(config)
    network = ResidualDiscriminator(blocks, features, config)
    initialise(network)
    if network.head.embedding is not None:
        nn.init.xavier_uniform_(network.head.embedding.weight)
    if config["spectral_norm"]:
        normalise_spectrally(network)
    return network
