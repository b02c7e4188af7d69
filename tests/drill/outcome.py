"""What a finished pipeline leaves that must not depend on interruptions."""

import json
import re
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stages.storage import sha256_file, sha256_tree
from tests.drill.project import MODEL
from tests.lifecycle.project import environment

TIMES = ("training_", "onnx_", "torch_", "seconds_per_kimg", "memory_mb")  # these differ from run to run


@dataclass(frozen=True)
class Outcome:
    """Hashes of the results, MLflow's points, grids and run, and the stages that `dvc status` names."""

    files: dict[str, str]
    points: tuple[tuple[str, int, float], ...]
    grids: tuple[int, ...]
    run: str
    stale: str

    @classmethod
    def read(cls, folder: Path) -> "Outcome":
        """Read a project's results."""
        model = folder / "models" / MODEL
        files = {name: sha256_tree(model / "training" / name) for name in ("weights", "samples")}
        files["curve"] = sha256_file(model / "training/curve.json")
        if (model / "onnx/model.onnx").exists():
            files["onnx"] = sha256_file(model / "onnx/model.onnx")
        if (model / "evaluation/scores.json").exists():
            files["scores"] = json.dumps(json.loads((model / "evaluation/scores.json").read_text())["scores"])
        line = [sys.executable, "-m", "dvc", "status", "--json"]
        status = subprocess.run(line, cwd=folder, env=environment(folder), capture_output=True, text=True)
        return cls(files, *_tracked(folder), stale=" ".join(json.loads(status.stdout or "{}")))

    def differences(self, other: "Outcome") -> list[str]:
        """Name what differs from an undisturbed outcome."""
        names = self.files.keys() | other.files.keys()
        found = [name for name in sorted(names) if self.files.get(name) != other.files.get(name)]
        return found + [
            f"{name}: {getattr(self, name)} instead of {getattr(other, name)}"[:400]
            for name in ("run", "grids", "stale", "points")
            if getattr(self, name) != getattr(other, name)
        ]


def _tracked(folder: Path) -> tuple[tuple[tuple[str, int, float], ...], tuple[int, ...], str]:
    """Return the points, duplicates included, the steps of sample grids, and how many runs are in which state."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        points = database.execute("SELECT key, step, value FROM metrics ORDER BY key, step, value").fetchall()
        runs = database.execute("SELECT status, artifact_uri FROM runs WHERE lifecycle_stage = 'active'").fetchall()
    stable = tuple((key, step, value) for key, step, value in points if not key.startswith(TIMES))
    images = [path for _, uri in runs for path in Path(uri.removeprefix("file://")).glob("images/*.png")]
    steps = sorted(int(found[1]) for path in images if (found := re.search(r"step\D(\d+)\D", path.name)))
    return stable, tuple(steps), ", ".join(sorted(status for status, _ in runs))
