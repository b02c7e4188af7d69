"""Families at equal CPU time: `python -m tests.bench.families [--seconds 300] [--seeds 3]`.

Trains dcgan, latent diffusion (its autoencoder included) and the same denoiser's kind in pixels on the default data,
each for about so many CPU-seconds of one thread and with each seed, and scores 1,000 pictures of each against the
hold-out. Prints a table: scores by seed, and what a thousand pictures cost. Wants `data/` of the default run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from stages.process import prepare_environment
from tests.conftest import ROOT

PILOT_KIMG = {"kl": 2.0, "dcgan": 10.0, "ldm": 10.0, "pixels": 2.0}  # to learn the speed from
AUTOENCODER_SHARE = 0.4  # of the time that latent diffusion has
SCORE = "fd_efficientnet_lite0"
STAGE_SECONDS = 7200
CONTESTANTS = ("dcgan", "ldm", "pixels")
# The same kind of denoiser in pixels: a third of the widths, since each step costs 16 times the positions.
PIXELS = {"widths": [16, 32, 64], "attention": [False, False, True], "batch": 32}


def settings(seed: int, budgets: dict[str, float]) -> dict[str, Any]:
    """Return params.yaml for a seed and the budgets (kimg) of the autoencoder and of each contestant."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    ldm = params["models"]["ldm"]
    params["select"] = {name: params["select"][name] for name in ("dcgan", "ldm")}
    params["select"]["pixels"] = params["select"]["ldm"] | {"data": "images"}
    params["models"] = {"dcgan": params["models"]["dcgan"], "ldm": ldm, "pixels": ldm | PIXELS}
    for name in CONTESTANTS:
        params["models"][name] = paced(params["models"][name], budgets[name], seed)
    params["autoencoders"]["kl"] = paced(params["autoencoders"]["kl"], budgets["kl"], seed)
    return params


def paced(entry: dict[str, Any], kimg: float, seed: int) -> dict[str, Any]:
    """Return settings of a model with a budget, without ticks on the way; the average is a twelfth of the budget."""
    pace = {"budget_kimg": kimg, "tick_kimg": kimg, "checkpoint_kimg": kimg, "ema_half_life_kimg": kimg / 12}
    return entry | pace | {"seed": seed, "threads": 1}


def prepare(folder: Path, params: dict[str, Any]) -> None:
    """Lay out a workspace over the project's data."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name in ("images", "augment"):
        if not (folder / "data" / name).exists():
            (folder / "data" / name).symlink_to(ROOT / "data" / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def stage(folder: Path, *arguments: str) -> None:
    """Run a stage with one thread."""
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=STAGE_SECONDS)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")


def train(folder: Path, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Train the autoencoder and the contestants; returns each one's record."""
    stage(folder, "stages.autoencoder", "kl")
    for name in names:
        stage(folder, "stages.train", name)
    places = {"kl": "autoencoders/kl", **{name: name for name in names}}
    return {
        name: json.loads((folder / "models" / place / "training/record.json").read_text())
        for name, place in places.items()
    }


def budgets_for(seconds: float, pilot: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return kimg that cost so many CPU-seconds, by the speed of a short training."""
    shares = {"kl": AUTOENCODER_SHARE, "dcgan": 1.0, "ldm": 1 - AUTOENCODER_SHARE, "pixels": 1.0}
    return {
        name: round(seconds * share * pilot[name]["kimg"] / pilot[name]["cpu_seconds"], 1)
        for name, share in shares.items()
        if name in pilot
    }


def score(folder: Path, name: str, out: Path) -> dict[str, Any]:
    """Return the scores of 1,000 pictures against the hold-out."""
    sources = ["--real", "data/images:holdout", "--generated", name, "--count", "1000"]
    stage(folder, "stages.evaluate", *sources, "--features", "efficientnet_lite0", "--json", str(out))
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def measure(seconds: float, seeds: range, names: tuple[str, ...], folder: Path) -> list[dict[str, Any]]:
    """Return a row per seed and contestant: score, CPU-seconds, kimg."""
    prepare(folder, settings(0, PILOT_KIMG))
    budgets = PILOT_KIMG | budgets_for(seconds, train(folder, names))
    rows = []
    for seed in seeds:
        shutil.rmtree(folder / "models", ignore_errors=True)
        prepare(folder, settings(seed, budgets))
        records = train(folder, names)
        for name in names:
            found = score(folder, name, folder / f"{name}-{seed}.json")
            spent = records[name]["cpu_seconds"] + (records["kl"]["cpu_seconds"] if name == "ldm" else 0)
            rows.append(
                {
                    "model": name,
                    "seed": seed,
                    "score": found["scores"][SCORE],
                    "cpu_seconds": spent,
                    "own_seconds": records[name]["cpu_seconds"],
                    "kimg": records[name]["kimg"],
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def tables(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        f"| model | {SCORE} by seed | mean | sd | CPU-s | kimg | CPU-s per kimg |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == name]
        scores = [row["score"] for row in mine]
        spread = stdev(scores) if len(scores) > 1 else float("nan")
        spent, kimg = mean(row["cpu_seconds"] for row in mine), mean(row["kimg"] for row in mine)
        per_kimg = mean(row["own_seconds"] / row["kimg"] for row in mine)
        shown = ", ".join(f"{value:.1f}" for value in scores)
        lines.append(
            f"| {name} | {shown} | {mean(scores):.1f} | {spread:.1f} | {spent:.0f} | {kimg:.0f} | {per_kimg:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.families", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="CPU-seconds of each training (default 300)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--models", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="default: all")
    arguments = parser.parse_args()
    prepare_environment()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with tempfile.TemporaryDirectory() as folder:
        print(tables(measure(arguments.seconds, seeds, tuple(arguments.models), Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
