"""What the stages have written about one model, read for the table and for MLflow."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.generators.loading import MODELS
from stages.storage import read_json, sha256_file, sha256_json, sha256_tree

PIECES = {
    "scores": "evaluation/scores.json",
    "parity": "onnx/parity.json",
    "benchmark": "benchmark/benchmark.json",
}
WHOLE_FILES = ("evaluation/samples.png", "benchmark/latency.png")


@dataclass(frozen=True)
class Results:
    """One model's training record and curve, and scores, parity and benchmark as far as they are there ({}: not)."""

    name: str
    folder: Path
    record: dict[str, Any]
    curve: list[dict[str, Any]]
    scores: dict[str, Any]
    parity: dict[str, Any]
    benchmark: dict[str, Any]

    @property
    def kimg(self) -> int:
        """Thousands of pictures that the training saw, rounded: the step of all that was measured afterwards."""
        return round(self.record["kimg"])

    @property
    def digest(self) -> str:
        """Return one sha256 over all that is published; the weights and the ONNX file count by their own hashes."""
        values = [self.record, self.curve, self.scores, self.parity, self.benchmark]
        files = [str((self.folder / name).exists() and sha256_file(self.folder / name)) for name in WHOLE_FILES]
        return sha256_json([values, files, sha256_tree(self.folder / "training" / "samples")])


def is_trained(name: str) -> bool:
    """Return whether a model has weights and a training's record."""
    folder = MODELS / name / "training"
    return (folder / "record.json").exists() and (folder / "weights" / "config.json").exists()


def read_results(name: str) -> Results:
    """Read what is there about a trained model.

    Raises:
        InputError: its training's record or curve is absent or damaged.
    """
    folder = MODELS / name
    hint = f"run `dvc repro train@{name}`"
    record = read_json(folder / "training" / "record.json", hint)
    curve = read_json(folder / "training" / "curve.json", hint)
    pieces = {key: _read_piece(folder / path) for key, path in PIECES.items()}
    return Results(name, folder, record, curve, **pieces)


def _read_piece(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree's leaves under dotted names; lists become JSON."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return flat
