"""What one score cannot see, measured for one model: copies, variety, classes, latent space, patterns, usefulness."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.dataset import to_uint8
from stages.errors import InputError
from stages.evaluate.conditioning import captions_of
from stages.evaluate.inputs import Pictures, groups_of, labels_of
from stages.evaluate.picture_sets import SEEDS_PER_SEED
from stages.evaluate.scoring import DOMAIN, AnyNetwork, Measured
from stages.evaluate.unseen.balance import read_balance
from stages.evaluate.unseen.copy_search import Space, pixel_descriptors
from stages.evaluate.unseen.latent_space import interpolate, measure_jumps, measure_path_length
from stages.evaluate.unseen.memorisation import measure_memorisation
from stages.evaluate.unseen.mixing import mix_styles
from stages.evaluate.unseen.probe import Predictions, class_histogram, conditional_accuracy
from stages.evaluate.unseen.sampling import evaluations
from stages.evaluate.unseen.spectrum import measure_checkerboard
from stages.evaluate.unseen.usefulness import Labelled, Offer, Options
from stages.evaluate.unseen.usefulness import measure as measure_usefulness
from stages.evaluate.unseen.variety import measure_variety
from stages.evaluate.unseen.walk import film_walk
from stages.generators.interface import Generator
from stages.metrics.classes import class_distances, class_shares, modes
from stages.metrics.domain import DomainNetwork
from stages.metrics.gaussians import Features
from stages.metrics.proportions import accuracy
from stages.settings import EvaluateSettings

EXAMINED = 2000  # generated pictures whose pixels are held in memory at most; features and classes are those of all
PAIRS_SHOWN = 16
STRIPS, STRIP_STEPS, JUMP_PAIRS = 8, 12, 16
JUMP_STEPS = 25
EVALUATIONS = 10_000  # of a network that draws in steps, for each of path length, jumps and strips
SLICE = 64
CHUNK = 8  # pictures that a network takes at once: on a CPU more cost more each

Part = dict[str, Any]


@dataclass(frozen=True)
class Unseen:
    """The parts of the report by name, and pictures: closest pairs (generated, train, distance, key), strips, mixing.

    Strips and mixing are grids, uint8 (rows, columns, H, W, C); `walk` is an MP4. What a model has none of is empty.
    """

    parts: dict[str, Part]
    pairs: list[tuple[np.ndarray, np.ndarray, float, str]] = field(default_factory=list)
    strips: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0, 3), np.uint8))
    mixing: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0, 3), np.uint8))
    walk: bytes = b""


class Examination:
    """One model's generated pictures beside both splits, in the features that its scores were computed in."""

    def __init__(
        self,
        settings: EvaluateSettings,
        pictures: Pictures,
        generator: Generator,
        networks: Sequence[AnyNetwork],
        measured: Measured,
    ) -> None:
        self.settings, self.pictures, self.generator, self.measured = settings, pictures, generator, measured
        self.general = networks[0]
        self.domain = next((one for one in networks if isinstance(one, DomainNetwork)), None)
        self.drawn = first_pictures(measured, EXAMINED)
        self.train_pixels = pictures.train.pixels.transpose(0, 3, 1, 2)
        self.holdout_pixels = pictures.holdout.pixels.transpose(0, 3, 1, 2)

    def all(self, curve: list[dict[str, Any]]) -> Unseen:
        """Measure everything; a part that does not apply here says why."""
        memorisation, pairs = self.memorisation()
        latent_space, strips = self.latent_space()
        mixing, walk = mix_styles(self.generator, self.settings.batch), film_walk(self.generator, self.settings.batch)
        parts = {
            "memorisation": memorisation,
            "variety": or_absent(self.variety),
            "per_class": or_absent(self.per_class),
            "probe": or_absent(self.classes),
            "usefulness": self.usefulness(),
            "latent_space": latent_space | mixing.part | walk.part,
            "spectrum": or_absent(self.spectrum),
            "balance": or_absent(lambda: read_balance(curve).to_json()),
        }
        return Unseen(parts, pairs, strips, mixing.grid, walk.film)

    def features(self, role: str, network: AnyNetwork | None = None) -> np.ndarray:
        """Return the features of a set by its role; of generated pictures those that are examined."""
        return self.measured.features[(network or self.general).label][role].features

    def memorisation(self) -> tuple[Part, list[tuple[np.ndarray, np.ndarray, float, str]]]:
        """Return how many pictures are copies of training pictures, and the closest pairs."""
        spaces = {
            self.general.label: Space(self.features("scores"), self.features("train"), self.features("holdout")),
            "pixels": Space(
                np.concatenate([pixel_descriptors(batch) for batch in self.measured.generated.batches()]),
                pixel_descriptors(self.train_pixels),
                pixel_descriptors(self.holdout_pixels),
            ),
        }
        try:
            found = measure_memorisation(spaces, groups_of(self.pictures.train), groups_of(self.pictures.holdout))
        except InputError as error:
            return {"absent": str(error)}, []
        rows, closest = self.pictures.train.rows, found.closest(PAIRS_SHOWN)
        generated = pick(self.measured, closest)
        pairs = [
            (
                generated[position].transpose(1, 2, 0),
                self.pictures.train.pixels[found.nearest.indices[position]],
                float(found.nearest.distances[position]),
                str(rows[found.nearest.indices[position]]["key"]),
            )
            for position in closest
        ]
        return found.to_json(PAIRS_SHOWN), pairs

    def variety(self) -> Part:
        """Return how far apart generated pictures are, beside hold-out ones."""
        groups = groups_of(self.pictures.holdout)
        return measure_variety(self.features("scores"), self.features("holdout"), groups, self.settings.seed).to_json()

    def latent_space(self) -> tuple[Part, np.ndarray]:
        """Return how evenly pictures change with the latent, and interpolations as uint8 (rows, steps, H, W, C)."""
        captions = captions_of(self.pictures.holdout.rows)
        length = measure_path_length(
            self.generator, self._features_of, self._path_seeds(self.settings.path_pairs, 3, least=4), captions=captions
        )
        seeds = self._path_seeds(JUMP_PAIRS, JUMP_STEPS)
        jumps = measure_jumps(interpolate(self.generator, seeds, JUMP_STEPS, captions=captions), self._features_of)
        strips = interpolate(self.generator, self._path_seeds(STRIPS, STRIP_STEPS), STRIP_STEPS, captions=captions)
        part = {"path_length": length.to_json(), "jumps": jumps.to_json(), "features": self.general.label}
        return part | self._fixed_condition(), to_uint8(strips).transpose(0, 1, 3, 4, 2)

    def _path_seeds(self, pairs: int, each: int, least: int = 1) -> range:
        """Return the seeds of so many pairs, fewer where `each` pictures of a pair take many network evaluations."""
        takes = self.generator.capabilities
        if takes.steps is not None:
            work = each * evaluations(takes.steps, takes.default_guidance if takes.guidance else 1.0)
            pairs = max(least, min(pairs, EVALUATIONS // work))
        return seeds_of(self.settings.seed * SEEDS_PER_SEED, pairs)

    def _fixed_condition(self) -> Part:
        takes = self.generator.capabilities
        kinds = [kind for kind, there in (("class", takes.class_names), ("prompt", takes.prompt)) if there]
        return {"of_one": " and ".join(kinds)} if kinds else {}

    def spectrum(self) -> Part:
        """Return the strength of checkerboards and stripes at the upsampling frequencies."""
        return measure_checkerboard(slices(self.drawn), slices(self.holdout_pixels)).to_json()

    def per_class(self) -> Part:
        """Return what of each class is reached, and where there are labels or a probe, each class's distance."""
        names, labels = self.pictures.class_names, labels_of(self.pictures.holdout)
        if not names or not (labels >= 0).any():
            return {"absent": "no classes in this data set"}
        balls = self.measured.comparisons[self.general.label].manifold
        shares = {
            "recall": class_shares(balls.recalled, labels, names),
            "coverage": class_shares(balls.covered, labels, names),
        }
        part: Part = {kind: {name: one.to_json() for name, one in found.items()} for kind, found in shares.items()}
        drawn, source = self._drawn_labels()
        if drawn is None:
            return part
        generated, real = Features(self.features("scores"), "generated"), Features(self.features("holdout"), "hold-out")
        distances = class_distances(generated, drawn, real, labels, names).to_json()
        return part | distances | {"modes": modes(drawn, labels, names).to_json(), "labels": source}

    def classes(self) -> Part:
        """Return what a classifier of the data's classes makes of the generated pictures."""
        if self.domain is None:
            return {"absent": self._no_probe()}
        names, holdout_labels = self.pictures.class_names, labels_of(self.pictures.holdout)
        found = {role: self._predicted(role) for role in ("scores", "train", "holdout")}
        real = accuracy(found["holdout"].labels, holdout_labels, names, groups_of(self.pictures.holdout))
        part: Part = {"holdout_accuracy": real.to_json()}
        wanted = self.measured.generated.labels
        if wanted is not None:
            known = wanted >= 0  # a class that the data lack cannot be recognised
            predicted = Predictions(found["scores"].labels[known], found["scores"].confidences[known])
            return part | conditional_accuracy(predicted, wanted[known], real, names).to_json()
        return (
            part
            | class_histogram(found["scores"], found["train"], names, found["holdout"], self.settings.seed).to_json()
        )

    def usefulness(self) -> Part:
        """Return whether generated pictures of the rare classes help a classifier."""
        if self.domain is None:
            return {"absent": self._no_probe()}
        train, holdout = (
            Labelled(pixels, labels_of(split), groups_of(split))
            for pixels, split in (
                (self.train_pixels, self.pictures.train),
                (self.holdout_pixels, self.pictures.holdout),
            )
        )
        asked = self.settings.usefulness
        options = Options(seeds=asked.seeds, kimg=asked.kimg, confidence=asked.confidence, mirror=self.pictures.mirror)
        return or_absent(
            lambda: measure_usefulness(
                train,
                holdout,
                self._offer(),
                self.pictures.class_names,
                options,
                self.general.device,
                self.settings.seed,
            ).to_json()
        )

    def _offer(self) -> Offer:
        wanted = self.measured.generated.labels
        if wanted is not None:
            return Offer(Labelled(self.drawn, wanted[: len(self.drawn)]))
        found, count = self._predicted("scores"), len(self.drawn)
        return Offer.probed(self.drawn, Predictions(found.labels[:count], found.confidences[:count]))

    def _drawn_labels(self) -> tuple[np.ndarray | None, str]:
        """Return the classes of the generated pictures and where they come from, None where nobody knows them."""
        wanted = self.measured.generated.labels
        if wanted is not None:
            return wanted, "condition"
        return (None, "") if self.domain is None else (self._predicted("scores").labels, "probe")

    def _predicted(self, role: str) -> Predictions:
        logits = self.measured.features[DOMAIN][role].logits
        assert logits is not None  # a classifier has them
        return Predictions.of(logits)

    def _no_probe(self) -> str:
        why = [line for line in self.measured.report["warnings"] if line.startswith(f"No `{DOMAIN}`")]
        return why[0] if why else f"`{DOMAIN}` is not among evaluate.features"

    def _features_of(self, pictures: np.ndarray) -> np.ndarray:
        size = CHUNK if self.general.device.type == "cpu" else len(pictures)
        parts = [self.general.classify(pictures[start : start + size])[0] for start in range(0, len(pictures), size)]
        return np.concatenate(parts)


def figures_of(parts: dict[str, Part], features: str) -> dict[str, float]:
    """Return the few numbers of these parts that are tracked beside the scores, under names that carry the features."""
    memorisation, variety, spectrum, probe = (parts[name] for name in ("memorisation", "variety", "spectrum", "probe"))
    found: dict[str, float | None] = {}
    if "levels" in memorisation:
        found["copies"] = memorisation["levels"][0]["copies"]["value"]
    if "generated" in variety:
        found[f"vendi_{features}"] = variety["generated"]["vendi"]
        found[f"pairwise_distance_ratio_{features}"] = variety["ratio"]
    if "path_length" in parts["latent_space"]:
        found[f"path_length_{features}"] = parts["latent_space"]["path_length"]["length"]
    if "worst" in spectrum:
        found["checkerboard_db"] = spectrum["worst"]["difference"]
    if "total_variation" in probe:
        found[f"class_total_variation_{DOMAIN}"] = probe["total_variation"]
    return {name: value for name, value in found.items() if value is not None}


def first_pictures(measured: Measured, most: int) -> np.ndarray:
    """Return the first generated pictures, uint8 (N, C, H, W), at most so many."""
    parts, count = [], 0
    for batch in measured.generated.batches():
        parts.append(batch)
        count += len(batch)
        if count >= most:
            break
    return np.concatenate(parts)[:most]


def pick(measured: Measured, positions: np.ndarray) -> dict[int, np.ndarray]:
    """Return the generated pictures at these positions, uint8 (C, H, W), by position; they are drawn once more."""
    wanted, start = set(positions.tolist()), 0
    found: dict[int, np.ndarray] = {}
    for batch in measured.generated.batches():
        found |= {start + row: batch[row] for row in range(len(batch)) if start + row in wanted}
        start += len(batch)
    return found


def seeds_of(first: int, pairs: int) -> range:
    """Return the seeds of so many pairs of latents."""
    return range(first, first + 2 * pairs)


def slices(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """Return pictures in batches that a spectrum's temporaries leave room for."""
    return (pictures[start : start + SLICE] for start in range(0, len(pictures), SLICE))


def or_absent(measure: Callable[[], Part]) -> Part:
    """Return a part, or why the data does not allow it: scores stand without it."""
    try:
        return measure()
    except InputError as error:
        return {"absent": str(error)}
