"""Which classes or prompts a conditional generator is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import InputError
from stages.generators.interface import ANYTHING, Asked, Capabilities, Generator, Request
from stages.generators.noise import latents

if TYPE_CHECKING:  # torch is imported once arguments and files are known to be good
    from stages.metrics.features import PictureSet

NO_CAPTIONS = "the reference has no captions: the model draws the empty prompt"


@dataclass(frozen=True)
class Conditions:
    """What is asked for picture by picture: labels int64 (N,), N prompts, or neither (None) of a plain generator."""

    labels: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return N, 0 of a plain generator."""
        return len(self.prompts or ()) if self.labels is None else len(self.labels)

    def take(self, positions: Sequence[int] | np.ndarray) -> "Conditions":
        """Return those at these positions, any number of times each."""
        labels = None if self.labels is None else self.labels[np.asarray(positions, np.int64)]
        prompts = None if self.prompts is None else tuple(self.prompts[position] for position in positions)
        return Conditions(labels, prompts)

    def request(self, latent: np.ndarray, asked: Asked = ANYTHING) -> Request:
        """Return the request of as many latents, with the negative prompt and guidance of `asked`."""
        extra = {} if self.labels is None else {"label": self.labels}
        return Request(latent, extra, self.prompts or (), asked.negative, asked.guidance, asked.truncation)


def evenly(total: int, count: int) -> list[int]:
    """Return `count` positions below `total` in ascending order, evenly apart; they repeat where there are fewer."""
    return [number * total // count for number in range(count)]


def conditions_in_turn(capabilities: Capabilities, count: int, captions: Sequence[str] = ()) -> Conditions:
    """Return classes one after the other, or captions evenly apart (the empty prompt where there are none)."""
    names = capabilities.class_names
    prompts = tuple(captions[position] for position in evenly(len(captions), count)) if captions else ("",) * count
    return Conditions(
        np.arange(count, dtype=np.int64) % len(names) if names else None, prompts if capabilities.prompt else None
    )


def captions_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the captions of a data set's rows, of those that have one."""
    return [row["caption"] for row in rows if (row.get("caption") or "").strip()]


class Conditioned(Generator):
    """A conditional generator that draws a wanted class or prompt for each seed: number i for seed `first + i`."""

    def __init__(
        self, generator: Generator, first: int, labels: np.ndarray | None = None, prompts: tuple[str, ...] | None = None
    ) -> None:
        self.generator, self.first, self.conditions = generator, first, Conditions(labels, prompts)
        self.capabilities, self.identity = generator.capabilities, generator.identity

    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1]."""
        return self.generator.generate(request)

    def draw(self, seeds: range, batch: int = 64, asked: Asked = ANYTHING) -> Iterator[np.ndarray]:
        """Draw the pictures of these seeds in batches, each of what is wanted for its seed.

        Of `asked` the negative prompt and guidance count.
        """
        asked.check(self.capabilities)
        for start in range(0, len(seeds), batch):
            part = seeds[start : start + batch]
            wanted = self.conditions.take(range(part.start - self.first, part.stop - self.first))
            yield self.generate(wanted.request(latents(part, self.capabilities.latent_shape), asked))

    def resampled(self, steps: int | None, sampler: str | None) -> "Conditioned":
        """Return the same with another number of sampling steps, or another sampler."""
        again = self.generator.resampled(steps, sampler)
        return Conditioned(again, self.first, self.conditions.labels, self.conditions.prompts)


def conditioned(
    generator: Generator, seeds: range, reference: "PictureSet", seed: int, captions: Sequence[str] = ()
) -> tuple[Generator, np.ndarray | None, list[str]]:
    """Return a generator that draws what the reference shows, the class of each seed, and notes.

    Classes are drawn in the reference's proportions; they are positions in its class names, -1 where it lacks the
    class, and None of a generator without classes. One that takes prompts draws the captions, each once before any
    repeats. A generator that takes neither is returned as it is.
    """
    takes = generator.capabilities
    if not takes.class_names and not takes.prompt:
        return generator, None, []
    labels, prompts, told, notes = None, None, None, list[str]()
    if takes.class_names:
        labels, notes = wanted_labels(takes.class_names, reference, len(seeds), seed)
        told = labels_by(reference.class_names, takes.class_names, labels)
    if takes.prompt:
        prompts, found = wanted_prompts(captions, len(seeds), seed)
        notes = notes + found
    return Conditioned(generator, seeds.start, labels, prompts), told, notes


def in_turn(generator: Generator, seeds: range, captions: Sequence[str] = ()) -> Generator:
    """Return a generator that draws its classes one after the other, or captions evenly apart; a plain one as it is."""
    found = conditions_in_turn(generator.capabilities, len(seeds), captions)
    if found.labels is None and found.prompts is None:
        return generator
    return Conditioned(generator, seeds.start, found.labels, found.prompts)


def wanted_prompts(captions: Sequence[str], count: int, seed: int) -> tuple[tuple[str, ...], list[str]]:
    """Return a prompt for each picture, captions in an order shuffled by seed, all before any repeats; and notes."""
    if not captions:
        return ("",) * count, [NO_CAPTIONS]
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(captions))
    return tuple(captions[order[number % len(order)]] for number in range(count)), []


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
