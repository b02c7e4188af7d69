"""Alerts of failing and of healthy trainings: `python -m tests.bench.health [--seed 100] [--runs ...] [--keep DIR]`.

Trains small GANs at 32 px on the default data, one CPU thread, about 15 minutes in all: ten with a failure planted by
settings or by a hook, eleven as they should be. Prints which alerts each raised and when, and how many of each kind
raised any. Thresholds were chosen on seeds 0 to 2; what is reported comes from seeds of 100 and more. With --keep,
curves and sample grids stay there, to be looked at. Wants `data/` of the default run.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.process import prepare_environment
from tests.conftest import ROOT

if TYPE_CHECKING:
    from stages.trainer.adversarial.learner import GanLearner

IMAGES, POLICY = ROOT / "data/images", ROOT / "data/augment/policy.json"
NOT_A_NUMBER = "not a number"  # no alert: the training stops
COMMON: dict[str, Any] = {
    "batch": 16,
    "budget_kimg": 24,
    "tick_kimg": 1,
    "checkpoint_kimg": 1000,
    "ema_half_life_kimg": 2,
    "threads": 1,
}
SMALL = COMMON | {"width": 16, "discriminator_width": 16}
ADA: dict[str, Any] = {
    "kind": "ada",
    "transforms": ["xint", "scale", "rotate", "brightness", "hue"],
    "p": 0.0,
    "kimg": 50,
}


@dataclass(frozen=True)
class Run:
    """One training: its preset, what is overridden of it, what is planted, and the alerts that would tell the truth."""

    preset: str
    settings: dict[str, Any]
    expected: tuple[str, ...] = ()
    plant: "Callable[[GanLearner], None] | None" = None
    policy: dict[str, Any] = field(default_factory=dict)


def replace_latents(learner: "GanLearner", change: Callable[[Any], Any]) -> None:
    """Let both the trained and the averaged generator see other latents than they are given."""
    for network in (learner.adversaries.generator, learner.adversaries.average):
        network.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))


def one_latent(learner: "GanLearner") -> None:
    """Plant a generator that is always given the same latent."""
    import torch

    replace_latents(learner, lambda latent: torch.full_like(latent, 0.1))


def three_latents(learner: "GanLearner") -> None:
    """Plant a generator that knows three latents: each kind of picture it draws is always the same."""
    import torch

    known = torch.randn(3, learner.settings.latent, generator=torch.Generator().manual_seed(0))
    replace_latents(learner, lambda latent: known[(latent[:, 0] > -0.43).long() + (latent[:, 0] > 0.43).long()])


STUCK = ("generator stalls", "discriminator wins", "discriminator learns nothing")
FAILING = {
    "one latent": Run("dcgan", SMALL, ("collapse",), one_latent),
    "three latents": Run("dcgan", SMALL, ("collapse",), three_latents),
    "saturating, 5 steps": Run(
        "dcgan",
        SMALL | {"objective": "saturating", "discriminator_steps": 5, "discriminator_lr": 0.001, "budget_kimg": 30},
        STUCK,
    ),
    "wgan, clip 1e-4": Run(
        "wgan",
        SMALL
        | {"weight_clip": 0.0001, "generator_lr": 0.0005, "discriminator_lr": 0.0005, "discriminator_steps": 2}
        | {"budget_kimg": 32},
        ("generator stalls",),
    ),
    "hinge, lr x100": Run(
        "dcgan",
        SMALL | {"objective": "hinge", "discriminator_norm": "none", "discriminator_lr": 0.02, "budget_kimg": 20},
        ("diverges", "generator stalls", "collapse"),
    ),
    "generator_lr 1e-9": Run("dcgan", SMALL | {"generator_lr": 1e-9}, STUCK),
    "r1_gamma 1e4": Run("dcgan", SMALL | {"r1_gamma": 1e4}, ("discriminator learns nothing",)),
    "beta1 0.99": Run(
        "dcgan", SMALL | {"beta1": 0.99, "generator_lr": 0.001, "discriminator_lr": 0.001}, ("diverges",)
    ),
    "lr rises": Run("dcgan", SMALL | {"anneal": {"kimg": 16, "lr": 0.1}}, ("diverges", "collapse")),
    "wgan, no bound": Run(
        "wgan",
        SMALL | {"weight_clip": 0, "discriminator_norm": "none", "anneal": {"kimg": 24, "lr": 10}},
        (NOT_A_NUMBER, "diverges"),
    ),
}
HEALTHY = {
    "dcgan": Run("dcgan", SMALL),
    "dcgan, bilinear": Run("dcgan", SMALL | {"upsample": "bilinear"}),
    "lsgan": Run("lsgan", SMALL),
    "wgan": Run(
        "wgan",
        SMALL | {"generator_lr": 0.0005, "discriminator_lr": 0.0005, "discriminator_steps": 2, "budget_kimg": 40},
    ),
    "wgan_gp": Run(
        "wgan_gp",
        SMALL | {"generator_lr": 0.0004, "discriminator_lr": 0.0004, "discriminator_steps": 2} | {"budget_kimg": 30},
    ),
    "sngan": Run("sngan", SMALL | {"discriminator_steps": 2, "budget_kimg": 26}),
    "hinge, spectral norm": Run("dcgan", SMALL | {"objective": "hinge", "spectral_norm": True}),
    "cgan": Run("cgan", SMALL),
    "stylegan2": Run(
        "stylegan2_auto",
        COMMON | {"channel_base": 256, "channel_max": 32, "latent": 32, "style_width": 32, "r1_gamma": 0.5},
    ),
    "r3gan": Run(
        "r3gan",
        COMMON
        | {"widths": [32, 32, 24, 16], "cardinalities": [4, 4, 3, 2], "blocks_per_stage": 1}
        | {"r1_gamma": 0.5, "r2_gamma": 0.5, "generator_lr": 0.0005, "discriminator_lr": 0.0005, "ema_rampup": 0.05}
        | {"anneal": None, "ema_half_life_kimg": 1, "budget_kimg": 20},
    ),
    "dcgan, ada": Run("dcgan", SMALL, policy=ADA),
}
RUNS = {**FAILING, **HEALTHY}


def open_learner(run: Run, seed: int) -> "GanLearner":
    """Return a fresh learner of a run."""
    from stages.settings.gans import GANS
    from stages.settings.models import load_preset
    from stages.storage import read_json
    from stages.trainer.adversarial.learner import GanLearner
    from stages.trainer.augmentation import Policy
    from stages.trainer.job import Job
    from stages.trainer.world import World, open_accelerator

    merged = load_preset(run.preset) | run.settings | {"seed": seed}
    family = GANS[merged["family"]]
    settings = family(**family.completed(merged, 32))
    settings.check(f"models.{run.preset}", 32)
    policy = Policy.read(read_json(POLICY) | run.policy)
    job = Job(run.preset, f"models.{run.preset}", settings, IMAGES, IMAGES, policy, World(open_accelerator("fp32")))
    learner = GanLearner(job, settings)
    if run.plant:
        run.plant(learner)
    return learner


def train(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one run; returns its curve, its alerts, the first of each, and what it cost."""
    import torch

    from stages.errors import GateError
    from stages.storage import write_json
    from stages.trainer.health import find_alerts
    from stages.trainer.loop import TrainingLoop

    torch.set_num_threads(1)
    started = time.process_time()
    loop = TrainingLoop(open_learner(RUNS[name], seed), folder)
    stopped = {}
    try:
        loop.run(name)
    except GateError as error:
        stopped = {"kimg": loop.progress.seen / 1000, "alert": NOT_A_NUMBER, "advice": str(error)}
    alerts = [*find_alerts(loop.progress.curve), *([stopped] if stopped else [])]
    found = {"alerts": alerts, "curve": loop.progress.curve, "seconds": time.process_time() - started}
    write_json(folder / "run.json", {"name": name, "seed": seed, **found})
    return found


def line_of(name: str, seed: int, found: dict[str, Any]) -> str:
    """Return one run's line of the table."""
    run, first = RUNS[name], dict[str, float]()
    for alert in found["alerts"]:
        first.setdefault(alert["alert"], alert["kimg"])
    told = ", ".join(f"{alert} at {kimg:g}" for alert, kimg in first.items()) or "none"
    end = found["curve"][-1] if found["curve"] else {}
    kimg, gap = end.get("kimg", 0), end.get("gap", float("nan"))
    expected = " or ".join(run.expected) or "none"
    return f"| {name} | {seed} | {expected} | {told} | {kimg:g} | {gap:.2f} | {found['seconds']:.0f} |"


def measure(names: list[str], seed: int, keep: Path) -> str:
    """Train the runs and return the table, with how many raised alerts below it."""
    lines = [
        "| run | seed | expected | alerts (at kimg) | kimg | gap at the end | CPU-s |",
        "|---|---|---|---|---|---|---|",
    ]
    failing = [name for name in names if name in FAILING]
    told, right = set[str](), set[str]()
    for name in names:
        found = train(name, seed, keep / f"{name.replace(' ', '_').replace(',', '')}-{seed}")
        lines.append(line_of(name, seed, found))
        alerts = {alert["alert"] for alert in found["alerts"]}
        told |= {name} if alerts else set()
        right |= {name} if alerts & set(RUNS[name].expected) else set()
        print(lines[-1], file=sys.stderr, flush=True)
    summary = (
        f"alerts in {len(told & set(failing))} of {len(failing)} failing trainings, an expected one in {len(right)}; "
        f"in {len(told - set(failing))} of {len(names) - len(failing)} healthy ones"
    )
    return "\n".join([*lines, "", summary])


def main() -> int:
    """Train what is asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.health", description=__doc__)
    parser.add_argument("--seed", type=int, default=100, help="of all trainings (default 100)")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="default: all")
    parser.add_argument("--keep", type=Path, help="a folder that curves and sample grids stay in")
    arguments = parser.parse_args()
    prepare_environment()
    with tempfile.TemporaryDirectory() as temporary:
        print(measure(arguments.runs, arguments.seed, arguments.keep or Path(temporary)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
