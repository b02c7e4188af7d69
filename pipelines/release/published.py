"""Which MLflow run and model a release is, where this workspace has published it."""

from collections.abc import Callable
from typing import Any

from pipelines.publish import PUBLISHED, in_a_line, is_published, tracking_uri, without_secrets
from pipelines.results import Results
from stages.storage import read_json


def published_as(results: Results, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Return experiment, run id and model id of what was published from here as it is now, None where nothing was.

    A tracking server that does not answer costs the model id, which is told.
    """
    if not is_published(results):
        tell(f"{results.name} is not in MLflow as it is now: the release names no run; `python -m pipelines.publish`")
        return None
    run_id = read_json(PUBLISHED / f"{results.name}.json")["run"]
    from pipelines.tracking import EXPERIMENT, PATIENCE, be_patient, tracking_errors

    be_patient(PATIENCE)
    try:
        model_id = model_of(run_id, results.parity["sha256"])
    except tracking_errors() as error:
        where = without_secrets(tracking_uri())
        tell(f"WARNING: MLflow at {where} says: {in_a_line(error)}; the release names run {run_id}, but no model")
        model_id = None
    return {"experiment": EXPERIMENT, "run_id": run_id, "model_id": model_id}


def model_of(run_id: str, sha256: str) -> str | None:
    """Return the id of the logged model that a run has of this ONNX file, None where it has none."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri())
    outputs = client.get_run(run_id).outputs
    for output in reversed(outputs.model_outputs if outputs else []):
        model = client.get_logged_model(output.model_id)
        if model.tags.get("sha256", sha256) == sha256:
            return str(model.model_id)
    return None
