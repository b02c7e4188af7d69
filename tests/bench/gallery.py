"""Every system of the literature side by side: `python -m tests.bench.gallery [--systems dcgan ...] [--seeds 1]`.

Trains each with the settings of gallery.yaml on the default data, one CPU thread each, and compares 1,000 pictures of
each with the hold-out: Fréchet distance beside the untrained network's and the colour histogram's, precision, recall,
diversity, time per picture, how evenly pictures change along interpolations. Writes a sheet of the seeds 0 to 63 of
each, uncurated, and all numbers as JSON; prints the table as Markdown. Wants `data/` of the default run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import yaml

from stages.process import prepare_environment
from stages.settings import load_preset
from tests.conftest import ROOT

SETTINGS = Path(__file__).with_suffix(".yaml")
COUNT = 1000
STAGE_SECONDS = 7200
NETWORK = "efficientnet_lite0"


def params_of(name: str, system: dict[str, Any], defaults: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return params.yaml for one system and seed."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    preset = system["preset"]
    data = system.get("data", "images")
    params["select"] = {name: {"preset": preset, "family": load_preset(preset)["family"], "data": data}}
    params["models"] = {name: {**defaults, **system["settings"], "seed": seed}}
    if data == "images":
        params["encode"] = []
    return params


def train(folder: Path, name: str, params: dict[str, Any]) -> None:
    """Train in a workspace over the project's data."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part in ("images", "augment", "latents"):
        if not (folder / "data" / part).exists():
            (folder / "data" / part).symlink_to(ROOT / "data" / part)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.train", name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=STAGE_SECONDS)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")


def trained(folder: Path, name: str, system: dict[str, Any], defaults: dict[str, Any], seed: int) -> tuple[Path, float]:
    """Return the folder of a system's training, and the CPU-seconds of its autoencoder.

    `model` names one of the default run, which is taken as it is.
    """
    if "model" not in system:
        train(folder, name, params_of(name, system, defaults, seed))
        return folder / "models" / name / "training", 0.0
    parts = [ROOT / "models" / part / "training" for part in (system["model"], *system.get("after", []))]
    spent = sum(json.loads((part / "record.json").read_text())["cpu_seconds"] for part in parts[1:])
    return parts[0], spent


class Judge:
    """Scores generators against the hold-out, in one network's features."""

    def __init__(self) -> None:
        import torch

        from stages.dataset import ImageDataset
        from stages.evaluate import picture_sets
        from stages.metrics.feature_networks import open_network
        from stages.settings import load_settings

        self.settings = load_settings(ROOT / "params.yaml").evaluate
        self.network = open_network(NETWORK, device=torch.device("cpu"))
        self.holdout, self.train = (ImageDataset(ROOT / "data/images", split) for split in ("holdout", "train"))
        self.real = self.features(self.holdout.pixels.transpose(0, 3, 1, 2), "hold-out")
        colours = picture_sets.colour_histogram_set(self.train, COUNT, 0, 64)
        self.colours = self.distance(self.features(np.concatenate(list(colours.batches())), "colours"))
        floor = picture_sets.floor_positions(len(self.train), COUNT, 0)
        self.floor = self.distance(self.features(self.train.pixels[floor].transpose(0, 3, 1, 2), "floor"))
        self.diversity = self.spread(self.train.pixels[:64].transpose(0, 3, 1, 2))

    def features(self, pictures: np.ndarray, name: str) -> Any:
        """Return the features of uint8 pictures (N, C, H, W)."""
        from stages.metrics.gaussians import Features

        parts = [self.network.classify(pictures[n : n + 64])[0] for n in range(0, len(pictures), 64)]
        return Features(np.concatenate(parts), name)

    def distance(self, features: Any) -> float:
        """Return the Fréchet distance to the hold-out."""
        from stages.metrics.frechet import frechet_distance

        return frechet_distance(features, self.real)

    def spread(self, pictures: np.ndarray) -> float:
        """Return the mean distance between pairs of uint8 pictures."""
        import torch

        from stages.trainer.health import diversity

        return diversity(torch.from_numpy(pictures.astype(np.float32) / 127.5 - 1))

    def draw(self, generator: Any) -> tuple[np.ndarray, float]:
        """Return 1,000 pictures, uint8, of classes as frequent as in the data, and CPU-seconds per picture."""
        from stages.dataset import to_uint8
        from stages.evaluate.conditioning import conditioned
        from stages.evaluate.picture_sets import split_set

        train = split_set("train", self.train, "", "train", 64)
        asked, _, _ = conditioned(generator, range(COUNT), train, 0)
        started = time.process_time()
        drawn = np.concatenate([to_uint8(batch) for batch in asked.draw(range(COUNT), 64)])
        return drawn, (time.process_time() - started) / COUNT

    def judge(self, weights: Path) -> dict[str, Any]:
        """Return a trained system's scores beside those of the same network untrained."""
        from stages.evaluate.unseen.latent_space import interpolate, measure_jumps
        from stages.generators.loading import load_trained, load_untrained
        from stages.metrics.manifold import manifold

        generator = load_trained(weights)
        drawn, seconds = self.draw(generator)
        found = self.features(drawn, "generated")
        untrained, _ = self.draw(load_untrained(weights))
        inside = manifold(found, self.real, self.settings.neighbours)
        paths = interpolate(generator, range(32), 9)
        jumps = measure_jumps(paths, lambda pictures: self.network.classify(pictures)[0])
        return {
            "fd": self.distance(found),
            "untrained": self.distance(self.features(untrained, "untrained")),
            "precision": inside.precision,
            "recall": inside.recall,
            "coverage": inside.coverage,
            "diversity": self.spread(drawn[:64]) / self.diversity,
            "ms_per_picture": seconds * 1000,
            "jump": float(np.median(jumps.ratios)),
        }


def sheet_of(weights: Path, out: Path) -> None:
    """Write the pictures of seeds 0 to 63, uncurated, classes in turn."""
    from stages.evaluate.sheets import sample_sheet, samples
    from stages.generators.loading import load_trained

    sample_sheet(samples(load_trained(weights), 64)).save(out)


def measure(names: list[str], seeds: range, out: Path, workspace: Path, judge: Judge) -> None:
    """Train, score and draw each system with each seed; writes a JSON file for each, and the sheet of seed 0."""
    described = yaml.safe_load(SETTINGS.read_text())
    for name in names:
        system = described["systems"][name]
        for seed in seeds:
            training, spent = trained(workspace / f"{name}-{seed}", name, system, described["defaults"], seed)
            record = json.loads((training / "record.json").read_text())
            weights = training / "weights"
            row = {"system": name, "seed": seed, "kimg": record["kimg"], "cpu_seconds": record["cpu_seconds"] + spent}
            row |= judge.judge(weights) | {"floor": judge.floor, "colours": judge.colours}
            row["alerts"] = [f"{alert['alert']} at {alert['kimg']:g} kimg" for alert in record["alerts"]]
            (out / "scores").mkdir(parents=True, exist_ok=True)
            (out / "scores" / f"{name}-{seed}.json").write_text(json.dumps(row, indent=1) + "\n")
            if seed == 0:
                sheet_of(weights, out / f"{name}.png")
            print(json.dumps(row), file=sys.stderr, flush=True)


def table(out: Path) -> str:
    """Return the six properties of all scored systems as Markdown, best Fréchet distance first."""
    rows = [json.loads(path.read_text()) for path in sorted((out / "scores").glob("*.json"))]
    described = yaml.safe_load(SETTINGS.read_text())["systems"]
    lines = [
        "| system | CPU-s | quality: FD (untrained) | stability: sd over seeds | coverage: recall, coverage "
        "| precision | diversity | speed: ms per picture | latent: largest step | control |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = {row["system"] for row in rows}
    for name in sorted(names, key=lambda each: mean(row["fd"] for row in rows if row["system"] == each)):
        lines.append(line_of([row for row in rows if row["system"] == name], described[name].get("control", "seed")))
    return "\n".join(lines)


def line_of(rows: list[dict[str, Any]], control: str) -> str:
    """Return one system's line from its rows of all seeds."""
    average = {key: mean(row[key] for row in rows) for key in rows[0] if isinstance(rows[0][key], float)}
    scores = [row["fd"] for row in rows]
    spread = f"{stdev(scores):.1f} ({len(scores)})" if len(scores) > 1 else "one seed"
    cells = [
        rows[0]["system"],
        f"{average['cpu_seconds']:.0f}",
        f"{average['fd']:.1f} ({average['untrained']:.0f})",
        spread,
        f"{average['recall']:.3f}, {average['coverage']:.3f}",
        f"{average['precision']:.3f}",
        f"{average['diversity']:.2f}",
        f"{average['ms_per_picture']:.2f}",
        f"{average['jump']:.2f}",
        control,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Measure what is asked for and print the table of all that was."""
    systems = list(yaml.safe_load(SETTINGS.read_text())["systems"])
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gallery", description=__doc__)
    parser.add_argument("--systems", nargs="*", choices=systems, default=systems, help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each (default 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/gallery", help="sheets and scores (docs/gallery)")
    parser.add_argument("--workspace", type=Path, help="where trainings are kept, so that a stopped run goes on")
    arguments = parser.parse_args()
    prepare_environment()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.systems and arguments.seeds:
            measure(arguments.systems, seeds, arguments.out, arguments.workspace or Path(temporary), Judge())
    print(table(arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
