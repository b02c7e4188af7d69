"""An empty MLflow database, made once, since MLflow takes seconds for its tables; a training that can be acted."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines import live
from pipelines.live import Follower
from tests.unit.live_training import NAME, FakeTraining


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


@pytest.fixture
def training(empty_workspace: Path, empty_database: None, edit_params: Callable) -> Iterator[FakeTraining]:
    """A workspace in which a training can be acted: 100 kimg, a tick each tenth, MLflow in a fresh sqlite file."""
    edit_params(**{f"models.{NAME}.budget_kimg": 100, f"models.{NAME}.tick_kimg": 10})
    fake = FakeTraining()
    yield fake
    fake.end()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def follower(told: list[str], monkeypatch: pytest.MonkeyPatch) -> Follower:
    """A follower that tries again at once and beats at each tick."""
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.0)
    return Follower(told.append)
