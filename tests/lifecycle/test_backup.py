"""A drill: the machine with the project is lost, and a clone in another place goes on from its back-up.

The tests share one project and follow one another, since a whole run takes a minute.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.storage import read_json
from tests.lifecycle.project import (
    RUN_SECONDS,
    START_SECONDS,
    environment,
    runner_in,
    set_params,
    wait_until,
)

CHANGED = {"models.dcgan.generator_lr": 0.0005, "models.dcgan.budget_kimg": 8.0}
DRAW = """
import hashlib, mlflow, numpy, onnxruntime
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.onnx.load_model("models:/faces@champion").SerializeToString()
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
latent = numpy.random.Generator(numpy.random.Philox(key=0)).standard_normal((1, 16), dtype=numpy.float32)
print("drawn", hashlib.sha256(session.run(None, {"latent": latent})[0].tobytes()).hexdigest())
"""
REGISTER = """
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
experiment = client.get_experiment_by_name("image-foundry").experiment_id
model = client.search_logged_models([experiment])[0]
client.create_registered_model("faces")
client.create_model_version("faces", model.model_uri, run_id=model.source_run_id)
client.set_registered_model_alias("faces", "champion", "1")
"""
DEMOTE = """
from mlflow import MlflowClient
MlflowClient("sqlite:///mlflow.db").delete_registered_model_alias("faces", "champion")
"""

pytestmark = pytest.mark.timeout(RUN_SECONDS * 3)


def succeed(folder: Path, *line: str) -> str:
    done = runner_in(folder)(*line)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def script(folder: Path, text: str) -> str:
    line = [sys.executable, "-c", text]
    done = subprocess.run(line, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def drawn(folder: Path) -> str:
    return script(folder, DRAW).partition("drawn ")[2]


def clone(backup: Path, folder: Path) -> Path:
    (bundle,) = backup.glob("repository-*.bundle")
    subprocess.run(["git", "clone", "--quiet", str(bundle), str(folder)], check=True)
    return folder


def interrupt_training(folder: Path) -> None:
    """Train with other settings and stop once there is a state, then put the settings back."""
    before = (folder / "params.yaml").read_bytes()
    set_params(folder, **CHANGED)
    states = folder / ".work/train/dcgan"
    known = set(states.glob("*/state-*/manifest.json"))
    line = [sys.executable, "-m", "stages.train", "dcgan"]
    training = subprocess.Popen(line, cwd=folder, env=environment(folder))
    wait_until(lambda: set(states.glob("*/state-*/manifest.json")) - known, "a state", START_SECONDS)
    training.send_signal(signal.SIGTERM)
    assert training.wait(60) == 143
    (folder / "params.yaml").write_bytes(before)


@pytest.fixture(scope="module")
def project(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tiny settings whose data stages have run."""
    folder = tmp_path_factory.mktemp("drill") / "project"
    shutil.copytree(made_data, folder)
    return folder


@pytest.fixture(scope="module")
def picture(project: Path) -> str:
    """A finished project with a champion and an interrupted training; what the champion draws."""
    succeed(project, "pipelines.run")
    script(project, REGISTER)
    interrupt_training(project)
    (project / "releases/faces/1").mkdir(parents=True)
    (project / "releases/faces/1/release.json").write_text("{}")
    return drawn(project)


@pytest.fixture(scope="module")
def backup(project: Path, picture: str) -> Path:
    """A back-up of the project, made while somebody reads and writes the registry; the project is then destroyed."""
    folder = project.parent / "backup"
    told = succeed(project, "pipelines.backup", "create", str(folder))
    assert "back-up in" in told
    before = {path: path.stat().st_mtime_ns for path in (folder / "objects").glob("*/*")}
    again = succeed(project, "pipelines.backup", "create", str(folder))
    assert again.rstrip().endswith("of which 0.0 MB are new")
    assert {path: path.stat().st_mtime_ns for path in (folder / "objects").glob("*/*")} == before
    shutil.rmtree(project)
    return folder


@pytest.fixture(scope="module")
def restored(backup: Path) -> Path:
    """The project, cloned from the back-up's bundle into another place and restored."""
    folder = clone(backup, backup.parent / "elsewhere" / "another name")
    assert "restored" in succeed(folder, "pipelines.backup", "restore", str(backup))
    return folder


def test_nothing_is_stale(restored: Path) -> None:
    assert succeed(restored, "dvc", "status", "--json").strip() == "{}"
    assert succeed(restored, "pipelines.run").startswith("nothing is stale\n")
    assert (restored / "releases/faces/1/release.json").exists()


def test_champion_draws_the_same_picture(restored: Path, picture: str) -> None:
    assert len(picture.strip()) == 64
    assert drawn(restored) == picture


def test_second_restore_changes_nothing(restored: Path, backup: Path) -> None:
    assert succeed(restored, "pipelines.backup", "check", str(backup)).rstrip().endswith("are whole")
    (restored / "mlflow.db").unlink()
    assert succeed(restored, "pipelines.backup", "restore", str(backup)).startswith("restored 1 of ")
    assert succeed(restored, "pipelines.backup", "restore", str(backup)).startswith("restored 0 of ")


def test_interrupted_training_goes_on(restored: Path) -> None:
    set_params(restored, **CHANGED)
    told = succeed(restored, "stages.train", "dcgan")
    assert "dcgan: going on from " in told
    assert "going on from 0.0 kimg" not in told
    assert read_json(restored / "models/dcgan/training/record.json")["kimg"] == 8.0


@pytest.mark.slow
def test_retention_keeps_the_champion_until_it_is_none(restored: Path) -> None:
    succeed(restored, "pipelines.run")
    states = restored / ".work/train/dcgan"
    present = read_json(restored / "models/dcgan/training/record.json")["fingerprint"]
    (champion,) = (path.name for path in states.iterdir() if path.name != present)
    told = succeed(restored, "pipelines.retention", "--yes")
    assert f"dcgan {champion} stays: a champion" in told
    assert "nothing refers to them" not in told
    script(restored, DEMOTE)
    listed = succeed(restored, "pipelines.retention")
    assert f"dcgan {champion}: 0.5 kimg" in listed
    assert "files: nothing refers to them" in listed
    assert "nothing was dropped; --yes drops it" in listed
    assert (states / champion).exists()
    succeed(restored, "pipelines.retention", "--yes")
    assert [path.name for path in states.iterdir()] == [present]
    assert succeed(restored, "pipelines.retention").rstrip().endswith("nothing is superseded")
    assert succeed(restored, "dvc", "status", "--json").strip() == "{}"
    assert succeed(restored, "pipelines.run").startswith("nothing is stale\n")
    set_params(restored, **{"models.dcgan.budget_kimg": 8.128})
    assert "dcgan: going on from 8.0 kimg" in succeed(restored, "stages.train", "dcgan")


def test_restore_refuses_to_replace_what_git_has_not(backup: Path) -> None:
    folder = clone(backup, backup.parent / "own")
    (folder / "mlflow.db").write_bytes(b"another registry")
    done = runner_in(folder)("pipelines.backup", "restore", str(backup))
    assert done.returncode == 2
    assert done.stderr.startswith(
        "backup: here and other than in the back-up: mlflow.db; nothing was restored, --overwrite"
    )
    assert not (folder / "mlartifacts").exists()
    assert (folder / "mlflow.db").read_bytes() == b"another registry"
    succeed(folder, "pipelines.backup", "restore", str(backup), "--overwrite")
    assert succeed(folder, "dvc", "status", "--json").strip() == "{}"


@pytest.mark.parametrize("damage", ["altered", "missing", "bundle", "manifest"])
def test_damage_is_noticed_by_name(backup: Path, tmp_path: Path, damage: str) -> None:
    folder = clone(backup, tmp_path / "clone")
    shutil.copytree(backup, tmp_path / "backup")
    files = read_json(tmp_path / "backup/manifest.json")["files"]
    name = next(name for name in files if name.startswith("mlartifacts/models/") and name.endswith("model.onnx"))
    path = tmp_path / "backup/objects" / files[name]["sha256"][:2] / files[name]["sha256"]
    if damage == "bundle":
        (path,) = (tmp_path / "backup").glob("*.bundle")
        name = path.name
    if damage == "manifest":
        path, name = tmp_path / "backup/manifest.json", "manifest.json"
    if damage == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    for command in ("check", "restore"):
        done = runner_in(folder)("pipelines.backup", command, str(tmp_path / "backup"))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert name in done.stderr
    assert not (folder / "mlflow.db").exists()
