"""MLflow's runs: which are superseded, which a champion or a release needs, and how they go for good.

Imports mlflow, which takes seconds: import this module only where the registry is asked.
"""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException

from pipelines.publish import SQLITE, in_a_line, without_secrets
from pipelines.retention.cache import outputs_of
from pipelines.retention.superseded import Finding, Superseded, age
from pipelines.tracking import (
    EXPERIMENT,
    FINGERPRINT,
    MODEL,
    NO_ADDRESSES,
    PATIENCE,
    SUPERSEDED,
    be_patient,
    tracking_errors,
)
from stages.errors import FetchError, GateError, InputError
from stages.storage import sha256_file

KIND = "MLflow runs"
ONNX_SHA256, ONNX_FILE, LOCK_SHA256 = "onnx.sha256", "model.onnx", "dvc.lock.sha256"
FAILED = ("KILLED", "FAILED")
REASON_LENGTH = 300


class Registry:
    """The runs of the project's experiment, and for which of them somebody answers: `needed` tells why, by run id.

    Runs of `needed` have a version with an alias, or a release names them; runs of `registered` have a version.
    """

    def __init__(self, uri: str, releases: list[Path]) -> None:
        be_patient(PATIENCE)
        os.environ[NO_ADDRESSES] = "true"
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for each small file
        self.uri = uri
        self.client = MlflowClient(uri)
        found = self.client.get_experiment_by_name(EXPERIMENT)
        self.experiments = [str(found.experiment_id)] if found else []
        self.runs = self._runs() if found else []
        self.needed: dict[str, str] = {}
        self.registered: dict[str, str] = {}
        self._read_versions()
        self._read_releases([path.read_text() for path in releases])

    @property
    def is_sqlite(self) -> bool:
        """Whether the registry is a file of this machine, which nobody else looks after."""
        return self.uri.startswith(SQLITE)

    def _runs(self) -> list[Run]:
        search = self.client.search_runs
        return list(_pages(lambda token: search(self.experiments, max_results=1000, page_token=token)))

    def _read_versions(self) -> None:
        models = list(_pages(lambda token: self.client.search_registered_models(page_token=token)))
        aliases = {(model.name, str(number)): alias for model in models for alias, number in model.aliases.items()}
        for version in _pages(lambda token: self.client.search_model_versions(page_token=token)):
            if run := self._run_of(version):
                alias = aliases.get((version.name, str(version.version)))
                target = self.needed if alias else self.registered
                target[run] = f"{version.name} version {version.version}" + (f" is {alias}" if alias else "")

    def _run_of(self, version: Any) -> str | None:
        logged = re.fullmatch(r"models:/(m-\w+)", version.source or "")
        if version.run_id or not logged:
            return version.run_id or None
        return str(self.client.get_logged_model(logged[1]).source_run_id)

    def _read_releases(self, texts: list[str]) -> None:
        for run in self.runs:
            names = (run.info.run_id, run.data.tags.get(FINGERPRINT) or run.info.run_id)
            if any(name in text for name in names for text in texts):
                self.needed.setdefault(run.info.run_id, "a release names it")

    @property
    def kept_fingerprints(self) -> set[str]:
        """The fingerprints of the trainings that an alias or a release stands for."""
        return {run.data.tags[FINGERPRINT] for run in self._needed_runs() if FINGERPRINT in run.data.tags}

    def _needed_runs(self) -> list[Run]:
        return [run for run in self.runs if run.info.run_id in self.needed]

    def kept_outputs(self) -> list[dict[str, Any]]:
        """Return what DVC must keep of the needed runs: each model's own outputs by the dvc.lock in its run.

        Raises:
            GateError: one was published with a dvc.lock that MLflow does not give: what it needs is not known.
        """
        return [output for run in self._needed_runs() for output in self._outputs_of(run)]

    def _outputs_of(self, run: Run) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = self.client.download_artifacts(run.info.run_id, "dvc.lock", folder)
                lock = yaml.safe_load(Path(path).read_text()) or {}
            except (MlflowException, OSError) as error:
                if LOCK_SHA256 not in run.data.tags:
                    return []
                raise GateError(
                    f"{self.needed[run.info.run_id]}, but MLflow does not give its dvc.lock ({in_a_line(error)}), "
                    "which names its results; DVC's cache stays"
                ) from error
        return outputs_of(lock, run.data.tags.get(MODEL, ""))

    def check_files(self) -> None:
        """Make sure that the ONNX file of every needed run is in MLflow as it was exported.

        Raises:
            GateError: one is missing or altered; DVC's cache may hold the only good copy.
        """
        for run in self._needed_runs():
            expected = run.data.tags.get(ONNX_SHA256)
            if expected and expected not in set(self._onnx_hashes(run.info.run_id)):
                raise GateError(
                    f"{self.needed[run.info.run_id]}, but MLflow does not hold its {ONNX_FILE} (sha256 {expected}) "
                    "whole; DVC's cache stays until `python -m pipelines.publish` or a back-up has mended that"
                )

    def _onnx_hashes(self, run_id: str) -> Iterator[str]:
        for model in self.logged_models(run_id):
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(MlflowException, OSError):
                from mlflow.artifacts import download_artifacts

                uri = f"{model.artifact_location}/{ONNX_FILE}"
                yield sha256_file(Path(download_artifacts(uri, dst_path=folder, tracking_uri=self.uri)))

    def logged_models(self, run_id: str) -> list[LoggedModel]:
        """Return the models that a run has logged, whose files lie beside the run's own."""
        query, search = f"source_run_id = '{run_id}'", self.client.search_logged_models
        return list(_pages(lambda token: search(self.experiments, query, page_token=token)))

    def bytes_of(self, run_id: str) -> int:
        """Return the bytes of a run's artifacts, those of its logged models included."""
        total = self._listed(partial(self.client.list_artifacts, run_id))
        for model in self.logged_models(run_id):
            total += self._listed(partial(self.client.list_logged_model_artifacts, model.model_id))
        return total

    def _listed(self, entries: Callable[[str | None], list[Any]], path: str | None = None) -> int:
        return sum(
            self._listed(entries, entry.path) if entry.is_dir else int(entry.file_size or 0) for entry in entries(path)
        )

    def drop(self, run_id: str) -> str | None:
        """Delete a run and its logged models; in a sqlite file for good, at a server its owner's `mlflow gc` does that.

        A training that goes on meanwhile keeps its run, which the returned line says.

        Raises:
            FetchError: MLflow does not answer.
            InputError: `mlflow gc` failed.
        """
        with answering(self.uri, f"did not delete run {run_id}"):
            if self.client.get_run(run_id).info.status == "RUNNING":
                return f"run {run_id} stays: its training goes on"
            models = [model.model_id for model in self.logged_models(run_id)]
            for model in models:
                self.client.delete_logged_model(model)
            self.client.delete_run(run_id)
        if self.is_sqlite:
            purge(self.uri, run_id, models)
        return None


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def read_registry(uri: str, releases: list[Path]) -> Registry | None:
    """Read what MLflow holds; None where its sqlite file does not exist yet.

    Raises:
        FetchError: MLflow does not answer: which trainings are champions is not known then.
    """
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        return None
    with answering(uri, "does not say what are champions, so nothing is dropped"):
        return Registry(uri, releases)


@contextlib.contextmanager
def answering(uri: str, what: str) -> Iterator[None]:
    """Turn whatever MLflow raises within the block into one line that says what could not be done.

    Raises:
        FetchError: MLflow did not answer, or refused.
    """
    try:
        yield
    except tracking_errors() as error:
        raise FetchError(f"MLflow at {without_secrets(uri)} {what}: {in_a_line(error)}") from error


def find_runs(registry: Registry, with_states: Collection[str]) -> Finding:
    """Return the superseded runs; of killed and failed ones those whose training has no states to go on from."""
    finding = Finding(KIND, [])
    for run in registry.runs:
        reason = superseded(run, with_states)
        why = registry.needed.get(run.info.run_id) or registry.registered.get(run.info.run_id)
        if reason and why:
            finding.notes.append(f"{run.info.run_name} stays: {why}")
        elif reason:
            finding.items.append(_item(registry, run, reason))
    if finding.items and registry.is_sqlite and (trash := in_the_bin(registry.uri)):
        return Finding(
            KIND, [], [f"all stay: `mlflow gc` would empty the registry's bin, too ({trash}); do that first"]
        )
    if finding.items and not registry.is_sqlite:
        finding.notes.append("the server keeps files of deleted runs until its owner runs `mlflow gc`")
    return finding


def superseded(run: Run, with_states: Collection[str]) -> str:
    """Return why a run may go, or an empty text."""
    if run.info.status == "RUNNING":
        return ""
    if successor := run.data.tags.get(SUPERSEDED):
        return f"superseded by run {successor}"
    if run.info.status in FAILED and run.data.tags.get(FINGERPRINT) not in with_states:
        return f"{run.info.status}, and its training has no states to go on from"
    return ""


def _item(registry: Registry, run: Run, reason: str) -> Superseded:
    run_id = run.info.run_id
    detail = f"run {run_id}, {age(run.info.start_time / 1000)}; {reason}"
    with answering(registry.uri, f"does not say what run {run_id} holds"):
        size = registry.bytes_of(run_id)
    return Superseded(run.info.run_name, detail, size, lambda: registry.drop(run_id))


def in_the_bin(uri: str) -> str:
    """Return what lies in a sqlite file's bin that `mlflow gc` purges whatever runs it is told to; empty: nothing."""
    counts = []
    with contextlib.closing(sqlite3.connect(uri.removeprefix(SQLITE))) as database:
        for table in ("experiments", "logged_models"):
            query = f"SELECT count(*) FROM {table} WHERE lifecycle_stage = 'deleted'"
            (count,) = database.execute(query).fetchone()
            counts += [f"{count} {table.replace('_', ' ')}"] if count else []
    return ", ".join(counts)


def purge(uri: str, run_id: str, models: list[str]) -> None:
    """Remove a deleted run and its logged models with their files from a sqlite file's registry.

    Raises:
        InputError: `mlflow gc` failed; its last line is told.
    """
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
    command += ["--run-ids", run_id, *(["--logged-model-ids", ",".join(models)] if models else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        line = " ".join(done.stderr.split())[-REASON_LENGTH:]
        raise InputError(f"{KIND}: mlflow gc failed for run {run_id}, which is only marked as deleted: {line}")
