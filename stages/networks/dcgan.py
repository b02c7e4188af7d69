"""DCGAN's generator and discriminator for any power-of-two resolution (Radford, Metz, Chintala 2015)."""

from typing import cast

import torch
from torch import Tensor, nn

INITIAL_STD = 0.02  # section 4: all weights from a zero-centred normal with this deviation
LEAK = 0.2  # section 4: slope of the leaky ReLU
SMALLEST = 4  # both networks meet the latent at 4x4


def channels_at(size: int, resolution: int, width: int) -> int:
    """Return the channels of the feature map of a size: `width` at half the resolution, doubled towards 4x4."""
    return width * (resolution // 2) // size


class Generator(nn.Module):
    """Latent (N, latent) to pictures (N, channels, resolution, resolution) in [-1, 1]."""

    def __init__(self, resolution: int, channels: int, latent: int, width: int, upsample: str) -> None:
        super().__init__()
        first = channels_at(SMALLEST, resolution, width)
        self.project = nn.ConvTranspose2d(latent, first, SMALLEST, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(first), nn.ReLU(inplace=True)]
        size = SMALLEST
        while size * 2 < resolution:
            before, after = (channels_at(s, resolution, width) for s in (size, size * 2))
            layers += [*upsampling(before, after, upsample, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
            size *= 2
        layers += [*upsampling(width, channels, upsample, bias=True), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, latent: Tensor) -> Tensor:
        """Draw pictures in [-1, 1], shape (N, channels, H, W)."""
        return cast(Tensor, self.layers(self.project(latent[:, :, None, None])))


class Discriminator(nn.Module):
    """Pictures (N, channels, resolution, resolution) in [-1, 1] to logits (N,); higher is more real."""

    def __init__(self, resolution: int, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(LEAK, inplace=True)]
        size = resolution // 2
        while size > SMALLEST:
            before, after = (channels_at(s, resolution, width) for s in (size, size // 2))
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.LeakyReLU(LEAK, inplace=True)]
            size //= 2
        layers += [nn.Conv2d(channels_at(SMALLEST, resolution, width), 1, SMALLEST)]
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return one logit per picture."""
        return cast(Tensor, self.layers(pictures).flatten())


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
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, INITIAL_STD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INITIAL_STD)
    else:
        return
    if isinstance(module.bias, torch.Tensor):
        nn.init.zeros_(module.bias)


def build_generator(config: dict) -> Generator:
    """Build an untrained generator from a weights folder's config."""
    return Generator(**{name: config[name] for name in ("resolution", "channels", "latent", "width", "upsample")})


def build_discriminator(config: dict) -> Discriminator:
    """Build an untrained discriminator from a weights folder's config."""
    return Discriminator(config["resolution"], config["channels"], config["discriminator_width"])
