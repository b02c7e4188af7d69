"""Two multilayer perceptrons (Goodfellow 2014); with classes, Mirza 2014, "Conditional generative adversarial nets"."""

from itertools import pairwise
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from stages.networks.contract import DiscriminatorNetwork, GeneratorNetwork
from stages.networks.layers.minibatch import MinibatchDiscrimination, MinibatchStddev
from stages.networks.layers.spectral import normalise_spectrally

LEAK = 0.2


class Generator(GeneratorNetwork):
    """Hidden layers with batch norm from the second on, then tanh; `blocks` are the hidden layers.

    With classes, a learned embedding of the label, one entry for each class, follows the latent.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.latent, classes = config["latent"], len(config["class_names"])
        self.shape = (config["channels"], config["resolution"], config["resolution"])
        self.classes = nn.Embedding(classes, classes) if classes else None
        sizes = [self.latent + classes, *config["widths"]]
        pairs = enumerate(pairwise(sizes))
        self.blocks = nn.ModuleList(hidden(*pair, norm=position > 0) for position, pair in pairs)
        self.paint = nn.Sequential(nn.Linear(sizes[-1], prod(self.shape)), nn.Tanh())

    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures."""
        features = latent if self.classes is None else torch.cat([latent, self.classes(label)], 1)
        for block in self.blocks:
            features = block(features)
        return cast(Tensor, self.paint(features).unflatten(1, self.shape))


class Discriminator(DiscriminatorNetwork):
    """Hidden layers over all pixels; with classes, an embedding of the label follows the pixels.

    Minibatch standard deviation, where it is on, is of the last hidden layer.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        classes, widths = len(config["class_names"]), config["discriminator_widths"]
        group, kernels = config["minibatch_group"], config["minibatch_kernels"]
        self.classes = nn.Embedding(classes, classes) if classes else None
        sizes = [config["channels"] * config["resolution"] ** 2 + classes, *widths]
        self.blocks = nn.ModuleList(hidden(*pair, norm=False) for pair in pairwise(sizes))
        width = sizes[-1] + config["minibatch_stddev"]
        self.similarity = MinibatchStddev(group) if config["minibatch_stddev"] else nn.Identity()
        self.closeness = MinibatchDiscrimination(width, kernels, group) if kernels else nn.Identity()
        self.dropout = nn.Dropout(config["dropout"])
        self.judge = nn.Linear(width + kernels, 1)

    def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture."""
        features = pictures.flatten(1)
        if self.classes is not None:
            features = torch.cat([features, self.classes(label)], 1)
        for block in self.blocks:
            features = block(features)
        features = self.similarity(features[:, :, None, None]).flatten(1)
        return cast(Tensor, self.judge(self.dropout(self.closeness(features))).flatten())


def hidden(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    """Return a hidden layer; batch norm has the bias where there is one."""
    norms = [nn.BatchNorm1d(outputs)] if norm else []
    return nn.Sequential(nn.Linear(inputs, outputs, bias=not norm), *norms, nn.LeakyReLU(LEAK))


def build_generator(config: dict) -> Generator:
    """Build an untrained generator from a weights folder's config."""
    return Generator(config)


def build_discriminator(config: dict) -> Discriminator:
    """Build an untrained discriminator from a weights folder's config."""
    discriminator = Discriminator(config)
    if config["spectral_norm"]:
        normalise_spectrally(discriminator)
    return discriminator
