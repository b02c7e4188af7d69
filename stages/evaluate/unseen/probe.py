"""What a classifier of the data's own classes says of generated pictures: are the wanted classes drawn, and all?

The probe is trained on the train split alone; its own accuracy on the hold-out bounds what it can say.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import InputError
from stages.metrics.domain import DomainNetwork
from stages.metrics.features import PictureSet
from stages.metrics.proportions import Accuracy, Proportion, accuracy

RESAMPLES = 1000
LUCK = 0.01  # a class is missing where real pictures of this number would leave it out less often than this


@dataclass(frozen=True)
class Predictions:
    """The probe's class of each picture, int (N,), and its softmax confidence in [1 / classes, 1], float (N,)."""

    labels: np.ndarray
    confidences: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray) -> "Predictions":
        """Return the predictions that logits (N, classes) stand for."""
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return cls(logits.argmax(axis=1), shifted.max(axis=1) / shifted.sum(axis=1))

    def __len__(self) -> int:
        return len(self.labels)


def predict(probe: DomainNetwork, pictures: PictureSet | np.ndarray) -> Predictions:
    """Return the probe's predictions of a set or of uint8 pictures (N, 1 or 3, H, W).

    Raises:
        InputError: there are no pictures.
    """
    batches = [pictures] if isinstance(pictures, np.ndarray) else pictures.batches()
    logits = [probe.classify(batch)[1] for batch in batches if len(batch)]
    if not logits:
        raise InputError("The probe was given no pictures; raise evaluate.count")
    return Predictions.of(np.concatenate(logits))


@dataclass(frozen=True)
class ConditionalAccuracy:
    """How often a picture is taken for the class that was asked for, beside the probe's accuracy on real pictures.

    `real` is the probe's accuracy on hold-out pictures, weighted by the classes that were asked for.
    """

    generated: Accuracy
    holdout: Accuracy
    real: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `of_real` above 1 means: drawn plainer than real pictures are."""
        value = self.generated.top1.value
        ratio = value / self.real if value is not None and self.real else None
        return {
            "accuracy": self.generated.to_json(),
            "probe_holdout": self.holdout.to_json(),
            "real": self.real,
            "of_real": ratio,
        }


def conditional_accuracy(
    predictions: Predictions, wanted: np.ndarray, holdout: Accuracy, class_names: tuple[str, ...]
) -> ConditionalAccuracy:
    """Compare predictions with the labels that the generator was given, int (N,).

    The classification accuracy score of a fixed classifier, as in class-conditional GANs (Odena et al. 2017).

    Raises:
        InputError: the numbers of predictions and wanted labels differ, or a label is no class.
    """
    if len(wanted) != len(predictions):
        raise InputError(f"{len(predictions)} pictures were classified, but {len(wanted)} classes wanted; pass as many")
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(class_names):
        raise InputError(f"Wanted labels are {wanted.min()} to {wanted.max()}, classes 0 to {len(class_names) - 1}")
    found = accuracy(predictions.labels, wanted, class_names)
    return ConditionalAccuracy(found, holdout, _expected(found, holdout))


def _expected(found: Accuracy, holdout: Accuracy) -> float | None:
    """Return the accuracy that real pictures of these classes in these numbers would have, of classes held out."""
    pairs = [
        (share.value, found.per_class[name].count)
        for name, share in holdout.per_class.items()
        if name in found.per_class and share.value is not None
    ]
    total = sum(count for _, count in pairs)
    return sum(value * count for value, count in pairs) / total if total else None


@dataclass(frozen=True)
class ClassHistogram:
    """Predicted classes of generated and of real pictures; both by the probe, so that its errors are in both.

    `floor` is the total variation distance that as many independent real pictures would have: mean and 95 % quantile.
    Where near-duplicates share a split, other real pictures are further away than that: see `holdout`.
    """

    class_names: tuple[str, ...]
    generated: np.ndarray  # counts, int (classes,)
    real: np.ndarray
    floor: tuple[float, float]
    holdout: np.ndarray | None = None  # counts of real pictures that were not in `real`

    @property
    def total_variation(self) -> float:
        """Half the sum of the absolute differences of shares, in [0, 1]; 0: the same histogram."""
        return _distance(self.generated, self.real)

    @property
    def luck(self) -> np.ndarray:
        """The probability per class that as many real pictures would not show it, float (classes,)."""
        return (1 - _shares(self.real)) ** int(self.generated.sum())

    @property
    def never_drawn(self) -> list[str]:
        """Classes that the real pictures have and the generated ones do not."""
        return self._named((self.generated == 0) & (self.real > 0))

    @property
    def missing(self) -> list[str]:
        """Those of the classes never drawn that luck does not explain: missing modes."""
        return self._named((self.generated == 0) & (self.real > 0) & (self.luck < LUCK))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        counts, shares = self.generated.tolist(), _shares(self.real).tolist()
        per_class = {
            name: Proportion(count, sum(counts)).to_json() | {"real": share}
            for name, count, share in zip(self.class_names, counts, shares, strict=True)
        }
        return {
            "total_variation": self.total_variation,
            "floor": {"mean": self.floor[0], "quantile_95": self.floor[1]},
            "holdout_total_variation": None if self.holdout is None else _distance(self.holdout, self.real),
            "never_drawn": self.never_drawn,
            "missing": self.missing,
            "classes": int((self.real > 0).sum()),
            "per_class": per_class,
        }

    def _named(self, chosen: np.ndarray) -> list[str]:
        return [self.class_names[label] for label in np.flatnonzero(chosen)]


def class_histogram(
    generated: Predictions,
    real: Predictions,
    class_names: tuple[str, ...],
    holdout: Predictions | None = None,
    seed: int = 0,
) -> ClassHistogram:
    """Compare the predicted classes of an unconditional generator's pictures with those of real ones, its train split.

    Raises:
        InputError: one of the sets is empty.
    """
    if not len(generated) or not len(real):
        raise InputError(f"{len(generated)} generated and {len(real)} real pictures were classified; both are needed")
    drawn, expected = _counts(generated, class_names), _counts(real, class_names)
    other = None if holdout is None or not len(holdout) else _counts(holdout, class_names)
    return ClassHistogram(class_names, drawn, expected, _floor(expected, len(generated), seed), other)


def _floor(real: np.ndarray, count: int, seed: int) -> tuple[float, float]:
    """Return mean and 95 % quantile of the distance between two samples of the real histogram, one of either size."""
    random = np.random.Generator(np.random.Philox(key=seed))
    first = random.multinomial(count, _shares(real), RESAMPLES) / count
    second = random.multinomial(real.sum(), _shares(real), RESAMPLES) / real.sum()
    distances = np.abs(first - second).sum(axis=1) / 2
    return float(distances.mean()), float(np.quantile(distances, 0.95))


def _counts(found: Predictions, class_names: tuple[str, ...]) -> np.ndarray:
    return np.bincount(found.labels, minlength=len(class_names))


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(_shares(first) - _shares(second)).sum() / 2)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()
