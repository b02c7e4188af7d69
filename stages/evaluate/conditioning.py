"""Which classes a conditional generator is asked for."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.errors import InputError
from stages.generators.interface import Generator, Request
from stages.generators.noise import latents

if TYPE_CHECKING:  # torch is imported once arguments and files are known to be good
    from stages.metrics.features import PictureSet


class Conditioned(Generator):
    """A conditional generator that draws a wanted class for each seed: `labels[i]` for seed `first + i`."""

    def __init__(self, generator: Generator, first: int, labels: np.ndarray) -> None:
        self.generator, self.first, self.labels = generator, first, labels
        self.capabilities, self.identity = generator.capabilities, generator.identity

    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1]."""
        return self.generator.generate(request)

    def draw(self, seeds: range, batch: int = 64) -> Iterator[np.ndarray]:
        """Draw the pictures of these seeds in batches, each of the class that is wanted for its seed."""
        for start in range(0, len(seeds), batch):
            part = seeds[start : start + batch]
            labels = self.labels[part.start - self.first : part.stop - self.first]
            yield self.generate(Request(latents(part, self.capabilities.latent_shape), {"label": labels}))


def conditioned(
    generator: Generator, seeds: range, reference: "PictureSet", seed: int
) -> tuple[Generator, np.ndarray | None, list[str]]:
    """Return a generator that draws the reference's classes in its proportions, the class of each seed, and notes.

    Classes are positions in the reference's class names, -1 where it lacks the class. A generator without classes is
    returned as it is, with None.
    """
    names = generator.capabilities.class_names
    if not names:
        return generator, None, []
    labels, notes = wanted_labels(names, reference, len(seeds), seed)
    return Conditioned(generator, seeds.start, labels), labels_by(reference.class_names, names, labels), notes


def in_turn(generator: Generator, seeds: range) -> Generator:
    """Return a generator that draws its classes one after the other; one without classes as it is."""
    names = generator.capabilities.class_names
    if not names:
        return generator
    return Conditioned(generator, seeds.start, np.arange(len(seeds), dtype=np.int64) % len(names))


def wanted_labels(
    names: Sequence[str], reference: "PictureSet | None", count: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Return a class for each picture, int64, shape (count,), in the reference's proportions, and what was notable.

    Classes are matched by name. Without a labelled reference all classes are equally frequent. Numbers are those of
    the largest remainder, their order is shuffled by seed.

    Raises:
        InputError: the model and the reference share no class.
    """
    if reference is None or reference.labels is None:
        weights, notes = np.ones(len(names)), ["the reference has no classes: the model draws all of its equally often"]
    else:
        weights, notes = _weights(names, reference)
    labels = np.repeat(np.arange(len(names)), apportion(weights, count))
    return np.random.Generator(np.random.Philox(key=seed)).permutation(labels).astype(np.int64), notes


def _weights(names: Sequence[str], reference: "PictureSet") -> tuple[np.ndarray, list[str]]:
    labels = reference.labels if reference.labels is not None else np.zeros(0, np.int64)
    found = {name: int((labels == number).sum()) for number, name in enumerate(reference.class_names)}
    weights = np.array([found.get(name, 0) for name in names], np.float64)
    if not weights.any():
        raise InputError(
            f"the model draws {_some(names)}, {reference.name} holds {_some(reference.class_names)}: no class is shared"
            "; give a reference with the model's classes"
        )
    lost = [name for name, number in found.items() if number and name not in names]
    return weights, [f"the model cannot draw {_some(lost)}, which {reference.name} holds"] if lost else []


def apportion(weights: np.ndarray, count: int) -> np.ndarray:
    """Share `count` out in proportion to weights by the largest remainder (Hamilton), int64; the sum is `count`."""
    exact = weights / weights.sum() * count
    shares = np.floor(exact).astype(np.int64)
    rest = np.argsort(shares - exact, kind="stable")[: count - int(shares.sum())]
    shares[rest] += 1
    return shares


def _some(names: Sequence[str], most: int = 5) -> str:
    shortened = ", ".join(names[:most])
    return f"{shortened} and {len(names) - most} more" if len(names) > most else shortened


def labels_by(names: Sequence[str], own_names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Return labels, int64 (N,), as positions in `names` instead of `own_names`; -1 where a class is not among them."""
    positions = {name: number for number, name in enumerate(names)}
    translated = np.array([positions.get(name, -1) for name in own_names] + [-1], np.int64)
    found: np.ndarray = translated[labels]  # -1 finds the entry behind the last name
    return found
