"""The sets of pictures that are compared: real ones of both splits, generated ones, and two baselines."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stages.dataset import ImageDataset, to_uint8
from stages.errors import GateError
from stages.evaluate.inputs import labels_of
from stages.generators.interface import Generator
from stages.metrics.features import PictureSet
from stages.settings import EvaluateSettings
from stages.storage import sha256_bytes

SEEDS_PER_SEED = 10**6  # so that two values of evaluate.seed share no picture


def seeds(settings: EvaluateSettings) -> range:
    """Return the seeds of the generated pictures."""
    first = settings.seed * SEEDS_PER_SEED
    return range(first, first + settings.count)


def split_set(name: str, dataset: ImageDataset, content: str, split: str, batch: int) -> PictureSet:
    """Return all pictures of a split, labelled where the data has classes."""
    names = tuple(dataset.description.get("class_names", ()))

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(dataset), batch):
            yield dataset.pixels[start : start + batch].transpose(0, 3, 1, 2)

    identity = {"dataset": content, "split": split, "selection": "all"}
    return PictureSet(name, len(dataset), batches, identity, labels_of(dataset) if names else None, names)


def floor_positions(total: int, count: int, seed: int) -> np.ndarray:
    """Return `count` positions of the train split, by seed without replacement: what a perfect generator draws."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return np.sort(generator.choice(total, count, replace=False))


def generated_set(name: str, generator: Generator, drawn: range, batch: int) -> PictureSet:
    """Return the pictures that a generator draws for these seeds.

    Raises:
        GateError: while drawing, if a picture holds NaN or infinity.
    """

    def batches() -> Iterator[np.ndarray]:
        for pictures in generator.draw(drawn, batch):
            if not np.isfinite(pictures).all():
                raise GateError(f"{name} draws NaN or infinity: its training diverged; train it with other settings")
            yield to_uint8(pictures)

    return PictureSet(name, len(drawn), batches)


def colour_histogram_set(dataset: ImageDataset, count: int, seed: int, batch: int) -> PictureSet:
    """Return pictures whose every pixel is drawn independently from the dataset's colours (Philox, one key each)."""
    colours = dataset.pixels.reshape(-1, dataset.channels)
    size = dataset.resolution

    def draw(number: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=number))
        return colours[generator.integers(0, len(colours), (size, size))].transpose(2, 0, 1)

    def batches() -> Iterator[np.ndarray]:
        numbers = range(seed * SEEDS_PER_SEED, seed * SEEDS_PER_SEED + count)
        for start in range(0, count, batch):
            yield np.stack([draw(number) for number in numbers[start : start + batch]])

    return PictureSet("colour histogram", count, batches)


def labelled(pictures: PictureSet, labels: np.ndarray | None, class_names: tuple[str, ...]) -> PictureSet:
    """Return the same set with the classes that its pictures were asked for; None: as it is."""
    return pictures if labels is None else replace(pictures, labels=labels, class_names=class_names)


def keep(pictures: PictureSet, **origin: str | int) -> PictureSet:
    """Return the same set, to be cached: identified by its origin and by the bytes of its first batch.

    The first batch stands for the code and the weights that drew it, so that a change of either is noticed.
    """
    first = sha256_bytes(next(pictures.batches()).tobytes())
    identity = {**origin, "name": pictures.name, "count": pictures.count, "first_batch": first}
    return PictureSet(pictures.name, pictures.count, pictures.batches, identity)
