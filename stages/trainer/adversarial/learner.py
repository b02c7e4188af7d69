"""Generator against discriminator, as the training loop sees it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.generators.noise import latents
from stages.settings.gans import GanSettings, StyleganSettings
from stages.storage import sha256_file
from stages.trainer.adversarial.adversaries import NORMS, STATISTICS, Adversaries
from stages.trainer.adversarial.overfitting import OverfittingWatch, evenly, watched
from stages.trainer.adversarial.transfer import summarise, take_over
from stages.trainer.augmentation import Policy
from stages.trainer.health import PICTURES, Likeness, shrink
from stages.trainer.job import Job
from stages.trainer.learner import Learner
from stages.trainer.pictures import ImageSource
from stages.trainer.state import TrainingState

PENALTIES = {"r1_gamma": "r1", "r2_gamma": "r2", "gradient_penalty": "gradient_penalty"}


class GanLearner(Learner):
    """The adversaries with their pictures, and the watch that shows overfitting."""

    advice = (
        "Lower generator_lr and discriminator_lr, set r1_gamma (or gradient_penalty for objective wasserstein), "
        "or use precision fp32"
    )
    settings: GanSettings

    def __init__(self, job: Job, settings: GanSettings) -> None:
        self.settings, self.world = settings, job.world
        dataset = ImageDataset(job.images, "train")
        self.source = ImageSource(dataset, job.world, job.policy.mirror, settings.seed)
        self.count = len(self.source)
        self.labels = labels_of(job.where, dataset) if settings.condition == "class" else None
        self.config = {key: getattr(settings, key) for key in ("family", *settings.PARTS, *settings.ARCHITECTURE)}
        names = dataset.description["class_names"] if settings.condition == "class" else []
        self.config |= {"resolution": dataset.resolution, "channels": dataset.channels, "class_names": names}
        check_groups(job)
        self.adversaries = Adversaries(self.config, settings, job.policy, job.world, self.labels)
        self.transferred = take_over(job.where, settings, self.adversaries)
        self.statistics = (*STATISTICS, *self._penalties(), *NORMS)
        self.watch = OverfittingWatch(dataset, ImageDataset(job.images, "holdout"), settings)
        self.compared = evenly(self.count, min(PICTURES, self.count))
        parts = [self.compared[start : start + settings.batch] for start in self._starts()]
        self.likeness = Likeness(torch.cat([shrink(watched(dataset, part)) for part in parts]))

    def _penalties(self) -> list[str]:
        found = [name for setting, name in PENALTIES.items() if getattr(self.settings, setting)]
        lengths = isinstance(self.settings, StyleganSettings) and self.settings.path_length > 0
        return [*found, "path_length"] if lengths else found

    def step(self, positions: np.ndarray, seen: int) -> dict[str, Tensor]:
        """Take one step of the discriminator and, where it is due, one of the generator."""
        label = None
        if self.labels is not None:
            label = self.world.share(torch.from_numpy(self.labels[positions])).to(self.device)
        return self.adversaries.step(self.source.pictures(positions, seen), seen, label)

    def draw_grid(self, count: int) -> Tensor:
        """Draw pictures of the seeds 0 to count - 1 by the averaged generator, classes in turn."""
        return self._draw(range(count), self._in_turn(count))

    def draw_raw_grid(self, count: int) -> Tensor:
        """Draw the same pictures by the generator as it is trained, not averaged."""
        return self._draw(range(count), self._in_turn(count), average=False)

    def draw_sample(self, numbers: range, average: str) -> np.ndarray:
        """Draw the pictures of these seeds by the averaged generator, classes as frequent as in the data."""
        label = None
        if self.labels is not None:
            total = self.settings.score_count
            label = torch.from_numpy(self.labels[(np.array(numbers) % total) * len(self.labels) // total])
        drawn: np.ndarray = self._draw(numbers, label).numpy()
        return drawn

    def _draw(self, seeds: range, label: Tensor | None, average: bool = True) -> Tensor:
        latent = torch.from_numpy(latents(seeds, (self.settings.latent,)))
        return self.adversaries.draw(latent, label, average)

    def _in_turn(self, count: int) -> Tensor | None:
        return None if self.labels is None else torch.arange(count) % len(self.config["class_names"])

    def average_tensors(self, average: str) -> dict[str, Tensor]:
        """Return copies of the averaged generator's tensors, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.adversaries.average.state_dict().items()}

    def real_pictures(self, count: int) -> Tensor:
        """Return the first training pictures."""
        return self.source.first(count)

    def about(self) -> dict[str, Any]:
        """Return what was taken over from other weights, by name."""
        return {"transfer": self.transferred} if self.transferred else {}

    def origins(self) -> list[str]:
        """Return how much of each network was taken over from other weights."""
        return summarise(self.transferred) if self.transferred else []

    def finish_row(self, row: dict[str, float], seen: int) -> dict[str, float]:
        """Add how far apart the discriminator holds real and generated, what it says of the hold-out, and ADA's p.

        Also how like training pictures those are that the generator draws as it is now, and its steps so far.
        """
        separation = separation_of(row, self.settings.objective)
        row |= {} if separation is None else {"separation": separation}
        row |= self.watch.mean_logits(self.adversaries, seen) | self._compare()
        row["generator_steps"] = self.adversaries.steps // self.settings.discriminator_steps
        if self.adversaries.policy.kind == "ada":
            row |= {"p": self.adversaries.augmentation.p, "r_t": row["real_sign"]}
        return row

    def _starts(self) -> range:
        """Return where parts of the compared pictures begin: all of them at once might not fit."""
        return range(0, len(self.compared), self.settings.batch)

    def _compare(self) -> dict[str, float]:
        """Return gap and nearest of what the trained generator draws, of the classes of the compared pictures."""
        seeds, batch = range(len(self.compared)), self.settings.batch
        labels = None if self.labels is None else torch.from_numpy(self.labels[self.compared])
        drawn = []
        for start in self._starts():
            label = None if labels is None else labels[start : start + batch]
            drawn.append(shrink(self._draw(seeds[start : start + batch], label, average=False)))
        return self.likeness.compare(torch.cat(drawn))

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
        save_tensors(self.adversaries.shipped(best).state_dict(), folder / "generator.safetensors")
        save_tensors(self.adversaries.discriminator.state_dict(), folder / "discriminator.safetensors")
        return sha256_file(folder / "generator.safetensors")


def separation_of(row: dict[str, float], objective: str) -> float | None:
    """Return how far apart a discriminator holds real and generated pictures: 0 not at all, 1 always.

    Half the difference of its signs, or of its outputs where these are to be 1 and 0 (least squares). None where zero
    means nothing: a critic's outputs, and those of pairs, may all be shifted.
    """
    if objective in ("wasserstein", "relativistic"):
        return None
    if objective == "least_squares":
        return row["real_logit"] - row["fake_logit"]
    return (row["real_sign"] - row["fake_sign"]) / 2


def labels_of(where: str, dataset: ImageDataset) -> np.ndarray:
    """Return the training pictures' classes, int64.

    Raises:
        InputError: there are fewer than two classes, or a picture has none.
    """
    names = dataset.description["class_names"]
    if len(names) < 2:
        raise InputError(
            f"{where}.condition is class, but the pictures have {len(names)} classes; sub-folders are classes, "
            "expected two or more, or condition: none"
        )
    labels = np.array([row["label"] for row in dataset.rows], np.int64)
    if (labels < 0).any():
        raise InputError(
            f"{where}.condition is class, but {int((labels < 0).sum())} of {len(labels)} training pictures have none; "
            "put them into sub-folders, or set condition: none"
        )
    return labels


def check_groups(job: Job) -> None:
    """Refuse a first batch that cannot be cut into equal parts, and parts that the minibatch groups do not divide.

    Raises:
        InputError: the part of one process and the group, which is to be a divisor.
    """
    settings = job.settings
    assert isinstance(settings, GanSettings)
    parts, first = job.world.size * settings.accumulation, settings.batch_start or settings.batch
    if settings.batch_start % parts:
        raise InputError(
            f"{job.where}.batch_start is {first}, which {job.world.size} processes with accumulation "
            f"{settings.accumulation} cannot share equally; expected a multiple of {parts}"
        )
    if first % parts or not (settings.minibatch_stddev or settings.minibatch_kernels):
        return  # other batches are refused for all families
    for share in range(first // parts, settings.batch // parts + 1, first // parts):  # batches may ramp up
        if share % min(settings.minibatch_group, share):
            raise InputError(
                f"{job.where}.minibatch_group is {settings.minibatch_group}, which does not divide the {share} "
                "pictures that a process has at a time (batch over processes and accumulation); set it to a divisor"
            )


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def open_learner(job: Job) -> GanLearner:
    """Return a fresh learner of a job."""
    assert isinstance(job.settings, GanSettings)
    return GanLearner(job, job.settings)


def code_of(family: str) -> tuple[str, ...]:
    """Return the modules that are found by the family's name, not by an import."""
    return (f"stages.networks.{family}",)


def obeyed(policy: Policy) -> dict[str, Any]:
    """Return what of the augmentation decides the training's course."""
    return policy.obeyed()


def data_hash(job: Job) -> str:
    """Return the sha256 of the training data's content."""
    return ImageDataset(job.images).content_hash
