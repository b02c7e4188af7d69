"""Scores by class: Fréchet distance, recall and coverage of each, and how many classes are drawn at all."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import InputError
from stages.metrics.frechet import frechet_distance
from stages.metrics.gaussians import Features
from stages.metrics.proportions import Proportion

FEWEST = 10  # pictures of a class on either side, below which its distance is not worth a number
TENTH = 0.1  # of its share among real pictures: a class drawn less often is as good as lost


@dataclass(frozen=True)
class ClassDistances:
    """The Fréchet distance by class name, each with its numbers of pictures, and why other classes have none."""

    distances: dict[str, float]
    counts: dict[str, tuple[int, int]]
    left_out: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; counts are of generated and real pictures."""
        counts = {name: list(pair) for name, pair in self.counts.items()}
        return {"fd": self.distances, "counts": counts, "left_out": self.left_out}


@dataclass(frozen=True)
class Modes:
    """Of `classes` among the real pictures, how many are drawn at all, and at least a tenth as often as they should be.

    `missing` and `rare` (drawn, but less than a tenth of the share) name the others.
    """

    classes: int
    hit: int
    hit_by_a_tenth: int
    missing: tuple[str, ...]
    rare: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        named = {"missing": list(self.missing), "rare": list(self.rare)}
        return {"classes": self.classes, "hit": self.hit, "hit_by_a_tenth": self.hit_by_a_tenth, **named}


def class_distances(
    generated: Features,
    labels: np.ndarray,
    real: Features,
    real_labels: np.ndarray,
    class_names: tuple[str, ...],
    fewest: int = FEWEST,
) -> ClassDistances:
    """Return the Fréchet distance within each class that has at least `fewest` pictures on both sides.

    Labels are int (N,) and (M,); -1 is no class. With few pictures these are biased upwards, each class by its own
    number: compare a class between models, not classes with each other.

    Raises:
        InputError: labels do not fit the features or the class names, or `fewest` is below 2.
    """
    if fewest < 2:
        raise InputError(f"fewest is {fewest}: a class needs at least 2 pictures for a covariance")
    for features, found in ((generated, labels), (real, real_labels)):
        _require_labels(found, len(features), class_names)
    drawn, there = _counts(labels, class_names), _counts(real_labels, class_names)
    distances, left_out = {}, {}
    for label, name in enumerate(class_names):
        if min(drawn[label], there[label]) < fewest:
            left_out[name] = f"{drawn[label]} generated and {there[label]} real pictures, fewer than {fewest}"
            continue
        some = Features(generated.values[labels == label], f"generated {name}")
        distances[name] = frechet_distance(some, Features(real.values[real_labels == label], f"real {name}"))
    counts = {name: (int(drawn[label]), int(there[label])) for label, name in enumerate(class_names)}
    return ClassDistances(distances, counts, left_out)


def class_shares(flags: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Proportion]:
    """Return the share of each class's pictures whose flag is set, with a Wilson interval over its pictures.

    Of a manifold's `recalled` or `covered` and the real pictures' labels, this is recall or coverage by class; of
    `inside` and the generated pictures' labels it is precision. Classes without pictures are not listed.

    Raises:
        InputError: labels do not fit the flags or the class names.
    """
    _require_labels(labels, len(flags), class_names)
    chosen = {name: np.asarray(flags, bool)[labels == label] for label, name in enumerate(class_names)}
    return {name: Proportion(int(found.sum()), len(found)) for name, found in chosen.items() if len(found)}


def modes(labels: np.ndarray, real_labels: np.ndarray, class_names: tuple[str, ...]) -> Modes:
    """Return how many of the real pictures' classes are drawn, from the generated pictures' (predicted) labels.

    Raises:
        InputError: labels do not fit the class names, or no real picture has one.
    """
    for found in (labels, real_labels):
        _require_labels(found, len(found), class_names)
    drawn, there = _counts(labels, class_names), _counts(real_labels, class_names)
    if not there.sum():
        raise InputError("no real picture has a class; the count of modes needs labelled data")
    wanted = TENTH * there / there.sum() * max(len(labels), 1)
    present = np.flatnonzero(there)
    missing = tuple(class_names[label] for label in present if not drawn[label])
    rare = tuple(class_names[label] for label in present if 0 < drawn[label] < wanted[label])
    hit = len(present) - len(missing)
    return Modes(len(present), hit, hit - len(rare), missing, rare)


def _counts(labels: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    return np.bincount(labels[labels >= 0], minlength=len(class_names))


def _require_labels(labels: np.ndarray, count: int, class_names: tuple[str, ...]) -> None:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels are {labels.dtype} {labels.shape}, expected integers ({count},), one a picture")
    if count and not -1 <= labels.min() <= labels.max() < len(class_names):
        found = f"{labels.min()} to {labels.max()}"
        raise InputError(f"labels are from {found}, expected -1 to {len(class_names) - 1}: {len(class_names)} classes")
