"""Which penalties the settings ask for, weighted; the formulas are in regularisers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stages.networks.contract import MappedGenerator
from stages.settings.gans import GanSettings, StyleganSettings
from stages.trainer.adversarial.inputs import Inputs, Part, mixed_styles
from stages.trainer.adversarial.regularisers import (
    interpolated,
    lipschitz_penalty,
    path_lengths,
    zero_centred_penalty,
)
from stages.trainer.order import derive_seed

if TYPE_CHECKING:
    from stages.trainer.adversarial.adversaries import Adversaries

MEAN = "path_length_mean"


@dataclass(frozen=True)
class Judged:
    """Pictures that require gradients, before augmentation, and what the discriminator says of them augmented."""

    part: Part
    real: Tensor
    fake: Tensor
    real_logits: Tensor | None  # None where no penalty is of them
    fake_logits: Tensor | None


def discriminator_penalty(
    game: "Adversaries", judged: Judged, random: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the penalties on the discriminator's gradient, and each unweighted, detached.

    Gradients are those at the pictures before augmentation (Karras 2020, appendix B).
    """
    settings, found = game.settings, dict[str, Tensor]()
    total = torch.zeros((), device=game.device)
    if settings.r1_gamma and judged.real_logits is not None:
        found["r1"] = zero_centred_penalty(judged.real, judged.real_logits)
        total = total + game.gammas[0] / 2 * found["r1"]
    if settings.r2_gamma and judged.fake_logits is not None:
        found["r2"] = zero_centred_penalty(judged.fake, judged.fake_logits)
        total = total + game.gammas[1] / 2 * found["r2"]
    if settings.gradient_penalty and judged.part.shares is not None:
        between = interpolated(judged.real.detach(), judged.fake.detach(), judged.part.shares)
        with game.accelerator.autocast():
            logits = game.discriminator(game.augmentation(between, random), judged.part.label).float()
        found["gradient_penalty"] = lipschitz_penalty(between, logits)
        total = total + settings.gradient_penalty * found["gradient_penalty"]
    return total, {name: value.detach() for name, value in found.items()}


class PathLength:
    """The path length penalty with its running mean, for generators with a mapping (Karras 2020, section 3.2)."""

    def __init__(self, settings: GanSettings, device: torch.device) -> None:
        self.settings = settings if isinstance(settings, StyleganSettings) and settings.path_length else None
        self.mean = torch.zeros((), device=device)

    def due(self, steps: int) -> bool:
        """Tell whether a step of the generator, counted from 0, has the penalty."""
        return self.settings is not None and steps % self.settings.path_length_every == 0

    def pictures(self, batch: int, parts: int) -> int:
        """Return how many pictures the penalty is of: equally many in each of all processes' parts."""
        assert self.settings is not None
        return max(1, batch // self.settings.path_length_shrink // parts) * parts

    def penalty(self, game: "Adversaries", inputs: Inputs, seen: int, number: int = 0) -> tuple[Tensor, Tensor]:
        """Return weight * every * E[(length - mean length)^2] and E[length] of a part, and let the mean follow."""
        network, settings = game.generator, self.settings
        assert isinstance(network, MappedGenerator)
        assert settings is not None
        with game.accelerator.autocast():
            styles = mixed_styles(network, inputs)
            pictures = network.synthesis(styles, list(inputs.noise) or None).float()
        random = torch.Generator(game.device).manual_seed(derive_seed(settings.seed, "path noise", seen, number))
        whole = (len(pictures) * game.world.size, *pictures.shape[1:])
        noise = game.world.share(torch.randn(whole, generator=random, device=game.device))
        lengths = path_lengths(pictures, styles, noise)
        average = lengths.detach().mean()
        game.world.average([average])
        self.mean.lerp_(average, settings.path_length_decay)
        loss = (lengths - self.mean.clone()).square().mean()
        return loss * settings.path_length * settings.path_length_every, average

    def tensors(self) -> dict[str, Tensor]:
        """Return what a state holds."""
        return {MEAN: self.mean.clone()} if self.settings else {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put a state back."""
        if self.settings and MEAN in tensors:  # an adopted state may be of a training without it
            self.mean.copy_(tensors[MEAN])
