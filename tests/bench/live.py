"""CPU time of live logging beside the training's: `python -m tests.bench.live [--kimg 60]`.

Trains the default dcgan, with its default ticks and checkpoints, on random pictures at the default resolution twice:
alone, and followed as `pipelines.live` does. The follower runs in this process, so its thread's CPU time is exact
whatever else the machine does. Prints a table; the weights of both trainings must be the same.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import yaml

from pipelines import live
from stages.process import prepare_environment
from stages.storage import read_json, sha256_tree
from tests.conftest import ROOT, stage_or_fail
from tests.stages.datasets import lay_out, normalize, png

MODEL = "dcgan"
PICTURES = 1500
TRAINING = Path("models") / MODEL / "training"
DEFAULT_KIMG = 60.0  # one checkpoint at 50 kimg, one at the end


@dataclass
class Cost:
    """CPU seconds of a follower's thread: the start of MLflow, each tick that logged, and each that found nothing."""

    start: float = 0.0
    logging: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)

    @property
    def total(self) -> float:
        """All but MLflow's start, which publishing pays otherwise."""
        return sum(self.logging) + sum(self.idle)


def prepare(folder: Path, kimg: float) -> None:
    """Lay out a workspace: the default settings of one model, random pictures through the real stages."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["select"] = {MODEL: params["select"][MODEL]}
    params["models"] = {MODEL: params["models"][MODEL] | {"budget_kimg": kimg}}
    params["encode"] = []
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    lay_out(folder, {f"{number:05d}.png": png(number) for number in range(PICTURES)})
    normalize(folder, resolution=params["normalize"]["resolution"], holdout=0.2, duplicate_bits=None)
    stage_or_fail(folder, "augment")


def train(during: Callable[[subprocess.Popen], None]) -> dict[str, float | str]:
    """Train from the start in the current folder and return what it took, and the weights' hash."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "stages.train", MODEL], stderr=subprocess.DEVNULL)
    try:
        during(process)
        if process.wait():
            sys.exit(f"the training ended with {process.returncode}")
    finally:
        process.kill()
    record = read_json(TRAINING / "record.json")
    return {
        "cpu": record["cpu_seconds"],
        "wall": time.monotonic() - started,
        "weights": sha256_tree(TRAINING / "weights"),
    }


def follow(process: subprocess.Popen, cost: Cost) -> None:
    """Follow a training as `pipelines.live` does, with its pauses."""
    follower = live.Follower(print)
    while process.poll() is None:
        cost_of_tick(follower, cost)
        time.sleep(live.POLL_SECONDS)
    cost_of_tick(follower, cost, last=True)


def cost_of_tick(follower: live.Follower, cost: Cost, last: bool = False) -> None:
    """Time one tick, and MLflow's start apart from what it then logs."""
    if not cost.start:
        follower._look()  # so that the first training is not found, and MLflow begun, within the tick that is timed
    if not cost.start and follower.followed:
        started = time.thread_time()
        follower._connect()
        cost.start = time.thread_time() - started
    before = [(item.stamp, item.beat) for item in follower.followed.values()]
    started = time.thread_time()
    follower.tick(last)
    took = time.thread_time() - started
    after = [(item.stamp, item.beat) for item in follower.followed.values()]
    (cost.idle if before == after else cost.logging).append(took)


def table(alone: dict, followed: dict, cost: Cost) -> str:
    """Return the result as Markdown."""
    share = cost.total / followed["cpu"]
    whole = (cost.total + cost.start) / followed["cpu"]
    rows = [
        ("training alone", f"{alone['cpu']:.1f} s CPU, {alone['wall']:.0f} s"),
        ("training followed", f"{followed['cpu']:.1f} s CPU, {followed['wall']:.0f} s"),
        ("live logging", f"{cost.total:.2f} s CPU = {share:.2%} of the training"),
        ("with MLflow's import and tables, once", f"{cost.total + cost.start:.2f} s CPU = {whole:.2%}"),
        (f"tick without news, median of {len(cost.idle)}", f"{median(cost.idle) * 1000:.2f} ms"),
        (f"tick that logs, median of {len(cost.logging)}", f"{median(cost.logging) * 1000:.0f} ms"),
        ("weights", "the same" if alone["weights"] == followed["weights"] else "DIFFERENT"),
    ]
    return "\n".join(["| what | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> int:
    """Measure, print the table, and return 1 where following changed the weights."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live", description=__doc__)
    parser.add_argument("--kimg", type=float, default=DEFAULT_KIMG, help=f"of each training (default {DEFAULT_KIMG:g})")
    arguments = parser.parse_args()
    prepare_environment()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        prepare(workspace, arguments.kimg)
        with contextlib.chdir(workspace):
            alone = train(lambda process: None)
            shutil.rmtree(".work")
            cost = Cost()
            followed = train(lambda process: follow(process, cost))
    print(table(alone, followed, cost))
    return int(alone["weights"] != followed["weights"])


if __name__ == "__main__":
    sys.exit(main())
