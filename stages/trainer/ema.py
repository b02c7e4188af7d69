"""An exponential moving average of the generator, its half-life counted in pictures."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

MOMENTS = ("running_mean", "running_var")  # of batch norm
Network = TypeVar("Network", bound=nn.Module)


def ema_decay(batch: int, seen: int, half_life: float, rampup: float) -> float:
    """Return the weight of the old average in one step.

    0.5 ** (batch / h) with h = min(half_life, rampup * seen) in pictures: short runs average over a short past
    (Karras 2020, "Training GANs with limited data", official configs). `rampup` 0 switches the ramp off.
    """
    effective = min(half_life, rampup * seen) if rampup else half_life
    return 0.5 ** (batch / max(effective, 1e-8))


def start_average(network: Network) -> Network:
    """Return a copy of a network that takes no gradient and is used in evaluation mode."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards a network: parameters and batch norm's running moments alike; other buffers are copied.

    Moments are averaged too, since those of the last step belong to other weights than the averaged ones.
    """
    buffers = dict(network.named_buffers())
    moved: list[tuple[Tensor, Tensor]] = list(zip(average.parameters(), network.parameters(), strict=True))
    for name, old in average.named_buffers():
        if name.rpartition(".")[2] in MOMENTS:
            moved.append((old, buffers[name]))
        else:
            old.copy_(buffers[name])
    torch._foreach_lerp_([old for old, _ in moved], [new for _, new in moved], 1 - decay)  # all of them in one call
