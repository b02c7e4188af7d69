"""Diffusion models as generators; imports wait until one is opened, since readers of ONNX files need only its parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.generators.diffusion.generator import DiffusionGenerator


def load(weights: Path, config: dict[str, Any]) -> "DiffusionGenerator":
    """Open a weights folder in diffusers' layout."""
    from stages.generators.diffusion import generator

    return generator.load(weights, config)


def untrained(config: dict[str, Any], seed: int, weights: Path) -> "DiffusionGenerator":
    """Return the same denoiser with fresh weights, and the trained decoder: the baseline that training must beat."""
    from stages.generators.diffusion import generator

    return generator.untrained(config, seed, weights)
