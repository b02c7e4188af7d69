"""StyleGAN2's networks, configuration F, in the numbers of its successor for little data (Karras 2020 a, b).

a: "Analyzing and improving the image quality of StyleGAN"; b: "Training generative adversarial networks with limited
data", whose appendix B gives the mapping of labels and the projection. Parameters and persistent buffers have the names
and shapes of the official stylegan2-ada-pytorch, but for its filters, which are constants here.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils import parametrizations

from stages.networks.contract import DiscriminatorNetwork, MappedGenerator
from stages.networks.layers.equalised import EqualisedLinear
from stages.networks.layers.minibatch import MinibatchDiscrimination, MinibatchStddev
from stages.networks.layers.modulation import (
    EPSILON,
    GAIN,
    LEAK,
    ActivatedConv2d,
    FromColours,
    Shortcut,
    StyledColours,
    StyledConv2d,
    full_precision,
    not_half,
)
from stages.networks.layers.resample import Double

SMALLEST = 4
MAPPING_RATE = 0.01  # a, appendix B: learning rate of the mapping, relative to the others
CONDITION_LAYERS = 8  # of the discriminator's mapping of labels
MEAN_STYLE_DECAY = 0.995
RESIDUAL_GAIN = 0.5**0.5  # keeps the variance of a sum of two branches


def channels_at(size: int, config: dict) -> int:
    """Return the channels of the feature map of a size."""
    return int(min(config["channel_base"] // size, config["channel_max"]))


def sizes_to(resolution: int) -> list[int]:
    """Return 4, 8, ... up to the resolution."""
    return [2**power for power in range(2, resolution.bit_length())]


def unit_second_moment(values: Tensor) -> Tensor:
    """Scale each row of (N, width) so that the mean of its squares is 1."""
    return values * (values.square().mean(1, keepdim=True) + EPSILON).rsqrt()


class MappingNetwork(nn.Module):
    """Latents (N, latent), labels (N,) or both to styles (N, width); without latents there is no mean style."""

    w_avg: Tensor

    def __init__(self, latent: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.latent, self.classes, self.depth = latent, classes, depth
        if classes:
            self.embed = EqualisedLinear(classes, width)
        inputs = latent + (width if classes else 0)
        for number in range(depth):
            self.add_module(f"fc{number}", EqualisedLinear(width if number else inputs, width, rate=MAPPING_RATE))
        if latent:
            self.register_buffer("w_avg", torch.zeros(width))

    def forward(self, latent: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """Return styles of full precision; in training mode the mean style w_avg follows them."""
        with full_precision(next(self.parameters())):
            values = torch.cat([unit_second_moment(part) for part in self._inputs(latent, label)], 1)
            for number in range(self.depth):
                values = leaky_relu(self.get_submodule(f"fc{number}")(values), LEAK) * GAIN
        if self.latent and self.training:
            self._follow(values.detach())
        return values

    def _inputs(self, latent: Tensor | None, label: Tensor | None) -> list[Tensor]:
        parts = [] if latent is None else [not_half(latent)]
        if self.classes:
            assert label is not None
            chosen = label[:, None] == torch.arange(self.classes, device=label.device)
            parts.append(self.embed(chosen.to(self.embed.weight.dtype)))
        return parts

    @torch.no_grad()
    def _follow(self, styles: Tensor) -> None:
        self.w_avg.copy_(styles.mean(0).lerp(self.w_avg, MEAN_STYLE_DECAY))


class SynthesisBlock(nn.Module):
    """Doubles the map (the smallest block begins with a constant one) and adds its colours to the picture so far."""

    def __init__(self, size: int, config: dict) -> None:
        super().__init__()
        outputs, style, bound = channels_at(size, config), config["style_width"], config["conv_clamp"]
        if size == SMALLEST:
            self.const = nn.Parameter(torch.randn(outputs, size, size))
        else:
            self.conv0 = StyledConv2d(channels_at(size // 2, config), outputs, style, size, double=True, bound=bound)
            self.enlarge = Double(config["channels"])
        self.conv1 = StyledConv2d(outputs, outputs, style, size, double=False, bound=bound)
        self.torgb = StyledColours(outputs, config["channels"], style, bound)

    def forward(
        self, values: Tensor | None, picture: Tensor | None, styles: Tensor, noise: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return map and picture; there is one style for each convolution and the colours, and noise for the former."""
        if values is None or picture is None:
            start = self.const.expand(styles.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
            values = self.conv1(start, styles[:, 0], None if noise is None else noise[0])
            return values, self.torgb(values, styles[:, 1])
        values = self.conv0(values, styles[:, 0], None if noise is None else noise[0])
        values = self.conv1(values, styles[:, 1], None if noise is None else noise[1])
        with full_precision(picture):
            picture = self.enlarge(picture)
        return values, picture + self.torgb(values, styles[:, 2])


class SynthesisNetwork(nn.Module):
    """Styles (N, layers, style) to pictures; a block's colours share the style of the next block's first layer."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.sizes = sizes_to(config["resolution"])
        for size in self.sizes:
            self.add_module(f"b{size}", SynthesisBlock(size, config))

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks by size, which are registered under their official names only."""
        return nn.ModuleList(self.get_submodule(f"b{size}") for size in self.sizes)

    def forward(self, styles: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Return pictures (N, channels, resolution, resolution); None: the constant noise."""
        values: Tensor | None = None
        picture: Tensor | None = None
        first = 0
        for size in self.sizes:
            count = 1 if size == SMALLEST else 2
            mine = None if noise is None else noise[first : first + count]
            own = styles[:, first : first + count + 1]
            values, picture = self.get_submodule(f"b{size}")(values, picture, own, mine)
            first += count
        return cast(Tensor, picture)


class Generator(MappedGenerator):
    """StyleGAN2's generator with output skips."""

    no_truncation = 1.0

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.latent, style = config["latent"], config["style_width"]
        sizes = sizes_to(config["resolution"])
        self.layers = 2 * len(sizes)
        self.noise_shapes = tuple((1, size, size) for size in sizes for _ in range(1 if size == SMALLEST else 2))
        classes = len(config["class_names"])
        self.add_module("mapping", MappingNetwork(self.latent, classes, style, config["mapping_layers"]))
        self.add_module("synthesis", SynthesisNetwork(config))

    @property
    def mapping(self) -> MappingNetwork:  # a property, since the method of this name would hide the module
        """The mapping network."""
        return cast(MappingNetwork, self.__getattr__("mapping"))

    @property
    def synthesis(self) -> SynthesisNetwork:
        """The synthesis network."""
        return cast(SynthesisNetwork, self.__getattr__("synthesis"))

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """The synthesis' blocks by size."""
        return self.synthesis.blocks

    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures; a truncation below 1 brings styles nearer to their mean, 0 is the mean itself."""
        styles = self.mapping(latent, label)
        if truncation is not None:
            mean = self.mapping.w_avg
            styles = mean + truncation[:, None] * (styles - mean)
        return cast(Tensor, self.synthesis(styles[:, None].expand(-1, self.layers, -1), noise))


class DiscriminatorBlock(nn.Module):
    """Halves the map, in the residual form ('resnet') or as plain convolutions ('orig'); the largest takes pictures."""

    def __init__(self, size: int, config: dict) -> None:
        super().__init__()
        width, bound = channels_at(size, config), config["conv_clamp"]
        outputs = channels_at(size // 2, config)
        if size == config["resolution"]:
            self.fromrgb = FromColours(config["channels"], width, bound)
        self.conv0 = ActivatedConv2d(width, width, bound=bound)
        self.conv1 = ActivatedConv2d(width, outputs, halve=True, bound=bound)
        self.skip = Shortcut(width, outputs) if config["discriminator_architecture"] == "resnet" else None

    def forward(self, values: Tensor) -> Tensor:
        """Return the next map, half as large."""
        if hasattr(self, "fromrgb"):
            values = self.fromrgb(values)
        if self.skip is None:
            return cast(Tensor, self.conv1(self.conv0(values)))
        return cast(Tensor, self.skip(values, self.conv1(self.conv0(values), RESIDUAL_GAIN), RESIDUAL_GAIN))


class Epilogue(nn.Module):
    """The map at 4 x 4 to logits (N,), by projection on the mapped labels where there are any (Miyato 2018)."""

    def __init__(self, config: dict, classes: int) -> None:
        super().__init__()
        width, group, kernels = channels_at(SMALLEST, config), config["minibatch_group"], config["minibatch_kernels"]
        self.stddev = MinibatchStddev(group) if config["minibatch_stddev"] else None
        self.conv = ActivatedConv2d(width + bool(self.stddev), width, bound=config["conv_clamp"])
        self.fc = EqualisedLinear(width * SMALLEST**2, width)
        self.closeness = MinibatchDiscrimination(width, kernels, group) if kernels else None
        self.dropout = nn.Dropout(config["dropout"])
        self.out = EqualisedLinear(width + kernels, width if classes else 1)

    def forward(self, values: Tensor, condition: Tensor | None) -> Tensor:
        """Return logits of full precision."""
        with full_precision(values):
            values = not_half(values)
            values = values if self.stddev is None else self.stddev(values)
            features = leaky_relu(self.fc(self.conv(values).flatten(1)), LEAK) * GAIN
            features = features if self.closeness is None else self.closeness(features)
            features = self.out(self.dropout(features))
            if condition is None:
                return cast(Tensor, features.squeeze(1))
            return cast(Tensor, (features * condition).sum(1) * condition.shape[1] ** -0.5)


class Discriminator(DiscriminatorNetwork):
    """StyleGAN2's discriminator."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        classes = len(config["class_names"])
        self.sizes = sizes_to(config["resolution"])[:0:-1]
        for size in self.sizes:
            self.add_module(f"b{size}", DiscriminatorBlock(size, config))
        if classes:
            self.mapping = MappingNetwork(0, classes, channels_at(SMALLEST, config), CONDITION_LAYERS)
        self.conditional = bool(classes)
        self.b4 = Epilogue(config, classes)
        if config["spectral_norm"]:
            normalise_equalised(self)

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """The blocks that halve the map, from the pictures on."""
        return nn.ModuleList(self.get_submodule(f"b{size}") for size in self.sizes)

    def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture."""
        values = pictures
        for size in self.sizes:
            values = self.get_submodule(f"b{size}")(values)
        return cast(Tensor, self.b4(values, self.mapping(label=label) if self.conditional else None))


def normalise_equalised(network: nn.Module) -> None:
    """Divide each equalised weight by its largest singular value in the place of its constant scale."""
    for module in list(network.modules()):
        if isinstance(module, EqualisedLinear | ActivatedConv2d | FromColours | Shortcut):
            module.gain = 1.0
            parametrizations.spectral_norm(module, eps=1e-12)


def build_generator(config: dict) -> Generator:
    """Build an untrained generator from a weights folder's config."""
    return Generator(config)


def build_discriminator(config: dict) -> Discriminator:
    """Build an untrained discriminator from a weights folder's config."""
    return Discriminator(config)
