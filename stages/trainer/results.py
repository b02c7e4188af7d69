"""Writes what a training leaves for the stages after it and for people: weights, samples, curve, record."""

import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.storage import sha256_json, whole_folder, write_json
from stages.trainer.adoption import read_lineage
from stages.trainer.fingerprint import Fingerprint
from stages.trainer.health import find_alerts
from stages.trainer.loop import GRID, RAW, SAMPLES, TrainingLoop, grid_name, save_grid

LIBRARIES = ("torch", "numpy", "accelerate", "safetensors")


def write_results(name: str, loop: TrainingLoop, fingerprint: Fingerprint, training: Path, started: float) -> None:
    """Write models/NAME/training whole: equal trainings give equal weights, samples and curve; the record has times."""
    with whole_folder(training) as folder:
        write_weights(folder / "weights", loop, fingerprint)
        write_samples(folder / "samples", loop)
        write_json(folder / "curve.json", loop.progress.curve)
        write_json(folder / "record.json", build_record(name, loop, fingerprint, started))
    print(f"{name}: {loop.progress.seen / 1000:.1f} kimg, weights in {training / 'weights'}")


def write_weights(folder: Path, loop: TrainingLoop, fingerprint: Fingerprint) -> None:
    """Write the networks, those of the best snapshot where scores were taken, with the config that rebuilds them."""
    folder.mkdir()
    identity = {
        "weights": loop.learner.write_weights(folder, loop.best),
        "dataset": fingerprint.dataset,
        "settings": sha256_json(fingerprint.settings),
        "fingerprint": fingerprint.digest,
    }
    write_json(folder / "config.json", {**loop.learner.config, "identity": identity})


def write_samples(folder: Path, loop: TrainingLoop) -> None:
    """Copy the grids of the ticks up to the budget and draw the final one."""
    folder.mkdir()
    budget = loop.settings.budget_kimg
    drawn = {folder: loop.learner.draw_grid(GRID), folder / RAW: loop.learner.draw_raw_grid(GRID)}
    for place, last in drawn.items():
        if last is None:
            continue
        for row in loop.progress.curve:
            if row["kimg"] < budget:
                name = grid_name(row["kimg"])
                drawn_then = loop.folder / SAMPLES / place.relative_to(folder) / name
                if place == folder or drawn_then.exists():  # an adopted training may be of code without raw grids
                    place.mkdir(exist_ok=True)
                    shutil.copyfile(drawn_then, place / name)
        place.mkdir(exist_ok=True)
        save_grid(last, place / grid_name(budget))


def build_record(name: str, loop: TrainingLoop, fingerprint: Fingerprint, started: float) -> dict[str, Any]:
    """Return what a person asks later: which code, data and settings, on what, how long, with which alerts."""
    progress = loop.progress
    commit, dirty = git_state()
    return {
        "model": name,
        "fingerprint": fingerprint.digest,
        "kimg": progress.seen / 1000,
        "seconds": round(progress.seconds, 2),
        "cpu_seconds": round(progress.cpu_seconds, 2),
        "pace": progress.pace,
        "pictures_per_second": round(progress.seen / max(progress.seconds, 1e-9), 2),
        "device": loop.learner.device.type,
        "machines": progress.machines,
        "git_commit": commit,
        "git_dirty": dirty,
        "alerts": find_alerts(progress.curve),
        "best": progress.best,
        "settings": loop.settings.model_dump(),
        **loop.learner.about(),
        "policy": fingerprint.policy,
        "dataset": fingerprint.dataset,
        "lineage": read_lineage(loop.folder),
        "versions": {library: version(library) for library in LIBRARIES} | {"python": platform.python_version()},
        "started": _moment(started),
        "finished": _moment(time.time()),
    }


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit at which the stage runs and whether tracked files differ from it; None outside of Git.

    dvc.lock is left out: a running pipeline rewrites it itself.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock"))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
