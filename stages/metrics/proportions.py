"""Shares of counted pictures, each with its interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np

NORMAL_95 = 1.959963984540054  # standard deviations that a two-sided 95 % interval reaches


@dataclass(frozen=True)
class Proportion:
    """`hits` of `count` pictures; of no pictures there is no share (None) and nothing is known (0 to 1).

    `effective` is the number of independent pictures that would tell as much, None where all are independent.
    """

    hits: int
    count: int
    effective: float | None = None

    @property
    def value(self) -> float | None:
        """The share, in [0, 1]."""
        return self.hits / self.count if self.count else None

    def interval(self) -> tuple[float, float]:
        """Return the 95 % score interval, inside [0, 1] also for 0 or all hits (Wilson 1927)."""
        if self.count == 0:
            return 0.0, 1.0
        squared, share = NORMAL_95**2 / (self.effective or self.count), self.hits / self.count
        centre = share + squared / 2
        half = (squared * (share * (1 - share) + squared / 4)) ** 0.5
        return max((centre - half) / (1 + squared), 0.0), min((centre + half) / (1 + squared), 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        low, high = self.interval()
        counts = {"hits": self.hits, "count": self.count, "effective_count": self.effective or self.count}
        return {"value": self.value, "low": low, "high": high} | counts

    @classmethod
    def of(cls, hit: np.ndarray, groups: np.ndarray | None = None) -> "Proportion":
        """Return the share of hits, bool (N,); near-duplicates share a group, int or text (N,), and tell less.

        The effective number is p (1 - p) over the variance of p between groups (Kish 1965, design effect), between the
        number of groups, where none or all are hits or groups do not differ, and one, where there is a single group.
        """
        found = cls(int(hit.sum()), len(hit))
        if groups is None or not len(hit):
            return found
        share = hit.mean()
        totals = np.bincount(np.unique(groups, return_inverse=True)[1], hit - share)
        number = len(totals)
        if number == 1 or number == len(hit):
            return cls(found.hits, found.count, float(number))
        variance = (totals**2).sum() / len(hit) ** 2 * number / (number - 1)
        # no more than there are pictures: groups that differ less than chance makes them differ add no knowledge
        effective = share * (1 - share) / variance if variance > 0 else number
        return cls(found.hits, found.count, float(min(max(effective, 1), len(hit))))


@dataclass(frozen=True)
class Accuracy:
    """How often predicted labels are the true ones: of all pictures, per class, and as the mean over classes."""

    top1: Proportion
    per_class: dict[str, Proportion]

    @property
    def balanced(self) -> float | None:
        """The mean of the accuracies of those classes that have pictures."""
        shares = [share.value for share in self.per_class.values() if share.value is not None]
        return float(np.mean(shares)) if shares else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        per_class = {name: share.to_json() for name, share in self.per_class.items()}
        return {"top1": self.top1.to_json(), "balanced": self.balanced, "per_class": per_class}


def accuracy(
    predicted: np.ndarray, wanted: np.ndarray, class_names: tuple[str, ...], groups: np.ndarray | None = None
) -> Accuracy:
    """Return the accuracy of predicted against wanted labels, both int (N,); near-duplicates share a group, (N,).

    Pictures without a label (-1) are left out; classes without pictures are not listed.
    """
    labelled = wanted >= 0
    hit = predicted == wanted

    def share(chosen: np.ndarray) -> Proportion:
        return Proportion.of(hit[chosen], None if groups is None else groups[chosen])

    per_class = {class_names[label]: share(wanted == label) for label in np.unique(wanted[labelled])}
    return Accuracy(share(labelled), per_class)
