"""The benchmark stage as a process on a really exported model."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from stages.storage import sha256_file

FOLDER = Path("models/dcgan/benchmark")


def test_figures_say_where_and_how_they_were_taken(exported, run_stage):
    done = run_stage("benchmark", "dcgan")
    assert done.returncode == 0, done.stderr
    report = json.loads((FOLDER / "benchmark.json").read_text())
    rows = {(row["runtime"], row["provider"], row["form"], row["batch"]): row for row in report["rows"]}
    assert {
        ("onnxruntime", "CPUExecutionProvider", "model", 1),
        ("onnxruntime", "CPUExecutionProvider", "fp16", 4),
        ("torch", "eager", "model", 1),
        ("torch", "eager", "model", 4),
    } <= set(rows)
    for row in rows.values():
        assert row["runs"] >= 10
        assert 0 < row["min_ms"] <= row["p50_ms"]
        assert row["pictures_per_second"] > 0
        assert row["rss_mb"] > 50
        assert (row["p99_ms"] is None) == (row["runs"] < 100)
    assert report["environment"]["omp_wait_policy"] == "PASSIVE"
    assert report["environment"]["threads"] >= 1
    assert len(report["hardware_hash"]) == 64
    assert report["load_ms"]["CPUExecutionProvider"] > 0
    speeds = {
        form: [r["pictures_per_second"] for r in report["rows"] if (r["runtime"], r["form"]) == ("onnxruntime", form)]
        for form in ("model", "fp16")
    }
    assert report["summary"]["pictures_per_second_best"] == max(speeds["model"])
    assert report["variants"]["fp16"]["pictures_per_second_best"] == max(speeds["fp16"])
    assert report["variants"]["fp16"]["load_ms"]["CPUExecutionProvider"] > 0
    assert Image.open(FOLDER / "latency.png").size[0] > 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_skipped_with_the_cause_and_has_no_figure(exported, run_stage):
    done = run_stage("benchmark", "dcgan")
    report = json.loads((FOLDER / "benchmark.json").read_text())
    assert [entry["provider"] for entry in report["skipped"]] == ["CUDAExecutionProvider"]
    assert report["skipped"][0]["reason"]
    assert "CUDAExecutionProvider" not in report["load_ms"]
    assert not [row for row in report["rows"] if row["provider"] == "CUDAExecutionProvider"]
    assert "skipped CUDAExecutionProvider: " in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_provider_left_fails_the_gate(exported, run_stage, edit_params):
    edit_params(**{"benchmark.providers": ["CUDAExecutionProvider"]})
    done = run_stage("benchmark", "dcgan")
    assert done.returncode == 3
    assert "no provider of benchmark.providers runs here (CUDAExecutionProvider: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not FOLDER.exists()


def test_threads_are_obeyed(exported, run_stage, edit_params):
    edit_params(**{"benchmark.threads": 1, "benchmark.batches": [2], "benchmark.providers": ["CPUExecutionProvider"]})
    assert run_stage("benchmark", "dcgan").returncode == 0
    report = json.loads((FOLDER / "benchmark.json").read_text())
    assert report["environment"]["threads"] == 1
    assert report["skipped"] == []
    assert report["summary"]["p50_ms_batch1"] is None
    assert [(row["runtime"], row["form"], row["batch"]) for row in report["rows"]] == [
        ("onnxruntime", "model", 2),
        ("onnxruntime", "fp16", 2),
        ("torch", "model", 2),
    ]


def test_a_file_of_other_weights_is_refused(exported, run_stage):
    config = Path("models/dcgan/training/weights/config.json")
    weights = config.with_name("generator.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    content = json.loads(config.read_text())
    content["identity"]["weights"] = sha256_file(weights)
    config.write_text(json.dumps(content))
    done = run_stage("benchmark", "dcgan")
    assert done.returncode == 2
    assert "was exported from weights" in done.stderr


def test_a_torn_file_is_refused_in_one_line(exported, run_stage):
    file = Path("models/dcgan/onnx/model.onnx")
    file.write_bytes(file.read_bytes()[:1000])
    done = run_stage("benchmark", "dcgan")
    assert done.returncode == 2
    assert "model.onnx" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_benchmark_before_its_export_names_the_stage(empty_workspace, run_stage):
    done = run_stage("benchmark", "dcgan")
    assert done.returncode == 2
    assert "stages.export dcgan" in done.stderr
