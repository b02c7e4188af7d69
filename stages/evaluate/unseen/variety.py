"""How much generated pictures differ from one another, beside an equal number of real pictures."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import InputError
from stages.evaluate.unseen.conformal import conformal_quantile
from stages.evaluate.unseen.nearest import check_alike, check_features, squared_distances
from stages.metrics.proportions import Proportion

LEVEL = 0.01  # share of real pictures that are so near to one of another group
LARGEST = 2000  # pictures of each set: all pairs of more say little more
SMALLEST = 3


@dataclass(frozen=True)
class Spread:
    """The variety of one set: mean distance of pairs with its standard error, Vendi score, near-duplicates."""

    distance: float
    distance_error: float
    vendi: float
    duplicates: Proportion

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return vars(self) | {"duplicates": self.duplicates.to_json()}


@dataclass(frozen=True)
class Variety:
    """The spread of generated and of as many real pictures; `closest` are the nearest generated pairs, int (P, 2).

    A picture counts as a near-duplicate where another one of its set is nearer than `threshold`, a distance that all
    but `level` of the real pictures keep from those of other groups. Of real pictures those of one group count, too, so
    that generated repeats stand beside the data's own. Positions are those of the sets as given.
    """

    count: int
    level: float
    threshold: float
    generated: Spread
    real: Spread
    closest: np.ndarray

    @property
    def ratio(self) -> tuple[float, float]:
        """Return the mean distance of generated over that of real pairs, and its standard error (delta method)."""
        (mine, my_error), (theirs, their_error) = ((s.distance, s.distance_error) for s in (self.generated, self.real))
        return mine / theirs, math.hypot(my_error, mine / theirs * their_error) / theirs

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ratio, error = self.ratio
        sets = {"generated": self.generated.to_json(), "real": self.real.to_json()}
        about = {"count": self.count, "level": self.level, "threshold": self.threshold}
        return {**about, "ratio": ratio, "ratio_error": error, **sets, "closest": self.closest.tolist()}


def measure_variety(
    generated: np.ndarray,
    real: np.ndarray,
    real_groups: np.ndarray | None = None,
    seed: int = 0,
    level: float = LEVEL,
    largest: int = LARGEST,
    pairs: int = 8,
) -> Variety:
    """Compare the spread of generated pictures with that of real ones in features (N, D).

    Of both sets an equal number is taken, by seed, since Vendi score and nearest distances depend on it.

    Raises:
        InputError: features do not fit or are too few.
    """
    generated, real = check_features("generated pictures", generated, SMALLEST), check_features("real", real, SMALLEST)
    check_alike(generated=generated, real=real)
    groups = np.arange(len(real)) if real_groups is None else np.unique(real_groups, return_inverse=True)[1]
    if len(groups) != len(real):
        raise InputError(f"{len(groups)} groups are given for {len(real)} real pictures; expected one per picture")
    count = min(len(generated), len(real), largest)
    random = np.random.Generator(np.random.Philox(key=seed))
    mine, theirs = (np.sort(random.choice(len(s), count, replace=False)) for s in (generated, real))
    generated, real = generated[mine], real[theirs]
    drawn, drawn_nearest, pair = _distances(generated, np.arange(count))
    means, nearest, _ = _distances(real, np.arange(count))
    threshold = conformal_quantile(_distances(real, groups[theirs])[1], level)
    if not np.isfinite(threshold):
        raise InputError(f"the {count} real pictures are of one group; expected several, whose distance is the measure")
    if means.max() == 0:
        raise InputError(f"all {count} real pictures have equal features; expected pictures that differ")
    return Variety(
        count,
        level,
        threshold,
        _spread(generated, drawn, drawn_nearest < threshold),
        _spread(real, means, nearest < threshold),
        mine[_closest_pairs(drawn_nearest, pair, pairs)],
    )


def _spread(features: np.ndarray, means: np.ndarray, duplicates: np.ndarray) -> Spread:
    found = Proportion(int(duplicates.sum()), len(features))
    return Spread(float(means.mean()), standard_error(means), vendi_score(features), found)


def standard_error(means: np.ndarray) -> float:
    """Return the standard error of the mean over all pairs, from each picture's mean distance to the others (N,).

    2 s / sqrt(N), the first term of a U-statistic's variance (Hoeffding 1948): pairs that share a picture hang
    together, so the root of the number of pairs would be far too small.
    """
    return float(2 * means.std(ddof=1) / np.sqrt(len(means)))


def vendi_score(features: np.ndarray) -> float:
    """Return the effective number of different pictures, 1 to N, of features (N, D).

    The exponential of the entropy of the eigenvalues of K / N with K the cosine similarities (Friedman and Dieng 2022,
    "The Vendi score"). Pictures without any feature count as one more kind.
    """
    values = np.asarray(features, np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    zero = norms[:, 0] == 0
    unit = np.hstack([values / np.where(norms > 0, norms, 1), zero[:, None]])
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit  # the same eigenvalues but for zeros
    eigenvalues = np.linalg.eigvalsh(gram / len(unit))
    kept = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(kept * np.log(kept)).sum()))


def _distances(features: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each picture's mean distance to the others, distance to the nearest of another group, and its position.

    A picture whose whole set is of its group has an infinite nearest distance.
    """
    count = len(features)
    means, nearest, positions = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    for rows, squared in squared_distances(features, features):
        own = np.arange(rows.start, rows.stop)
        squared[np.arange(len(own)), own] = 0
        means[rows] = np.sqrt(squared).sum(axis=1, dtype=np.float64) / (count - 1)
        squared[groups[rows][:, None] == groups] = np.inf
        positions[rows] = squared.argmin(axis=1)
        alone = ~np.isfinite(squared[np.arange(len(own)), positions[rows]])
        exact = np.linalg.norm(features[rows].astype(np.float64) - features[positions[rows]], axis=1)
        nearest[rows] = np.where(alone, np.inf, exact)
    return means, nearest, positions


def _closest_pairs(nearest: np.ndarray, positions: np.ndarray, count: int) -> np.ndarray:
    """Return the pairs of nearest pictures in order of their distance, each once, int (count or fewer, 2)."""
    order = np.argsort(nearest, kind="stable")
    pairs = np.sort(np.stack([order, positions[order]], axis=1), axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    return pairs[np.sort(first)][:count]
