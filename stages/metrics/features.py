"""Features of sets of pictures: one pass per set, and a cache of those that are the same for every model."""

import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.metrics.feature_networks import FeatureNetwork
from stages.progress import progress_bar
from stages.storage import sha256_bytes, sha256_json, write_bytes, write_json

CPU_CHUNK = 8  # larger activations are mapped and unmapped at every layer: 64 costs twice as much per picture


@dataclass(frozen=True)
class PictureSet:
    """Pictures that are compared as one set.

    `batches` starts a pass over uint8 pictures (N, C, H, W) in a fixed order; `identity` says where they come from,
    and is None for pictures that are not worth keeping.
    """

    name: str
    count: int
    batches: Callable[[], Iterator[np.ndarray]]
    identity: dict[str, Any] | None = None


@dataclass(frozen=True)
class FeatureCache:
    """Features by the sha256 of all that they depend on: the pictures, the network, its code, the arithmetic.

    A file is believed only if its sha256 is the one in the note beside it and its shape is the expected one.
    """

    folder: Path

    def key(self, network: FeatureNetwork, pictures: PictureSet) -> str:
        """Return the name under which these features are kept."""
        arithmetic = {"torch": torch.__version__, "device": network.device.type, "code": code_hash()}
        return sha256_json({"recipe": network.recipe, "pictures": pictures.identity, **arithmetic})

    def read(self, network: FeatureNetwork, pictures: PictureSet) -> np.ndarray | None:
        """Return the kept features, or None where there are none that can be believed."""
        path = self.folder / f"{self.key(network, pictures)}.npy"
        if pictures.identity is None or not path.exists():
            return None
        data = path.read_bytes()
        if _noted_sha256(path) != sha256_bytes(data):
            print(f"{path} is not as it was written; its features are computed again", file=sys.stderr)
            return None
        found: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        return found if found.shape == (pictures.count, network.dimension) else None

    def write(self, network: FeatureNetwork, pictures: PictureSet, features: np.ndarray) -> None:
        """Keep features, the note of their sha256 last."""
        if pictures.identity is None:
            return
        path = self.folder / f"{self.key(network, pictures)}.npy"
        stream = io.BytesIO()
        np.save(stream, features, allow_pickle=False)
        write_bytes(path, stream.getvalue())
        note = {"sha256": sha256_bytes(stream.getvalue()), "recipe": network.recipe, "pictures": pictures.identity}
        write_json(path.with_suffix(".json"), note)


def features_of(pictures: PictureSet, networks: list[FeatureNetwork], cache: FeatureCache) -> dict[str, np.ndarray]:
    """Return each network's features of a set by the network's label, float32, shape (count, dimension)."""
    kept = {network.label: cache.read(network, pictures) for network in networks}
    missing = [network for network in networks if kept[network.label] is None]
    fresh = extract(pictures, missing) if missing else {}
    for network in missing:
        cache.write(network, pictures, fresh[network.label])
    return {label: fresh[label] if found is None else found for label, found in kept.items()}


def extract(pictures: PictureSet, networks: list[FeatureNetwork]) -> dict[str, np.ndarray]:
    """Compute the features of a set in one pass over its pictures, however many networks there are."""
    parts: dict[str, list[np.ndarray]] = {network.label: [] for network in networks}
    with progress_bar(pictures.name, pictures.count) as bar:
        for batch in pictures.batches():
            for chunk in _chunks(batch, networks[0].device):
                for network in networks:
                    parts[network.label].append(network.features(torch.from_numpy(chunk)).numpy())
                bar.update(len(chunk))
    return {label: np.concatenate(found) for label, found in parts.items()}


def code_hash() -> str:
    """Return the sha256 over this package's sources, so that features of older code are never taken for new ones."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _noted_sha256(path: Path) -> str | None:
    try:
        return str(json.loads(path.with_suffix(".json").read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _chunks(batch: np.ndarray, device: torch.device) -> Iterator[np.ndarray]:
    size = CPU_CHUNK if device.type == "cpu" else len(batch)
    for start in range(0, len(batch), size):
        yield np.ascontiguousarray(batch[start : start + size])
