"""Files that are kept by the sha256 of all that they depend on, and believed only as they were written."""

import hashlib
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.storage import sha256_bytes, sha256_json, write_bytes, write_json

if TYPE_CHECKING:
    from stages.metrics.features import Extracted, Network, PictureSet

LIBRARIES = ("torch", "torch-fidelity", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy", "pillow")


@dataclass(frozen=True)
class FeatureCache:
    """Features by the sha256 of all that they depend on: the pictures, the network, its code, the arithmetic.

    A file holds one array, features and then logits where there are any. It is believed only if its sha256 is the one
    in the note beside it and its shape is the expected one.
    """

    folder: Path

    def key(self, network: "Network", pictures: "PictureSet") -> str:
        """Return the name under which these features are kept."""
        arithmetic = {"versions": versions(), "device": network.device.type, "code": code_hash()}
        return sha256_json({"recipe": network.recipe, "pictures": pictures.identity, **arithmetic})

    def read(self, network: "Network", pictures: "PictureSet") -> "Extracted | None":
        """Return the kept features, or None where there are none that can be believed."""
        from stages.metrics.features import Extracted

        if pictures.identity is None:
            return None
        data = read_kept(self.path(network, pictures), "its features are computed again")
        if data is None:
            return None
        found: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        if found.ndim != 2 or len(found) != pictures.count or found.shape[1] < network.dimension:
            return None
        features, logits = np.split(found, [network.dimension], axis=1)
        return Extracted(features, logits if logits.shape[1] else None)

    def write(self, network: "Network", pictures: "PictureSet", extracted: "Extracted") -> None:
        """Keep features and logits, the note of their sha256 last."""
        if pictures.identity is None:
            return
        parts = [extracted.features] if extracted.logits is None else [extracted.features, extracted.logits]
        stream = io.BytesIO()
        np.save(stream, np.concatenate(parts, axis=1), allow_pickle=False)
        note = {"recipe": network.recipe, "pictures": pictures.identity}
        write_kept(self.path(network, pictures), stream.getvalue(), note)

    def path(self, network: "Network", pictures: "PictureSet") -> Path:
        """Return where these features are kept."""
        return self.folder / f"{self.key(network, pictures)}.npy"


def read_kept(path: Path, otherwise: str) -> bytes | None:
    """Return a kept file's bytes, or None where there is none that is as it was written, which is then said."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if _noted_sha256(path) == sha256_bytes(data):
        return data
    print(f"{path} is not as it was written; {otherwise}", file=sys.stderr, flush=True)
    return None


def write_kept(path: Path, data: bytes, note: dict[str, Any]) -> None:
    """Keep a file, and beside it a note that holds its sha256."""
    write_bytes(path, data)
    write_json(path.with_suffix(".json"), {"sha256": sha256_bytes(data), **note})


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of libraries, of which those decide the last digits of a feature that are the default."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # one of the two onnxruntimes always is
            continue
    return found


def code_hash(files: Iterable[Path] | None = None) -> str:
    """Return the sha256 over sources, by default this package's, so that what older code made is never taken for new.

    Names and contents count, not where the files lie.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py") if files is None else files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _noted_sha256(path: Path) -> str | None:
    try:
        return str(json.loads(path.with_suffix(".json").read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
