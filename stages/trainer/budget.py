"""What a training will cost, said before it starts: pictures per hour, hours, disk."""

import time
from pathlib import Path

import numpy as np

from stages.trainer.learner import Learner
from stages.trainer.state import KEPT

WARM_UP_STEPS = 2
MEASURED_STEPS = 6


def measure_speed(learner: Learner, seen: int = 0) -> float:
    """Return training pictures per second after `seen`, from a few steps of networks that are then thrown away."""
    batch = learner.settings.batch
    positions = np.arange(batch) % learner.count
    for _ in range(WARM_UP_STEPS):
        learner.step(positions, seen)
    started = time.perf_counter()
    for _ in range(MEASURED_STEPS):
        statistics = learner.step(positions, seen)
    float(next(iter(statistics.values())))  # waits for the device
    return MEASURED_STEPS * batch / (time.perf_counter() - started)


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
