"""An empty MLflow database, made once: MLflow takes seconds for its tables."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow sqlite file with its tables and nothing in them but the default experiment."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path.as_posix()}").search_experiments()
    return path


@pytest.fixture
def empty_database(database_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an empty mlflow.db into the current folder and let no address be set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(database_template, "mlflow.db")
