"""The two networks' optimizers, their lazy correction, and values that are annealed."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from stages.settings.gans import GanSettings, StyleganSettings
from stages.trainer.state import flatten_optimizer, unflatten_optimizer

NETWORKS = ("generator", "discriminator")


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that take a gradient."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def lazy_correction(interval: int) -> float:
    """Return c = interval / (interval + 1): rates and betas of a network with a penalty step every so many steps.

    Karras 2020, appendix B "lazy regularization": lr * c and beta ** c undo the additional step.
    """
    return interval / (interval + 1) if interval > 1 else 1.0


class Optimizers:
    """Adam or RMSprop of generator and discriminator, over their trained parameters."""

    def __init__(self, settings: GanSettings, parameters: dict[str, list[nn.Parameter]]) -> None:
        self.settings = settings
        lengths = isinstance(settings, StyleganSettings) and settings.path_length > 0
        path_every = settings.path_length_every if lengths else 1  # type: ignore[attr-defined]
        self.corrections = {
            "generator": lazy_correction(path_every),
            "discriminator": lazy_correction(settings.regularise_every),
        }
        self.rates = {"generator": settings.generator_lr, "discriminator": settings.discriminator_lr}
        self._optimizers = {name: self._open(name, parameters[name]) for name in NETWORKS}

    def __getitem__(self, name: str) -> torch.optim.Optimizer:
        return self._optimizers[name]

    def _open(self, name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        c = self.corrections[name]
        if self.settings.optimizer == "rmsprop":
            return torch.optim.RMSprop(parameters, self.rates[name] * c)
        betas = (self.settings.beta1**c, self.settings.beta2**c)
        return torch.optim.Adam(parameters, self.rates[name] * c, betas=betas)

    def annealed(self, name: str, start: float, seen: int) -> float:
        """Return a setting's value after `seen` pictures: half a cosine from its start to its end."""
        end = getattr(self.settings.anneal, name) if self.settings.anneal else None
        if end is None:
            return start
        share = min(seen / (self.settings.anneal.kimg * 1000), 1.0)  # type: ignore[union-attr]
        return float(end + (start - end) * (1 + math.cos(math.pi * share)) / 2)

    def gamma(self, start: float, seen: int) -> float:
        """Return R1's or R2's weight after `seen` pictures; one that is off stays off."""
        return self.annealed("gamma", start, seen) if start else 0.0

    def follow(self, seen: int) -> None:
        """Set rates and betas to what belongs to the pictures seen."""
        if not self.settings.anneal:
            return
        for name, optimizer in self._optimizers.items():
            c = self.corrections[name]
            for group in optimizer.param_groups:
                group["lr"] = self.annealed("lr", self.rates[name], seen) * c
                if "betas" in group:
                    group["betas"] = (group["betas"][0], self.annealed("beta2", self.settings.beta2, seen) ** c)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a state holds of both."""
        flat: dict[str, Tensor] = {}
        for name, optimizer in self._optimizers.items():
            flat |= flatten_optimizer(f"adam_{name}", optimizer.state_dict())
        return flat

    def restore(self, tensors: dict[str, Any]) -> None:
        """Put a state back."""
        for name, optimizer in self._optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict(unflatten_optimizer(f"adam_{name}", tensors, groups))
