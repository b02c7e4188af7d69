"""Time of checkpoints and ticks beside the training's: `python -m tests.bench.checkpoints [--kimg 8]`.

Trains the default dcgan on random pictures at the default resolution, saves a state after every kimg, and relates the
median of a save to the training between two states at the default interval, in one process and one run.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from stages.process import prepare_environment
from stages.progress import progress
from tests.bench.live import MODEL, prepare

if TYPE_CHECKING:
    from stages.trainer.loop import TrainingLoop

BUDGET_KIMG = 220.0  # the default; only the first part of it is trained


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds and CPU seconds that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(kimg: int) -> list[tuple[str, float, float]]:
    """Return (what, seconds, CPU seconds): training between two checkpoints, one save, the ticks between them."""
    import torch

    from stages.settings import load_settings
    from stages.storage import read_json
    from stages.trainer.augmentation import Policy
    from stages.trainer.job import Job
    from stages.trainer.session import build_loop, learner_of
    from stages.trainer.world import World, open_accelerator

    settings = load_settings().model(MODEL)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    world = World(open_accelerator(settings.precision))
    policy = Policy.read(read_json(Path("data/augment/policy.json")))
    images = Path("data/images")
    job = Job(MODEL, f"models.{MODEL}", settings, images, images, policy, world)
    opened = learner_of(settings.family)
    loop = build_loop(job, opened(job), opened, Path(".work/bench"))
    trained, saved, ticked = [], [], []
    for number in progress(range(kimg), "training", kimg, "kimg"):
        steps = 1000 // settings.batch
        trained.append(timed(partial(take_steps, loop, steps)))
        saved.append(timed(loop.save))
        loop.progress.steps = loop.progress.steps or 1
        ticked.append(timed(partial(loop._finish_tick, number + 1)))
    interval = settings.checkpoint_kimg * 1000 / (steps * settings.batch)
    ticks = settings.checkpoint_kimg / settings.tick_kimg
    return [
        (f"training of {settings.checkpoint_kimg:g} kimg", *_middle(trained, interval)),
        ("one state, written and verified", *_middle(saved, 1)),
        (f"{ticks:g} ticks: grid, curve, overfitting watch", *_middle(ticked, ticks)),
    ]


def take_steps(loop: "TrainingLoop", count: int) -> None:
    """Train on so many batches."""
    for _ in range(count):
        loop._timed_step()


def _middle(times: list[tuple[float, float]], factor: float) -> tuple[float, float]:
    return median(wall for wall, _ in times) * factor, median(cpu for _, cpu in times) * factor


def table(rows: list[tuple[str, float, float]]) -> str:
    """Return the result as Markdown, with shares of the training."""
    _, wall, cpu = rows[0]
    lines = ["| what | seconds | share | CPU seconds | share |", "|---|---|---|---|---|"]
    lines += [f"| {what} | {a:.3f} | {a / wall:.2%} | {b:.3f} | {b / cpu:.2%} |" for what, a, b in rows]
    return "\n".join(lines)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.checkpoints", description=__doc__)
    parser.add_argument("--kimg", type=int, default=8, help="of the training, one state each (default 8)")
    arguments = parser.parse_args()
    prepare_environment()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder) / "workspace", BUDGET_KIMG)
        with contextlib.chdir(Path(folder) / "workspace"):
            rows = measure(arguments.kimg)
            shutil.rmtree(".work", ignore_errors=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
