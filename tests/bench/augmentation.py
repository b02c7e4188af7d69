"""Times ADA's pipe beside NVIDIA's own on the same pictures, in one run, on the CPU.

NVIDIA's code is licensed for non-commercial use and is no part of this project: name a clone of it with --reference.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.settings.augment import ADA_SETS, FILTER
from stages.trainer.ada.pipe import augment

STRENGTHS = (1.0, 0.5, 0.1)
ROUNDS = 9  # the two take turns, so that what else the machine does meets both; the median counts
HOW_TO = "for the ratio, clone stylegan2-ada-pytorch by NVlabs and name the clone: --reference PATH"
Pipe = Callable[[Tensor], Tensor]


def main() -> int:
    """Print milliseconds of CPU time per batch, and the ratio where a reference is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, help="a clone of stylegan2-ada-pytorch")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--set", default="bgc", choices=list(ADA_SETS))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pictures = torch.rand(arguments.batch, 3, arguments.resolution, arguments.resolution) * 2 - 1
    print(f"{arguments.set}, {arguments.resolution} px, batch {arguments.batch}, threads {arguments.threads}")
    print("|  p  | pass             | ms here | ms reference | reference / here |")
    print("|-----|------------------|---------|--------------|------------------|")
    for p in STRENGTHS:
        here = our_pipe(ADA_SETS[arguments.set], p)
        reference = reference_pipe(arguments.reference, ADA_SETS[arguments.set], p) if arguments.reference else None
        for name, work in PASSES.items():
            print(row(p, name, *typical([here, reference] if reference else [here], work, pictures)), flush=True)
    if not arguments.reference:
        print(HOW_TO)
    return 0


def our_pipe(transforms: tuple[str, ...], p: float) -> Pipe:
    """Return this project's pipe with draws that go on from call to call."""
    random = torch.Generator().manual_seed(0)
    return lambda pictures: augment(pictures, transforms, p, random)


def reference_pipe(clone: Path, transforms: tuple[str, ...], p: float) -> Pipe:
    """Return NVIDIA's pipe from a clone, on its reference path: the CPU has no other."""
    if not (clone / "training" / "augment.py").is_file():
        sys.exit(f"--reference {clone}: no training/augment.py there; {HOW_TO}")
    sys.path.insert(0, str(clone))
    strengths: dict[str, Any] = {name: 1 for name in transforms if name not in FILTER}
    if set(FILTER) & set(transforms):
        strengths |= {"imgfilter": 1, "imgfilter_bands": [int(name in transforms) for name in FILTER]}
    pipe = importlib.import_module("training.augment").AugmentPipe(**strengths)
    pipe.p.fill_(p)
    return pipe


def forward(pipe: Pipe, pictures: Tensor) -> None:
    """Augment, as the discriminator's step does with pictures that need no gradient."""
    pipe(pictures)


def backward(pipe: Pipe, pictures: Tensor) -> None:
    """Augment and go back to the pictures, as the generator's step does."""
    pictures = pictures.detach().requires_grad_()
    pipe(pictures).square().sum().backward()


def twice(pipe: Pipe, pictures: Tensor) -> None:
    """Augment, take the gradient at the pictures, and go back through it, as R1 does."""
    pictures, weight = pictures.detach().requires_grad_(), torch.ones((), requires_grad=True)
    (gradient,) = torch.autograd.grad((pipe(pictures) * weight).square().sum(), pictures, create_graph=True)
    gradient.square().sum().backward()


PASSES = {"forward": forward, "forward, backward": backward, "as in R1": twice}


def typical(pipes: list[Pipe], work: Callable[[Pipe, Tensor], None], pictures: Tensor) -> list[float]:
    """Return each pipe's median round in milliseconds of CPU time, turn by turn, after one round to warm up."""
    times: list[list[float]] = [[] for _ in pipes]
    for _ in range(ROUNDS + 1):
        for pipe, taken in zip(pipes, times, strict=True):
            started = time.process_time()
            work(pipe, pictures)
            taken.append((time.process_time() - started) * 1000)
    return [statistics.median(taken[1:]) for taken in times]


def row(p: float, name: str, here: float, reference: float | None = None) -> str:
    """Return one line of the table."""
    other, ratio = (f"{reference:.1f}", f"{reference / here:.1f}") if reference else ("-", "-")
    return f"| {p:3.1f} | {name:16} | {here:7.1f} | {other:>12} | {ratio:>16} |"


if __name__ == "__main__":
    sys.exit(main())
