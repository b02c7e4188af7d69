"""What every family's training is to the loop: data, networks, one step, and all that a state must hold."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stages.settings.models import TrainingSettings
from stages.trainer.state import TrainingState
from stages.trainer.world import World


class Learner(ABC):
    """Networks, optimizers and data of one training, on one device.

    Everything that a step draws is a function of the seed and the pictures seen, so that a training that goes on
    from a state equals one that was never stopped.
    """

    settings: TrainingSettings
    world: World
    count: int  # training pictures
    statistics: tuple[str, ...]  # what `step` returns; the loop sums them up to a tick
    config: dict[str, Any]  # rebuilds the networks; config.json of the weights
    advice: str  # what to change where the training diverges, by names of settings
    averages: tuple[str, ...] = ("",)  # suffixes of the averages' scores; the first average is drawn at ticks

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.world.accelerator.device

    @abstractmethod
    def step(self, positions: np.ndarray, seen: int) -> dict[str, Tensor]:
        """Take one optimisation step on a whole batch and return detached scalar statistics by name.

        Not every step has each of `statistics`: some losses are computed every few steps.
        `positions` are those of the whole batch among the training pictures; each process takes its share of them.
        `seen` counts all pictures before this step.
        """

    @abstractmethod
    def draw_grid(self, count: int) -> Tensor:
        """Draw pictures of the seeds 0 to count - 1 by the averaged weights, float32 on the CPU, in [-1, 1]."""

    def draw_raw_grid(self, count: int) -> Tensor | None:
        """Draw the same pictures by the weights as they are trained, not averaged; None where nobody looks at them."""
        return None

    @abstractmethod
    def draw_sample(self, numbers: range, average: str) -> np.ndarray:
        """Draw the pictures of these numbers by one average, float32 (N, C, H, W) in [-1, 1], on the CPU.

        Conditions, where there are any, are those of training pictures evenly apart: as frequent as in the data.
        """

    @abstractmethod
    def average_tensors(self, average: str) -> dict[str, Tensor]:
        """Return copies of one average's tensors, on the CPU."""

    @abstractmethod
    def real_pictures(self, count: int) -> Tensor:
        """Return the first training pictures, float32 (N, C, H, W) in [-1, 1], to compare a grid's diversity with."""

    def about(self) -> dict[str, Any]:
        """Return what the record says of what was learnt from, such as the autoencoder of latents."""
        return {}

    def origins(self) -> list[str]:
        """Return lines on what a training that begins afresh started from, where that is not random weights."""
        return []

    def finish_row(self, row: dict[str, float], seen: int) -> dict[str, float]:
        """Return a tick's row of the curve, from the means of the statistics since the last tick."""
        return row

    @abstractmethod
    def export_state(self, seen: int, values: dict[str, Any]) -> TrainingState:
        """Collect all that is needed to go on after `seen` pictures; `values` are the loop's own."""

    @abstractmethod
    def restore(self, state: TrainingState) -> None:
        """Put a state back."""

    @abstractmethod
    def state_numbers(self) -> int:
        """Return how many float32 numbers a state holds."""

    @abstractmethod
    def write_weights(self, folder: Path, best: dict[str, Tensor]) -> str:
        """Write the networks into an existing folder; returns the sha256 that identifies the generator's weights.

        `best` are the tensors of the best snapshot's average; empty: the first average as it is now.
        """


class Scorer(Protocol):
    """Scores what a learner's average draws; less is better."""

    name: str

    def score(self, learner: Learner, average: str) -> float:
        """Return the score; every process of a training calls it at the same step."""
