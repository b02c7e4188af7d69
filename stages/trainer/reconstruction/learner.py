"""Training of autoencoders as the loop sees it: those that latents come from, and the one that is a generator."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.dataset import ImageDataset
from stages.generators.noise import latents
from stages.settings.autoencoders import ReconstructionSettings, VaeSettings
from stages.storage import sha256_file
from stages.trainer.augmentation import Policy
from stages.trainer.job import Job
from stages.trainer.learner import Learner
from stages.trainer.pictures import ImageSource
from stages.trainer.reconstruction.autoencoding import ADVERSARIAL, STATISTICS, Autoencoding
from stages.trainer.state import TrainingState

CONFIG_SETTINGS = ("family", "factor", "latent_channels", "widths", "layers")
FILE = "vae/diffusion_pytorch_model.safetensors"
BATCH = 64  # pictures that are drawn at once


class AutoencoderLearner(Learner):
    """An autoencoder with its pictures; its grid shows hold-out pictures, each beside its reconstruction."""

    advice = "Lower lr, set warmup_kimg, raise adversarial.start_kimg, or use precision fp32"
    settings: ReconstructionSettings

    def __init__(self, job: Job, settings: ReconstructionSettings) -> None:
        self.settings, self.world = settings, job.world
        dataset, self.holdout = ImageDataset(job.images, "train"), ImageDataset(job.images, "holdout")
        self.source = ImageSource(dataset, job.world, job.policy.mirror, settings.seed)
        self.count = len(self.source)
        side = dataset.resolution // settings.factor
        self.config = {key: getattr(settings, key) for key in CONFIG_SETTINGS}
        self.config |= {"resolution": dataset.resolution, "channels": dataset.channels, "class_names": []}
        self.config |= {"latent_shape": [settings.latent_channels, side, side], "files": [FILE]}
        adversarial = settings.adversarial
        self.config |= {"adversarial": adversarial.model_dump() if adversarial else None}
        self.statistics = (*STATISTICS, *(ADVERSARIAL if adversarial else ()))
        self.autoencoding = Autoencoding(self.config, settings, job.world)

    def step(self, positions: np.ndarray, seen: int) -> dict[str, Tensor]:
        """Take one step of the autoencoder and one of the discriminator where there is one."""
        return self.autoencoding.step(self.source.pictures(positions, seen), seen)

    def draw_grid(self, count: int) -> Tensor:
        """Return hold-out pictures, or training ones where none is held out, each followed by its reconstruction."""
        shown = self.holdout if len(self.holdout) else self.source.dataset
        chosen = np.linspace(0, len(shown) - 1, count // 2).astype(int)
        pictures = torch.from_numpy(shown.pictures(chosen))
        return torch.stack([pictures, self.reconstruct(pictures)], 1).flatten(0, 1)

    @torch.no_grad()
    def reconstruct(self, pictures: Tensor) -> Tensor:
        """Return pictures through the averaged autoencoder, at the posterior's mean, float32 in [-1, 1] on the CPU."""
        average, drawn = self.autoencoding.average, []
        for part in pictures.split(BATCH):
            posterior = average.encode(part.to(self.device), return_dict=False)[0]
            drawn.append(average.decode(posterior.mean, return_dict=False)[0].clamp(-1, 1).float().cpu())
        return torch.cat(drawn)

    def draw_sample(self, numbers: range, average: str) -> np.ndarray:
        """Return reconstructions of training pictures evenly apart."""
        chosen = (np.array(numbers) % self.settings.score_count) * self.count // self.settings.score_count
        return self.reconstruct(torch.from_numpy(self.source.dataset.pictures(chosen))).numpy()

    def average_tensors(self, average: str) -> dict[str, Tensor]:
        """Return copies of the averaged autoencoder's tensors, on the CPU."""
        tensors = self.autoencoding.average.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def real_pictures(self, count: int) -> Tensor:
        """Return the first training pictures."""
        return self.source.first(count)

    def export_state(self, seen: int, values: dict[str, Any]) -> TrainingState:
        """Collect networks, average and optimizers."""
        return self.autoencoding.export_state(seen, values)

    def restore(self, state: TrainingState) -> None:
        """Put a state back."""
        self.autoencoding.restore(state)

    def state_numbers(self) -> int:
        """Count the networks with Adam's two moments, the average, and the best snapshot where one is kept."""
        trained = [p.numel() for network in self.autoencoding.networks.values() for p in network.parameters()]
        averaged = sum(p.numel() for p in self.autoencoding.average.parameters())
        return 3 * sum(trained) + averaged * (2 if self.settings.score_kimg else 1)

    def write_weights(self, folder: Path, best: dict[str, Tensor]) -> str:
        """Write the averaged autoencoder as diffusers' folder `vae`."""
        from stages.networks.vae import build_autoencoder

        written = build_autoencoder(self.config)
        written.load_state_dict(best or self.average_tensors(""))
        written.save_pretrained(folder / "vae")
        return sha256_file(folder / FILE)


class VaeLearner(AutoencoderLearner):
    """The autoencoder as a generator: its grid shows decoded draws from N(0, 1)."""

    def draw_grid(self, count: int) -> Tensor:
        """Draw pictures of the seeds 0 to count - 1."""
        return torch.from_numpy(self.draw_sample(range(count), ""))

    @torch.no_grad()
    def draw_sample(self, numbers: range, average: str) -> np.ndarray:
        """Draw the pictures of these seeds."""
        noise = torch.from_numpy(latents(numbers, tuple(self.config["latent_shape"])))
        decoder = self.autoencoding.average.decode
        parts = [decoder(part.to(self.device), return_dict=False)[0] for part in noise.split(BATCH)]
        return torch.cat([part.clamp(-1, 1).float().cpu() for part in parts]).numpy()


def open_learner(job: Job) -> AutoencoderLearner:
    """Return a fresh learner of a job."""
    assert isinstance(job.settings, ReconstructionSettings)
    return (VaeLearner if isinstance(job.settings, VaeSettings) else AutoencoderLearner)(job, job.settings)


def code_of(family: str) -> tuple[str, ...]:
    """Return the modules that are found by the family's name, not by an import."""
    return ("stages.networks.vae",)


def obeyed(policy: Policy) -> dict[str, Any]:
    """Return what of the augmentation policy decides the training's course: only whether pictures are mirrored."""
    return {"mirror": policy.mirror}


def data_hash(job: Job) -> str:
    """Return the sha256 of the pictures."""
    return ImageDataset(job.images).content_hash
