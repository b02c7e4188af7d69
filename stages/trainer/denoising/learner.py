"""Training of a denoiser on pictures or latents, without a condition, by class or by text."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.dataset import ImageDataset
from stages.generators.diffusion.generator import DiffusionGenerator, schedule_of
from stages.generators.diffusion.layout import write_pipeline
from stages.generators.diffusion.sampler import Decoder
from stages.generators.diffusion.sampling import trace
from stages.generators.interface import Request
from stages.generators.noise import latents
from stages.networks.diffusion import Denoiser, build_denoiser
from stages.settings.diffusion import DiffusionSettings
from stages.storage import files_digest
from stages.trainer.augmentation import Policy
from stages.trainer.denoising.conditions import Conditions, open_conditions
from stages.trainer.denoising.process import Process
from stages.trainer.denoising.source import data_hash, open_source
from stages.trainer.ema import ema_decay, start_average, update_average
from stages.trainer.job import Job
from stages.trainer.learner import Learner
from stages.trainer.order import derive_seed, random_source
from stages.trainer.state import TrainingState, flatten_optimizer, unflatten_optimizer

__all__ = ["DenoisingLearner", "code_of", "data_hash", "obeyed", "open_learner"]

BUCKETS = 4  # of timesteps, whose losses are told apart
CONFIG_SETTINGS = (
    *("family", "denoiser", "widths", "layers", "attention", "head_width", "heads", "patch", "dropout"),
    *("prediction", "schedule", "zero_terminal_snr", "condition", "condition_dropout", "sampler", "steps", "guidance"),
)
BATCH = 64  # pictures that are drawn at once


class DenoisingLearner(Learner):
    """Denoiser, averages and optimizer of one training, on one device."""

    statistics = (
        *("loss", "target_power", "gradient_norm"),
        *(f"{kind}_t{n}" for n in range(BUCKETS) for kind in ("sum", "count")),
    )
    advice = "Lower lr, set warmup_kimg or clip, or use precision fp32"
    settings: DiffusionSettings

    def __init__(self, job: Job, settings: DiffusionSettings) -> None:
        self.settings, self.world, self.accelerator = settings, job.world, job.world.accelerator
        self.source = open_source(job)
        self.count = len(self.source.rows)
        self.images = ImageDataset(job.images, "train")
        settings.check_size(job.where, self.source.shape[-1])
        self.conditions: Conditions = open_conditions(job.where, settings, self.images, self.device)
        self.config = self._config()
        self.process = Process(schedule_of(self.config), settings.timesteps, settings.weighting)
        trace(self.process.schedule, settings.sampler, settings.steps)  # what cannot be drawn later is refused now
        torch.manual_seed(settings.seed)  # initial weights are drawn on the CPU: the same on every device
        self.denoiser: Denoiser = build_denoiser(self.config).to(self.device)
        if settings.checkpointing:
            self.denoiser.network.enable_gradient_checkpointing()
        self.running: Any = torch.compile(self.denoiser) if settings.compile else self.denoiser
        self.averages = tuple("" if not n else f"_ema{half:g}" for n, half in enumerate(settings.half_lives_kimg))
        self.averaged = {name: start_average(self.denoiser) for name in self.averages}
        self.optimizer = torch.optim.AdamW(
            self.denoiser.parameters(),
            settings.lr,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over each weight: a third of the time of torch's default on the CPU
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.decoder = Decoder(self.source.autoencoder).to(self.device).eval().requires_grad_(False)

    def _config(self) -> dict[str, Any]:
        settings, data = self.settings, self.images
        config = {key: getattr(settings, key) for key in CONFIG_SETTINGS}
        config |= {"latent_shape": list(self.source.shape), "resolution": data.resolution, "channels": data.channels}
        return config | {
            "class_names": list(self.conditions.class_names),
            "text": settings.text.model_dump(include={"length", "prompts", "negative"}),
            "text_width": self.conditions.width,
            "pictures": data.content_hash,  # whatever was learnt from, these are what it has seen
        }

    def step(self, positions: np.ndarray, seen: int) -> dict[str, Tensor]:
        """Take one step on the mean squared error of the prediction (Ho 2020, equation 14), weighted."""
        clean = self.source.samples(positions, seen)
        noise, timesteps, hidden = (self.world.share(t) for t in self._draw(len(positions), seen))
        told = self.conditions.rows(self.world.share(torch.from_numpy(positions)), hidden)
        if self.settings.dropout:  # its draws are torch's global ones: a step must not depend on those before it
            torch.manual_seed(derive_seed(self.settings.seed, "dropout", seen, self.world.rank))
        whole = (clean, noise.to(self.device), timesteps, *told)
        parts = zip(*(tensor.chunk(self.settings.accumulation) for tensor in whole), strict=True)
        errors = [self._add_gradient(*part) for part in parts]
        norm = self._update(len(positions), seen)
        found, powers = torch.cat(errors, 1)
        statistics = self._statistics(found, powers, timesteps, norm)
        self.world.average(statistics.values())
        return statistics

    def _draw(self, count: int, seen: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return noise, timesteps and which conditions are hidden, for a whole batch, on the CPU."""
        random = random_source(self.settings.seed, "denoising", seen)
        noise = torch.randn((count, *self.source.shape), generator=random)
        timesteps = self.process.draw_timesteps(count, random)
        return noise, timesteps, torch.rand(count, generator=random) < self.settings.condition_dropout

    def _add_gradient(self, clean: Tensor, noise: Tensor, timesteps: Tensor, *told: Tensor) -> Tensor:
        """Add one part's gradient; return each picture's error and its target's mean square, detached, (2, N)."""
        noised = self.process.add_noise(clean, noise, timesteps)
        with self.accelerator.autocast():
            predicted = self.running(noised.noisy, noised.timesteps, *told)
        target = self.process.target(noised)
        errors = (predicted.float() - target).square().flatten(1).mean(1)
        loss = (self.process.weights(noised.signal, noised.sigma).flatten() * errors).mean()
        self.scaler.scale(loss / self.settings.accumulation).backward()
        return torch.stack([errors.detach(), target.square().flatten(1).mean(1)])

    def _update(self, whole: int, seen: int) -> Tensor:
        """Step the optimizer by the gradient averaged over all processes, and the averages; returns its norm."""
        settings = self.settings
        self.world.average_gradients(self.denoiser)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), settings.clip or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (seen + whole) / max(settings.warmup_kimg * 1000, 1e-9))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        for name, half_life in zip(self.averages, settings.half_lives_kimg, strict=True):
            update_average(
                self.averaged[name], self.denoiser, ema_decay(whole, seen, half_life * 1000, settings.ema_rampup)
            )
        if not self.scaler.is_enabled():
            return norm.detach()
        # The scaler left out a step whose scaled gradient overflowed, as it does now and then: no sign of divergence.
        return torch.nan_to_num(norm.detach(), nan=0.0, posinf=0.0)

    def _statistics(self, errors: Tensor, powers: Tensor, timesteps: Tensor, norm: Tensor) -> dict[str, Tensor]:
        bucket = (timesteps * BUCKETS / self.process.schedule.train_steps).long().clamp(max=BUCKETS - 1)
        members = torch.nn.functional.one_hot(bucket, BUCKETS).to(errors)
        found = {"loss": errors.mean(), "target_power": powers.mean(), "gradient_norm": norm}
        found |= {f"sum_t{n}": (errors * members[:, n]).mean() for n in range(BUCKETS)}
        return found | {f"count_t{n}": members[:, n].mean() for n in range(BUCKETS)}

    def finish_row(self, row: dict[str, float], seen: int) -> dict[str, float]:
        """Turn sums and counts into the mean error of each quarter of the timesteps, t0 being the least noisy.

        `unexplained` is the loss as a share of the target's mean square: 1 where the prediction is worth nothing.
        """
        found = {name: row[name] for name in ("loss", "gradient_norm")}
        found["unexplained"] = row["loss"] / row["target_power"]
        return found | {
            f"loss_t{n}": row[f"sum_t{n}"] / row[f"count_t{n}"] for n in range(BUCKETS) if row[f"count_t{n}"] > 0
        }

    def about(self) -> dict[str, Any]:
        """Return how well the autoencoder of the latents reconstructs hold-out pictures, and what it cost."""
        seen = {"pictures": self.config["pictures"]}
        return seen | ({"autoencoder": self.source.about} if self.source.about else {})

    def generator(self, average: str = "") -> DiffusionGenerator:
        """Return one average as a generator."""
        return DiffusionGenerator(self.averaged[average], self.decoder, self.config, self.conditions.encoder)

    def draw_grid(self, count: int) -> Tensor:
        """Draw pictures of the seeds 0 to count - 1: classes in turn, or the prompts of the settings in turn."""
        return torch.from_numpy(self._drawn(range(count), self.conditions.of_grid(count), ""))

    def draw_sample(self, numbers: range, average: str) -> np.ndarray:
        """Draw the pictures of these seeds under the conditions of training pictures evenly apart."""
        return self._drawn(numbers, self.conditions.of_data(numbers, self.settings.score_count), average)

    def _drawn(self, seeds: range, asked: dict[str, Any], average: str) -> np.ndarray:
        generator = self.generator(average)
        shape = generator.capabilities.latent_shape
        drawn = []
        for start in range(0, len(seeds), BATCH):
            part = slice(start, start + BATCH)
            label = {"label": asked["label"][part]} if "label" in asked else {}
            request = Request(latents(seeds[part], shape), label, asked.get("prompts", [])[part])
            drawn.append(generator.generate(request))
        return np.concatenate(drawn)

    def real_pictures(self, count: int) -> Tensor:
        """Return the first training pictures."""
        return torch.from_numpy(self.images.pictures(slice(0, count)))

    def average_tensors(self, average: str) -> dict[str, Tensor]:
        """Return copies of one average's tensors, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.averaged[average].state_dict().items()}

    def _networks(self) -> dict[str, nn.Module]:
        return {"denoiser": self.denoiser, **{f"average{name}": net for name, net in self.averaged.items()}}

    def export_state(self, seen: int, values: dict[str, Any]) -> TrainingState:
        """Collect the denoiser, its averages, the optimizer and the scaler."""
        tensors = {f"{n}/{key}": t for n, net in self._networks().items() for key, t in net.state_dict().items()}
        tensors |= flatten_optimizer("adam", self.optimizer.state_dict())
        return TrainingState(seen, tensors, {"scaler": self.scaler.state_dict(), **values})

    def restore(self, state: TrainingState) -> None:
        """Put a state back."""
        for name, network in self._networks().items():
            prefix = f"{name}/"
            network.load_state_dict(
                {k.removeprefix(prefix): t for k, t in state.tensors.items() if k.startswith(prefix)}
            )
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(unflatten_optimizer("adam", state.tensors, groups))
        if state.values["scaler"]:
            self.scaler.load_state_dict(state.values["scaler"])

    def state_numbers(self) -> int:
        """Count the denoiser, Adam's two moments, the averages, and the best snapshot where one is kept."""
        copies = 3 + len(self.averages) + (1 if self.settings.score_kimg else 0)
        return copies * sum(p.numel() for p in self.denoiser.parameters())

    def write_weights(self, folder: Path, best: dict[str, Tensor]) -> str:
        """Write the average as a diffusers pipeline, with decoder and text encoder."""
        average = start_average(self.averaged[""]).cpu()
        if best:
            average.load_state_dict(best)
        self.config["files"] = write_pipeline(
            folder, average, self.source.autoencoder, self.conditions.encoder, self.config
        )
        return files_digest(folder, self.config["files"])


def open_learner(job: Job) -> DenoisingLearner:
    """Return a fresh learner of a job."""
    assert isinstance(job.settings, DiffusionSettings)
    return DenoisingLearner(job, job.settings)


def code_of(family: str) -> tuple[str, ...]:
    """Return the modules that are found by the family's name, not by an import."""
    return ("stages.networks.diffusion", "stages.generators.diffusion.generator")


def obeyed(policy: Policy) -> dict[str, Any]:
    """Return what of the augmentation policy decides the training's course: only whether pictures are mirrored."""
    return {"mirror": policy.mirror}
