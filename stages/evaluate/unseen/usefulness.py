"""Whether generated pictures help a classifier on rare classes: trained with and without them, paired by seed.

Both trainings of a seed see equally many pictures, start from the same weights and draw the same pictures of the other
classes; a rare class is seen equally often in both, in one of them partly as generated pictures. The comparison is on
real hold-out pictures, which neither the generator, nor the labels, nor the trainings have seen.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import t as student_t

from stages.errors import InputError
from stages.evaluate.unseen.probe import Predictions
from stages.metrics.classifier import TrainingRecipe, check_labels, classify, train
from stages.metrics.proportions import NORMAL_95

HELD_OUT = 4  # hold-out pictures of a class without which its accuracy says nothing
Verdict = Literal["helps", "hurts", "not shown"]


@dataclass(frozen=True)
class Options:
    """How usefulness is measured: 0 seeds switch it off, `kimg` is the budget of each of the 2 x seeds trainings.

    `rare` names the classes, None takes the rarest third; `ratio` bounds the generated pictures per real one of a
    class; `confidence` is the probe's, above which its label is believed; `fewest` is what a class needs of them.
    """

    seeds: int = 3
    kimg: float = 10.0
    batch: int = 64
    rare: tuple[str, ...] | None = None
    ratio: float = 1.0
    confidence: float = 0.8
    fewest: int = 10
    mirror: bool = False

    def __post_init__(self) -> None:
        """Refuse what gives no interval or no training.

        Raises:
            InputError: seeds is 1 or negative, kimg or ratio is not positive, or confidence is no probability.
        """
        if self.seeds < 0 or self.seeds == 1:
            raise InputError(f"usefulness.seeds is {self.seeds}: a paired interval needs 2 or more, 0 switches it off")
        for name in ("kimg", "batch", "ratio", "fewest"):
            if not getattr(self, name) > 0:
                raise InputError(f"usefulness.{name} is {getattr(self, name)}; give a number above 0")
        if not 0 <= self.confidence <= 1:
            raise InputError(f"usefulness.confidence is {self.confidence}; give a probability between 0 and 1")


@dataclass(frozen=True)
class Labelled:
    """Pictures, uint8 (N, C, H, W), with their classes, int (N,), -1 for none; near-duplicates share a `group`."""

    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Offer:
    """Generated pictures with the labels under which they are offered.

    Labels are those that the generator was asked for, or a probe's with its confidences, float (N,).
    """

    pictures: Labelled
    confidences: np.ndarray | None = None

    @classmethod
    def probed(cls, pixels: np.ndarray, predictions: Predictions) -> "Offer":
        """Return pictures under the labels of a probe, which must have been trained on the train split alone."""
        return cls(Labelled(pixels, predictions.labels), predictions.confidences)

    @property
    def source(self) -> Literal["condition", "probe"]:
        """Where the labels come from."""
        return "condition" if self.confidences is None else "probe"

    def usable(self, label: int, confidence: float) -> np.ndarray:
        """Return the positions of the pictures of a class whose label is believed, in the order of drawing."""
        offered = self.pictures.labels == label
        return np.flatnonzero(offered if self.confidences is None else offered & (self.confidences >= confidence))


@dataclass(frozen=True)
class Absent:
    """Why there are no numbers."""

    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"absent": self.reason}


@dataclass(frozen=True)
class Effect:
    """An accuracy without and with generated pictures, per seed, and what of the difference is beyond chance.

    `seeds` is the paired t interval over the seeds, `holdout` the interval over other hold-out pictures (groups are
    drawn as a whole); both at 95 %. A difference is shown only where both leave out 0.
    """

    without: tuple[float, ...]
    with_generated: tuple[float, ...]
    holdout_error: float  # standard error of the mean difference over hold-out pictures

    @property
    def differences(self) -> np.ndarray:
        """With minus without, float (seeds,)."""
        return np.subtract(self.with_generated, self.without)

    @property
    def seeds(self) -> tuple[float, float]:
        """The paired t interval of the mean difference (Student 1908)."""
        count, spread = len(self.differences), self.differences.std(ddof=1)
        return self._around(float(student_t.ppf(0.975, count - 1) * spread / np.sqrt(count)))

    @property
    def holdout(self) -> tuple[float, float]:
        """The normal interval of the mean difference over the choice of hold-out pictures."""
        return self._around(NORMAL_95 * self.holdout_error)

    @property
    def verdict(self) -> Verdict:
        """What is shown."""
        if min(self.seeds[0], self.holdout[0]) > 0:
            return "helps"
        return "hurts" if max(self.seeds[1], self.holdout[1]) < 0 else "not shown"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "without": float(np.mean(self.without)),
            "with": float(np.mean(self.with_generated)),
            "difference": float(self.differences.mean()),
            "seeds_interval": list(self.seeds),
            "holdout_interval": list(self.holdout),
            "verdict": self.verdict,
            "per_seed": {"without": list(self.without), "with": list(self.with_generated)},
        }

    def _around(self, half: float) -> tuple[float, float]:
        mean = float(self.differences.mean())
        return mean - half, mean + half


@dataclass(frozen=True)
class Usefulness:
    """The effect on three accuracies and how it was measured; the verdict is that on the rare classes."""

    effects: dict[str, Effect]
    classes: dict[str, dict[str, int]]  # rare class -> train, holdout, offered, usable, taken
    left_out: dict[str, int]  # rare class -> usable generated pictures, which were too few
    labels: str
    options: Options

    @property
    def verdict(self) -> Verdict:
        """Whether generated pictures help on the rare classes."""
        return self.effects["rare_accuracy"].verdict

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "verdict": self.verdict,
            **{name: effect.to_json() for name, effect in self.effects.items()},
            "labels": self.labels,
            "classes": self.classes,
            "left_out": self.left_out,
            "options": asdict(self.options) | {"rare": list(self.options.rare) if self.options.rare else None},
        }


def measure(
    train_split: Labelled,
    holdout: Labelled,
    offer: Offer,
    class_names: tuple[str, ...],
    options: Options,
    device: torch.device,
    seed: int = 0,
) -> Usefulness | Absent:
    """Train `options.seeds` pairs of classifiers and compare them on the hold-out's labelled pictures.

    Raises:
        InputError: labels do not fit, a rare class is unknown, or the generated pictures have another shape.
    """
    if options.seeds == 0:
        return Absent("usefulness is switched off: its seeds are 0")
    _check(train_split, holdout, offer, class_names)
    rare = rare_classes(train_split.labels, holdout.labels, class_names, options.rare)
    usable = {label: offer.usable(label, options.confidence) for label in rare}
    most = {label: int(np.ceil(options.ratio * (train_split.labels == label).sum())) for label in rare}
    filled = [label for label in rare if len(usable[label]) >= min(options.fewest, most[label])]
    if not filled:
        return Absent(_refusal([class_names[label] for label in rare], usable, offer, options))
    # the first ones, as they were drawn: the surest ones would be the plainest
    taken = {label: usable[label][: most[label]] for label in filled}
    more = _with_generated(train_split, offer, np.concatenate(list(taken.values())))
    held, groups = _labelled(holdout)
    hits = _train_pairs(train_split, more, held, len(class_names), options, device, seed)
    effects = {name: _effect(hits, weights, groups) for name, weights in _weights(held.labels, filled).items()}
    counts = {
        class_names[label]: {
            "train": int((train_split.labels == label).sum()),
            "holdout": int((held.labels == label).sum()),
            "offered": int((offer.pictures.labels == label).sum()),
            "usable": len(usable[label]),
            "taken": len(taken[label]),
        }
        for label in filled
    }
    left_out = {class_names[label]: len(usable[label]) for label in rare if label not in filled}
    return Usefulness(effects, counts, left_out, offer.source, options)


def rare_classes(
    train_labels: np.ndarray, holdout_labels: np.ndarray, class_names: tuple[str, ...], named: tuple[str, ...] | None
) -> list[int]:
    """Return the named classes, or the rarest third (at least one) of those with train and 4 hold-out pictures.

    Raises:
        InputError: a named class is unknown or has too few pictures, or no class has enough.
    """
    count = len(class_names)
    known, held = (np.bincount(x[x >= 0], minlength=count) for x in (train_labels, holdout_labels))
    measurable = [label for label in range(count) if known[label] and held[label] >= HELD_OUT]
    if named is None:
        if not measurable:
            raise InputError(f"No class has {HELD_OUT} hold-out pictures; raise normalize.holdout or set seeds to 0")
        rarest = sorted(measurable, key=lambda label: (known[label], label))
        return rarest[: max(round(len(measurable) / 3), 1)]
    for name in named:
        if name not in class_names or class_names.index(name) not in measurable:
            raise InputError(f"usefulness.rare names {name!r}, which has no train or not {HELD_OUT} hold-out pictures")
    return [class_names.index(name) for name in named]


def _check(train_split: Labelled, holdout: Labelled, offer: Offer, class_names: tuple[str, ...]) -> None:
    for pictures in (train_split, holdout):
        check_labels(pictures.pixels, pictures.labels, len(class_names))
    found, expected = offer.pictures.pixels.shape[1:], train_split.pixels.shape[1:]
    if found != expected or offer.pictures.pixels.dtype != np.uint8:
        raise InputError(
            f"Generated pictures are {offer.pictures.pixels.dtype} {found}, the train split's are uint8 {expected}; "
            "draw them at the data's size"
        )


def _refusal(rare: list[str], usable: dict[int, np.ndarray], offer: Offer, options: Options) -> str:
    believed = f" with a confidence of {options.confidence} or more" if offer.source == "probe" else ""
    most = max(len(found) for found in usable.values())
    return (
        f"of {len(offer.pictures)} generated pictures at most {most} belong to one of the rare classes "
        f"({', '.join(rare)}){believed}; {options.fewest} are needed"
    )


def _with_generated(train_split: Labelled, offer: Offer, chosen: np.ndarray) -> Labelled:
    pixels = np.concatenate([train_split.pixels, offer.pictures.pixels[chosen]])
    return Labelled(pixels, np.concatenate([train_split.labels, offer.pictures.labels[chosen]]))


def _labelled(holdout: Labelled) -> tuple[Labelled, np.ndarray]:
    """Return the hold-out pictures that have a class, and their groups' numbers: each its own where none are known."""
    kept = holdout.labels >= 0
    groups = np.arange(len(holdout)) if holdout.groups is None else holdout.groups
    numbers = np.unique(groups[kept], return_inverse=True)[1]
    return Labelled(holdout.pixels[kept], holdout.labels[kept]), numbers


def _train_pairs(
    train_split: Labelled,
    more: Labelled,
    held: Labelled,
    classes: int,
    options: Options,
    device: torch.device,
    seed: int,
) -> np.ndarray:
    """Return whether each hold-out picture is classified rightly, bool (seeds, 2, N): without and with generated."""
    recipe = replace(TrainingRecipe(), kimg=options.kimg, batch=options.batch, mirror=options.mirror)

    def hits(pictures: Labelled, number: int) -> np.ndarray:
        what = f"usefulness, training {number - seed + 1} of {options.seeds}"
        network = train(pictures.pixels, pictures.labels, classes, recipe, number, device, what)
        found: np.ndarray = classify(network, held.pixels, device)[1].argmax(axis=1) == held.labels
        return found

    return np.array([[hits(arm, n) for arm in (train_split, more)] for n in range(seed, seed + options.seeds)])


def _weights(labels: np.ndarray, rare: list[int]) -> dict[str, np.ndarray]:
    """Return by name of an accuracy what each hold-out picture counts, float (N,), with sum 1."""
    share = 1 / np.bincount(labels)[labels]  # every class counts the same
    found = {
        "rare_accuracy": np.isin(labels, rare) * share,
        "balanced_accuracy": share,
        "accuracy": np.ones(len(labels)),
    }
    return {name: weights / weights.sum() for name, weights in found.items()}


def _effect(hits: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> Effect:
    """Return the effect on one accuracy; a group of near-duplicates is one observation of the hold-out's error."""
    without, with_generated = (hits @ weights).T
    differences = (hits[:, 1].astype(float) - hits[:, 0]).mean(axis=0)
    per_group = np.bincount(groups, weights * (differences - differences @ weights))
    observed = max(int((np.bincount(groups, weights) > 0).sum()), 2)
    error = float(np.sqrt((per_group**2).sum() * observed / (observed - 1)))
    return Effect(tuple(without.tolist()), tuple(with_generated.tolist()), error)
