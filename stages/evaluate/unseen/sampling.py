"""What guidance, sampling steps, truncation and conditions do to the pictures of a generator that takes them."""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from stages.dataset import to_uint8
from stages.errors import InputError
from stages.evaluate.conditioning import Conditions, captions_of, evenly
from stages.evaluate.inputs import Pictures
from stages.evaluate.picture_sets import floor_positions, seeds
from stages.evaluate.scoring import AnyNetwork, Measured, asked_for_the_data
from stages.generators.interface import Asked, Generator
from stages.generators.noise import latents
from stages.metrics.extraction import extract
from stages.metrics.features import PictureSet
from stages.metrics.frechet import frechet_distance
from stages.metrics.gaussians import Features
from stages.metrics.manifold import manifold
from stages.settings import EvaluateSettings

SWEPT = ("guidance", "steps", "truncation")
ROWS = 6  # seeds of a sheet
CLASSES, PROMPTS = 10, 6  # columns at most

Part = dict[str, Any]


@dataclass(frozen=True)
class Sampling:
    """The report's part, empty of a generator that takes nothing; sheets by name, uint8 (rows, columns, H, W, C).

    `seconds` are rows with the CPU-seconds per picture. They differ from run to run and so are not in the part.
    """

    part: Part = field(default_factory=dict)
    sheets: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: list[Part] = field(default_factory=list)


class Way(NamedTuple):
    """One way to sample; a generator that does not take one of these has its default of it."""

    guidance: float
    steps: int | None
    truncation: float


@dataclass(frozen=True)
class Trial:
    """What one way to sample gives: the first pictures, uint8 (rows, C, H, W), scores, CPU-seconds per picture.

    `absent` says why it gives nothing.
    """

    first: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.uint8))
    scores: Part = field(default_factory=dict)
    seconds: float = 0.0
    absent: str = ""


class Trials:
    """One generator drawn in several ways and on several conditions, beside the hold-out in one network's features.

    All trials are of the same seeds and conditions: the first that the scores are of.
    """

    def __init__(
        self, settings: EvaluateSettings, pictures: Pictures, generator: Generator, network: AnyNetwork, found: Measured
    ) -> None:
        self.settings, self.pictures, self.network = settings, pictures, network
        self.generator, self.takes = generator, generator.capabilities
        self.own = Way(
            float(self.takes.default_guidance) if self.takes.guidance else 1.0,
            self.takes.steps,
            float(self.takes.default_truncation),
        )
        self.asked, _, _ = asked_for_the_data(settings, pictures, generator)
        self.count = min(settings.sampling.count, settings.count)
        self.seeds = seeds(settings)[: self.count]
        features = found.features[network.label]
        self.holdout = Features(features["holdout"].features, "hold-out")
        self.train = features["train"].features
        self.neighbours = min(settings.neighbours, self.count - 1, len(self.holdout) - 1)
        self.done: dict[Way, Trial] = {}

    def all(self) -> Sampling:
        """Return what this generator's capabilities allow to try."""
        part, sheets = Part(), dict[str, np.ndarray]()
        sweeps = {name: self._sweep(name, values) for name in SWEPT if (values := self._values(name))}
        for name, trials in sweeps.items():
            if columns := [trial.first for trial in trials.values() if not trial.absent]:
                sheets[name] = _grid(np.stack(columns, axis=1))
        if sweeps:
            part = self._about() | {name: self._rows(name, trials) for name, trials in sweeps.items()}
        for name, (shown, conditions) in self._conditions().items():
            part[name], sheets[name] = shown, self._same_noise(conditions)
        return Sampling(part, sheets, self._seconds())

    def _values(self, name: str) -> list[float]:
        """Return what is tried of a setting, the model's own value included, ascending; none where it takes none.

        Truncations above the own one, at which pictures are as without, truncate nothing and are left out.
        """
        wanted, own = getattr(self.settings.sampling, name), getattr(self.own, name)
        if not wanted or not getattr(self.takes, name):
            return []
        return sorted({*(value for value in wanted if name != "truncation" or value < own), own})

    def _sweep(self, name: str, values: list[float]) -> dict[float, Trial]:
        return {value: self._trial(self._way(name, value)) for value in values}

    def _way(self, name: str, value: Any) -> Way:
        return self.own._replace(**{name: value})

    def _rows(self, name: str, trials: dict[float, Trial]) -> list[Part]:
        found = []
        for value, trial in trials.items():
            way = self._way(name, value)
            work = {"evaluations": evaluations(way.steps, way.guidance)} if way.steps else {}
            found.append({name: value, **work, **({"absent": trial.absent} if trial.absent else trial.scores)})
        return found

    def _about(self) -> Part:
        """Return what the trials' scores depend on, and those of as many train pictures: what is within reach."""
        count = min(self.count, len(self.train))
        chosen = floor_positions(len(self.train), count, self.settings.seed)
        pixels = self.pictures.holdout.pixels
        real = self._scores(self.train[chosen]) | {"clipped": float(((pixels == 0) | (pixels == 255)).mean())}
        own = {f"default_{name}": value for name, value in self._told(self.own).items()}
        about = {"features": self.network.label, "count": self.count, "neighbours": self.neighbours}
        return about | own | {"real": real}

    def _trial(self, way: Way) -> Trial:
        if way not in self.done:
            try:
                self.done[way] = self._draw(way)
            except InputError as error:  # such as a number of steps that the sampler cannot walk
                self.done[way] = Trial(absent=str(error))
        return self.done[way]

    def _draw(self, way: Way) -> Trial:
        drawing = self.asked if way.steps == self.own.steps else self.asked.resampled(way.steps, None)
        asked = Asked(
            guidance=way.guidance if way.guidance != self.own.guidance else None,
            truncation=way.truncation if way.truncation != self.own.truncation else None,
        )
        start, batches, share = time.process_time(), list[np.ndarray](), 0.0
        for batch in drawing.draw(self.seeds, self.settings.batch, asked):
            if not np.isfinite(batch).all():
                return Trial(absent="it draws NaN or infinity")
            batches.append(to_uint8(batch))
            share += clipped(batch) * len(batch) / self.count
        seconds = (time.process_time() - start) / self.count
        name = ", ".join(f"{key} {value:g}" for key, value in self._told(way).items())
        found = extract(PictureSet(name, self.count, lambda: iter(batches)), [self.network])[self.network.label]
        first = np.concatenate(batches[: -(-ROWS // self.settings.batch)])[:ROWS]
        return Trial(first, self._scores(found.features) | {"clipped": share}, seconds)

    def _scores(self, features: np.ndarray) -> Part:
        drawn = Features(features, "generated")
        balls = manifold(drawn, self.holdout, self.neighbours)
        return {
            "fd": frechet_distance(drawn, self.holdout),
            "precision": balls.precision,
            "recall": balls.recall,
        }

    def _conditions(self) -> dict[str, tuple[list[str], list[Conditions]]]:
        """Return by the sheet's name the columns in words, and what is asked for in each."""
        found = {}
        names = self.takes.class_names
        if len(names) > 1:
            numbers = evenly(len(names), min(len(names), CLASSES))
            asked = [Conditions(np.full(ROWS, number, np.int64)) for number in numbers]
            found["classes"] = ([names[number] for number in numbers], asked)
        captions = list(dict.fromkeys(captions_of(self.pictures.holdout.rows)))
        if self.takes.prompt and captions:
            shown = [captions[place] for place in evenly(len(captions), min(len(captions), PROMPTS))]
            found["prompts"] = (shown, [Conditions(prompts=(caption,) * ROWS) for caption in shown])
        return found

    def _same_noise(self, columns: list[Conditions]) -> np.ndarray:
        """Return a sheet whose rows are seeds and whose columns are conditions."""
        latent = latents(self.seeds[:ROWS], self.takes.latent_shape)
        drawn = [to_uint8(self.generator.generate(conditions.request(latent))) for conditions in columns]
        return _grid(np.stack(drawn, axis=1))

    def _told(self, way: Way) -> Part:
        """Return of a way to sample what this generator takes."""
        return {name: getattr(way, name) for name in SWEPT if getattr(self.takes, name)}

    def _seconds(self) -> list[Part]:
        return [
            {**self._told(way), **trial.scores, "cpu_seconds": trial.seconds}
            for way, trial in self.done.items()
            if not trial.absent
        ]


def evaluations(steps: int, guidance: float) -> int:
    """Return the network evaluations of a picture: one a step, two where it is guided.

    Samplers of second order, such as Heun's, evaluate up to twice as often.
    """
    return steps * (1 if guidance == 1 else 2)


def clipped(pictures: np.ndarray) -> float:
    """Return the share of values in [-1, 1] that lie at either end, where guidance that is too strong drives them."""
    return float((np.abs(pictures) >= 1).mean())


def _grid(pictures: np.ndarray) -> np.ndarray:
    """Turn (rows, columns, C, H, W) into (rows, columns, H, W, C)."""
    return pictures.transpose(0, 1, 3, 4, 2)
