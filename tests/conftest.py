"""Workspaces for the tests: real pictures through the real stages, once per session, then copied."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.process import prepare_environment

prepare_environment()

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "tests" / "pictures"
STAGE_SECONDS = 300
Run = Callable[..., subprocess.CompletedProcess]


def tiny_params() -> dict[str, Any]:
    """Return the project's settings, shrunk to what a test can afford: own pictures at 16 px, a quarter kimg."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"] |= {"source": "folder", "folder": {"path": str(PICTURES), "licence": "MIT"}}
    params["normalize"] |= {"resolution": 16, "holdout": 0.35, "shards": 3, "workers": 1}
    params["select"] = {"dcgan": {"preset": "dcgan", "family": "dcgan", "data": "images"}}
    params["encode"], params["autoencoders"] = [], {}
    tiny = {"width": 8, "discriminator_width": 8, "latent": 16, "batch": 16, "budget_kimg": 0.512, "threads": 1}
    pace = {"tick_kimg": 0.128, "checkpoint_kimg": 0.128, "ema_half_life_kimg": 0.1}
    params["models"] = {"dcgan": tiny | pace}
    params["evaluate"] |= {"count": 64, "batch": 32, "kid_subset": 16, "kid_subsets": 10, "neighbours": 3}
    params["evaluate"] |= {"path_pairs": 4, "resamples": 100}
    params["certify"] |= {"count": 64, "fd_window": 0.1}
    params["benchmark"] |= {"batches": [1, 4], "seconds": 0.2, "min_runs": 10}
    return params


def stage(folder: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run one stage as a process in a folder."""
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=STAGE_SECONDS
    )


def stage_or_fail(folder: Path, name: str, *arguments: str) -> None:
    """Run one stage that must succeed."""
    done = stage(folder, name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def write_locks(folder: Path) -> None:
    """Write data/*.lock.json for the settings of a folder, as `pipelines.refresh` does."""
    from stages.download.run import pinned_content
    from stages.settings import load_settings
    from stages.storage import write_json

    write_json(folder / "data/source.lock.json", pinned_content(load_settings(folder / "params.yaml").data))
    write_json(folder / "data/weights.lock.json", {"inception": None})
    if not (folder / "data/groups.lock.json").exists():
        write_json(folder / "data/groups.lock.json", {"classes": {}, "groups": {}})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml and all of data/, made by the real stages."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(), sort_keys=False))
    write_locks(folder)
    for name in ("download", "align", "normalize", "augment"):
        stage_or_fail(folder, name)
    return folder


@pytest.fixture(scope="session")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder with a trained dcgan beside it."""
    folder = tmp_path_factory.mktemp("trained") / "workspace"
    shutil.copytree(prepared, folder)
    stage_or_fail(folder, "train", "dcgan")
    return folder


@pytest.fixture
def empty_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and locks only; it is the current one."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params(), sort_keys=False))
    write_locks(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder; it is the current one."""
    return copy_workspace(prepared, tmp_path, monkeypatch)


@pytest.fixture
def trained_workspace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained folder; it is the current one."""
    return copy_workspace(trained, tmp_path, monkeypatch)


def copy_workspace(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy a prepared folder for one test and make it the current one."""
    folder = tmp_path / "workspace"
    shutil.copytree(source, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run_stage() -> Run:
    """Run `python -m stages.NAME ARGUMENTS` in the current folder; text output is captured."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return stage(Path.cwd(), name, *arguments, **environment)

    return run


@pytest.fixture
def edit_params() -> Callable[..., None]:
    """Set values in the current folder's params.yaml by dotted names."""

    def edit(**dotted: Any) -> None:
        path = Path("params.yaml")
        params = yaml.safe_load(path.read_text())
        for name, value in dotted.items():
            *parents, last = name.split(".")
            group = params
            for parent in parents:
                group = group.setdefault(parent, {})
            group[last] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    return edit
