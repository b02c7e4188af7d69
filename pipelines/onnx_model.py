"""Logs an exported generator as an MLflow model, byte for byte; imports mlflow, which takes seconds."""

from pathlib import Path
from typing import Any

import mlflow

from stages.errors import GateError
from stages.storage import sha256_bytes, sha256_file

MODEL_NAME = "generator"


def log_onnx(run_id: str, path: Path, parity: dict[str, Any], model: str) -> None:
    """Log an ONNX file with its signature into a run.

    Raises:
        GateError: it is not the file that its parity record describes, or MLflow would change its bytes.
    """
    import onnx
    import onnxruntime

    expected = parity["sha256"]
    found = sha256_file(path) if path.exists() else "none, since it is not there"
    if found != expected:
        raise GateError(f"{path} has sha256 {found}, parity.json describes {expected}; run `dvc repro`")
    graph = onnx.load(path)
    if sha256_bytes(graph.SerializeToString()) != expected:
        raise GateError(f"{path} would have other bytes in MLflow: this onnx {onnx.__version__} writes it otherwise")
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        mlflow.onnx.log_model(
            graph,
            name=MODEL_NAME,
            signature=signature_of(path, parity["inputs"]),
            pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
            metadata={"sha256": expected, "model": model},
            save_as_external_data=False,  # otherwise MLflow moves the weights out and the bytes differ
        )


def signature_of(path: Path, inputs: list[dict[str, Any]]) -> Any:
    """Return the signature that one batch of two really shows; dimensions that are no number are the batch's."""
    import numpy as np
    import onnxruntime
    from mlflow.models import infer_signature

    arrays = {}
    for entry in inputs:
        shape = [size if isinstance(size, int) and size > 0 else 2 for size in entry["shape"]]
        arrays[entry["name"]] = np.zeros(shape, dtype=np.dtype(entry["dtype"]))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return infer_signature(arrays, dict(zip(names, session.run(names, arrays), strict=True)))
