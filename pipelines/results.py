"""What the stages have written about one model, read for the table and for MLflow."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.training import Training, chosen_grids
from stages.generators.loading import MODELS
from stages.storage import read_json, sha256_file, sha256_json, sha256_tree

PIECES = {
    "scores": "evaluation/scores.json",
    "parity": "onnx/parity.json",
    "certificate": "certificate/certificate.json",
    "benchmark": "benchmark/benchmark.json",
}
SHOWN = {  # what people look at, by the piece that it belongs to
    "scores": (
        "evaluation/samples.png",
        "evaluation/report.html",
        "evaluation/sheets/*.png",
        "evaluation/sheets/*.mp4",
    ),
    "certificate": ("certificate/differences.png",),
    "benchmark": ("benchmark/latency.png",),
}


@dataclass(frozen=True)
class Results:
    """One model's training record and curve, and what was measured of its weights ({}: nothing, or of others).

    `foreign` names the pieces that are there, but were made from other weights.
    """

    name: str
    folder: Path
    weights: str
    record: dict[str, Any]
    curve: list[dict[str, Any]]
    scores: dict[str, Any]
    parity: dict[str, Any]
    benchmark: dict[str, Any]
    certificate: dict[str, Any] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()

    @property
    def training(self) -> Training:
        """The finished training; its rows are spread evenly over its time, which is all that the record tells."""
        record = self.record
        started, finished = seconds_of(record["started"]), seconds_of(record["finished"])
        shares = {row["kimg"]: min(1.0, row["kimg"] / record["kimg"]) for row in self.curve}
        return Training(
            self.name,
            record["fingerprint"],
            record["settings"],
            record.get("policy", {}),
            record.get("dataset"),
            record["kimg"],
            started,
            self.curve,
            {kimg: started + (finished - started) * share for kimg, share in shares.items()},
            chosen_grids(self.folder / "training" / "samples"),
            record.get("pace", []),
            record.get("lineage", []),
        )

    @property
    def certified(self) -> list[str]:
        """The forms of the ONNX file that passed: full precision, or a variant."""
        return [form for form, entry in self.certificate.get("files", {}).items() if entry["passed"]]

    @property
    def warning(self) -> str | None:
        """The line that tells which pieces are left out, None where there is none."""
        if not self.foreign:
            return None
        return (
            f"WARNING: {self.name}: {' and '.join(self.foreign)} of other weights than models/{self.name} holds now "
            "are left out; run `dvc repro`"
        )

    @property
    def files(self) -> list[Path]:
        """The files of the training and of the pieces that are of its weights."""
        there = [piece for piece in PIECES if getattr(self, piece)]
        names = ["training/record.json", *(PIECES[piece] for piece in there)]
        shown = [path for piece in there for name in SHOWN.get(piece, ()) for path in sorted(self.folder.glob(name))]
        return [*(self.folder / name for name in names if (self.folder / name).exists()), *shown]

    @property
    def digest(self) -> str:
        """Return one sha256 over all that is published; the weights and the ONNX file count by their own hashes."""
        values = [self.record, self.curve, self.scores, self.parity, self.benchmark, self.certificate]
        files = [(path.name, sha256_file(path)) for path in self.files if path.suffix in (".png", ".html", ".mp4")]
        return sha256_json([values, files, sha256_tree(self.folder / "training" / "samples")])


def is_trained(name: str) -> bool:
    """Return whether a model has weights and a training's record."""
    folder = MODELS / name / "training"
    return (folder / "record.json").exists() and (folder / "weights" / "config.json").exists()


def read_results(name: str) -> Results:
    """Read what is there about a trained model and of its present weights.

    Raises:
        InputError: its training's record, curve or config is absent or damaged.
    """
    folder = MODELS / name
    hint = f"run `dvc repro train@{name}`"
    record = read_json(folder / "training" / "record.json", hint)
    curve = read_json(folder / "training" / "curve.json", hint)
    weights = read_json(folder / "training" / "weights" / "config.json", hint).get("identity", {}).get("weights", "")
    pieces = {key: _read_piece(folder / path) for key, path in PIECES.items()}
    foreign = tuple(key for key, piece in pieces.items() if piece and not _is_of(piece, weights))
    own = {key: {} if key in foreign else piece for key, piece in pieces.items()}
    return Results(name, folder, weights, record, curve, **own, foreign=foreign)


def _is_of(piece: dict[str, Any], weights: str) -> bool:
    return bool(weights) and piece.get("identity", {}).get("weights") == weights


def _read_piece(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}


def seconds_of(moment: str) -> float:
    """Return a moment in ISO 8601 as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a tree's leaves under dotted names; lists become JSON."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return flat
