"""Tiny adversaries of each family, without the stages before training, and gradients worked out beside them."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stages.generators.adversarial import AdversarialGenerator
from stages.networks.contract import GeneratorNetwork
from stages.settings.gans import GANS, GanSettings
from stages.settings.models import load_preset
from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.augmentation import Policy
from stages.trainer.world import World

SIZE = 8  # pixels of a side
NONE = Policy("none", (), 0.0, False, 0.6, 4, 500, False)
TINY: dict[str, dict[str, Any]] = {
    "gan": {"latent": 8, "widths": [8, 8], "discriminator_widths": [8]},
    "dcgan": {"latent": 8, "width": 4, "discriminator_width": 4},
    "sngan": {"latent": 8, "width": 8, "discriminator_width": 8},
    "biggan": {"latent": 8, "width": 4, "discriminator_width": 4, "shared_embedding": 4, "attention": 0},
    "progan": {"latent": 8, "channel_base": 32, "channel_max": 8, "phase_kimg": 0.016},
    "stylegan2": {"latent": 8, "style_width": 8, "mapping_layers": 2, "channel_base": 64, "channel_max": 8},
    "r3gan": {"latent": 8, "widths": [8, 8], "cardinalities": [2, 2], "blocks_per_stage": 1},
}
PACE: dict[str, Any] = {"batch": 8, "ema_half_life_kimg": 0.02, "budget_kimg": 1.0, "threads": 1}


def tiny(preset: str, **changes: Any) -> GanSettings:
    """Return a preset's settings, made tiny."""
    merged = load_preset(preset)
    family = merged["family"]
    return GANS[family].model_validate({**merged, **TINY[family], **PACE, "anneal": None, **changes})


def config_of(settings: GanSettings, resolution: int = SIZE, classes: int = 0) -> dict[str, Any]:
    """Return what rebuilds the networks, as a learner writes it."""
    config = {name: getattr(settings, name) for name in ("family", *settings.PARTS, *settings.ARCHITECTURE)}
    names = [f"class {number}" for number in range(classes)]
    return config | {"resolution": resolution, "channels": 3, "class_names": names}


def game(
    preset: str,
    labels: np.ndarray | None = None,
    policy: Policy = NONE,
    resolution: int = SIZE,
    world: World | None = None,
    **changes: Any,
) -> Adversaries:
    """Return tiny adversaries of a preset; `labels` are the training pictures' classes, `world` not this process."""
    settings = tiny(preset, **changes)
    classes = 0 if labels is None else int(labels.max()) + 1
    config = config_of(settings, resolution, classes)
    return Adversaries(config, settings, policy, world or World(Accelerator(cpu=True)), labels)


def opened(preset: str, classes: int = 0, resolution: int = SIZE, **changes: Any) -> AdversarialGenerator:
    """Return a tiny generator of a preset as it is shipped, with weights moved by chance."""
    labels = np.arange(24) % classes if classes else None
    settings = tiny(preset, **changes)
    config = config_of(settings, resolution, classes) | {"identity": {"weights": "a" * 64, "dataset": "b" * 64}}
    players = shaken(game(preset, labels, resolution=resolution, **changes))
    network = players.shipped({})
    assert isinstance(network, GeneratorNetwork)
    return AdversarialGenerator(network, config)


def pictures(count: int = 8, resolution: int = SIZE, seed: int = 1) -> Tensor:
    """Return random pictures, float32 in [-1, 1], (N, 3, S, S)."""
    return torch.rand(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def shaken(players: Adversaries) -> Adversaries:
    """Move all weights by chance: some begin at zero, which makes a network linear."""
    random = torch.Generator().manual_seed(9)
    for network in (players.generator, players.discriminator):
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=random), alpha=0.2)
    players.average.load_state_dict(players.generator.state_dict())
    return players


def freeze_updates(players: Adversaries, sums: dict[str, list[Tensor | None]]) -> None:
    """Let a game's steps add their gradients to `sums`, by network, in place of moving the networks by them."""

    def collect(name: str, measured: bool = True) -> dict[str, Tensor]:
        players.world.average_gradients(players._networks()[name])
        before = sums.get(name) or [None] * len(players.trained[name])
        sums[name] = [_added(old, p.grad) for old, p in zip(before, players.trained[name], strict=True)]
        players.optimizers[name].zero_grad(set_to_none=True)
        return {}

    players._update = collect  # type: ignore[method-assign]


def _added(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    if new is None:
        return old
    return new.clone() if old is None else torch.add(old, new)


def gradients(network: nn.Module, loss: Tensor) -> list[Tensor]:
    """Return a loss's gradients of all parameters, zeros where there are none."""
    parameters = list(network.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_same(found: list[Tensor | None], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    """Compare gradients, relative to the largest; None is zero. None of the expected may be all zeros."""
    largest = max(float(tensor.abs().max()) for tensor in expected)
    assert largest > 0
    for mine, theirs in zip(found, expected, strict=True):
        difference = theirs if mine is None else mine - theirs
        assert float(difference.abs().max()) <= tolerance * largest


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of a network's parameters and buffers."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def moved(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    """Return the names of what has changed since."""
    return {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}
