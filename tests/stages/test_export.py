"""The export stage as a process on a really trained model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import stages
from stages.generators.loading import open_generator
from stages.storage import sha256_bytes, sha256_file

FILE = Path("models/dcgan/onnx/model.onnx")
PARITY = Path("models/dcgan/onnx/parity.json")


@pytest.fixture(scope="module")
def sources() -> Path:
    return Path(stages.__file__).parent


def export_from_own_copy(sources: Path, workspace: Path, checkout: Path) -> bytes:
    """Copy code, settings and weights to another place, export there with the code of that place, return the file."""
    shutil.copytree(sources, checkout / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(workspace / "models/dcgan/training", checkout / "models/dcgan/training")
    shutil.copy(workspace / "params.yaml", checkout)
    env = os.environ | {"PYTHONPATH": str(checkout)}
    where = [sys.executable, "-c", "import stages; print(stages.__file__)"]
    assert str(checkout) in subprocess.run(where, cwd=checkout, env=env, capture_output=True, text=True).stdout
    command = [sys.executable, "-m", "stages.export", "dcgan"]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (checkout / FILE).read_bytes()


def test_a_trained_model_becomes_one_file_with_its_proof(trained_workspace, run_stage):
    done = run_stage("export", "dcgan")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 3
    assert "model-int8.onnx: it has no convolution but the last" in done.stdout
    assert not done.stderr
    parity = json.loads(PARITY.read_text())
    assert list(parity["max_abs_difference"]) == ["1", "2", "5"]
    assert max(parity["max_abs_difference"].values()) <= parity["tolerance"] == 1e-4
    assert parity["sha256"] == sha256_file(FILE)
    assert parity["bytes"] == FILE.stat().st_size
    assert parity["opset"] == 20
    assert parity["ir_version"] == 10
    assert parity["inputs"] == [{"name": "latent", "shape": ["batch", 16], "dtype": "float32"}]
    assert parity["outputs"] == [{"name": "pictures", "shape": ["batch", 3, 16, 16], "dtype": "float32"}]
    assert sorted(path.name for path in FILE.parent.iterdir()) == ["model-fp16.onnx", "model.onnx", "parity.json"]
    half = parity["variants"]["fp16"]
    assert half["sha256"] == sha256_file(FILE.with_name("model-fp16.onnx"))
    assert half["inputs"] == parity["inputs"] and half["outputs"] == parity["outputs"]


def test_file_and_training_agree_on_identity(exported):
    config = json.loads(Path("models/dcgan/training/weights/config.json").read_text())
    exported = open_generator(str(FILE))
    assert exported.identity == {key: config["identity"][key] for key in ("dataset", "settings", "weights")}
    assert exported.capabilities == open_generator("dcgan").capabilities


def test_two_checkouts_write_the_same_bytes(exported, sources, tmp_path):
    places = [tmp_path / "one", tmp_path / "a" / "much longer" / "place"]
    files = [export_from_own_copy(sources, exported, place) for place in places]
    assert sha256_bytes(files[0]) == sha256_bytes(files[1]) == sha256_file(FILE)
    assert not any(str(tmp_path).encode() in file for file in files)


def test_another_opset_is_obeyed_over_an_older_file(exported, run_stage, edit_params):
    edit_params(**{"export.opset": 18})
    assert run_stage("export", "dcgan").returncode == 0
    assert onnx.load(FILE).opset_import[0].version == 18


def test_a_tolerance_that_is_not_met_leaves_no_file(trained_workspace, run_stage, edit_params):
    edit_params(**{"export.tolerance": 1e-12})
    done = run_stage("export", "dcgan")
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if line and "exporting:" not in line]  # the bar of a slow day
    assert "export@dcgan: at batch 1 the exported graph differs from torch by" in line
    assert not FILE.exists()
    note = json.loads(Path(".work/last/export@dcgan.json").read_text())
    assert note["code"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nope"], "nope is not selected"), (["dcgan"], "does not exist; run `python -m stages.train dcgan`")],
)
def test_what_is_not_there_is_said_in_one_line(empty_workspace, run_stage, arguments, message):
    done = run_stage("export", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_impossible_opset_is_refused(empty_workspace, run_stage, edit_params):
    edit_params(**{"export.opset": 99})
    done = run_stage("export", "dcgan")
    assert done.returncode == 2
    assert "export.opset is 99" in done.stderr
