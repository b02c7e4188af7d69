"""What SNGAN's and BigGAN's networks share: residual blocks, batch norms that take a condition, the projection head."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from stages.networks.contract import DiscriminatorNetwork
from stages.networks.layers.minibatch import MinibatchDiscrimination, MinibatchStddev

SMALLEST = 4  # generators begin at 4x4


class PlainBatchNorm(nn.BatchNorm2d):
    """Batch norm with a gain and a bias for each channel, whatever the condition."""

    def forward(self, values: Tensor, condition: Tensor | None = None) -> Tensor:
        """Normalise (N, C, H, W)."""
        return super().forward(values)


class ClassBatchNorm(nn.Module):
    """Batch norm with a gain and a bias for each channel and class (Dumoulin 2017); they begin at 1 and 0."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.embedding = nn.Embedding(classes, 2 * channels)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, values: Tensor, label: Tensor) -> Tensor:
        """Normalise (N, C, H, W) for labels (N,)."""
        return modulate(self.norm(values), *self.embedding(label).chunk(2, 1))


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a condition (Brock 2019, section 3)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Linear(condition, channels, bias=False)
        self.bias = nn.Linear(condition, channels, bias=False)

    def forward(self, values: Tensor, condition: Tensor) -> Tensor:
        """Normalise (N, C, H, W) for conditions (N, K)."""
        return modulate(self.norm(values), self.gain(condition), self.bias(condition))


def modulate(values: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Return values (N, C, H, W) times 1 + gain, plus bias, both (N, C)."""
    return values * (1 + gain)[:, :, None, None] + bias[:, :, None, None]


class UpBlock(nn.Module):
    """(N, inputs, H, W) to (N, outputs, 2 H, 2 W): norm, ReLU, double, 3x3, norm, ReLU, 3x3.

    `norm` makes a batch norm for some channels that takes values and the block's condition (Miyato 2018, appendix B.4).
    """

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, values: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the doubled map."""
        path = self.conv1(doubled(relu(self.norm1(values, condition))))
        path = self.conv2(relu(self.norm2(path, condition)))
        # the papers double first: a 1x1 convolution gives the same before, of a quarter of the places
        return cast(Tensor, path + doubled(self.shortcut(values)))


def doubled(values: Tensor) -> Tensor:
    """Repeat each pixel of (N, C, H, W) in both directions."""
    return interpolate(values, scale_factor=2.0, mode="nearest")


class DownBlock(nn.Module):
    """(N, inputs, H, W) to (N, outputs, H / 2, W / 2), or H, W without `halve`: ReLU, 3x3, ReLU, 3x3, mean of 2x2.

    `hidden` channels lie between the convolutions. Of pictures (`first`) no ReLU is taken (Miyato 2018, appendix B.4).
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, halve: bool = True, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1)
        self.shortcut: nn.Module = nn.Conv2d(inputs, outputs, 1) if halve or inputs != outputs else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """Return the map, halved or not."""
        path = self.conv2(relu(self.conv1(values if self.first else relu(values))))
        # some codes halve last: a 1x1 convolution gives the same of the halved map
        return cast(Tensor, self._halved(path) + self.shortcut(self._halved(values)))

    def _halved(self, values: Tensor) -> Tensor:
        return cast(Tensor, avg_pool2d(values, 2)) if self.halve else values


class ProjectionHead(nn.Module):
    """A map (N, features, H, W) to logits (N,): ReLU, sum over places, linear, plus <embedding of the class, features>.

    The projection is that of Miyato & Koyama 2018, section 3. `config` holds class_names (empty: no projection),
    minibatch_kernels, minibatch_group and dropout.
    """

    def __init__(self, features: int, config: dict[str, Any]) -> None:
        super().__init__()
        classes, kernels = len(config["class_names"]), config["minibatch_kernels"]
        self.features = features
        self.minibatch = MinibatchDiscrimination(features, kernels, config["minibatch_group"]) if kernels else None
        self.dropout = nn.Dropout(config["dropout"])
        self.linear = nn.Linear(features + kernels, 1)
        self.embedding = nn.Embedding(classes, features) if classes else None

    def forward(self, values: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture."""
        features = self.dropout(self._pooled(relu(values)))
        logits: Tensor = self.linear(features).squeeze(1)
        if self.embedding is None:
            return logits
        return logits + (self.embedding(label) * features[:, : self.features]).sum(1)

    def _pooled(self, values: Tensor) -> Tensor:
        pooled = values.sum((2, 3))
        if self.minibatch is None:
            return pooled
        # of means: sums over places lie so far apart that closeness, exp(-distance), would begin at 0 and stay there
        closeness = self.minibatch(values.mean((2, 3)))[:, self.features :]
        return torch.cat([pooled, closeness], 1)


class ResidualDiscriminator(DiscriminatorNetwork):
    """Blocks from the pictures on, then a projection head; what differs in a group of pictures enters the last block.

    `config` holds minibatch_stddev and minibatch_group, and what the head takes.
    """

    def __init__(self, blocks: Sequence[nn.Module], features: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.stddev = MinibatchStddev(config["minibatch_group"]) if config["minibatch_stddev"] else nn.Identity()
        self.head = ProjectionHead(features, config)

    def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture; higher is more real."""
        values = pictures
        *earlier, last = self.blocks
        for block in earlier:
            values = block(values)
        logits: Tensor = self.head(last(self.stddev(values)), label)
        return logits


def zero_biases(network: nn.Module) -> None:
    """Set the biases of convolutions and linear layers to zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
