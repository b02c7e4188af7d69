"""Training steps of GANs beside the codes that they are measured by: `python -m tests.bench.adversarial`.

`dcgan` beside pytorch/examples (BSD licence), `stylegan2` beside NVIDIA's stylegan2-ada-pytorch on its reference path,
the only one that a CPU has (licensed for non-commercial use and no part of this project). Name clones of them with
--examples and --reference; without them, only this project's side is timed.

Both sides have networks of the same size, batch, precision and one thread of the CPU, and pictures decoded and in
memory; rounds take turns, so that what else the machine does meets both. Ours is `GanLearner.step`: pictures taken from
uint8, average, statistics and gradient norms included. pytorch/examples' is the body of its loop, executed from its
file, without its printing and pictures; it has no average. NVIDIA's is its loss with the phases, optimizers and average
of its training loop, written anew after it; it draws new pictures for the generator's step, ours uses the
discriminator's again. Memory is that of fresh processes: the peak of 16 steps over what networks and optimizers took.
"""

import argparse
import functools
import itertools
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from stages.process import prepare_environment
from tests.bench.checkpoints import timed
from tests.bench.denoising import accelerator_of, spread
from tests.bench.references import Case, Reference, Script

if TYPE_CHECKING:
    from torch import Tensor

    from stages.trainer.adversarial.learner import GanLearner
    from stages.trainer.augmentation import Policy

ROUNDS = 5
PICTURES = 256
LAZY = 16  # steps in which lazy penalties come round
Step = Callable[[], object]
Times = tuple[float, float]  # seconds, CPU seconds
Result = TypeVar("Result")


DCGAN = (Case("dcgan", 64, 64), Case("dcgan", 64, 64, "bf16"), Case("dcgan", 32, 16), Case("dcgan", 32, 16, "bf16"))
STYLEGAN2 = (Case("stylegan2", 64, 8, settings={"channel_base": 4096, "channel_max": 128}),)
POLICIES: dict[str, dict[str, Any]] = {
    "diffaugment": {"kind": "diffaugment", "transforms": ("color", "translation", "cutout"), "p": 1.0},
    "ada bgc, p 0.2": {"kind": "ada", "p": 0.2},
    "ada bgc, p 0.6": {"kind": "ada", "p": 0.6},
}


def open_learner(case: Case, folder: Path, policy: "Policy") -> "GanLearner":
    """Return this project's side on random pictures."""
    from stages.settings.gans import GANS
    from stages.settings.models import load_preset
    from stages.trainer.adversarial.learner import GanLearner
    from stages.trainer.job import Job
    from stages.trainer.world import World
    from tests.unit.denoising import random_pictures, write_images

    changes = {"batch": case.batch, "precision": case.precision, "threads": 1} | case.settings
    settings = GANS[case.system].model_validate(load_preset(case.system) | changes)
    images = write_images(folder / "images", random_pictures(PICTURES, case.resolution))
    world = World(accelerator_of(case.precision))
    return GanLearner(Job(case.system, f"models.{case.system}", settings, images, images, policy, world), settings)


def plain(**changes: Any) -> "Policy":
    """Return a policy, without augmentation unless changed."""
    from stages.settings.augment import ADA_SETS
    from stages.trainer.augmentation import Policy

    nothing = Policy("none", ADA_SETS["bgc"], 0.0, False, 0.6, 4, 500, mirror=False)
    return replace(nothing, **changes)


def our_step(learner: "GanLearner") -> Step:
    """Return this project's step."""
    from stages.trainer.order import PictureOrder

    batch, order = learner.settings.batch, PictureOrder(learner.count, learner.settings.seed)
    starts = itertools.count(0, batch)

    def step() -> None:
        seen = next(starts)
        learner.step(order.positions(seen, batch), seen)

    return step


def float_batches(learner: "GanLearner", batch: int) -> Iterator["Tensor"]:
    """Yield batches of float pictures as a reference's loader makes them, without end."""
    return itertools.cycle(learner.real_pictures(PICTURES).contiguous().split(batch))


def their_step(case: Case, clone: Path, learner: "GanLearner") -> Step:
    """Return the step of the code that a system is measured by."""
    pictures = float_batches(learner, case.batch)
    if case.system == "dcgan":
        return Script(clone, case, pictures).step
    return Reference(clone, case, learner.settings, pictures).step


def measure(case: Case, clone: Path | None, seconds: float) -> list[list[Times]]:
    """Return seconds and CPU seconds per step of each round, ours and, with a clone, theirs."""
    with tempfile.TemporaryDirectory() as folder:
        learner = open_learner(case, Path(folder), plain())
        sides = [our_step(learner)] + ([their_step(case, clone, learner)] if clone else [])
        lazy = case.system == "stylegan2"
        once = max(timed(functools.partial(repeat, side, LAZY if lazy else 2))[1] for side in sides)  # warms up, too
        count = LAZY if lazy else max(2, math.ceil(seconds / once * 2))
        rounds: list[list[Times]] = [[] for _ in sides]
        for _ in range(ROUNDS):
            for side, found in zip(sides, rounds, strict=True):
                wall, cpu = timed(functools.partial(repeat, side, count))
                found.append((wall / count, cpu / count))
    return rounds


def repeat(step: Step, count: int) -> None:
    """Take so many steps."""
    for _ in range(count):
        step()


def peak(case: Case, clone: Path | None) -> float:
    """Return the MiB that steps take at most beyond networks and optimizers, ours or, with a clone, theirs."""
    with tempfile.TemporaryDirectory() as folder:
        learner = open_learner(case, Path(folder), plain())
        step = their_step(case, clone, learner) if clone else our_step(learner)
        before = psutil.Process().memory_info().rss
        repeat(step, LAZY)
    scale = 1 if sys.platform == "darwin" else 1024
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - before) / 2**20


def preparing(case: Case, seconds: float) -> list[tuple[str, float]]:
    """Return CPU seconds per step: the whole without augmentation, reading, and each policy's augmenting."""
    import torch

    from stages.trainer.augmentation import Augmentation
    from stages.trainer.order import random_source

    with tempfile.TemporaryDirectory() as folder:
        learner = open_learner(case, Path(folder), plain(mirror=True))
        positions = torch.randperm(PICTURES)[: case.batch].numpy()
        works: dict[str, Step] = {
            "step, reading included": our_step(learner),
            "reading, mirrored": lambda: learner.source.pictures(positions, 0),
        }
        real, random = learner.source.pictures(positions, 0), random_source(0)
        for name, changes in POLICIES.items():
            pipe = Augmentation(plain(**changes), learner.device)
            works[name] = functools.partial(augment_as_in_a_step, pipe, real, random)
        return [(name, median(typical(work, seconds))) for name, work in works.items()]


def augment_as_in_a_step(pipe: Any, real: "Tensor", random: Any) -> None:
    """Augment real and generated pictures for the discriminator, and generated ones with their gradient."""
    pipe(real, random)
    pipe(real, random)
    fake = real.detach().requires_grad_()
    pipe(fake, random).backward(real)


def typical(work: Step, seconds: float) -> list[float]:
    """Return the CPU seconds of calls, as many as fit into so many seconds, after two to warm up."""
    repeat(work, 2)
    found, ends = [timed(work)[1]], time.process_time() + seconds
    while len(found) < ROUNDS or time.process_time() < ends:
        found.append(timed(work)[1])
    return found


def fresh(work: Callable[..., Result], *arguments: Any) -> Result:
    """Return a call's result from a process of its own, on one thread."""
    import torch

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (1,)) as pool:
        return pool.submit(work, *arguments).result()


def row(case: Case, rounds: list[list[Times]]) -> str:
    """Return one line of the table of steps, times in milliseconds of CPU time."""
    cells = [spread([cpu * 1000 for _, cpu in side], 0) for side in rounds]
    if len(rounds) == 1:
        return f"| {case} | {cells[0]} | - | - | - |"
    pairs = list(zip(*rounds, strict=True))
    cells += [spread([theirs[kind] / ours[kind] for ours, theirs in pairs], 2) for kind in (1, 0)]
    return f"| {case} | {' | '.join(cells)} |"


def print_steps(cases: tuple[Case, ...], clone: Path | None, seconds: float) -> None:
    """Print the table of steps."""
    print("\n| step | ours, ms of CPU time | reference | reference / ours | the same in wall time |")
    print("|---|---|---|---|---|")
    for case in cases:
        print(row(case, fresh(measure, case, clone, seconds)), flush=True)


def print_memory(case: Case, clone: Path | None) -> None:
    """Print each side's memory."""
    sides = {"ours": None, "reference": clone} if clone else {"ours": None}
    for name, theirs in sides.items():
        found = [fresh(peak, case, theirs) for _ in range(3)]
        print(f"{case}: {LAZY} steps take at most {spread(found, 0)} MiB beyond the networks, {name}", flush=True)


def print_preparing(cases: tuple[Case, ...], seconds: float) -> None:
    """Print what reading and augmenting take of a step."""
    for case in cases:
        print(f"\n| {case} | ms of CPU time | share of a step with it |\n|---|---|---|")
        found = fresh(preparing, case, seconds)
        (_, step), (_, reading) = found[:2]
        print(
            f"| {found[0][0]} | {step * 1000:.1f} | |\n| {found[1][0]} | {reading * 1000:.2f} | {reading / step:.2%} |"
        )
        for name, taken in found[2:]:
            print(f"| reading and {name} | {(reading + taken) * 1000:.1f} | {(reading + taken) / (step + taken):.2%} |")


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.adversarial", description=__doc__)
    parser.add_argument("--examples", type=Path, help="a clone of pytorch/examples")
    parser.add_argument("--reference", type=Path, help="a clone of stylegan2-ada-pytorch")
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds of a round of dcgan (default 5)")
    parser.add_argument("--only", choices=["dcgan", "stylegan2", "memory", "preparing"], help="one of the tables")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    prepare_environment()
    tables: dict[str, Step] = {
        "dcgan": lambda: print_steps(DCGAN, arguments.examples, arguments.seconds),
        "preparing": lambda: print_preparing((DCGAN[0], *STYLEGAN2), arguments.seconds),
        "stylegan2": lambda: print_steps(STYLEGAN2, arguments.reference, arguments.seconds),
        "memory": lambda: print_memory(STYLEGAN2[0], arguments.reference),
    }
    for name, table in tables.items():
        if arguments.only in (None, name):
            table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
