"""Nearest pictures by the Euclidean distance of features, in parts that bound the memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.errors import InputError

BLOCK = 1 << 24  # distances that are held at once: 64 MiB


def check_features(name: str, features: np.ndarray, at_least: int = 1) -> np.ndarray:
    """Return features of shape (N, D) as float32.

    Raises:
        InputError: they have another shape, are fewer than `at_least`, or hold NaN or infinity.
    """
    if features.ndim != 2 or len(features) < at_least:
        raise InputError(f"features of {name} have shape {features.shape}; expected (N, D) with N >= {at_least}")
    if not np.isfinite(features).all():
        raise InputError(f"features of {name} hold NaN or infinity; look at its pictures")
    return np.asarray(features, np.float32)


def check_alike(**sets: np.ndarray) -> None:
    """Make sure that sets of features are of one network.

    Raises:
        InputError: their dimensions differ; each is named.
    """
    if len({features.shape[1] for features in sets.values()}) > 1:
        found = ", ".join(f"{name} {features.shape[1]}" for name, features in sets.items())
        raise InputError(f"features differ in their dimension ({found}); take all from the same network")


def squared_distances(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of `first` and their squared distances to all of `second`, float32, shape (rows, M).

    By |a|^2 + |b|^2 - 2 ab about the common mean; what is left of distances far below the spread is rounding.
    """
    centre = second.mean(axis=0)
    first, second = first - centre, second - centre
    norms = np.square(second).sum(axis=1)
    rows = max(1, BLOCK // len(second))
    for start in range(0, len(first), rows):
        part = first[start : start + rows]
        found = np.square(part).sum(axis=1)[:, None] + norms - 2 * (part @ second.T)
        yield slice(start, start + len(part)), np.maximum(found, 0)


@dataclass(frozen=True)
class Nearest:
    """Of each picture: position of the nearest other one, distance to it, and mean distance to those behind it."""

    indices: np.ndarray
    distances: np.ndarray
    behind: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """Return distance / mean distance behind, in [0, 1]; 1 where all are equally far, also where all are one."""
        floor = np.finfo(np.float64).tiny
        return np.where(self.behind > 0, self.distances / np.maximum(self.behind, floor), 1.0)


def find_nearest(
    pictures: np.ndarray, others: np.ndarray, groups: np.ndarray, neighbours: int, own: np.ndarray | None = None
) -> Nearest:
    """Find the nearest of `others` (M, D) to each picture (N, D), and the mean distance to the next ones behind it.

    Those behind are the nearest `neighbours` outside of the nearest one's group, by `groups` (M,); `own` (N,) names
    the position of the picture itself among the others, which is passed over.
    """
    count = len(pictures)
    indices, behind = np.zeros(count, np.int64), np.zeros(count)
    for rows, squared in squared_distances(pictures, others):
        if own is not None:
            squared[np.arange(len(squared)), own[rows]] = np.inf
        indices[rows] = squared.argmin(axis=1)
        squared[groups[indices[rows]][:, None] == groups] = np.inf
        behind[rows] = _mean_of_smallest(squared, neighbours)
    exact = np.linalg.norm(pictures.astype(np.float64) - others[indices], axis=1)
    return Nearest(indices, exact, np.maximum(behind, exact))


def _mean_of_smallest(squared: np.ndarray, count: int) -> np.ndarray:
    count = min(count, squared.shape[1])
    smallest = np.sqrt(np.partition(squared, count - 1, axis=1)[:, :count], dtype=np.float64)
    there = np.isfinite(smallest)
    return np.where(there, smallest, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
