"""Networks that grow from 4x4 to the full resolution while they train (Karras 2018, "Progressive growing of GANs").

Pictures have the full resolution at every level: the generator enlarges what it draws, the discriminator shrinks what
it is shown. A penalty of the gradient at pictures is therefore of the full-size ones at every level.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu
from torch.nn.utils import parametrizations

from stages.networks.contract import DiscriminatorNetwork, GeneratorNetwork
from stages.networks.layers.equalised import EqualisedConv2d, EqualisedLinear
from stages.networks.layers.minibatch import MinibatchDiscrimination, MinibatchStddev

LEAK = 0.2
GAIN = 2**0.5  # He's gain, which the paper multiplies into the weights of layers with leaky ReLU
SMALLEST = 4  # level 0
WHOLE = 1000  # thousandths of a level


class Growth(nn.Module):
    """How far a network has grown: level 2.25 is 16x16 (4 * 2**2) with a quarter of 32x32 faded in.

    Every size is trained for one phase; in the next one, the size above is faded in, until `top`. The level is an
    integer buffer, in thousandths, which averages copy and states keep exactly. It stays on the CPU, where reading it
    waits for no device and sees whatever wrote it last.
    """

    level: Tensor

    def __init__(self, top: int, phase_kimg: float) -> None:
        super().__init__()
        self.top, self.phase, self.known = top, max(round(phase_kimg * 1000), 1), 0
        self.register_buffer("level", torch.zeros((), dtype=torch.int64, device="cpu"))

    def grow(self, seen: int) -> None:
        """Take the level that belongs to `seen` training pictures."""
        phase, within = divmod(seen, self.phase)
        faded = within * WHOLE // self.phase if phase % 2 else 0
        self.level.fill_(min(phase // 2 * WHOLE + faded, self.top * WHOLE))
        self.refresh()

    def read(self) -> tuple[int, float]:
        """Return the level that is shown whole, and the share in [0, 1) of the next one."""
        if not torch.compiler.is_compiling():
            self.refresh()
        whole, rest = divmod(self.known, WHOLE)
        return whole, rest / WHOLE

    def refresh(self) -> None:
        """Keep the level as a plain number too: a tracer knows no buffer's value, and its graph is of one level."""
        self.known = int(self.level)

    def train(self, mode: bool = True) -> Self:
        """Switch modes, as before each export, whose graph shall be of the level in the buffer."""
        self.refresh()
        return super().train(mode)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.refresh()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.refresh()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return self  # no change of device or precision is for the level


class GeneratorBlock(nn.Module):
    """The layers of one size, (N, before, H, W) to (N, after, 2 H, 2 W), and what makes pictures of them.

    Without `enlarge` it is the first: latents (N, before, 1, 1) to (N, after, 4, 4).
    """

    def __init__(self, before: int, after: int, channels: int, enlarge: bool) -> None:
        super().__init__()
        self.enlarge = enlarge
        kernel, padding = (3, 1) if enlarge else (SMALLEST, SMALLEST - 1)
        self.first = EqualisedConv2d(before, after, kernel, padding=padding)
        self.second = EqualisedConv2d(after, after)
        self.to_rgb = EqualisedConv2d(after, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features, of unit length over channels at each pixel."""
        if self.enlarge:
            features = enlarge(features, 2)
        features = normalise(activate(self.first(features)))
        return normalise(activate(self.second(features)))


class Generator(GeneratorNetwork):
    """The generator of table 2, with the layers up to the level that training has reached.

    With classes, a learned embedding of the label is normalised as the latent is, and follows it. The paper has no
    conditional networks: its CIFAR-10 results are unconditional.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.latent, self.resolution = config["latent"], config["resolution"]
        widths, classes, channels = widths_of(config), len(config["class_names"]), config["channels"]
        self.growth = Growth(len(widths) - 1, config["phase_kimg"])
        self.classes = nn.Embedding(classes, self.latent) if classes else None
        before = [self.latent * 2 if classes else self.latent, *widths[:-1]]
        pairs = enumerate(zip(before, widths, strict=True))
        self.blocks = nn.ModuleList(GeneratorBlock(*pair, channels, enlarge=level > 0) for level, pair in pairs)

    def grow(self, seen: int) -> None:
        """Take the level that belongs to `seen` training pictures."""
        self.growth.grow(seen)

    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures of the level's size, enlarged to the full one."""
        blocks, (level, share) = cast(list[GeneratorBlock], list(self.blocks)), self.growth.read()
        features = self.start(latent, label)
        for block in blocks[: level + 1]:
            features = block(features)
        pictures = blocks[level].to_rgb(features)
        if share:
            above = blocks[level + 1]
            pictures = self.blend(pictures, above.to_rgb(above(features)), share)
        return enlarge(pictures, self.resolution // pictures.shape[-1])

    def start(self, latent: Tensor, label: Tensor | None) -> Tensor:
        """Return what the first layer takes, shape (N, inputs, 1, 1)."""
        parts = [normalise(latent)]
        if self.classes is not None:
            parts.append(normalise(self.classes(label)))
        return torch.cat(parts, 1)[:, :, None, None]

    def blend(self, coarse: Tensor, fine: Tensor, share: float) -> Tensor:
        """Return a `share` of the finer pictures and the rest of the coarser ones.

        The discriminator fades details (what halving loses) of all pictures that it is shown. In training, pictures
        therefore keep their details: faded here too, generated ones would have share**2 of them where real ones have
        `share`. The discriminator sees exactly what is drawn in evaluation mode.
        """
        if self.training:
            return fine + (1 - share) * enlarge(coarse - avg_pool2d(fine, 2), 2)
        return torch.lerp(enlarge(coarse, 2), fine, share)


class Entry(nn.Module):
    """Where pictures of one size enter the discriminator, (N, channels, H, W) to (N, width, H, W)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.from_rgb = EqualisedConv2d(channels, width, 1)

    def enter(self, pictures: Tensor) -> Tensor:
        """Return features of pictures."""
        return activate(self.from_rgb(pictures))


class DiscriminatorBlock(Entry):
    """The layers of one size, (N, before, H, W) to (N, after, H / 2, W / 2)."""

    def __init__(self, channels: int, before: int, after: int) -> None:
        super().__init__(channels, before)
        self.first = EqualisedConv2d(before, before)
        self.second = EqualisedConv2d(before, after)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of half the size."""
        features = activate(self.first(features))
        return avg_pool2d(activate(self.second(features)), 2)


class LastBlock(Entry):
    """The layers of 4x4, (N, width, 4, 4) to (N, width); `group` pictures are compared, 0: none."""

    def __init__(self, channels: int, width: int, group: int) -> None:
        super().__init__(channels, width)
        self.similarity = MinibatchStddev(group) if group else nn.Identity()
        self.first = EqualisedConv2d(width + bool(group), width)
        self.second = EqualisedConv2d(width, width, SMALLEST, padding=0)

    def forward(self, features: Tensor) -> Tensor:
        """Return one row of features for each picture."""
        features = activate(self.first(self.similarity(features)))
        return activate(self.second(features)).flatten(1)


class Discriminator(DiscriminatorNetwork):
    """The discriminator of table 2, with the layers up to the level; `blocks` go from the pictures to 4x4.

    With classes, it adds the features' product with a vector of the label (Miyato 2018, "cGANs with projection
    discriminator").
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.resolution = config["resolution"]
        widths, classes, channels = widths_of(config)[::-1], len(config["class_names"]), config["channels"]
        group, kernels = config["minibatch_group"], config["minibatch_kernels"]
        self.growth = Growth(len(widths) - 1, config["phase_kimg"])
        blocks = [DiscriminatorBlock(channels, *pair) for pair in pairwise(widths)]
        last = LastBlock(channels, widths[-1], group if config["minibatch_stddev"] else 0)
        self.blocks = nn.ModuleList([*blocks, last])
        self.closeness = MinibatchDiscrimination(widths[-1], kernels, group) if kernels else nn.Identity()
        self.dropout = nn.Dropout(config["dropout"])
        self.judge = EqualisedLinear(widths[-1] + kernels, 1)
        self.classes = EqualisedLinear(widths[-1] + kernels, classes, bias=None) if classes else None

    def grow(self, seen: int) -> None:
        """Take the level that belongs to `seen` training pictures."""
        self.growth.grow(seen)

    def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture, which is shrunk to the level's size first."""
        blocks, (level, share) = cast(list[Entry], list(self.blocks)), self.growth.read()
        size = SMALLEST << (level + 1 if share else level)
        pictures = avg_pool2d(pictures, self.resolution // size)
        entry = self.growth.top - level  # the block of the level that is shown whole
        features = self.blend(entry, pictures, share) if share else blocks[entry].enter(pictures)
        for block in blocks[entry:]:
            features = block(features)
        features = self.dropout(self.closeness(features))
        logits = self.judge(features).flatten()
        if self.classes is None:
            return cast(Tensor, logits)
        return cast(Tensor, logits + self.classes(features).gather(1, cast(Tensor, label)[:, None]).flatten())

    def blend(self, entry: int, pictures: Tensor, share: float) -> Tensor:
        """Return features of the level: of halved pictures, and a `share` of those that the size above makes.

        Pictures, too, have a `share` of their details, as those that the generator draws (official training loop).
        """
        above, below = cast(list[Entry], list(self.blocks)[entry - 1 : entry + 1])
        coarse = avg_pool2d(pictures, 2)
        fine = above(above.enter(torch.lerp(enlarge(coarse, 2), pictures, share)))
        return torch.lerp(below.enter(coarse), fine, share)


def widths_of(config: dict) -> list[int]:
    """Return the channels of the feature maps from 4x4 upwards: 2 * channel_base / size, at most channel_max."""
    sizes = [2**power for power in range(SMALLEST.bit_length() - 1, config["resolution"].bit_length())]
    return [max(min(2 * config["channel_base"] // size, config["channel_max"]), 1) for size in sizes]


def enlarge(values: Tensor, factor: int) -> Tensor:
    """Repeat each pixel `factor` times along both axes."""
    return interpolate(values, scale_factor=float(factor), mode="nearest") if factor > 1 else values


def activate(values: Tensor) -> Tensor:
    """Return the leaky ReLU, scaled to keep the variance of the equalised layers around it."""
    return leaky_relu(values, LEAK) * GAIN


def normalise(values: Tensor) -> Tensor:
    """Divide by the root mean square over channels (pixel norm, section 4.2): length sqrt(C) at each pixel."""
    scale = (values.float().square().mean(1, keepdim=True) + 1e-8).rsqrt()
    return values * scale.to(values.dtype)


def normalise_spectrally(network: nn.Module) -> None:
    """Give each layer spectral norm 1, in place of the equalised scaling, which would shrink what has norm 1."""
    for module in list(network.modules()):
        if isinstance(module, EqualisedConv2d | EqualisedLinear):
            parametrizations.spectral_norm(module)
            module.gain = 1.0


def build_generator(config: dict) -> Generator:
    """Build an untrained generator, at level 0, from a weights folder's config."""
    return Generator(config)


def build_discriminator(config: dict) -> Discriminator:
    """Build an untrained discriminator, at level 0, from a weights folder's config."""
    discriminator = Discriminator(config)
    if config["spectral_norm"]:
        normalise_spectrally(discriminator)
    return discriminator
