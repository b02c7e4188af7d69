"""What of a training and of its results becomes points, figures, parameters and tags in MLflow."""

import math
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from pipelines.results import Results, flatten
from pipelines.training import Training
from stages.generators.onnx_metadata import FULL
from stages.storage import sha256_file
from stages.trainer.fingerprint import WITHOUT_EFFECT

LOCK = Path("dvc.lock")
PACE = ("seconds_per_kimg", "memory_mb")  # what a tick cost, beside what it shows


def params_of(training: Training) -> dict[str, Any]:
    """Return the settings of a training as flat parameters, without those that may change while it goes on."""
    settings = {key: value for key, value in training.settings.items() if key not in WITHOUT_EFFECT}
    return flatten({**settings, "augment": training.policy})


def training_tags(training: Training) -> dict[str, str]:
    """Return how far a training is, on what, and the settings that may change while it goes on."""
    tags = {
        "dataset.sha256": training.dataset,
        "training.kimg": training.kimg,
        "training.step": training.step_unit,
        "training.lineage": " ".join(map(str, training.lineage)) or "none",
    }
    # MLflow never changes a parameter, and a larger budget goes on in the same run.
    tags |= {key: training.settings[key] for key in WITHOUT_EFFECT if key in training.settings}
    return {key: str(value) for key, value in tags.items() if value is not None}


def tags_of(results: Results) -> dict[str, str]:
    """Return what identifies the results: commit, weights, recipes, hardware."""
    record = results.record
    tags = {
        "mlflow.source.git.commit": record.get("git_commit"),
        "git.commit": record.get("git_commit"),
        "git.dirty": record.get("git_dirty"),
        "training.device": record.get("device"),
        "training.alerts": "; ".join(map(str, record.get("alerts", []))) or "none",
        "weights.sha256": results.weights,
        "onnx.sha256": results.parity.get("sha256"),
        "onnx.opset": results.parity.get("opset"),
        "onnx.certified": ", ".join(results.certified) if results.certificate else None,
        "hardware.hash": results.benchmark.get("hardware_hash"),
        "dvc.lock.sha256": sha256_file(LOCK) if LOCK.exists() else None,
    }
    tags |= {f"recipe.{name}": recipe.get("hash") for name, recipe in results.scores.get("recipes", {}).items()}
    return {key: str(value) for key, value in tags.items() if value is not None}


def curve_metrics(training: Training) -> list[Metric]:
    """Return the curve as points over the run's steps; of rows that round to the same step the first one counts.

    The first, since it stays the first while the curve grows, and a point that is logged is not changed.
    """
    rows: dict[int, dict[str, Any]] = {}
    cost = {row["kimg"]: {name: row[name] for name in PACE} for row in training.pace}
    for row in training.curve:
        rows.setdefault(training.step_at(row["kimg"]), row | cost.get(row["kimg"], {}))
    points = []
    for step, row in rows.items():
        when = milliseconds(training.moments[row["kimg"]])
        points += [
            Metric(key, float(value), when, step) for key, value in row.items() if key != "kimg" and _is_figure(value)
        ]
    return points


def figures_of(results: Results) -> dict[str, float]:
    """Return all that was measured after the training, under names that carry what was measured."""
    scores = results.scores
    figures = {**scores.get("scores", {}), **scores.get("figures", {})}
    figures |= {f"floor_{name}": value for name, value in scores.get("floor", {}).items()}
    figures |= {name.replace(".", "_"): value for name, value in flatten(scores.get("baselines", {})).items()}
    differences = [v for v in results.parity.get("max_abs_difference", {}).values() if _is_figure(v)]
    figures |= {"onnx_max_abs_difference": max(differences)} if differences else {}
    figures |= {"onnx_bytes": results.parity.get("bytes")}
    for form, entry in results.certificate.get("files", {}).items():
        figures |= {f"certificate_{form}_{name}": entry[name] for name in ("fd", "recall", "max_abs_error", "bytes")}
        figures |= {f"certificate_{form}_psnr_p5": entry["psnr"]["p5"]}
    for row in results.benchmark.get("rows", []):
        figures |= _benchmark_figures(row)
    record = results.record
    figures |= {f"training_{name}": record.get(name) for name in ("seconds", "cpu_seconds", "pictures_per_second")}
    figures |= {f"autoencoder_{name}": value for name, value in (record.get("autoencoder") or {}).items()}
    return {name: float(value) for name, value in figures.items() if _is_figure(value)}


def _benchmark_figures(row: dict[str, Any]) -> dict[str, Any]:
    runtime = "onnx" if row["runtime"] == "onnxruntime" else row["runtime"]
    provider = row["provider"].removesuffix("ExecutionProvider").lower()
    provider += "" if row.get("form", FULL) == FULL else f"_{row['form']}"
    names = ("p50_ms", "p95_ms", "p99_ms", "pictures_per_second")
    return {f"{runtime}_{provider}_batch{row['batch']}_{name}": row.get(name) for name in names}


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def milliseconds(seconds: float) -> int:
    """Return seconds as whole milliseconds."""
    return int(seconds * 1000)
