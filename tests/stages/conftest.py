"""A workspace with an exported model, for the stages that start from a file."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import copy_workspace, stage_or_fail


@pytest.fixture(scope="session")
def exported_once(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained folder with its ONNX file, made by the real stage."""
    folder = tmp_path_factory.mktemp("exported") / "workspace"
    shutil.copytree(trained, folder)
    stage_or_fail(folder, "export", "dcgan")
    return folder


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the exported folder; it is the current one."""
    return copy_workspace(exported_once, tmp_path, monkeypatch)
