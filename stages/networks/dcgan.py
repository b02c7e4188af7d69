"""DCGAN's generator and discriminator for any power-of-two resolution (Radford, Metz, Chintala 2015).

With classes both networks are told which (Mirza 2014): an embedding beside the latent, and one as a further channel
of the discriminator's pictures.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from stages.networks.contract import DiscriminatorNetwork, GeneratorNetwork
from stages.networks.layers.minibatch import MinibatchDiscrimination, MinibatchStddev
from stages.networks.layers.spectral import normalise_spectrally

INITIAL_STD = 0.02  # section 4: all weights from a zero-centred normal with this deviation
LEAK = 0.2  # section 4: slope of the leaky ReLU
SMALLEST = 4  # both networks meet the latent at 4x4
EMBEDDED = 50  # width of a class embedding


def channels_at(size: int, resolution: int, width: int) -> int:
    """Return the channels of the feature map of a size: `width` at half the resolution, doubled towards 4x4."""
    return width * (resolution // 2) // size


class Generator(GeneratorNetwork):
    """Latent (N, latent) to pictures (N, channels, resolution, resolution) in [-1, 1]."""

    def __init__(
        self, resolution: int, channels: int, latent: int, width: int, upsample: str, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent = latent
        first = channels_at(SMALLEST, resolution, width)
        inputs = latent + (EMBEDDED if classes else 0)
        self.project = nn.ConvTranspose2d(inputs, first, SMALLEST, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(first), nn.ReLU(inplace=True)]
        size = SMALLEST
        while size * 2 < resolution:
            before, after = (channels_at(s, resolution, width) for s in (size, size * 2))
            layers += [*upsampling(before, after, upsample, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            size *= 2
        layers += [*upsampling(width, channels, upsample, bias=True), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.embedding = nn.Embedding(classes, EMBEDDED) if classes else None
        self.apply(initialise)

    @property
    def blocks(self) -> list[nn.Module]:  # type: ignore[override]
        """All layers after the first."""
        return [self.layers]

    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures in [-1, 1], shape (N, channels, H, W)."""
        if self.embedding is not None:
            latent = torch.cat([latent, self.embedding(label)], 1)
        return cast(Tensor, self.layers(self.project(latent[:, :, None, None])))


class Discriminator(DiscriminatorNetwork):
    """Pictures (N, channels, resolution, resolution) in [-1, 1] to logits (N,); higher is more real."""

    def __init__(self, resolution: int, channels: int, width: int, norm: str = "batch", classes: int = 0) -> None:
        super().__init__()
        self.resolution, self.features = resolution, channels_at(SMALLEST, resolution, width)
        layers: list[nn.Module] = [
            nn.Conv2d(channels + bool(classes), width, 4, 2, 1),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
        size = resolution // 2
        while size > SMALLEST:
            before, after = (channels_at(s, resolution, width) for s in (size, size // 2))
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=norm == "none"), *normalising(norm, after)]
            layers += [nn.LeakyReLU(LEAK, inplace=True)]
            size //= 2
        layers += [nn.Conv2d(self.features, 1, SMALLEST)]
        self.layers = nn.Sequential(*layers)
        self.embedding = nn.Embedding(classes, resolution**2) if classes else None
        self.apply(initialise)

    @property
    def blocks(self) -> list[nn.Module]:  # type: ignore[override]
        """One convolution with what follows it, each, from the pictures on."""
        found: list[nn.Module] = []
        layers = list(self.layers)
        starts = [number for number, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        for start, end in zip(starts, [*starts[1:], len(layers)], strict=True):
            found.append(nn.Sequential(*layers[start:end]))
        return found

    def extend(self, config: dict[str, Any]) -> None:
        """Add what the settings ask for before the last layer, and spectral norms."""
        more: list[nn.Module] = []
        features = self.features
        if config["minibatch_stddev"]:
            more.append(MinibatchStddev(config["minibatch_group"]))
            features += 1
        if config["minibatch_kernels"]:
            flat = features * SMALLEST**2
            more += [
                nn.Flatten(),
                MinibatchDiscrimination(flat, config["minibatch_kernels"], config["minibatch_group"]),
            ]
            last: nn.Module = nn.Linear(flat + config["minibatch_kernels"], 1)
        else:
            last = nn.Conv2d(features, 1, SMALLEST)
        if config["dropout"]:
            more.append(nn.Dropout(config["dropout"]))
        if more:
            last.apply(initialise)
            self.layers = nn.Sequential(*list(self.layers)[:-1], *more, last)
        if config["spectral_norm"]:
            normalise_spectrally(self)

    def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture."""
        if self.embedding is not None:
            told = self.embedding(label).view(-1, 1, self.resolution, self.resolution)
            pictures = torch.cat([pictures, told.to(pictures.dtype)], 1)
        return cast(Tensor, self.layers(pictures).flatten())


def normalising(kind: str, channels: int) -> list[nn.Module]:
    """Return batch norm, a norm over each picture alone (Gulrajani 2017, section 4), or nothing."""
    if kind == "batch":
        return [nn.BatchNorm2d(channels)]
    return [nn.GroupNorm(1, channels)] if kind == "layer" else []


def upsampling(before: int, after: int, kind: str, bias: bool) -> list[nn.Module]:
    """Return the layers that double the size: a fractionally strided convolution, or resize and convolve.

    Resizing avoids the checkerboard of strided kernels (Odena, Dumoulin, Olah 2016).
    """
    if kind == "transposed":
        return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias)]
    aligned = False if kind == "bilinear" else None
    resize = nn.Upsample(scale_factor=2, mode=kind, align_corners=aligned)
    return [resize, nn.Conv2d(before, after, 3, padding=1, bias=bias)]


def initialise(module: nn.Module) -> None:
    """Draw weights as section 4 of the paper does: N(0, 0.02), batch norm scales N(1, 0.02), biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, INITIAL_STD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INITIAL_STD)
    else:
        return
    if isinstance(module.bias, torch.Tensor):
        nn.init.zeros_(module.bias)


def build_generator(config: dict[str, Any]) -> Generator:
    """Build an untrained generator from a weights folder's config."""
    sizes = {name: config[name] for name in ("resolution", "channels", "latent", "width", "upsample")}
    return Generator(**sizes, classes=len(config["class_names"]))


def build_discriminator(config: dict[str, Any]) -> Discriminator:
    """Build an untrained discriminator from a weights folder's config."""
    network = Discriminator(
        config["resolution"],
        config["channels"],
        config["discriminator_width"],
        config["discriminator_norm"],
        len(config["class_names"]),
    )
    network.extend(config)
    return network
