"""Searches generated and hold-out pictures for what is near to training pictures, in one space of features."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from stages.errors import InputError
from stages.evaluate.unseen.conformal import conformal_quantile
from stages.evaluate.unseen.nearest import Nearest, check_alike, check_features, find_nearest
from stages.evaluate.unseen.repeats import Repeats, find_repeats

SAME = 1e-3  # of the median hold-out distance: what rounding and no repeat of a subject stays below
PROBED = 1000  # training pictures by which the data's own nearness is estimated
PART = 256  # pictures that are in memory as floats at once
THUMBNAIL = 16  # pixels: of 4 to 32, the side at which most noisy copies of 32-pixel pictures are found


@dataclass(frozen=True)
class Space:
    """Features of one kind of the three sets, each float (N, D)."""

    generated: np.ndarray
    train: np.ndarray
    holdout: np.ndarray


@dataclass(frozen=True)
class Search:
    """The nearest training pictures of generated, hold-out and training pictures in one space."""

    generated: Nearest
    holdout: Nearest
    data: Nearest
    repeats: Repeats

    def thresholds(self, level: float) -> tuple[float, float | None]:
        """Return up to which ratio a picture is near, and up to which share of the repeats' spacing a copy."""
        repeats = conformal_quantile(self.repeats.ratios, level) if len(self.repeats.ratios) else None
        return conformal_quantile(self.holdout.ratios, level), repeats

    def near_and_copies(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return which generated pictures are near to training pictures, and which are copies."""
        threshold, repeat_threshold = self.thresholds(level)
        near = self.generated.ratios <= threshold
        spacing = self.repeats.spacing[self.generated.indices]  # infinite without repeats: all that is near is a copy
        scale = 1.0 if repeat_threshold is None else repeat_threshold
        return near, near & ((self.generated.distances <= scale * spacing) | np.isinf(spacing))


def search_space(space: Space, groups: np.ndarray, neighbours: int) -> Search:
    train = np.asarray(space.train, np.float32)
    own = np.linspace(0, len(train) - 1, min(PROBED, len(train))).astype(int)
    fresh = find_nearest(np.asarray(space.holdout, np.float32), train, groups, neighbours)
    return Search(
        find_nearest(np.asarray(space.generated, np.float32), train, groups, neighbours),
        fresh,
        find_nearest(train[own], train, groups, neighbours, own),
        find_repeats(train, groups, SAME * float(np.median(fresh.distances))),
    )


def check_spaces(spaces: dict[str, Space]) -> tuple[int, int, int]:
    """Return the numbers of generated, train and hold-out pictures.

    Raises:
        InputError: there is no space, features do not fit, or the spaces are not of the same pictures.
    """
    if not spaces:
        raise InputError("no space of features is given; expected one or more to search for copies in")
    counts = set()
    for name, space in spaces.items():
        sets = vars(space)
        for role, features in sets.items():
            check_features(f"{role} ({name})", features, 2 if role == "train" else 1)
        check_alike(**sets)
        counts.add((len(space.generated), len(space.train), len(space.holdout)))
    if len(counts) > 1:
        raise InputError(f"spaces hold {sorted(counts)} pictures; expected the same generated, train and hold-out ones")
    return counts.pop()


def number_groups(
    train: np.ndarray | None, train_count: int, holdout: np.ndarray | None, holdout_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return group numbers of both splits, 0 to number of groups - 1 in each.

    Raises:
        InputError: there is not one group per picture, a group is in both, or train has one only.
    """
    names = [
        np.arange(count) if given is None else np.asarray(given)
        for given, count in ((train, train_count), (holdout, holdout_count))
    ]
    if (len(names[0]), len(names[1])) != (train_count, holdout_count):
        raise InputError(
            f"{len(names[0])} and {len(names[1])} groups are given for {train_count} train and {holdout_count} "
            "hold-out pictures; expected one per picture"
        )
    if train is not None and holdout is not None and len(both := np.intersect1d(names[0], names[1])):
        raise InputError(f"group {both[0]} is in train and hold-out; a split never cuts a group: run normalize again")
    if len(np.unique(names[0])) < 2:
        raise InputError("all train pictures are of one group; expected two or more to measure distances between them")
    return np.unique(names[0], return_inverse=True)[1], np.unique(names[1], return_inverse=True)[1]


def pixel_descriptors(pictures: np.ndarray) -> np.ndarray:
    """Return a space that sees through noise, slight blur and mirroring: uint8 (N, C, H, W) to float32 (N, D), [0, 1].

    The mean and the absolute half difference of a thumbnail and its mirror image, which are the same for both.
    """
    return np.concatenate([_descriptors(pictures[start : start + PART]) for start in range(0, len(pictures), PART)])


def _descriptors(pictures: np.ndarray) -> np.ndarray:
    size = (THUMBNAIL, THUMBNAIL)
    small = adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255, size)
    left, right = small[..., : THUMBNAIL // 2], small.flip(3)[..., : THUMBNAIL // 2]
    found: np.ndarray = torch.cat([(left + right) / 2, (left - right).abs() / 2], dim=1).flatten(1).numpy()
    return found
