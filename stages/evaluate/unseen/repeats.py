"""How near to one another the repeats of one subject lie inside the training data."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

ROWS = 512  # pictures of a group that are compared with the whole group at once


@dataclass(frozen=True)
class Repeats:
    """Of each training picture the distance to the nearest other one of its group, infinite where there is none.

    `ratios` is what such distances are to that of the repeat they lead to, float (M,): how near a further repeat of a
    known subject comes to the known ones, measured on each training picture as if it were not there.
    """

    spacing: np.ndarray
    ratios: np.ndarray


def find_repeats(train: np.ndarray, groups: np.ndarray, same: float) -> Repeats:
    """Measure the repeats of training pictures with features (N, D) and group numbers (N,).

    Pictures no farther apart than `same` are one picture twice, and no repeats of one another.
    """
    spacing, parts = np.full(len(train), np.inf), [np.zeros(0)]
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(members) > 1:
            nearest, first, second = _two_nearest(train[members].astype(np.float64), same)
            spacing[members] = first
            parts.append(_ratios(nearest, first, second))
    return Repeats(spacing, np.concatenate(parts))


def _two_nearest(features: np.ndarray, same: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the position of each row's nearest other row, the distance to it, and that to the second nearest."""
    parts = []
    for start in range(0, len(features), ROWS):
        distances = cdist(features[start : start + ROWS], features)
        distances[distances <= same] = np.inf
        rows = np.arange(len(distances))
        nearest = distances.argmin(axis=1)
        first = distances[rows, nearest]
        distances[rows, nearest] = np.inf
        parts.append((nearest, first, distances.min(axis=1)))
    nearest, first, second = (np.concatenate(part) for part in zip(*parts, strict=True))
    return nearest, first, second


def _ratios(nearest: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return each row's distance to its nearest one, over that one's distance to its own nearest without this row."""
    there = np.isfinite(first)
    is_mutual = nearest[nearest] == np.arange(len(nearest))
    theirs = np.where(is_mutual, second[nearest], first[nearest])[there]
    return np.where(np.isfinite(theirs), first[there] / theirs, 1.0)  # a pair has no third to be measured by
