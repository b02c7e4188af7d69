"""What `make` does around the pipeline, in a folder that is as bare as a fresh clone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile, empty folders of code, data, and a Python that prints how it is called."""
    for name in ("pipelines", "stages", "tests", "data", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.write_text('#!/bin/sh\necho "$@" "at $MLFLOW_BACKEND_STORE_URI"\n')
    python.chmod(0o755)
    (tmp_path / ".venv/.installed").touch()
    return tmp_path


def make(clone: Path, target: str, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "MAKE"))}
    done = subprocess.run(["make", target], cwd=clone, env=kept | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_clean_works_before_the_first_run(clone: Path) -> None:
    (clone / "stages" / "__pycache__").mkdir()
    assert make(clone, "clean") == ""
    assert not (clone / "stages" / "__pycache__").exists()


def test_clean_takes_half_written_files_and_leaves_results(clone: Path) -> None:
    for name in ("data/.raw.partial", "models/dcgan/.onnx.partial", "models/dcgan/onnx"):
        (clone / name).mkdir(parents=True)
    make(clone, "clean")
    assert sorted(path.name for path in clone.glob("[dm]*/**/*")) == ["dcgan", "onnx"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_ui_of_a_server_is_named_without_password(clone: Path, scheme: str) -> None:
    told = make(clone, "ui", MLFLOW_TRACKING_URI=f"{scheme}://me:$ec@ret@mlflow.example.org/sub?token=1")
    assert told == f"MLFLOW_TRACKING_URI names a server; its pages are at {scheme}://mlflow.example.org/sub\n"


@pytest.mark.parametrize("address", [None, "postgresql://me:$ecret@db/mlflow"])
def test_ui_of_a_database_is_served(clone: Path, address: str | None) -> None:
    told = make(clone, "ui", **({"MLFLOW_TRACKING_URI": address} if address else {}))
    expected = address or f"sqlite:///{clone}/mlflow.db"
    call = f"-m mlflow ui --host 127.0.0.1 --port 5000 at {expected}"
    assert told.splitlines() == ["MLflow: http://127.0.0.1:5000", call]
