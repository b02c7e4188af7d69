"""What a training will cost, said before it starts: pictures per hour, hours, disk."""

import time
from pathlib import Path

import torch

from stages.trainer.adversarial import Adversaries
from stages.trainer.state import KEPT

WARM_UP_STEPS = 2
MEASURED_STEPS = 6


def measure_speed(adversaries: Adversaries, batch: int, shape: tuple[int, int, int]) -> float:
    """Return training pictures per second, from a few steps of networks that are then thrown away."""
    share = batch // adversaries.world.size
    real = torch.zeros(share, *shape, device=adversaries.device).to(memory_format=torch.channels_last)
    for _ in range(WARM_UP_STEPS):
        adversaries.step(real.detach(), 0)
    started = time.perf_counter()
    for _ in range(MEASURED_STEPS):
        statistics = adversaries.step(real.detach(), 0)
    float(statistics["loss_generator"])  # waits for the device
    return MEASURED_STEPS * batch / (time.perf_counter() - started)


def state_bytes(adversaries: Adversaries) -> int:
    """Return the size of one resumable state: networks, average, and Adam's two moments per trained weight."""
    trained = [*adversaries.generator.parameters(), *adversaries.discriminator.parameters()]
    averaged = list(adversaries.average.parameters())
    return 4 * (3 * sum(p.numel() for p in trained) + sum(p.numel() for p in averaged))


def disk_needed(folder: Path, state: int) -> int:
    """Return the bytes that a training has yet to write: states beyond those that are there, and its results.

    While one is written all kept ones are still there. Results are less than one state.
    """
    there = sum(path.stat().st_size for path in folder.glob("state-*/*"))
    return max(state, (KEPT + 1) * state - there) + state


def describe_budget(name: str, kimg: float, done: float, speed: float, disk: int) -> str:
    """Return one line with what is left to do and what it costs."""
    hours = (kimg - done) / (speed * 3.6)
    length = f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
    return (
        f"{name}: {kimg - done:.1f} of {kimg:g} kimg to go at about {speed * 3.6:.0f} kimg per hour: {length}; "
        f"states take {KEPT} x {disk / KEPT / 1e6:.1f} MB"
    )
