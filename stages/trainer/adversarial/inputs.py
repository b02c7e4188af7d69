"""What a step's generated pictures are made of: latents, classes, noise and where styles change."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.networks.contract import GeneratorNetwork, MappedGenerator
from stages.trainer.order import derive_seed, normal_noise, random_source
from stages.trainer.world import World


@dataclass(frozen=True)
class Inputs:
    """The inputs of N generated pictures, on the device; what a generator does not take is None or empty."""

    latent: Tensor
    label: Tensor | None = None
    second: Tensor | None = None  # latents whose styles begin at the layer `crossover`, (N,)
    crossover: Tensor | None = None
    noise: tuple[Tensor, ...] = ()

    def parts(self, count: int) -> list["Inputs"]:
        """Return equal parts, in order."""
        return [
            Inputs(
                self.latent.chunk(count)[number],
                None if self.label is None else self.label.chunk(count)[number],
                None if self.second is None else self.second.chunk(count)[number],
                None if self.crossover is None else self.crossover.chunk(count)[number],
                tuple(layer.chunk(count)[number] for layer in self.noise),
            )
            for number in range(count)
        ]


@dataclass(frozen=True)
class Part:
    """A part of a step's batch: real pictures, what generated ones are made of, and these."""

    real: Tensor
    label: Tensor | None  # of real pictures
    inputs: Inputs
    fake: Tensor
    shares: Tensor | None  # how far between generated and real the gradient penalty looks, (N,) in [0, 1)


class InputSource:
    """Draws the inputs of a whole batch, equal in all processes, and returns this process's share.

    Fake classes are those of training pictures by chance, so that they are as frequent as the real ones.
    """

    def __init__(self, network: GeneratorNetwork, world: World, settings: Any, labels: np.ndarray | None) -> None:
        self.world, self.seed, self.latent = world, settings.seed, settings.latent
        self.device = world.accelerator.device
        self.labels = None if labels is None else torch.from_numpy(labels)
        self.shapes = network.noise_shapes
        self.layers = network.layers if isinstance(network, MappedGenerator) else 0
        self.mixing: float = settings.style_mixing if self.layers else 0.0

    def draw(self, count: int, seen: int, purpose: str = "noise") -> Inputs:
        """Return this process's share of the inputs of `count` pictures."""
        latent = normal_noise((count, self.latent), self.seed, purpose, seen)
        random = random_source(self.seed, purpose, "inputs", seen)
        label = (
            None if self.labels is None else self.labels[torch.randint(len(self.labels), (count,), generator=random)]
        )
        second, crossover = self._mixture(count, random)
        mine = {"latent": latent, "label": label, "second": second, "crossover": crossover}
        shared = {name: None if value is None else self._placed(value) for name, value in mine.items()}
        return Inputs(**shared, noise=self._noise(count, purpose, seen))  # type: ignore[arg-type]

    def _placed(self, whole: Tensor) -> Tensor:
        return self.world.share(whole).to(self.device)

    def _mixture(self, count: int, random: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """Return second latents and the layers from which their styles are used (Karras 2019, section 3.1)."""
        if not self.mixing:
            return None, None
        second = torch.randn(count, self.latent, generator=random)
        crossover = torch.randint(1, self.layers, (count,), generator=random)
        mixed = torch.rand(count, generator=random) < self.mixing
        return second, torch.where(mixed, crossover, self.layers)

    def _noise(self, count: int, purpose: str, seen: int) -> tuple[Tensor, ...]:
        """Return noise for each layer, drawn on the device: it is as large as the layers."""
        if not self.shapes:
            return ()
        random = torch.Generator(self.device).manual_seed(derive_seed(self.seed, purpose, "layers", seen))
        drawn = (torch.randn(count, *shape, generator=random, device=self.device) for shape in self.shapes)
        return tuple(self.world.share(layer) for layer in drawn)


def mixed_styles(network: MappedGenerator, inputs: Inputs) -> Tensor:
    """Return styles, (N, layers, style): those of the first latent up to the crossover, then those of the second."""
    styles = network.mapping(inputs.latent, inputs.label)[:, None]
    if inputs.second is None or inputs.crossover is None:
        return styles.expand(-1, network.layers, -1)
    others = network.mapping(inputs.second, inputs.label)[:, None]
    first = torch.arange(network.layers, device=styles.device) < inputs.crossover[:, None]
    return torch.where(first[:, :, None], styles, others)


def draw_pictures(network: GeneratorNetwork, inputs: Inputs) -> Tensor:
    """Draw the pictures of these inputs, with gradients."""
    noise = list(inputs.noise) or None
    if isinstance(network, MappedGenerator):
        return network.synthesis(mixed_styles(network, inputs), noise)
    drawn: Tensor = network(inputs.latent, inputs.label, noise=noise)
    return drawn
