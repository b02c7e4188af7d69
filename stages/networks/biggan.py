"""BigGAN's networks (Brock 2019, appendix B; for 64 px and CIFAR-10's 32 px the authors' PyTorch code)."""

from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.networks.contract import GeneratorNetwork
from stages.networks.layers.attention import Attended
from stages.networks.layers.residual import (
    SMALLEST,
    ConditionalBatchNorm,
    DownBlock,
    PlainBatchNorm,
    ResidualDiscriminator,
    UpBlock,
    zero_biases,
)
from stages.networks.layers.spectral import normalise_spectrally
from stages.networks.layers.truncated_normal import truncate

GENERATOR = {  # channels of the maps from 4x4 to the resolution, in widths
    8: (4, 4),
    16: (4, 4, 4),
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
DISCRIMINATOR = {  # channels that each block returns, in widths, and how many of the blocks, from the first on, halve
    8: ((4, 4, 4, 4), 1),
    16: ((4, 4, 4, 4), 1),
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
    512: ((1, 1, 2, 4, 8, 8, 16, 16), 7),
}
NO_TRUNCATION = 10.0  # standard deviations: of 10^22 normal values one lies outside
SPECTRAL_EPS = 1e-6  # the authors' launch scripts


class Generator(GeneratorNetwork):
    """Latent (N, latent) to pictures (N, channels, resolution, resolution) in [-1, 1].

    The latent's first chunk enters the first layer, each other one a block, together with the class (Brock 2019,
    section 3, "hierarchical latent space"). `truncation` bounds the latent, in standard deviations.

    Raises:
        InputError: the latent has no such equal chunks, or there is no network for the resolution or the attention.
    """

    no_truncation = NO_TRUNCATION

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        multiples = of_resolution(GENERATOR, config["resolution"])
        widths = [config["width"] * multiple for multiple in multiples]
        classes, shared = len(config["class_names"]), config["shared_embedding"]
        self.latent, self.chunks = config["latent"], len(widths)
        chunk = chunk_length(self.latent, self.chunks, config["resolution"])
        self.embedding = nn.Embedding(classes, shared) if classes else None
        norm = partial(ConditionalBatchNorm, condition=chunk + shared * bool(classes))
        self.first = nn.Linear(chunk, widths[0] * SMALLEST**2)
        self.blocks = nn.ModuleList(UpBlock(*pair, norm) for pair in pairwise(widths))
        self._attend(attended_size(config), widths)
        self.last = nn.Sequential(
            PlainBatchNorm(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], config["channels"], 3, padding=1), nn.Tanh()
        )
        initialise(self)
        if config["spectral_norm"]:
            for part in (self.first, self.blocks, self.last):  # not the embedding, which the authors found to cripple
                normalise_spectrally(part, SPECTRAL_EPS)

    def _attend(self, size: int, widths: list[int]) -> None:
        if size:
            number = (size // SMALLEST).bit_length() - 2  # of the block that returns maps of this size
            self.blocks[number] = Attended(self.blocks[number], widths[number + 1])

    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures; this generator has no noise of its own."""
        if truncation is not None:
            latent = truncate(latent, truncation, NO_TRUNCATION)
        first, *others = latent.chunk(self.chunks, 1)
        shared = [] if self.embedding is None else [self.embedding(label)]
        values = self.first(first).unflatten(1, (-1, SMALLEST, SMALLEST))
        for block, chunk in zip(self.blocks, others, strict=True):
            values = block(values, torch.cat([*shared, chunk], 1))
        return cast(Tensor, self.last(values))


def of_resolution(table: dict[int, Any], resolution: int) -> Any:
    """Return a table's entry.

    Raises:
        InputError: the table has none.
    """
    if resolution not in table:
        raise InputError(f"biggan has no networks for {resolution} px; expected one of {', '.join(map(str, table))}")
    return table[resolution]


def chunk_length(latent: int, chunks: int, resolution: int) -> int:
    """Return the length of each of the latent's equal chunks.

    Raises:
        InputError: the latent does not divide; which ones do.
    """
    if latent % chunks:
        below = latent // chunks * chunks
        fitting = f"{below} or {below + chunks}" if below else f"{chunks}"
        raise InputError(
            f"latent is {latent}; biggan at {resolution} px splits it into {chunks} equal chunks: set a multiple of "
            f"{chunks}, such as {fitting}"
        )
    return latent // chunks


def attended_size(config: dict[str, Any]) -> int:
    """Return the size of the map with self-attention, 0 for none.

    Raises:
        InputError: one of the networks has no map of the size.
    """
    size, resolution = config["attention"], config["resolution"]
    fitting = [2**exponent for exponent in range(3, resolution.bit_length() - 1)]
    if size and size not in fitting:
        raise InputError(
            f"attention is {size}; expected 0 (none) or a map that both of biggan's networks have at {resolution} px: "
            f"{', '.join(map(str, fitting)) or 'there is none'}"
        )
    return int(size)


def discriminator_blocks(config: dict[str, Any]) -> tuple[list[nn.Module], int]:
    """Return the blocks from the pictures on, and the last one's channels.

    Raises:
        InputError: there is no network for the resolution or the attention.
    """
    multiples, halvings = of_resolution(DISCRIMINATOR, config["resolution"])
    inputs, size, attended = config["channels"], config["resolution"], attended_size(config)
    blocks = list[nn.Module]()
    for number, multiple in enumerate(multiples):
        extra = int(config["minibatch_stddev"] and number == len(multiples) - 1)  # a channel more enters the last block
        outputs, halve = multiple * config["discriminator_width"], number < halvings
        block: nn.Module = DownBlock(inputs + extra, outputs, outputs, halve, first=not number)
        size = size // 2 if halve else size
        blocks.append(Attended(block, outputs) if halve and size == attended else block)
        inputs = outputs
    return blocks, inputs


def initialise(network: nn.Module) -> None:
    """Make weights orthogonal (Saxe 2014) and biases zero (Brock 2019, section 3)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(module.weight)
    zero_biases(network)


def build_generator(config: dict[str, Any]) -> Generator:
    """Build an untrained generator; config: resolution, channels, class_names, latent, width, shared_embedding,
    attention, spectral_norm.
    """
    return Generator(config)


def build_discriminator(config: dict[str, Any]) -> ResidualDiscriminator:
    """Build an untrained discriminator; config: resolution, channels, class_names, discriminator_width, attention,
    spectral_norm and the parts that the shared discriminator takes.
    """
    blocks, features = discriminator_blocks(config)
    network = ResidualDiscriminator(blocks, features, config)
    initialise(network)
    if config["spectral_norm"]:
        normalise_spectrally(network, SPECTRAL_EPS)
    return network
