"""What each picture draws: the 18 transforms' rates and distributions (Karras 2020, arXiv 2006.06676, appendix B).

All numbers are drawn on the CPU: every device gets the same, and the identity is known without asking the device.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHIFT_WHOLE = 0.125  # of the side, either way, uniform
SHIFT_FRACTION = 0.125  # of the side, standard deviation
SCALE = 0.2  # standard deviations of log2
CONTRAST = 0.5
SATURATION = 1.0
BAND = 1.0
BRIGHTNESS = 0.2  # standard deviation, pictures in [-1, 1]
NOISE = 0.1  # standard deviation of the noise's own standard deviation
NOWHERE = -1.0  # centre of a cutout that was not drawn: its box lies outside of the picture

Parameters = dict[str, np.ndarray]  # by transform, float64, a row per picture
Draw = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Transform:
    """How a transform's parameter is drawn where it acts, and which parameter changes nothing."""

    draw: Draw
    identity: float = 0.0

    def __call__(self, count: int, rate: float, random: torch.Generator) -> Tensor:
        """Return one parameter per picture, shape (count, ...): drawn with probability `rate`, else the identity."""
        drawn = self.draw(count, random)
        acts = torch.rand(count, *(1,) * (drawn.ndim - 1), generator=random, dtype=torch.float64) < rate
        return torch.where(acts, drawn, self.identity)


def _uniform(reach: float, *shape: int, low: float | None = None) -> Draw:
    def draw(count: int, random: torch.Generator) -> Tensor:
        start = -reach if low is None else low
        return torch.rand(count, *shape, generator=random, dtype=torch.float64) * (reach - start) + start

    return draw


def _normal(deviation: float, *shape: int) -> Draw:
    def draw(count: int, random: torch.Generator) -> Tensor:
        return torch.randn(count, *shape, generator=random, dtype=torch.float64) * deviation

    return draw


def _log_normal(deviation: float) -> Draw:
    return lambda count, random: _normal(deviation)(count, random).exp2()


def _half_normal(deviation: float) -> Draw:
    return lambda count, random: _normal(deviation)(count, random).abs()


def _choice(options: int) -> Draw:
    return lambda count, random: torch.randint(options, (count,), generator=random).double()


TURN = Transform(_uniform(math.pi))
TRANSFORMS: dict[str, Transform] = {
    "xflip": Transform(_choice(2)),
    "rotate90": Transform(_choice(4)),
    "xint": Transform(_uniform(SHIFT_WHOLE, 2)),
    "scale": Transform(_log_normal(SCALE), 1.0),
    "rotate_before": TURN,
    "aniso": Transform(_log_normal(SCALE), 1.0),
    "rotate_after": TURN,
    "xfrac": Transform(_normal(SHIFT_FRACTION, 2)),
    "brightness": Transform(_normal(BRIGHTNESS)),
    "contrast": Transform(_log_normal(CONTRAST), 1.0),
    "lumaflip": Transform(_choice(2)),
    "hue": TURN,
    "saturation": Transform(_log_normal(SATURATION), 1.0),
    **{f"band{number}": Transform(_log_normal(BAND), 1.0) for number in range(4)},
    "noise": Transform(_half_normal(NOISE)),
    "cutout": Transform(_uniform(1.0, 2, low=0.0), NOWHERE),
}


def draw_parameters(transforms: Iterable[str], p: float, count: int, random: torch.Generator) -> Parameters:
    """Draw every selected transform's parameter for each picture, independently, with probability p.

    `rotate` is drawn twice, before and after `aniso`, each with 1 - sqrt(1 - p), so that p pictures are turned.
    Returns float64 by name in the order of application; what is not selected is absent.
    """
    selected = set(transforms)
    drawn: Parameters = {}
    for name, transform in TRANSFORMS.items():
        if name.removesuffix("_before").removesuffix("_after") in selected:
            rate = 1 - math.sqrt(1 - p) if name.startswith("rotate_") else p
            drawn[name] = transform(count, rate, random).numpy()
    return drawn
