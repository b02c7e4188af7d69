"""What the stages leave of one model, written by hand and small, to be published."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.sheet import sheet
from stages.storage import sha256_file, write_json

NAME = "dcgan"
FOLDER = Path("models") / NAME
FINGERPRINT = "f" * 64


def curve(kimg: int) -> list[dict[str, Any]]:
    return [
        {"kimg": float(k), "loss_generator": 1 / k, "fake_logit": -k, "diversity": None}
        for k in range(10, kimg + 1, 10)
    ]


def write_training(
    kimg: int = 40,
    fingerprint: str = FINGERPRINT,
    curve_rows: list[dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
) -> None:
    """Write what `train` leaves, with a training of so many kimg."""
    training = FOLDER / "training"
    write_json(training / "weights" / "config.json", {"identity": {"weights": "w1"}})
    write_json(training / "curve.json", curve_rows or curve(kimg))
    (training / "samples").mkdir(exist_ok=True)
    for row in curve(kimg):
        Image.new("RGB", (16, 16), (int(row["kimg"]), 0, 0)).save(training / f"samples/kimg-{int(row['kimg']):06d}.png")
    record = {"model": NAME, "fingerprint": fingerprint, "kimg": float(kimg), "seconds": 60.0, "cpu_seconds": 90.0}
    record |= {"pictures_per_second": 640.0, "device": "cpu", "git_commit": "abc", "git_dirty": True, "alerts": []}
    trained_with = {"budget_kimg": float(kimg), "generator_lr": 0.0002} | (settings or {})
    record |= {"settings": trained_with, "policy": {"kind": "none"}}
    record |= {"dataset": "d" * 64, "lineage": [], "versions": {}}
    record |= {"started": "2026-11-22T01:00:00+00:00", "finished": "2026-11-22T01:10:00+00:00"}
    write_json(training / "record.json", record)


def write_scores(distance: float = 12.5, weights: str = "w1") -> None:
    names = {"fd_efficientnet_lite0": distance, "kid_efficientnet_lite0": 0.01}
    report = {"model": NAME, "scores": names, "floor": {"fd_efficientnet_lite0": 2.5}, "warnings": []}
    report |= {"baselines": {"untrained": {"fd_efficientnet_lite0": 100.0}}, "identity": {"weights": weights}}
    report |= {"recipes": {"efficientnet_lite0": {"hash": "abcd"}}}
    write_json(FOLDER / "evaluation" / "scores.json", report)
    sheet(np.zeros((16, 8, 8, 3), np.uint8), columns=8).save(FOLDER / "evaluation" / "samples.png")
    (FOLDER / "evaluation" / "report.html").write_text(f"<title>{weights}</title>")
    (FOLDER / "evaluation" / "sheets").mkdir(exist_ok=True)
    (FOLDER / "evaluation" / "sheets" / "walk.mp4").write_bytes(f"film of {weights}".encode())


def write_onnx(weights: str = "w1") -> None:
    """Write a tiny true ONNX generator with its parity record."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    values = numpy_helper.from_array(np.arange(48, dtype=np.float32).reshape(4, 12), "weights")
    ends: list[tuple[str, list[str | int | None]]] = [("noise", ["batch", 4]), ("pictures", ["batch", 12])]
    entry, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["noise", "weights"], ["pictures"])], "g", [entry], [result], [values]
    )
    path = FOLDER / "onnx" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    parity = {"max_abs_difference": {"1": 1e-6, "2": 3e-6}, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    parity |= {
        "identity": {"weights": weights},
        "opset": 20,
        "inputs": [{"name": "noise", "shape": ["batch", 4], "dtype": "float32"}],
    }
    write_json(path.with_name("parity.json"), parity)


def write_certificate(weights: str = "w1") -> None:
    entry = {"passed": True, "fd": 12.6, "recall": 0.2, "max_abs_error": 1e-6, "bytes": 9, "psnr": {"p5": 99.0}}
    files = {"model": entry, "fp16": entry | {"fd": 12.7}, "int8": entry | {"passed": False, "failures": ["too far"]}}
    report = {"files": files, "left_out": {}, "identity": {"weights": weights}}
    write_json(FOLDER / "certificate" / "certificate.json", report)
    Image.new("RGB", (16, 16)).save(FOLDER / "certificate" / "differences.png")


def write_benchmark(weights: str = "w1") -> None:
    row = {"batch": 1, "p50_ms": 1.5, "p95_ms": 2.0, "p99_ms": 3.0, "pictures_per_second": 600.0}
    contestants = [("onnxruntime", "CPUExecutionProvider"), ("torch", "eager")]
    rows = [{"runtime": runtime, "provider": provider, **row} for runtime, provider in contestants]
    report = {"hardware_hash": "hh", "rows": rows, "summary": {"p50_ms_batch1": 1.5}, "identity": {"weights": weights}}
    write_json(FOLDER / "benchmark" / "benchmark.json", report)
    Image.new("RGB", (16, 16)).save(FOLDER / "benchmark" / "latency.png")
