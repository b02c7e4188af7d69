"""Training steps of a denoiser beside diffusers' own unconditional script: `python -m tests.bench.denoising`.

The same UNet2DModel with the same weights, batch and precision on one thread of the CPU, pictures decoded and in memory
on both sides. Theirs is the loop of examples/unconditional_image_generation/train_unconditional.py with
--use_ema and its other defaults, written anew after it, without its tracker and checkpoints. Ours is the training loop
with its order, statistics, average and bar, without ticks and states. Rounds take turns, so that what else the machine
does meets both. Prints pictures per second of CPU time as a Markdown table.
"""

import argparse
import contextlib
import copy
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from stages.process import prepare_environment

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor
    from torch.utils.data import DataLoader

    from stages.trainer.denoising.learner import DenoisingLearner
    from stages.trainer.loop import TrainingLoop

ROUNDS = 5
PICTURES = 256
RATE, BETAS, DECAY = 1e-4, (0.95, 0.999), 1e-6  # the script's defaults
WARM_UP_STEPS = 500
EPOCHS = 100


@dataclass(frozen=True)
class Case:
    """One network and batch; latents stand as pictures of four channels, which cost the same."""

    name: str
    side: int
    channels: int
    widths: tuple[int, ...]
    batch: int


CASES = (
    Case("pixels 32x32x3, (32, 64)", 32, 3, (32, 64), 16),
    Case("pixels 32x32x3, (32, 64)", 32, 3, (32, 64), 64),
    Case("latents 8x8x4, (64, 128)", 8, 4, (64, 128), 16),
    Case("latents 8x8x4, (64, 128)", 8, 4, (64, 128), 64),
)


def open_ours(case: Case, precision: str, folder: Path) -> "TrainingLoop":
    """Return our training loop on random pictures, with what the script has by default."""
    from stages.trainer.loop import TrainingLoop
    from stages.trainer.world import World
    from tests.unit.denoising import open_tiny, random_pictures, write_images

    images = write_images(folder / "images", random_pictures(PICTURES, case.side, channels=case.channels))
    without_end: dict[str, Any] = dict.fromkeys(("budget_kimg", "tick_kimg", "checkpoint_kimg"), 1e6)
    learner = open_tiny(
        images,
        World(accelerator_of(precision)),
        precision=precision,
        prediction="epsilon",
        sampler="ddim",
        steps=50,
        widths=list(case.widths),
        head_width=32,
        lr=RATE,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=DECAY,
        batch=case.batch,
        **{"warmup_kimg": WARM_UP_STEPS * case.batch / 1000, "ema_half_life_kimg": 10, **without_end},
    )
    return TrainingLoop(learner, folder / "work")


def accelerator_of(precision: str) -> "Accelerator":
    """Return what both sides train by: the CPU in this precision."""
    from accelerate import Accelerator

    mixed = {"fp32": "no"}.get(precision, precision)
    return Accelerator(cpu=True, gradient_accumulation_steps=1, mixed_precision=mixed)


def our_steps(loop: "TrainingLoop") -> Iterator[None]:
    """Train as `TrainingLoop.run` does; yields after each step."""
    from stages.process import STOP
    from stages.progress import progress_bar

    with STOP.defer(), progress_bar("training", loop.total) as bar:
        while not loop._should_stop():
            batch = loop._timed_step()
            bar.update(batch)
            loop._after_step(batch, loop.total)
            yield


def decoded(learner: "DenoisingLearner", batch: int) -> "DataLoader":
    """Return the script's loader over pictures that its transforms have already made floats in [-1, 1]."""
    from torch.utils.data import DataLoader

    pictures = learner.real_pictures(PICTURES).contiguous()
    dataset: Any = [{"input": picture} for picture in pictures]
    return DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=0)


class Script:
    """What the script prepares before its loop: network, average, noise, optimizer, rate."""

    def __init__(self, network: Any, loader: "DataLoader", precision: str) -> None:
        import torch
        from diffusers import DDPMScheduler, UNet2DModel
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        self.accelerator = accelerator_of(precision)
        self.average = EMAModel(
            network.parameters(),
            decay=0.9999,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=3 / 4,
            model_cls=UNet2DModel,
            model_config=dict(network.config),
        )
        self.noise: Any = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, eps=1e-8)
        rate = get_scheduler(
            "cosine", optimizer, num_warmup_steps=WARM_UP_STEPS, num_training_steps=len(loader) * EPOCHS
        )
        prepared = self.accelerator.prepare(network, optimizer, loader, rate)
        self.network, self.optimizer, self.loader, self.rate = prepared
        self.average.to(self.accelerator.device)

    def step(self, clean: "Tensor") -> "Tensor":
        """Take one optimisation step on a batch in [-1, 1] and return its loss."""
        import torch
        from torch.nn import functional as F

        clean = clean.to(torch.float32)
        noise = torch.randn(clean.shape, dtype=torch.float32, device=clean.device)
        steps = self.noise.config.num_train_timesteps
        timesteps = torch.randint(0, steps, (clean.shape[0],), device=clean.device).long()
        noisy = self.noise.add_noise(clean, noise, timesteps)
        with self.accelerator.accumulate(self.network):
            loss = F.mse_loss(self.network(noisy, timesteps).sample.float(), noise.float())
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.rate.step()
            self.optimizer.zero_grad()
        return loss

    def steps(self) -> Iterator[None]:
        """Train for ever as the script does in its epochs; yields after each step."""
        from tqdm.auto import tqdm

        done = 0
        while True:
            self.network.train()
            bar = tqdm(total=len(self.loader))
            for batch in self.loader:
                loss = self.step(batch["input"])
                if self.accelerator.sync_gradients:
                    self.average.step(self.network.parameters())
                    bar.update(1)
                    done += 1
                logs = {"loss": loss.detach().item(), "lr": self.rate.get_last_lr()[0], "step": done}
                logs["ema_decay"] = self.average.cur_decay_value
                bar.set_postfix(**logs)
                self.accelerator.log(logs, step=done)
                yield
            bar.close()


def timed(steps: Iterator[None], count: int) -> float:
    """Return the CPU seconds of so many steps."""
    started = time.process_time()
    for _ in range(count):
        next(steps)
    return time.process_time() - started


def measure(case: Case, precision: str, seconds: float, folder: Path) -> tuple[list[float], list[float]]:
    """Return pictures per CPU second of each round, ours and theirs; a round takes about so many seconds."""
    loop = open_ours(case, precision, folder)
    learner: Any = loop.learner
    script = Script(copy.deepcopy(learner.denoiser.network), decoded(learner, case.batch), precision)
    sides = (our_steps(loop), script.steps())
    once = [timed(side, 3) / 3 for side in sides]  # warms up, too
    count = max(2, math.ceil(seconds / max(once)))
    speeds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for side, found in zip(sides, speeds, strict=True):
            found.append(count * case.batch / timed(side, count))
    return speeds


def row(case: Case, ours: list[float], theirs: list[float]) -> str:
    """Return one line of the table."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    cells = [spread(ours, 1), spread(theirs, 1), spread(ratios, 3)]
    return f"| {case.name} | {case.batch} | {' | '.join(cells)} |"


def spread(values: list[float], digits: int) -> str:
    """Return the median and the range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> int:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.denoising", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds of a round (default 5)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of both sides (default fp32)")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    prepare_environment()
    import torch

    torch.set_num_threads(1)
    print("| samples, widths | batch | ours, pictures/s | diffusers' script | ratio by round |")
    print("|---|---|---|---|---|")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder, quiet():
            speeds = measure(case, arguments.precision, arguments.seconds, Path(folder))
        print(row(case, *speeds), flush=True)
    return 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep both bars out of the table; they are drawn all the same."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


if __name__ == "__main__":
    sys.exit(main())
