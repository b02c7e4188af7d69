"""Thresholds below which a known share of fresh pictures falls, whatever the data (Vovk et al. 2005)."""

import math

import numpy as np
from scipy.special import betaincinv

RESAMPLES = 500


def conformal_rank(count: int, level: float) -> int:
    """Return which of `count` values in ascending order a further draw falls below with probability <= level.

    Of fewer than 1 / level - 1 values it is the smallest, which a further draw falls below with 1 / (count + 1).
    """
    return max(1, math.floor(level * (count + 1)))


def conformal_quantile(values: np.ndarray, level: float) -> float:
    """Return the value below which a further draw falls with probability rank / (n + 1)."""
    return float(np.sort(values)[conformal_rank(len(values), level) - 1])


def expected_share(below: np.ndarray, groups: np.ndarray, rank: int, spaces: int) -> tuple[float, float]:
    """Return the 95 % interval of the share of fresh pictures that fall below the thresholds.

    A bootstrap over whole groups (N,) of hold-out pictures, as those of one group are near to or far from the training
    data together; at its upper end no less than the share below the rank-th of N values, Beta(rank, N + 1 - rank),
    summed over the spaces.
    """
    sizes, hits = np.bincount(groups), np.bincount(groups, below)
    random = np.random.Generator(np.random.Philox(key=0))
    drawn = random.integers(0, len(sizes), (RESAMPLES, len(sizes)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    single = float(betaincinv(rank, len(below) + 1 - rank, 0.975))
    return float(low), min(1.0, max(float(high), spaces * single))
