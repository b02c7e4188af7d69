"""`domain` features: those of a small classifier that was trained on the data's own classes, kept by content.

They see what ImageNet's networks were never shown (drawings, digits, medical pictures), and their classifier is the
probe of conditional accuracy. They are comparable between models of one data set only: the recipe names the data and
the weights. Training on another machine or number of threads rounds otherwise and gives other weights, so a folder of
kept weights must travel with scores that are to be compared.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from stages.errors import InputError
from stages.metrics import classifier
from stages.metrics.classifier import DIMENSION, FEWEST, Classifier, TrainingRecipe
from stages.metrics.feature_networks import score_names
from stages.metrics.proportions import Accuracy, accuracy
from stages.storage import sha256_bytes, sha256_file, sha256_json, write_bytes, write_json

LABEL = "domain"
DEFAULT = TrainingRecipe()


@dataclass(frozen=True)
class DomainNetwork:
    """The classifier as a feature network: pooled features (128) and logits of the data's classes."""

    network: Classifier
    class_names: tuple[str, ...]
    device: torch.device
    recipe: dict[str, Any]
    label: str = LABEL
    distance: str = f"fd_{LABEL}"
    dimension: int = DIMENSION

    def names(self) -> dict[str, str]:
        """Return the published name of each score of these features."""
        return score_names(self.label, self.distance)

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map pictures (N, 1 or 3, H, W), uint8 or floats in [0, 255], to features (N, 128) and logits (N, classes).

        Raises:
            InputError: they have another shape or type.
        """
        return classifier.classify(self.network, pictures, self.device)

    def accuracy(self, pixels: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> Accuracy:
        """Return the accuracy on pictures that the training has not seen, uint8 (N, C, H, W).

        With groups of near-duplicates, int or text (N,), the intervals are of as much as such pictures tell.
        """
        return accuracy(self.classify(pixels)[1].argmax(axis=1), labels, self.class_names, groups)


def unavailable_reason(labels: np.ndarray | None) -> str | None:
    """Return why there can be no classifier of these train labels; None where two classes or more can be learnt."""
    if labels is None or not (labels >= 0).any():
        return "the pictures have no classes"
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    if (enough := int((counts >= FEWEST).sum())) >= 2:
        return None
    return f"{enough} of {len(counts)} classes has {FEWEST} train pictures or more; two are needed"


def train_or_load(
    pixels: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    cache_folder: Path,
    seed: int,
    device: torch.device,
    recipe: TrainingRecipe = DEFAULT,
) -> DomainNetwork:
    """Return the classifier of the train split's uint8 pictures (N, C, H, W), trained now or once before.

    It is kept as safetensors with a JSON note, named after the sha256 of pictures, labels, recipe, seed and code.

    Raises:
        InputError: the labels are not those of two learnable classes.
    """
    if reason := unavailable_reason(labels):
        raise InputError(f"No `{LABEL}` features: {reason}; leave `{LABEL}` out of the features, or label the pictures")
    content = {"training": recipe.to_json() | {"seed": seed}, "dataset": content_hash(pixels, labels)}
    content |= {"classes": list(class_names), "code": code_hash()}
    path = cache_folder / f"{LABEL}-{sha256_json(content)[:32]}.safetensors"
    state = read_weights(path)
    if state is None:
        network = classifier.train(pixels, labels, len(class_names), recipe, seed, device, "domain classifier")
        state = save({name: value.contiguous().cpu() for name, value in network.state_dict().items()})
        write_bytes(path, state)
        write_json(path.with_suffix(".json"), {"sha256": sha256_bytes(state), **content})
    network = Classifier(classifier.input_size(pixels.shape[-1]), len(class_names))
    network.load_state_dict(load(state), strict=True)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    return DomainNetwork(network, class_names, device, describe(network, sha256_bytes(state), content))


def describe(network: Classifier, weights: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return all that the features of a picture depend on."""
    return {
        "features": LABEL,
        "layer": f"pooled {DIMENSION}",
        "weights_sha256": weights,
        "resize": "area",
        "size": network.size,
        "normalisation": "x / 127.5 - 1",
        "dtype": "float32",
        "engine": "exact",
        "training": content["training"],
        "dataset": content["dataset"],
        "classes": content["classes"],
    }


def read_weights(path: Path) -> bytes | None:
    """Return the kept weights, or None where there are none, or none as they were written, which is said."""
    if not path.exists():
        return None
    state = path.read_bytes()
    try:
        if json.loads(path.with_suffix(".json").read_text())["sha256"] == sha256_bytes(state):
            load(state)
            return state
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        pass  # the same as another sha256: the pair is not what was written
    print(f"{path} is not as it was written; its classifier is trained again", file=sys.stderr, flush=True)
    return None


def content_hash(pixels: np.ndarray, labels: np.ndarray) -> str:
    """Return one sha256 over the pictures' shape and bytes and their labels."""
    digest = hashlib.sha256(f"{pixels.shape}\0".encode())
    for picture in pixels:  # one by one: a copy of all would not fit beside them
        digest.update(np.ascontiguousarray(picture).data)
    digest.update(b"\0" + labels.astype("<i8").tobytes())
    return digest.hexdigest()


def code_hash() -> str:
    """Return the sha256 of the source that decides the weights."""
    return sha256_file(Path(classifier.__file__))
