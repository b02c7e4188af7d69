"""A training that is acted for the live follower: its process, its states, its results, and what MLflow shows of it."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.live import Follower
from pipelines.plan import Step
from stages.process import NOTES, WORK
from stages.settings import load_settings
from stages.storage import sha256_file, write_json
from stages.trainer.fingerprint import effective_settings
from tests.unit.mlflow_database import points, rows, tags

NAME = "dcgan"
FINGERPRINT = "a" * 16
TRAIN = Step(f"train@{NAME}", ["never ran here"], [], None)
MINUTE = 60.0


def row(kimg: float, factor: float = 1.0) -> dict[str, Any]:
    return {"kimg": kimg, "loss_generator": factor / kimg, "diversity": None}


def folder_of(fingerprint: str = FINGERPRINT) -> Path:
    return WORK / "train" / NAME / fingerprint


def settings_now() -> dict[str, Any]:
    return effective_settings(load_settings().model(NAME).model_dump())


def write_parts(fingerprint: str = FINGERPRINT) -> None:
    parts = {"settings": settings_now(), "dataset": "d" * 64, "policy": {"kind": "none"}, "code": {}}
    write_json(folder_of(fingerprint) / "fingerprint.json", parts)


def write_state(kimg: float, factor: float = 1.0, fingerprint: str = FINGERPRINT) -> Path:
    """Write a whole state as the trainer does, with a row and a grid for each tenth kimg."""
    curve = [row(float(k), factor) for k in range(10, int(kimg) + 1, 10)]
    state = folder_of(fingerprint) / f"state-{int(kimg * 1000):012d}"
    partial = state.with_name(f".{state.name}.partial")
    write_json(partial / "values.json", {"seen": int(kimg * 1000), "progress": {"curve": curve}})
    (partial / "tensors.safetensors").write_bytes(b"weights")
    manifest = {name: sha256_file(partial / name) for name in ("tensors.safetensors", "values.json")}
    write_json(partial / "manifest.json", manifest)
    samples = folder_of(fingerprint) / "samples"
    samples.mkdir(exist_ok=True)
    for made in curve:
        Image.new("RGB", (8, 8), (int(made["kimg"]), 0, 0)).save(samples / f"kimg-{int(made['kimg']):06d}.png")
    partial.replace(state)
    return state


def write_results(kimg: float, factor: float = 1.0) -> None:
    """Write what the stage leaves at its end."""
    training = Path("models") / NAME / "training"
    curve = [row(float(k), factor) for k in range(10, int(kimg) + 1, 10)]
    write_json(training / "weights" / "config.json", {"identity": {"weights": "w"}})
    write_json(training / "curve.json", curve)
    (training / "samples").mkdir(exist_ok=True)
    for made in curve:
        name = f"kimg-{int(made['kimg']):06d}.png"
        Image.new("RGB", (8, 8), (int(made["kimg"]), 0, 0)).save(training / "samples" / name)
    record = {"model": NAME, "fingerprint": FINGERPRINT, "kimg": kimg, "seconds": 60.0, "dataset": "d" * 64}
    record |= {"settings": load_settings().model(NAME).model_dump(), "policy": {"kind": "none"}}
    record |= {"started": "2026-11-22T01:00:00Z", "finished": "2026-11-22T01:10:00Z", "lineage": []}
    write_json(training / "record.json", record)


class FakeTraining:
    """A process that holds a training's place in the workspace, as the stage does."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def start(self, fingerprint: str = FINGERPRINT) -> None:
        self.process = subprocess.Popen(["sleep", "600"])
        owner = WORK / "locks" / f"train@{NAME}.owner"
        owner.parent.mkdir(parents=True, exist_ok=True)
        owner.write_text(str(self.process.pid))
        write_parts(fingerprint)

    def end(self, code: int | None = None, reason: str = "finished") -> None:
        """End the process; `code` None: killed, and no note is left."""
        if self.process:
            self.process.kill()
            self.process.wait()
        if code is not None:
            (WORK / "locks" / f"train@{NAME}.owner").unlink()
            write_json(NOTES / f"train@{NAME}.json", {"code": code, "reason": reason, "retryable": False})


def grids() -> list[int]:
    names = [path.name for path in Path("mlartifacts").rglob("images/samples*.png")]
    return sorted(int(name.split("+")[2]) for name in names)


def what_mlflow_shows() -> list[Any]:
    """All of a run but times and ids."""
    shown = {key: value for key, value in tags().items() if key != "heartbeat" and not key.startswith("mlflow.log")}
    metrics = "SELECT key, step, value FROM metrics WHERE key != 'training_seconds' ORDER BY key, step, value"
    return [rows(metrics), rows("SELECT key, value FROM params ORDER BY key"), shown, grids()]


def wait_for(ready: Callable[[], bool], pause: float = 0.05) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(pause)


def tick_and_count(follower: Follower) -> int:
    follower.tick()
    return len(points("loss_generator"))
