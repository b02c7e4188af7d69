"""All scores of one set of pictures against another in the features of one network."""

from dataclasses import dataclass

import numpy as np

from stages.metrics.frechet import frechet_distance
from stages.metrics.gaussians import Features
from stages.metrics.inception_score import SPLITS, inception_score
from stages.metrics.intervals import RESAMPLES, Interval, frechet_interval, normal_interval
from stages.metrics.kernel import kernel_distance
from stages.metrics.manifold import Manifold, manifold
from stages.metrics.resampling import Resampler, frechet_at_infinity

LOWER_IS_BETTER = {"fd": True, "fd_inf": True, "kid": True, "isc": False, "precision": False, "recall": False}
LOWER_IS_BETTER |= {"density": False, "coverage": False}
SHARES = ("precision", "recall", "coverage")

__all__ = ["LOWER_IS_BETTER", "Comparison", "Features", "Options", "compare", "compare_in_full", "frechet_distance"]


@dataclass(frozen=True)
class Options:
    """Size, number and seed of KID's subsets, the k of the balls, resamples of the intervals, splits of the logits."""

    kid_subset: int
    kid_subsets: int
    neighbours: int
    seed: int
    resamples: int = RESAMPLES
    splits: int = SPLITS


@dataclass(frozen=True)
class Comparison:
    """Scores by their kind, the intervals of those that have one, and which pictures lie on the other's manifold."""

    scores: dict[str, float]
    intervals: dict[str, Interval]
    manifold: Manifold


def compare(
    generated: Features, real: Features, options: Options, logits: np.ndarray | None = None
) -> dict[str, float]:
    """Return all scores of a set against real pictures.

    fd, fd_inf, kid, kid_std, kid_se, precision, recall, density, coverage, and isc, isc_std where logits are given.
    """
    return compare_in_full(generated, real, options, logits).scores


def compare_in_full(
    generated: Features, real: Features, options: Options, logits: np.ndarray | None = None
) -> Comparison:
    """Return all scores with their 95 % intervals over the generated set, and the flags of precision and coverage.

    `logits` (N, K) are the generated pictures', in their order. fd_inf has no interval of its own, and below 60
    generated pictures neither have recall and coverage.

    Raises:
        InputError: a set is too small for the options, or the two were not computed by one network.
    """
    balls = manifold(generated, real, options.neighbours)
    kid = kernel_distance(generated, real, subset=options.kid_subset, subsets=options.kid_subsets, seed=options.seed)
    scores, intervals = _frechet(generated, real, options)
    scores |= {"kid": kid.mean, "kid_std": kid.std, "kid_se": kid.standard_error}
    intervals["kid"] = normal_interval(kid.mean, kid.standard_error)
    for kind, error in balls.errors.items():
        scores[kind] = getattr(balls, kind)
        if np.isfinite(error):
            intervals[kind] = normal_interval(scores[kind], error, (0, 1) if kind in SHARES else (0, np.inf))
    if logits is not None:
        scores["isc"], scores["isc_std"] = inception_score(logits, splits=options.splits, seed=options.seed)
        intervals["isc"] = normal_interval(scores["isc"], scores["isc_std"] / max(options.splits - 1, 1) ** 0.5)
    return Comparison(scores, intervals, balls)


def warnings(generated: int, real: int, dimension: int, name: str) -> list[str]:
    """Return what a reader of a Fréchet distance of so many pictures must know: fewer pictures than features."""
    if min(generated, real) > dimension:
        return []
    return [
        f"{name}: {generated} generated and {real} real pictures, not more than its {dimension} features: the "
        "covariance is rank-deficient; compare at equal numbers only, and read it beside its floor."
    ]


def _frechet(generated: Features, real: Features, options: Options) -> tuple[dict[str, float], dict[str, Interval]]:
    resampler = Resampler(generated, real)
    value = frechet_distance(generated, real)
    scores = {"fd": value, "fd_inf": frechet_at_infinity(resampler, real, options.seed)}
    return scores, {"fd": frechet_interval(value, resampler, real, resamples=options.resamples, seed=options.seed)}
