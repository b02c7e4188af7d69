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
import ast
import copy
import functools
import importlib
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from stages.process import prepare_environment
from tests.bench.checkpoints import timed
from tests.bench.denoising import accelerator_of, spread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stages.trainer.adversarial.learner import GanLearner
    from stages.trainer.augmentation import Policy

ROUNDS = 5
PICTURES = 256
LAZY = 16  # steps in which lazy penalties come round
Step = Callable[[], object]
Times = tuple[float, float]  # seconds, CPU seconds
Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    """One system at one size."""

    system: str
    resolution: int
    batch: int
    precision: str = "fp32"
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.system}, {self.resolution} px, batch {self.batch}, {self.precision}"


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


class Script:
    """Networks and step of examples/dcgan/main.py, taken from the file, which trains as soon as it is imported."""

    def __init__(self, clone: Path, case: Case, pictures: Iterator["Tensor"]) -> None:
        import torch
        from torch import nn, optim

        path = clone / "dcgan" / "main.py"
        if not path.is_file():
            sys.exit(f"--examples {clone}: no dcgan/main.py there; expected a clone of pytorch/examples")
        tree = ast.parse(path.read_text())
        self.pictures, sizes = pictures, {"nz": 100, "ngf": 64, "ndf": 64, "nc": 3}
        self.names: dict[str, Any] = {"torch": torch, "nn": nn, "device": torch.device("cpu"), **sizes}
        kept: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        exec(compile(ast.Module(kept, []), str(path), "exec"), self.names)
        for name, kind in (("netG", "Generator"), ("netD", "Discriminator")):
            network = self.names[kind](1)
            network.main = shortened(network.main, math.log2(64 // case.resolution))
            network.apply(self.names["weights_init"])
            self.names |= {
                name: in_precision(network, case.precision),
                f"optimizer{name[-1]}": optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)),
            }
        self.names |= {"criterion": in_precision(nn.BCELoss(), case.precision), "real_label": 1, "fake_label": 0}
        self.body = compile(ast.Module(step_of(tree), []), str(path), "exec")

    def step(self) -> None:
        """Execute the loop's body."""
        self.names["data"] = (next(self.pictures),)
        exec(self.body, self.names)


def step_of(tree: ast.Module) -> list[ast.stmt]:
    """Return what the script does with a batch, up to the generator's update."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and "dataloader" in ast.unparse(node.iter)]
    lines = [ast.unparse(statement) for statement in loops[0].body]
    return loops[0].body[: lines.index("optimizerG.step()") + 1]


def shortened(layers: "nn.Sequential", stages: float) -> "nn.Sequential":
    """Return the network of half the resolution for each stage: without the maps of the most channels, at 4 x 4."""
    from torch import nn

    modules: list[Any] = list(layers)
    for _ in range(int(stages)):
        if isinstance(modules[0], nn.ConvTranspose2d):  # the generator begins with 4 x 4
            narrower = modules[3].out_channels
            first = nn.ConvTranspose2d(modules[0].in_channels, narrower, 4, 1, 0, bias=False)
            modules = [first, *modules[4:]]
        else:
            narrower = modules[-5].in_channels
            modules = [*modules[:-5], nn.Conv2d(narrower, 1, 4, 1, 0, bias=False), modules[-1]]
    return nn.Sequential(*modules)


def in_precision(module: "nn.Module", precision: str) -> "nn.Module":
    """Return a module whose forward pass is under autocast where the precision is not float32."""
    import torch

    if precision != "fp32":
        module.forward = torch.autocast("cpu", torch.bfloat16)(module.forward)
    return module


@dataclass(frozen=True)
class Phase:
    """A phase of NVIDIA's training: which gradient, of what, how often."""

    name: str
    network: Any
    optimizer: Any
    every: int


class Reference:
    """NVIDIA's networks and loss, trained in the phases of its training loop, without augmentation."""

    def __init__(self, clone: Path, case: Case, settings: Any, pictures: Iterator["Tensor"]) -> None:
        import torch

        if not (clone / "training" / "loss.py").is_file():
            sys.exit(f"--reference {clone}: no training/loss.py there; expected a clone of stylegan2-ada-pytorch")
        sys.path.insert(0, str(clone))
        networks, losses = (importlib.import_module(f"training.{name}") for name in ("networks", "loss"))
        shape: dict[str, Any] = {"c_dim": 0, "img_resolution": case.resolution, "img_channels": 3}
        width = {"channel_base": settings.channel_base, "channel_max": settings.channel_max}
        self.generator = networks.Generator(
            z_dim=settings.latent,
            w_dim=settings.style_width,
            mapping_kwargs={"num_layers": settings.mapping_layers},
            synthesis_kwargs=width,
            **shape,
        )
        group = {"mbstd_group_size": settings.minibatch_group}
        self.discriminator = networks.Discriminator(epilogue_kwargs=group, **width, **shape)
        for network in (self.generator, self.discriminator):
            network.train().requires_grad_(False)
        self.average = copy.deepcopy(self.generator).eval()
        self.loss = losses.StyleGAN2Loss(
            torch.device("cpu"),
            self.generator.mapping,
            self.generator.synthesis,
            self.discriminator,
            style_mixing_prob=settings.style_mixing,
            r1_gamma=settings.r1_gamma,
            pl_batch_shrink=settings.path_length_shrink,
            pl_decay=settings.path_length_decay,
            pl_weight=settings.path_length,
        )
        self.settings, self.pictures, self.steps, self.phases = settings, pictures, 0, list[Phase]()
        for letter, network, every, rate in (
            ("G", self.generator, settings.path_length_every, settings.generator_lr),
            ("D", self.discriminator, settings.regularise_every, settings.discriminator_lr),
        ):
            c = every / (every + 1)
            adam = torch.optim.Adam(network.parameters(), lr=rate * c, betas=(0.0, settings.beta2**c))
            self.phases += [Phase(f"{letter}main", network, adam, 1), Phase(f"{letter}reg", network, adam, every)]

    def step(self) -> None:
        """Take all phases that are due, then let the average follow."""
        import torch

        real = next(self.pictures)
        latents = torch.randn(len(self.phases), len(real), self.settings.latent)
        for phase, latent in zip(self.phases, latents, strict=True):
            if self.steps % phase.every == 0:
                self._take(phase, real, latent)
        with torch.no_grad():
            decay = 0.5 ** (len(real) / (self.settings.ema_half_life_kimg * 1000))
            for old, new in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                old.copy_(new.lerp(old, decay))
            for old, new in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                old.copy_(new)
        self.steps += 1

    def _take(self, phase: Phase, real: "Tensor", latent: "Tensor") -> None:
        import torch

        phase.optimizer.zero_grad(set_to_none=True)
        phase.network.requires_grad_(True)
        labels = torch.zeros(len(real), 0)
        self.loss.accumulate_gradients(phase.name, real, labels, latent, labels, sync=True, gain=phase.every)
        phase.network.requires_grad_(False)
        for parameter in phase.network.parameters():
            if parameter.grad is not None:
                torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        phase.optimizer.step()


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


def print_preparing(case: Case, seconds: float) -> None:
    """Print what reading and augmenting take of a step."""
    print(f"\n| {case} | ms of CPU time | share of a step with it |\n|---|---|---|")
    found = fresh(preparing, case, seconds)
    (_, step), (_, reading) = found[:2]
    print(f"| {found[0][0]} | {step * 1000:.1f} | |\n| {found[1][0]} | {reading * 1000:.2f} | {reading / step:.2%} |")
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
        "preparing": lambda: print_preparing(DCGAN[0], arguments.seconds),
        "stylegan2": lambda: print_steps(STYLEGAN2, arguments.reference, arguments.seconds),
        "memory": lambda: print_memory(STYLEGAN2[0], arguments.reference),
    }
    for name, table in tables.items():
        if arguments.only in (None, name):
            table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
