"""What evaluate reads, and the checks that need no model in memory."""

from dataclasses import dataclass
from pathlib import Path

from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.metrics.inception_weights import InceptionWeights, find_inception
from stages.settings import EvaluateSettings
from stages.storage import require


@dataclass(frozen=True)
class Inputs:
    """The folders and files of one model's evaluation; `features` is a cache, not a result."""

    model: str
    images: Path
    weights: Path
    weights_lock: Path
    features: Path

    @classmethod
    def of(cls, model: str) -> "Inputs":
        """Return the places of a selected model in this workspace."""
        weights = Path("models") / model / "training" / "weights"
        return cls(model, Path("data/images"), weights, Path("data/weights.lock.json"), Path(".work/features"))


@dataclass(frozen=True)
class Pictures:
    """The two splits, opened: `train` lends floor and colours, `holdout` is what everything is compared with."""

    train: ImageDataset
    holdout: ImageDataset

    def floor_count(self, settings: EvaluateSettings) -> int:
        """Return how many train pictures the floor compares with the hold-out: as many as are generated, or all."""
        return min(settings.count, len(self.train))

    def kid_subset(self, settings: EvaluateSettings) -> int:
        """Return the size of KID's subsets: as set, or the smallest set's size where that is smaller."""
        return min(settings.kid_subset, len(self.holdout), self.floor_count(settings))


def check(settings: EvaluateSettings, inputs: Inputs) -> tuple[Pictures, InceptionWeights | None]:
    """Open the splits and find the Inception weights, before anything slow begins.

    Raises:
        InputError: an input is absent, a set is too small for the settings, or the weights are not the locked ones.
    """
    require(inputs.images, "normalize")
    require(inputs.weights, f"train {inputs.model}")
    weights = find_inception(settings.inception, inputs.weights_lock)
    pictures = Pictures(ImageDataset(inputs.images, "train"), ImageDataset(inputs.images, "holdout"))
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
