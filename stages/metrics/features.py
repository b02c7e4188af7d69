"""Features of sets of pictures: one pass per set, shared by processes, kept where they are the same for every model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from stages.metrics import shares
from stages.metrics.cache import FeatureCache

__all__ = ["Extracted", "FeatureCache", "Network", "PictureSet", "features_of"]


class Network(Protocol):
    """What a feature network must be to be asked for a set's features."""

    @property
    def label(self) -> str:
        """Name of the features."""

    @property
    def dimension(self) -> int:
        """Number of features of a picture."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def recipe(self) -> dict[str, Any]:
        """All that the features depend on beside the pictures."""

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Map uint8 pictures (N, C, H, W) to float32 features and, where there are classes, logits."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures that are compared as one set.

    `batches` starts a pass over uint8 pictures (N, C, H, W) in a fixed order, of one size within a batch; `identity`
    says where they come from, and is None for pictures that are not worth keeping. `labels`, integers of shape
    (count,), index `class_names`.
    """

    name: str
    count: int
    batches: Callable[[], Iterator[np.ndarray]]
    identity: dict[str, Any] | None = None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extracted:
    """A set's features, float32 (N, D), and logits, float32 (N, K), where the network has any."""

    features: np.ndarray
    logits: np.ndarray | None


def features_of(pictures: PictureSet, networks: Sequence[Network], cache: FeatureCache) -> dict[str, Extracted]:
    """Return each network's features and logits of a set by the network's label, rows in the order of the pictures.

    Several processes of accelerate share the work, and each returns all of it.

    Raises:
        InputError: the set has another number of pictures than it says, or pictures that no network takes.
    """
    from stages.metrics.extraction import extract

    found: dict[str, Extracted] = {}
    for network in networks:
        kept = cache.read(network, pictures)
        if shares.all_agree(kept is not None) and kept is not None:
            found[network.label] = kept
    missing = [network for network in networks if network.label not in found]
    fresh = extract(pictures, missing) if missing else {}
    for network in missing:
        if shares.is_first():
            cache.write(network, pictures, fresh[network.label])
    shares.wait()  # so that all find, or all miss, what was kept
    return {network.label: (found | fresh)[network.label] for network in networks}
