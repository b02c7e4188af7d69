"""Whether generated pictures are copies of training pictures, measured against hold-out pictures that cannot be.

The measure of a picture is the distance to its nearest training picture over the mean distance to the nearest ones of
other subjects (the calibration by neighbours of Carlini et al. 2023, "Extracting training data from diffusion models"),
so that a crowded region of the data is not taken for memory. As in the three-sample test of Meehan et al. 2020 ("A
non-parametric test to detect data-copying"), hold-out pictures say which values occur without any copying: of fresh
pictures, a share of `level` falls below the threshold (a conformal quantile, Vovk et al. 2005), whatever the data.
Several spaces may be searched, as features see through a shift and pixels through noise: each gets an equal part of
the level, and what one of them finds is found.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from stages.evaluate.unseen.conformal import conformal_rank, expected_share
from stages.evaluate.unseen.copy_search import Search, Space, check_spaces, number_groups, search_space
from stages.evaluate.unseen.nearest import Nearest
from stages.metrics.proportions import Proportion
from stages.sheet import sheet

LEVELS = (0.01, 0.05)  # 1 % for the verdict; 5 % finds more degraded copies over a higher floor
NEIGHBOURS = 10  # 50, as on 50,000 pictures of CIFAR-10, would reach into other kinds of subjects in small data


@dataclass(frozen=True)
class Finding:
    """What is found at one level: `near` to a training picture = `variants` + `copies`.

    Variants lie where the data hold repeats of the subject, and no nearer than these do to one another. Of fresh
    pictures a share of at most `nominal` is near on average, more than `level` where the hold-out is small; `expected`
    is the interval of that share, since the thresholds, by space, are estimates, too. `data` is the share of training
    pictures that are near to another one.
    """

    level: float
    nominal: float
    thresholds: dict[str, float]
    repeat_thresholds: dict[str, float | None]
    expected: tuple[float, float]
    data: Proportion
    near: Proportion
    variants: Proportion
    copies: Proportion

    @property
    def memorised(self) -> bool:
        """Whether there are surely more copies than among fresh pictures."""
        return self.copies.interval()[0] > self.expected[1]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        shares = {name: getattr(self, name).to_json() for name in ("data", "near", "variants", "copies")}
        thresholds = {"thresholds": self.thresholds, "repeat_thresholds": self.repeat_thresholds}
        expected = {"low": self.expected[0], "high": self.expected[1]}
        about = {"level": self.level, "nominal": self.nominal, "expected": expected, "memorised": self.memorised}
        return about | thresholds | shares


@dataclass(frozen=True)
class Memorisation:
    """Findings by level, and the nearest training picture of each generated one.

    `nearest` is in the space, named by its position in `spaces`, where a picture is nearest for its threshold.
    `closer` is by space the probability that a generated picture is nearer to the training data than a hold-out one:
    0.5 for fresh pictures (the statistic of Meehan et al. 2020, over all regions at once). `copied` marks the copies
    of the first level, bool (N,).
    """

    findings: tuple[Finding, ...]
    spaces: tuple[str, ...]
    nearest: Nearest
    space: np.ndarray
    copied: np.ndarray
    closer: dict[str, float]

    def closest(self, count: int) -> np.ndarray:
        """Return the positions of the generated pictures that are nearest to a training picture, copies first."""
        return np.lexsort((self.nearest.ratios, ~self.copied))[:count]

    def to_json(self, pairs: int = 16) -> dict[str, Any]:
        """Return plain JSON values, with the positions and distances of the closest pairs."""
        rows = [
            {
                "generated": int(position),
                "train": int(self.nearest.indices[position]),
                "space": self.spaces[self.space[position]],
                "distance": float(self.nearest.distances[position]),
                "ratio": float(self.nearest.ratios[position]),
                "copy": bool(self.copied[position]),
            }
            for position in self.closest(pairs)
        ]
        return {"levels": [f.to_json() for f in self.findings], "closer": self.closer, "closest": rows}


def measure_memorisation(
    spaces: dict[str, Space],
    train_groups: np.ndarray | None = None,
    holdout_groups: np.ndarray | None = None,
    levels: tuple[float, ...] = LEVELS,
    neighbours: int = NEIGHBOURS,
) -> Memorisation:
    """Compare generated with hold-out pictures by their nearness to training pictures, in one or more spaces.

    `train_groups` and `holdout_groups` name the group of each picture, in which near-duplicates share one; without
    them each picture is its own. The pictures and their order are the same in all spaces.

    Raises:
        InputError: features do not fit, a group is in both splits, or all training pictures are of one group.
    """
    counts = check_spaces(spaces)
    groups, holdout_numbers = number_groups(train_groups, counts[1], holdout_groups, counts[2])
    searches = {name: search_space(space, groups, neighbours) for name, space in spaces.items()}
    part = 1 / len(spaces)
    findings = tuple(_find(level, level * part, searches, holdout_numbers) for level in levels)
    nearest, space = _nearest_of(searches, levels[0] * part)
    copied = _any(search.near_and_copies(levels[0] * part)[1] for search in searches.values())
    closer = {name: probability_closer(search.generated, search.holdout) for name, search in searches.items()}
    return Memorisation(findings, tuple(spaces), nearest, space, copied, closer)


def _find(level: float, part: float, searches: dict[str, Search], holdout_groups: np.ndarray) -> Finding:
    """Return what is found at a level, of which each space has a part."""
    thresholds = {name: search.thresholds(part) for name, search in searches.items()}
    marked = [search.near_and_copies(part) for search in searches.values()]
    near, copies = _any(near for near, _ in marked), _any(copies for _, copies in marked)
    fresh = _any(search.holdout.ratios <= thresholds[name][0] for name, search in searches.items())
    data = _any(search.data.ratios <= thresholds[name][0] for name, search in searches.items())
    rank = conformal_rank(len(holdout_groups), part)
    return Finding(
        level,
        len(searches) * rank / (len(holdout_groups) + 1),
        {name: found[0] for name, found in thresholds.items()},
        {name: found[1] for name, found in thresholds.items()},
        expected_share(fresh, holdout_groups, rank, len(searches)),
        _share(data),
        _share(near),
        _share(near & ~copies),
        _share(copies),
    )


def _nearest_of(searches: dict[str, Search], level: float) -> tuple[Nearest, np.ndarray]:
    """Return each generated picture's nearest training picture in the space where it is nearest for its threshold."""
    tiny = np.finfo(np.float64).tiny  # exact copies in the hold-out make a threshold of 0
    scaled = [s.generated.ratios / max(s.thresholds(level)[0], tiny) for s in searches.values()]
    space = np.argmin(scaled, axis=0)
    rows = np.arange(len(space))
    fields = [
        np.stack([getattr(s.generated, name) for s in searches.values()])[space, rows]
        for name in ("indices", "distances", "behind")
    ]
    return Nearest(*fields), space


def probability_closer(found: Nearest, fresh: Nearest) -> float:
    """Return P(ratio of generated < ratio of hold-out), ties counted half (Mann and Whitney 1947)."""
    order = np.sort(fresh.ratios)
    above = len(order) - np.searchsorted(order, found.ratios, side="right")
    tied = len(order) - np.searchsorted(order, found.ratios, side="left") - above
    return float((above + tied / 2).mean() / len(order))


def pair_sheet(generated: np.ndarray, train: np.ndarray, columns: int = 4, zoom: int = 2) -> Image.Image:
    """Lay out pairs, generated left and its nearest training picture right, uint8, both (N, C, H, W)."""
    pairs = np.stack([generated, train], axis=1)
    joined = pairs.transpose(0, 3, 1, 4, 2)  # (N, H, pair, W, C): the two of a pair touch, the sheet's gaps part pairs
    count, height, _, width, channels = joined.shape
    return sheet(joined.reshape(count, height, 2 * width, channels), columns=columns, zoom=zoom, gap=4)


def _any(masks: Iterable[np.ndarray]) -> np.ndarray:
    found: np.ndarray = np.logical_or.reduce(list(masks))
    return found


def _share(marked: np.ndarray) -> Proportion:
    return Proportion(int(marked.sum()), len(marked))
