"""Autoencoder and patch discriminator; architectures only."""

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

LARGEST_GROUPS = 32  # groups of a normalisation, as in diffusers' default
SMALLEST_GROUP = 4  # channels: fewer would take the picture's own contrast out of each channel
SLOPE = 0.2


def group_count(widths: list[int]) -> int:
    """Return how many groups divide all widths, each group of at least four channels."""
    common = math.gcd(*widths)
    fitting = [n for n in range(1, LARGEST_GROUPS + 1) if common % n == 0 and common // n >= SMALLEST_GROUP]
    return max(fitting, default=1)


def build_autoencoder(config: dict[str, Any]) -> "AutoencoderKL":
    """Return diffusers' AutoencoderKL with fresh weights, without attention.

    `config` holds channels (of a picture), resolution, latent_channels, widths and layers. Its scaling factor is 1:
    a stage that measures another one writes it.
    """
    from diffusers.models import AutoencoderKL

    widths = list(config["widths"])
    return AutoencoderKL(
        in_channels=config["channels"],
        out_channels=config["channels"],
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=config["layers"],
        latent_channels=config["latent_channels"],
        norm_num_groups=group_count(widths),
        sample_size=config["resolution"],
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches (Isola 2017, section 3.2.2), normalised within a picture, never over the batch.

    `layers` halvings by 4x4 convolutions, then two 4x4 convolutions of stride 1: a logit sees 16 pixels a side with
    one halving, 34 with two, 70 with three.
    """

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE, inplace=True)]
        before = width
        for number in range(1, layers + 1):
            after = width * min(2**number, 8)
            stride = 2 if number < layers else 1
            modules += [
                nn.Conv2d(before, after, 4, stride, 1, bias=False),
                nn.GroupNorm(group_count([after]), after),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
            before = after
        self.layers = nn.Sequential(*modules, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures (N, C, S, S) in [-1, 1] to logits (N, 1, S', S'), higher for more real."""
        logits: Tensor = self.layers(pictures)
        return logits


def build_discriminator(config: dict[str, Any]) -> PatchDiscriminator:
    """Return a patch discriminator with fresh weights from N(0, 0.02), as Isola 2017; `config` holds channels and
    `adversarial` with width and layers.
    """
    network = PatchDiscriminator(config["channels"], config["adversarial"]["width"], config["adversarial"]["layers"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
    return network


class PictureDecoder(nn.Module):
    """The decoder of an autoencoder whose latents are standard normal: a generator."""

    def __init__(self, autoencoder: "AutoencoderKL") -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latent: Tensor) -> Tensor:
        """Return pictures (N, C, S, S) in [-1, 1] of latents (N, c, S / factor, S / factor)."""
        decoded: Tensor = self.autoencoder.decode(latent, return_dict=False)[0]
        return decoded.clamp(-1, 1)
