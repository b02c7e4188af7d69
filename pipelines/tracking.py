"""Builds one model's MLflow run from its results; whatever the run already holds is not written again.

Imports mlflow, which takes seconds: import this module only where something is to be published.
"""

import math
import os
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import Metric, Param, Run, RunTag

from pipelines.results import Results, flatten
from stages.addresses import public
from stages.errors import GateError
from stages.storage import sha256_bytes, sha256_file

EXPERIMENT = "image-foundry"
FINGERPRINT, MODEL = "training.fingerprint", "training.model"
SUPERSEDED, ONNX_LOGGED = "superseded.by", "onnx.logged"
GRIDS_KEY = "samples"
MAX_GRIDS = 10
MODEL_NAME = "generator"
BATCH = 100  # MLflow's limit for parameters and tags per request
METRICS_BATCH = 1000
# A larger budget goes on in the same run, and MLflow never changes a parameter: what may grow is a tag.
GROWING = {"budget_kimg", "checkpoint_kimg"}
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # the defaults wait minutes
NO_ADDRESSES = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"  # MLflow prints them with user and password
PARAMS, LOCK = Path("params.yaml"), Path("dvc.lock")


def tracking_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises when its server or database cannot be used."""
    from sqlalchemy.exc import SQLAlchemyError

    return (mlflow.exceptions.MlflowException, SQLAlchemyError, OSError)


class Tracker:
    """Writes results into one experiment of one tracking server or database."""

    def __init__(self, uri: str) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        os.environ[NO_ADDRESSES] = "true"
        mlflow.set_tracking_uri(uri)
        self.client = mlflow.MlflowClient(uri)
        self.experiment = self._experiment(uri)

    def _experiment(self, uri: str) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        # A server knows where its artifacts go; a sqlite file does not.
        location = Path("mlartifacts").resolve().as_uri() if uri.startswith("sqlite:") else None
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    def publish(self, results: Results) -> str:
        """Bring one model's run up to date and return its id.

        Raises:
            GateError: the ONNX file is not the one that its parity record describes.
        """
        run = self.find(results) or self._create(results)
        run_id = str(run.info.run_id)
        self._log_params_and_tags(run, results)
        self._log_metrics(run, results)
        self._log_grids(run_id, results)
        self._log_files(run_id, results)
        if results.parity and run.data.tags.get(ONNX_LOGGED) != results.parity["sha256"]:
            self._log_onnx(run_id, results)
        self.client.set_terminated(run_id, "FINISHED", end_time=milliseconds(results.record["finished"]))
        return run_id

    def find(self, results: Results) -> Run | None:
        """Return the run of this training, None where there is none.

        A training that was repeated from the start (its old state was gone) and came out otherwise gets a run of its
        own, since one run cannot show the curve of one training and the scores of another.
        """
        query = f"tags.`{FINGERPRINT}` = '{results.record['fingerprint']}' and tags.`{MODEL}` = '{results.name}'"
        runs = self.client.search_runs([self.experiment], query)
        current = [run for run in runs if SUPERSEDED not in run.data.tags]
        if not current or self._agrees(current[0], results):
            return current[0] if current else None
        replacement = self._create(results)
        self.client.set_tag(current[0].info.run_id, SUPERSEDED, replacement.info.run_id)
        return replacement

    def _agrees(self, run: Run, results: Results) -> bool:
        curve = {m.step: m.value for m in curve_metrics(results) if m.key == "loss_generator"}
        logged = self.client.get_metric_history(run.info.run_id, "loss_generator")
        return all(math.isclose(curve.get(m.step, m.value), m.value, rel_tol=1e-9) for m in logged)

    def _create(self, results: Results) -> Run:
        record = results.record
        return self.client.create_run(
            self.experiment,
            start_time=milliseconds(record["started"]),
            run_name=f"{results.name}-{record['fingerprint'][:8]}",
            tags={FINGERPRINT: record["fingerprint"], MODEL: results.name},
        )

    def _log_params_and_tags(self, run: Run, results: Results) -> None:
        known = run.data.params
        params = {key: str(value) for key, value in params_of(results).items() if key not in known}
        for part in _parts([Param(key, value) for key, value in params.items()], BATCH):
            self.client.log_batch(run.info.run_id, params=part)
        tags = {key: value for key, value in tags_of(results).items() if run.data.tags.get(key) != value}
        for part in _parts([RunTag(key, value) for key, value in tags.items()], BATCH):
            self.client.log_batch(run.info.run_id, tags=part)

    def _log_metrics(self, run: Run, results: Results) -> None:
        """Log points of the curve at steps that are not there, and figures whose latest value is another."""
        new = []
        steps: dict[str, set[int]] = {}
        for metric in curve_metrics(results):
            if metric.key not in steps:
                history = self.client.get_metric_history(run.info.run_id, metric.key)
                steps[metric.key] = {point.step for point in history}
            if metric.step not in steps[metric.key]:
                new.append(metric)
        now = int(time.time() * 1000)  # among points of one step MLflow shows the newest
        for key, value in figures_of(results).items():
            if run.data.metrics.get(key) != value:
                new.append(Metric(key, value, now, results.step_at(results.record["kimg"])))
        for part in _parts(new, METRICS_BATCH):
            self.client.log_batch(run.info.run_id, metrics=part)

    def _log_grids(self, run_id: str, results: Results) -> None:
        from PIL import Image

        files = [Path(entry.path).name for entry in self.client.list_artifacts(run_id, "images")]
        logged = {int(found[1]) for name in files if (found := re.match(rf"{GRIDS_KEY}\D+step\D(\d+)\D", name))}
        for kimg, path in chosen_grids(results.folder / "training" / "samples").items():
            if (step := results.step_at(kimg)) not in logged:
                with Image.open(path) as picture:
                    self.client.log_image(run_id, picture.convert("RGB"), key=GRIDS_KEY, step=step, synchronous=True)

    def _log_files(self, run_id: str, results: Results) -> None:
        for path in [*results.files, LOCK]:
            if path.exists():
                self.client.log_artifact(run_id, str(path))
        if PARAMS.exists():
            self.client.log_text(run_id, params_without_secrets(PARAMS), PARAMS.name)

    def _log_onnx(self, run_id: str, results: Results) -> None:
        import onnx
        import onnxruntime

        path = results.folder / "onnx" / "model.onnx"
        expected = results.parity["sha256"]
        found = sha256_file(path) if path.exists() else "none, since it is not there"
        if found != expected:
            raise GateError(f"{path} has sha256 {found}, parity.json describes {expected}; run `dvc repro`")
        model = onnx.load(path)
        if sha256_bytes(model.SerializeToString()) != expected:
            raise GateError(
                f"{path} would have other bytes in MLflow: this onnx {onnx.__version__} writes it otherwise"
            )
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            mlflow.onnx.log_model(
                model,
                name=MODEL_NAME,
                signature=signature_of(path, results.parity["inputs"]),
                pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
                metadata={"sha256": expected, "model": results.name},
                save_as_external_data=False,  # otherwise MLflow moves the weights out and the bytes differ
            )
        self.client.set_tag(run_id, ONNX_LOGGED, expected)


def signature_of(path: Path, inputs: list[dict[str, Any]]) -> Any:
    """Return the signature that one batch of two really shows; dimensions that are no number are the batch's."""
    import numpy as np
    import onnxruntime
    from mlflow.models import infer_signature

    arrays = {}
    for entry in inputs:
        shape = [size if isinstance(size, int) and size > 0 else 2 for size in entry["shape"]]
        arrays[entry["name"]] = np.zeros(shape, dtype=np.dtype(entry["dtype"]))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return infer_signature(arrays, dict(zip(names, session.run(names, arrays), strict=True)))


def params_of(results: Results) -> dict[str, Any]:
    """Return the settings of the training as flat parameters, without those that may grow."""
    trained = {**results.record["settings"], "augment": results.record.get("policy", {})}
    return {key: value for key, value in flatten(trained).items() if not _grows(key)}


def _grows(key: str) -> bool:
    return key.rpartition(".")[2] in GROWING


def tags_of(results: Results) -> dict[str, str]:
    """Return what identifies the results: commit, dataset, weights, recipes, hardware."""
    record = results.record
    tags = {
        "mlflow.source.git.commit": record.get("git_commit"),
        "git.commit": record.get("git_commit"),
        "git.dirty": record.get("git_dirty"),
        "dataset.sha256": record.get("dataset"),
        "training.kimg": record["kimg"],
        "training.step": results.step_unit,
        "training.device": record.get("device"),
        "training.alerts": "; ".join(map(str, record.get("alerts", []))) or "none",
        "training.lineage": " ".join(map(str, record.get("lineage", []))) or "none",
        "weights.sha256": results.weights,
        "onnx.sha256": results.parity.get("sha256"),
        "onnx.opset": results.parity.get("opset"),
        "hardware.hash": results.benchmark.get("hardware_hash"),
        "dvc.lock.sha256": sha256_file(Path("dvc.lock")) if Path("dvc.lock").exists() else None,
    }
    tags |= {f"recipe.{name}": recipe.get("hash") for name, recipe in results.scores.get("recipes", {}).items()}
    tags |= {key: value for key, value in flatten(record["settings"]).items() if _grows(key)}
    return {key: str(value) for key, value in tags.items() if value is not None}


def curve_metrics(results: Results) -> list[Metric]:
    """Return the curve as points over the run's steps; of rows that round to the same step the last one counts."""
    started = milliseconds(results.record["started"])
    length = milliseconds(results.record["finished"]) - started
    rows = {results.step_at(row["kimg"]): row for row in results.curve}
    points = []
    for step, row in rows.items():
        when = started + round(length * min(1.0, row["kimg"] / results.record["kimg"]))
        points += [
            Metric(key, float(value), when, step) for key, value in row.items() if key != "kimg" and _is_figure(value)
        ]
    return points


def figures_of(results: Results) -> dict[str, float]:
    """Return all that was measured after the training, under names that carry what was measured."""
    scores = results.scores
    figures = dict(scores.get("scores", {}))
    figures |= {f"floor_{name}": value for name, value in scores.get("floor", {}).items()}
    figures |= {name.replace(".", "_"): value for name, value in flatten(scores.get("baselines", {})).items()}
    differences = [v for v in results.parity.get("max_abs_difference", {}).values() if _is_figure(v)]
    figures |= {"onnx_max_abs_difference": max(differences)} if differences else {}
    figures |= {"onnx_bytes": results.parity.get("bytes")}
    for row in results.benchmark.get("rows", []):
        figures |= _benchmark_figures(row)
    record = results.record
    figures |= {f"training_{name}": record.get(name) for name in ("seconds", "cpu_seconds", "pictures_per_second")}
    return {name: float(value) for name, value in figures.items() if _is_figure(value)}


def _benchmark_figures(row: dict[str, Any]) -> dict[str, Any]:
    runtime = "onnx" if row["runtime"] == "onnxruntime" else row["runtime"]
    provider = row["provider"].removesuffix("ExecutionProvider").lower()
    names = ("p50_ms", "p95_ms", "p99_ms", "pictures_per_second")
    return {f"{runtime}_{provider}_batch{row['batch']}_{name}": row.get(name) for name in names}


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def chosen_grids(folder: Path) -> dict[float, Path]:
    """Return at most ten sample grids by kimg, evenly apart and always the last: MLflow's page is slow with more."""
    files = sorted(folder.glob("*.png"))
    grids = {float(found[1]): path for path in files if (found := re.search(r"(\d+(?:\.\d+)?)", path.stem))}
    steps = sorted(grids)
    stride = 1
    while len(steps[::-1][::stride]) > MAX_GRIDS:
        stride *= 2  # grids of a longer training are then mostly among those of a shorter one
    return {step: grids[step] for step in sorted(steps[::-1][::stride])}


def milliseconds(moment: str | float) -> int:
    """Return a moment (ISO 8601 or seconds since 1970) as milliseconds since 1970."""
    seconds = datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment
    return int(seconds * 1000)


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def params_without_secrets(path: Path) -> str:
    """Return params.yaml as it is, or without the query of the archive's address, where a token may stand."""
    text = path.read_text()
    settings = yaml.safe_load(text)
    archive = settings.get("data", {}).get("archive") or {}
    shown = public(archive.get("url") or "")
    if shown == (archive.get("url") or ""):
        return text
    archive["url"] = shown
    return yaml.safe_dump(settings, sort_keys=False)
