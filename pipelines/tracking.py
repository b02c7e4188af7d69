"""Writes trainings and results into MLflow, one run per training; whatever a run already holds is not written again.

Imports mlflow, which takes seconds: import this module only where something is to be written.
"""

import math
import os
import re
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.entities import Metric, Param, Run, RunTag

from pipelines.comparison import page_of
from pipelines.curves import (
    LOCK,
    curve_metrics,
    figures_of,
    milliseconds,
    params_of,
    tags_of,
    training_tags,
)
from pipelines.onnx_model import log_onnx
from pipelines.results import Results, seconds_of
from pipelines.training import Training
from stages.addresses import public

EXPERIMENT = "image-foundry"
FINGERPRINT, MODEL = "training.fingerprint", "training.model"
SUPERSEDED, ONNX_LOGGED = "superseded.by", "onnx.logged"
HEARTBEAT, ENDED = "heartbeat", "training.ended"
# A live training beats once a minute; four beats may be lost, and clocks of machines differ by a minute at most.
STALE_SECONDS = 300.0
GRIDS_KEY = "samples"
BATCH = 100  # MLflow's limit for parameters and tags per request
METRICS_BATCH = 1000
RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"  # the defaults wait minutes
PATIENCE = {RETRIES: "2", TIMEOUT: "20"}
NO_ADDRESSES = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"  # MLflow prints them with user and password
PARAMS = Path("params.yaml")

_patience_set: dict[str, str] = {}  # by this module, unlike what the user has set


def tracking_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises when its server or database cannot be used."""
    from sqlalchemy.exc import SQLAlchemyError

    return (mlflow.exceptions.MlflowException, SQLAlchemyError, OSError)


def be_patient(patience: dict[str, str]) -> None:
    """Let MLflow wait so long for a server from now on; what the user has set stays."""
    for name, value in patience.items():
        if os.environ.get(name) == _patience_set.get(name):
            os.environ[name] = _patience_set[name] = value


LOSSES = ("loss_generator", "loss")  # of a GAN, of any other family


class Tracker:
    """Writes into one experiment of one tracking server or database; remembers which points its runs hold."""

    def __init__(self, uri: str, patience: dict[str, str] = PATIENCE) -> None:
        be_patient(patience)
        os.environ[NO_ADDRESSES] = "true"
        mlflow.set_tracking_uri(uri)
        self.client = mlflow.MlflowClient(uri)
        self.experiment = self._experiment(uri)
        self.steps: dict[tuple[str, str], set[int]] = {}  # by run and metric

    def _experiment(self, uri: str) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        # A server knows where its artifacts go; a sqlite file does not.
        location = Path("mlartifacts").resolve().as_uri() if uri.startswith("sqlite:") else None
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    def publish(self, results: Results) -> str:
        """Bring the run of a finished training up to date and return its id.

        Raises:
            GateError: the ONNX file is not the one that its parity record describes.
        """
        training = results.training
        run = self.find(training) or self._create(training)
        run_id = str(run.info.run_id)
        self._log_params(run, training)
        self._log_tags(run, {**training_tags(training), **tags_of(results)})
        self._log_curve(run_id, training)
        self._log_figures(run, results)
        self._log_grids(run_id, training)
        self._log_files(run_id, results)
        if results.parity and run.data.tags.get(ONNX_LOGGED) != results.parity["sha256"]:
            log_onnx(run_id, results.folder / "onnx" / "model.onnx", results.parity, results.name)
            self.client.set_tag(run_id, ONNX_LOGGED, results.parity["sha256"])
        self._end(run, "FINISHED", None, seconds_of(results.record["finished"]))
        return run_id

    def begin(self, training: Training) -> str | None:
        """Return the run of a training that is under way, now RUNNING.

        None where one is found that shows a curve, and the training itself has none yet: it may come out otherwise.
        """
        run = self.find(training)
        if run is not None and run.data.metrics and not training.curve:
            return None
        run = run or self._create(training)
        self._log_params(run, training)
        self._revive(run)
        return str(run.info.run_id)

    def progress(self, run_id: str, training: Training) -> None:
        """Add what a training under way has made since."""
        self._log_tags(self.client.get_run(run_id), training_tags(training))
        self._log_curve(run_id, training)
        self._log_grids(run_id, training)

    def beat(self, run_id: str) -> None:
        """Note that a training is alive; one that was taken for dead meanwhile is RUNNING again."""
        self._revive(self.client.get_run(run_id))
        self.client.set_tag(run_id, HEARTBEAT, _now())

    def end(self, run_id: str, status: str, reason: str | None, moment: float | None) -> None:
        """Set how a training ended: FINISHED, KILLED or FAILED, why, and when (seconds since 1970; None: now)."""
        self._end(self.client.get_run(run_id), status, reason, moment)

    def sweep(self, alive: Collection[str]) -> list[str]:
        """Set trainings KILLED that are RUNNING without a heartbeat, and return a line for each.

        Those of this workspace with the fingerprints `alive` are left alone, and so is what others put here by hand.
        """
        told = []
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'"):
            tags, moment = run.data.tags, _last_sign(run)
            if MODEL in tags and tags.get(FINGERPRINT) not in alive and time.time() - moment > STALE_SECONDS:
                reason = f"no heartbeat since {_iso(moment)}"
                self._end(run, "KILLED", reason, moment)
                told.append(f"MLflow: run {run.info.run_id} of {tags[MODEL]}: {reason}, now KILLED")
        return told

    def find(self, training: Training) -> Run | None:
        """Return the run of this training, None where there is none.

        A training that was repeated from the start (its old state was gone) and came out otherwise gets a run of its
        own, since one run cannot show the curve of one training and the scores of another.
        """
        query = f"tags.`{FINGERPRINT}` = '{training.fingerprint}' and tags.`{MODEL}` = '{training.name}'"
        runs = self.client.search_runs([self.experiment], query)
        current = [run for run in runs if SUPERSEDED not in run.data.tags]
        if not current or self._agrees(current[0], training):
            return current[0] if current else None
        replacement = self._create(training)
        self.client.set_tag(current[0].info.run_id, SUPERSEDED, replacement.info.run_id)
        return replacement

    def _agrees(self, run: Run, training: Training) -> bool:
        points = curve_metrics(training)
        loss = next((point.key for point in points if point.key in LOSSES), LOSSES[0])
        curve = {point.step: point.value for point in points if point.key == loss}
        logged = self.client.get_metric_history(run.info.run_id, loss)
        return all(math.isclose(curve.get(m.step, m.value), m.value, rel_tol=1e-9) for m in logged)

    def _create(self, training: Training) -> Run:
        return self.client.create_run(
            self.experiment,
            start_time=milliseconds(training.started),
            run_name=f"{training.name}-{training.fingerprint[:8]}",
            tags={FINGERPRINT: training.fingerprint, MODEL: training.name, HEARTBEAT: _now()},
        )

    def _revive(self, run: Run) -> None:
        if ENDED in run.data.tags:
            self.client.delete_tag(run.info.run_id, ENDED)
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")

    def _end(self, run: Run, status: str, reason: str | None, moment: float | None) -> None:
        run_id = run.info.run_id
        if reason:
            self.client.set_tag(run_id, ENDED, reason)
        elif ENDED in run.data.tags:
            self.client.delete_tag(run_id, ENDED)
        self.client.set_terminated(run_id, status, end_time=milliseconds(moment or time.time()))

    def _log_params(self, run: Run, training: Training) -> None:
        params = {key: str(value) for key, value in params_of(training).items() if key not in run.data.params}
        for part in _parts([Param(key, value) for key, value in params.items()], BATCH):
            self.client.log_batch(run.info.run_id, params=part)

    def _log_tags(self, run: Run, tags: dict[str, str]) -> None:
        changed = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
        for part in _parts(changed, BATCH):
            self.client.log_batch(run.info.run_id, tags=part)

    def _log_curve(self, run_id: str, training: Training) -> None:
        """Log the points of the curve at steps that the run does not hold."""
        new = [point for point in curve_metrics(training) if point.step not in self._steps(run_id, point.key)]
        for part in _parts(new, METRICS_BATCH):
            self.client.log_batch(run_id, metrics=part)
        for point in new:
            self._steps(run_id, point.key).add(point.step)

    def _steps(self, run_id: str, key: str) -> set[int]:
        if (run_id, key) not in self.steps:
            self.steps[run_id, key] = {point.step for point in self.client.get_metric_history(run_id, key)}
        return self.steps[run_id, key]

    def _log_figures(self, run: Run, results: Results) -> None:
        """Log the figures whose latest value is another."""
        now = milliseconds(time.time())  # among points of one step MLflow shows the newest
        step = results.training.step_at(results.record["kimg"])
        figures = figures_of(results).items()
        new = [Metric(key, value, now, step) for key, value in figures if run.data.metrics.get(key) != value]
        for part in _parts(new, METRICS_BATCH):
            self.client.log_batch(run.info.run_id, metrics=part)

    def _log_grids(self, run_id: str, training: Training) -> None:
        if not training.grids:
            return
        from PIL import Image

        files = [Path(entry.path).name for entry in self.client.list_artifacts(run_id, "images")]
        logged = {int(found[1]) for name in files if (found := re.match(rf"{GRIDS_KEY}\D+step\D(\d+)\D", name))}
        for kimg, path in training.grids.items():
            if (step := training.step_at(kimg)) not in logged:
                with Image.open(path) as picture:
                    self.client.log_image(run_id, picture.convert("RGB"), key=GRIDS_KEY, step=step, synchronous=True)

    def _log_files(self, run_id: str, results: Results) -> None:
        for path in [*results.files, *filter(None, [page_of(results.name)]), LOCK]:
            if path.exists():
                self.client.log_artifact(run_id, str(path))
        if PARAMS.exists():
            self.client.log_text(run_id, params_without_secrets(PARAMS), PARAMS.name)


def _last_sign(run: Run) -> float:
    """Return when a run was last known to be alive, in seconds since 1970."""
    try:
        return seconds_of(run.data.tags[HEARTBEAT])
    except (KeyError, ValueError):  # of an earlier version, or edited by hand
        return float(run.info.start_time) / 1000


def _now() -> str:
    return _iso(time.time())


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
