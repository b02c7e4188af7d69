"""What guidance, sampling steps and conditions do to the pictures of a generator that takes them."""

import time
from dataclasses import dataclass, field
from typing import Any

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
    """One generator drawn with other guidance, steps and conditions, beside the hold-out in one network's features.

    All trials are of the same seeds and conditions: the first that the scores are of.
    """

    def __init__(
        self, settings: EvaluateSettings, pictures: Pictures, generator: Generator, network: AnyNetwork, found: Measured
    ) -> None:
        self.settings, self.pictures, self.network = settings, pictures, network
        self.generator, self.takes = generator, generator.capabilities
        self.asked, _, _ = asked_for_the_data(settings, pictures, generator)
        self.count = min(settings.sampling.count, settings.count)
        self.seeds = seeds(settings)[: self.count]
        features = found.features[network.label]
        self.holdout = Features(features["holdout"].features, "hold-out")
        self.train = features["train"].features
        self.neighbours = min(settings.neighbours, self.count - 1, len(self.holdout) - 1)
        self.done: dict[tuple[int | None, float], Trial] = {}

    def all(self) -> Sampling:
        """Return what this generator's capabilities allow to try."""
        part, sheets = Part(), dict[str, np.ndarray]()
        guidance = self._guidance() if self.takes.guidance and self.settings.sampling.guidance else {}
        steps = self._steps() if self.takes.steps and self.settings.sampling.steps else {}
        for name, trials in (("guidance", guidance), ("steps", steps)):
            if columns := [trial.first for trial in trials.values() if not trial.absent]:
                sheets[name] = _grid(np.stack(columns, axis=1))
        if guidance or steps:
            part = self._about()
            part |= {"guidance": self._rows("guidance", guidance)} if guidance else {}
            part |= {"steps": self._rows("steps", steps)} if steps else {}
        for name, (shown, conditions) in self._conditions().items():
            part[name], sheets[name] = shown, self._same_noise(conditions)
        return Sampling(part, sheets, self._seconds())

    def _guidance(self) -> dict[float, Trial]:
        values = sorted({*map(float, self.settings.sampling.guidance), float(self.takes.default_guidance)})
        return {value: self._trial(self.takes.steps, value) for value in values}

    def _steps(self) -> dict[int, Trial]:
        assert self.takes.steps is not None
        numbers = sorted({*self.settings.sampling.steps, self.takes.steps})
        return {number: self._trial(number, self.takes.default_guidance) for number in numbers}

    def _rows(self, name: str, trials: dict[Any, Trial]) -> list[Part]:
        found = []
        for value, trial in trials.items():
            guidance = value if name == "guidance" else self.takes.default_guidance
            steps = value if name == "steps" else self.takes.steps
            work = {"evaluations": evaluations(steps, guidance if self.takes.guidance else 1.0)} if steps else {}
            found.append({name: value, **work, **({"absent": trial.absent} if trial.absent else trial.scores)})
        return found

    def _about(self) -> Part:
        """Return what the trials' scores depend on, and those of as many train pictures: what is within reach."""
        count = min(self.count, len(self.train))
        chosen = floor_positions(len(self.train), count, self.settings.seed)
        pixels = self.pictures.holdout.pixels
        real = self._scores(self.train[chosen]) | {"clipped": float(((pixels == 0) | (pixels == 255)).mean())}
        own: Part = {"default_steps": self.takes.steps} if self.takes.steps else {}
        own |= {"default_guidance": self.takes.default_guidance} if self.takes.guidance else {}
        about = {"features": self.network.label, "count": self.count, "neighbours": self.neighbours}
        return about | own | {"real": real}

    def _trial(self, steps: int | None, guidance: float) -> Trial:
        key = (steps, float(guidance))
        if key not in self.done:
            try:
                self.done[key] = self._draw(steps, guidance)
            except InputError as error:  # such as a number of steps that the sampler cannot walk
                self.done[key] = Trial(absent=str(error))
        return self.done[key]

    def _draw(self, steps: int | None, guidance: float) -> Trial:
        drawing = self.asked if steps == self.takes.steps else self.asked.resampled(steps, None)
        asked = Asked(guidance=guidance if guidance != self.takes.default_guidance else None)
        start, batches, share = time.process_time(), list[np.ndarray](), 0.0
        for batch in drawing.draw(self.seeds, self.settings.batch, asked):
            if not np.isfinite(batch).all():
                return Trial(absent="it draws NaN or infinity")
            batches.append(to_uint8(batch))
            share += clipped(batch) * len(batch) / self.count
        seconds = (time.process_time() - start) / self.count
        name = f"{steps or 1} steps, guidance {guidance:g}" if self.takes.guidance else f"{steps} steps"
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

    def _seconds(self) -> list[Part]:
        return [
            {"steps": steps, "guidance": guidance, **trial.scores, "cpu_seconds": trial.seconds}
            for (steps, guidance), trial in self.done.items()
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
