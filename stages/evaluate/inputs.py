"""What evaluate reads, and the checks that need no model in memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.metrics.inception_weights import InceptionWeights, find_inception
from stages.settings import EvaluateSettings
from stages.storage import read_json, require


@dataclass(frozen=True)
class Inputs:
    """The folders and files of one model's evaluation; `features` is a cache, not a result."""

    model: str
    images: Path
    policy: Path
    weights: Path
    curve: Path
    weights_lock: Path
    features: Path

    @classmethod
    def of(cls, model: str) -> "Inputs":
        """Return the places of a selected model in this workspace."""
        training = Path("models") / model / "training"
        data = Path("data")
        return cls(
            model,
            data / "images",
            data / "augment" / "policy.json",
            training / "weights",
            training / "curve.json",
            data / "weights.lock.json",
            Path(".work/features"),
        )


@dataclass(frozen=True)
class Pictures:
    """The two splits, opened: `holdout` is what everything is compared with, `train` what the field compares with.

    `mirror` tells whether left and right may be swapped in these pictures.
    """

    train: ImageDataset
    holdout: ImageDataset
    mirror: bool

    @property
    def class_names(self) -> tuple[str, ...]:
        """The data's classes, none where it has no labels."""
        return tuple(self.train.description.get("class_names", ()))

    def floor_count(self, settings: EvaluateSettings) -> int:
        """Return how many train pictures the floor compares with the hold-out: as many as are generated, or all."""
        return min(settings.count, len(self.train))

    def kid_subset(self, settings: EvaluateSettings) -> int:
        """Return the size of KID's subsets: as set, or the smallest set's size where that is smaller."""
        return min(settings.kid_subset, len(self.holdout), self.floor_count(settings))


def labels_of(dataset: ImageDataset) -> np.ndarray:
    """Return each picture's class, int64 (N,), -1 where it has none."""
    return np.array([row["label"] for row in dataset.rows], np.int64)


def groups_of(dataset: ImageDataset) -> np.ndarray:
    """Return each picture's group of near-duplicates, text (N,)."""
    return np.array([row["group"] for row in dataset.rows])


def check(settings: EvaluateSettings, inputs: Inputs) -> tuple[Pictures, InceptionWeights | None]:
    """Open the splits and find the Inception weights, before anything slow begins.

    Raises:
        InputError: an input is absent, a set is too small for the settings, or the weights are not the locked ones.
    """
    require(inputs.images, "normalize")
    require(inputs.weights, f"train {inputs.model}")
    policy = read_json(require(inputs.policy, "augment"), "run `python -m stages.augment`")
    weights = find_inception(settings.inception, inputs.weights_lock)
    train, holdout = (ImageDataset(inputs.images, split) for split in ("train", "holdout"))
    pictures = Pictures(train, holdout, bool(policy["mirror"]))
    _check_sizes(settings, pictures)
    return pictures, weights


def _check_sizes(settings: EvaluateSettings, pictures: Pictures) -> None:
    sizes = {
        f"evaluate.count is {settings.count}": settings.count,
        f"the hold-out split has {len(pictures.holdout)} pictures (normalize.holdout)": len(pictures.holdout),
        f"the train split has {len(pictures.train)} pictures (1 - normalize.holdout)": len(pictures.train),
    }
    for found, size in sizes.items():
        if size <= settings.neighbours:
            raise InputError(
                f"{found}, not more than evaluate.neighbours = {settings.neighbours}; change one of the two"
            )
