"""Seconds of a FID of two folders, beside the field's tools: same files, random Inception network and threads.

    python -m tests.bench.evaluation [--pictures 500] [--rounds 5] [--threads 2] [--size 64]

Every contender is a process of its own, start included, and they take turns in each round. `fast` has its exported
network in the cache, as from its second use on; what the export takes stands below the table. `kept` also finds the
reference's features. clean-fid reads, resizes and measures, but runs pytorch-fid's network, since its own is a
download; the tools read files with as many workers as they have by default. The figures of docs/verified.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from stages.process import prepare_environment
from stages.storage import write_json

WEIGHTS = "random.pth"
REFERENCES = ("torch-fidelity", "pytorch-fid", "clean-fid")


@dataclass
class Timing:
    """Wall and CPU seconds of a contender's processes, and what they found."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    fid: float = 0.0


def ours(folder: Path, engine: str, kept: bool) -> float:
    """Return our distance; the reference's features are looked for and kept only where that is asked for."""
    import torch

    from stages.evaluate.plain.folder_pictures import open_folder
    from stages.metrics.feature_networks import open_network
    from stages.metrics.features import FeatureCache, PictureSet, features_of
    from stages.metrics.frechet import frechet_distance
    from stages.metrics.gaussians import Features

    network = open_network("inception", weights=folder / WEIGHTS, engine=engine, device=torch.device("cpu"))
    found = []
    for name in ("real", "generated"):
        opened = open_folder(folder / name)
        identity = {"content": opened.content} if kept and name == "real" else None
        pictures = PictureSet(name, len(opened.files), partial(opened.batches, 64), identity)
        found.append(Features(features_of(pictures, [network], FeatureCache(folder / "kept"))[network.label].features))
    return frechet_distance(*found)


def torch_fidelity(folder: Path) -> float:
    """Return torch-fidelity's distance."""
    from torch_fidelity import calculate_metrics

    options = {"feature_extractor": "inception-v3-compat", "feature_extractor_weights_path": str(folder / WEIGHTS)}
    inputs = {"input1": str(folder / "generated"), "input2": str(folder / "real")}
    found = calculate_metrics(**inputs, **options, fid=True, cuda=False, cache=False, verbose=False)
    return float(found["frechet_inception_distance"])


def pytorch_fid(folder: Path) -> float:
    """Return pytorch-fid's distance, with the batch and the workers of its command line."""
    from pytorch_fid.fid_score import calculate_fid_given_paths

    _offer_weights(folder)
    paths = [str(folder / name) for name in ("generated", "real")]
    workers = min(len(os.sched_getaffinity(0)), 8)
    return float(calculate_fid_given_paths(paths, 50, "cpu", 2048, workers))


def clean_fid(folder: Path) -> float:
    """Return clean-fid's distance in its mode `clean`."""
    import torch
    from cleanfid import fid
    from pytorch_fid.inception import InceptionV3

    _offer_weights(folder)
    network = InceptionV3([3], resize_input=False, normalize_input=False).eval()

    def model(pictures: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network((pictures - 128) / 128)[0].flatten(1)
        return found

    options = {"model": model, "device": torch.device("cpu"), "mode": "clean", "verbose": False}
    found = [fid.get_folder_features(str(folder / name), **options) for name in ("generated", "real")]
    return float(fid.fid_from_feats(*found))


def _offer_weights(folder: Path) -> None:
    """Let pytorch-fid find the random weights where it would have put its download."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    os.environ["TORCH_HOME"] = str(folder / "torch")
    path = folder / "torch" / "hub" / "checkpoints" / Path(FID_WEIGHTS_URL).name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(folder / WEIGHTS)


CONTENDERS: dict[str, Callable[[Path], float]] = {
    "ours, exact": lambda folder: ours(folder, "exact", kept=False),
    "ours, fast": lambda folder: ours(folder, "fast", kept=False),
    "ours, fast, kept": lambda folder: ours(folder, "fast", kept=True),
    "torch-fidelity": torch_fidelity,
    "pytorch-fid": pytorch_fid,
    "clean-fid": clean_fid,
}


def prepare(folder: Path, pictures: int, size: int) -> None:
    """Write random weights and two folders of PNG files."""
    from PIL import Image

    from tests.unit.random_inception import blobs, write_random_weights

    write_random_weights(folder / WEIGHTS)
    for seed, name in enumerate(("real", "generated")):
        (folder / name).mkdir()
        for number, picture in enumerate(blobs(seed, pictures, size)):
            Image.fromarray(picture.transpose(1, 2, 0)).save(folder / name / f"{number:05d}.png")


def run(name: str, folder: Path, threads: int, timing: Timing) -> None:
    """Run one contender once and add what it took."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "IMAGE_FOUNDRY_CACHE": str(folder / "cache")}
    result = folder / "result.json"
    command = [sys.executable, "-m", "tests.bench.evaluation", "--contender", name, str(folder), str(result)]
    before, started = os.times(), time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    timing.wall.append(time.monotonic() - started)
    after = os.times()
    timing.cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    timing.fid = json.loads(result.read_text())["fid"]


def table(timings: dict[str, Timing]) -> str:
    """Return the result as Markdown; a ratio above 1 is so many times faster than the fastest of the tools."""
    walls = {name: median(timing.wall) for name, timing in timings.items()}
    cpus = {name: median(timing.cpu) for name, timing in timings.items()}
    fastest, cheapest = (min(values[name] for name in REFERENCES) for values in (walls, cpus))
    lines = ["| what | FID | wall, median s (spread) | CPU, median s | wall, ratio | CPU, ratio |", f"|{'---|' * 6}"]
    for name, timing in timings.items():
        spread = f"{walls[name]:.1f} ({min(timing.wall):.1f} to {max(timing.wall):.1f})"
        ratios = f"{fastest / walls[name]:.2f} | {cheapest / cpus[name]:.2f}"
        lines.append(f"| {name} | {timing.fid:.4f} | {spread} | {cpus[name]:.1f} | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or be one of the contenders."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.evaluation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=500, help="of each folder (default: 500)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of all (default: 2)")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels (default: 64)")
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    prepare_environment()
    if arguments.contender:
        name, folder, result = arguments.contender
        write_json(Path(result), {"fid": CONTENDERS[name](Path(folder))})
        return
    with tempfile.TemporaryDirectory() as scratch:
        print(compete(Path(scratch), arguments.pictures, arguments.size, arguments.rounds, arguments.threads))


def compete(folder: Path, pictures: int, size: int, rounds: int, threads: int) -> str:
    """Let all contenders run in turn and return the table, with what the export took."""
    prepare(folder, pictures, size)
    first, second = Timing(), Timing()
    run("ours, fast, kept", folder, threads, first)  # exports the network and keeps the reference
    run("ours, fast, kept", folder, threads, second)
    timings = {name: Timing() for name in CONTENDERS}
    for number in range(rounds):
        for name, timing in timings.items():
            run(name, folder, threads, timing)
            print(f"round {number + 1}: {name}: {timing.wall[-1]:.1f} s", file=sys.stderr, flush=True)
    surplus = first.wall[0] - second.wall[0]
    return f"{table(timings)}\n\nOnce, for export and reference: {surplus:.0f} s. Threads: {threads}."


if __name__ == "__main__":
    main()
