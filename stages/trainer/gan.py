"""Generator against discriminator, as the training loop sees it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from stages.dataset import ImageDataset
from stages.generators.noise import latents
from stages.settings.models import DcganSettings
from stages.storage import sha256_file
from stages.trainer.adversarial import STATISTICS, Adversaries
from stages.trainer.augmentation import Policy
from stages.trainer.job import Job
from stages.trainer.learner import Learner
from stages.trainer.overfitting import OverfittingWatch
from stages.trainer.pictures import ImageSource
from stages.trainer.state import TrainingState

CODE = ("stages.networks.dcgan", "stages.generators.dcgan")  # found by the family's name, not by an import
CONFIG_SETTINGS = ("family", "latent", "width", "discriminator_width", "upsample")


class GanLearner(Learner):
    """The adversaries with their pictures, and the watch that shows overfitting."""

    statistics = STATISTICS
    advice = "Lower generator_lr and discriminator_lr, set r1_gamma, or use precision fp32"
    settings: DcganSettings

    def __init__(self, job: Job, settings: DcganSettings) -> None:
        self.settings, self.world = settings, job.world
        dataset = ImageDataset(job.images, "train")
        self.source = ImageSource(dataset, job.world, job.policy.mirror, settings.seed)
        self.count = len(self.source)
        self.config = {key: getattr(settings, key) for key in CONFIG_SETTINGS}
        self.config |= {"resolution": dataset.resolution, "channels": dataset.channels, "class_names": []}
        self.adversaries = Adversaries(self.config, settings, job.policy, job.world)
        self.watch = OverfittingWatch(dataset, ImageDataset(job.images, "holdout"), settings.batch, settings.latent)

    def step(self, positions: np.ndarray, seen: int) -> dict[str, Tensor]:
        """Take one step of the discriminator and one of the generator."""
        return self.adversaries.step(self.source.pictures(positions, seen), seen)

    def draw_grid(self, count: int) -> Tensor:
        """Draw pictures of the seeds 0 to count - 1 by the averaged generator."""
        return self.adversaries.draw(torch.from_numpy(latents(range(count), (self.settings.latent,))))

    def draw_sample(self, numbers: range, average: str) -> np.ndarray:
        """Draw the pictures of these seeds by the averaged generator."""
        drawn: np.ndarray = self.adversaries.draw(torch.from_numpy(latents(numbers, (self.settings.latent,)))).numpy()
        return drawn

    def average_tensors(self, average: str) -> dict[str, Tensor]:
        """Return copies of the averaged generator's tensors, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.adversaries.average.state_dict().items()}

    def real_pictures(self, count: int) -> Tensor:
        """Return the first training pictures."""
        return self.source.first(count)

    def finish_row(self, row: dict[str, float], seen: int) -> dict[str, float]:
        """Add how far apart the discriminator holds real and generated, what it says of the hold-out, and ADA's p."""
        row |= {"separation": (row["real_sign"] - row["fake_sign"]) / 2}
        row |= self.watch.mean_logits(self.adversaries, seen)
        if self.adversaries.policy.kind == "ada":
            row |= {"p": self.adversaries.augmentation.p, "r_t": row["real_sign"]}
        return row

    def export_state(self, seen: int, values: dict[str, Any]) -> TrainingState:
        """Collect networks, average, optimizers, scaler and ADA's p."""
        return self.adversaries.export_state(seen, values)

    def restore(self, state: TrainingState) -> None:
        """Put a state back."""
        self.adversaries.restore(state)

    def state_numbers(self) -> int:
        """Count networks, average, Adam's two moments per trained weight, and the best snapshot where one is kept."""
        trained = [*self.adversaries.generator.parameters(), *self.adversaries.discriminator.parameters()]
        averaged = sum(p.numel() for p in self.adversaries.average.parameters())
        return 3 * sum(p.numel() for p in trained) + averaged * (2 if self.settings.score_kimg else 1)

    def write_weights(self, folder: Path, best: dict[str, Tensor]) -> str:
        """Write generator.safetensors (averaged) and discriminator.safetensors."""
        average = best or self.adversaries.average.state_dict()
        save_tensors(average, folder / "generator.safetensors")
        save_tensors(self.adversaries.discriminator.state_dict(), folder / "discriminator.safetensors")
        return sha256_file(folder / "generator.safetensors")


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def open_learner(job: Job) -> GanLearner:
    """Return a fresh learner of a job."""
    assert isinstance(job.settings, DcganSettings)
    return GanLearner(job, job.settings)


def obeyed(policy: Policy) -> dict[str, Any]:
    """Return what of the augmentation decides the training's course."""
    return policy.obeyed()


def data_hash(job: Job) -> str:
    """Return the sha256 of the training data's content."""
    return ImageDataset(job.images).content_hash
