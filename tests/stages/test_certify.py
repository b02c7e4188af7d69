"""The certify stage as a process on a really exported model."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from stages.storage import sha256_file

FOLDER = Path("models/dcgan/certificate")
ONNX = Path("models/dcgan/onnx")


def test_each_file_is_compared_with_torch_and_both_with_the_hold_out(exported, run_stage):
    done = run_stage("certify", "dcgan")
    assert done.returncode == 0, done.stderr
    certificate = json.loads((FOLDER / "certificate.json").read_text())
    assert list(certificate["files"]) == ["model", "fp16"]
    assert "no convolution but the last" in certificate["left_out"]["int8"]
    assert certificate["count"] == 64
    for form, entry in certificate["files"].items():
        assert entry["sha256"] == sha256_file(ONNX / entry["file"])
        assert entry["passed"] and not entry["failures"], form
        low, high = entry["intervals"]["fd"]["low"], entry["intervals"]["fd"]["high"]
        assert low < certificate["torch"]["fd"] < high
    model, half = certificate["files"]["model"], certificate["files"]["fp16"]
    assert model["max_abs_error"] < 1e-5 < half["max_abs_error"] < 0.1
    assert model["psnr"]["p5"] > half["psnr"]["p5"] > 50
    metrics = json.loads((FOLDER / "metrics.json").read_text())
    assert metrics["fp16_passed"] == 1
    assert metrics["model_fd"] == model["fd"]
    assert Image.open(FOLDER / "differences.png").height == 5 * 4 * 17 + 4
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert run_stage("certify", "dcgan").returncode == 0
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == before


def test_a_variant_that_fails_is_named_and_not_to_be_released(exported, run_stage, edit_params):
    edit_params(**{"certify.psnr.fp16": 120})
    done = run_stage("certify", "dcgan")
    assert done.returncode == 0, done.stderr
    assert "fp16" in done.stdout and "NOT to be released: 95 % of pictures reach" in done.stdout
    files = json.loads((FOLDER / "certificate.json").read_text())["files"]
    assert files["model"]["passed"] and not files["fp16"]["passed"]
    assert "certify.psnr.fp16 asks for 120" in files["fp16"]["failures"][0]


def test_a_file_of_full_precision_that_fails_is_a_gate(exported, run_stage, edit_params):
    edit_params(**{"certify.psnr.model": 200})
    done = run_stage("certify", "dcgan")
    assert done.returncode == 3
    assert "model.onnx must not be released: 95 % of pictures reach" in done.stderr
    assert not FOLDER.exists()


@pytest.mark.parametrize("name", ["model.onnx", "model-fp16.onnx"])
def test_another_file_is_refused_by_name(exported, run_stage, name):
    other = ONNX / ("model.onnx" if name == "model-fp16.onnx" else "model-fp16.onnx")
    shutil.copy(other, ONNX / name)
    done = run_stage("certify", "dcgan")
    assert done.returncode == 2
    assert f"models/dcgan/onnx/{name} is not the file that models/dcgan/onnx/parity.json describes" in done.stderr


def test_without_an_export_the_stage_to_run_is_told(trained_workspace, run_stage):
    done = run_stage("certify", "dcgan")
    assert done.returncode == 2
    assert "export dcgan" in done.stderr
