"""Shows overfitting: what the discriminator says of training pictures, of hold-out ones, and of generated ones."""

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from stages.dataset import ImageDataset, to_float
from stages.generators.noise import latents
from stages.settings.gans import GanSettings
from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.order import random_source

WATCHED = 256  # pictures of each kind


class OverfittingWatch:
    """Fixed pictures of both splits, and fixed latents, for one training.

    A discriminator that gives training pictures higher logits than hold-out ones knows them by heart (Karras 2020,
    figure 1). Nothing here changes the training: no gradient, no running moment, no random number of its own.
    """

    def __init__(self, train: ImageDataset, holdout: ImageDataset, settings: GanSettings) -> None:
        conditional = settings.condition == "class"
        found = {name: choices(data, conditional) for name, data in (("train", train), ("holdout", holdout))}
        count = min(WATCHED, *map(len, found.values()))
        self.batch = min(settings.batch_start or settings.batch, count)
        if settings.minibatch_stddev or settings.minibatch_kernels:  # which see whole groups
            self.batch -= self.batch % min(settings.minibatch_group, max(self.batch, 1))
        self.count = count - count % self.batch if count > 1 else 0  # whole batches: batch norm sees equal ones
        data = {"train": train, "holdout": holdout}
        chosen = {name: choice[evenly(len(choice), self.count)] for name, choice in found.items()}
        self.pictures = {name: watched(data[name], positions) for name, positions in chosen.items()}
        self.labels = {name: labels_at(data[name], chosen[name]) if conditional else None for name in data}
        self.latent = torch.from_numpy(latents(range(self.count), (settings.latent,)))

    def mean_logits(self, adversaries: Adversaries, seen: int) -> dict[str, float]:
        """Return train_logit, holdout_logit and generated_logit; nothing where there is no hold-out.

        All three pass the same augmentations; the averaged generator draws, of the classes of the train pictures.
        Batch norm takes each batch's own moments, as in training.
        """
        if not self.count:
            return {}
        labels = {**self.labels, "generated": self.labels["train"]}
        sets = {**self.pictures, "generated": adversaries.draw(self.latent, labels["generated"])}
        return {
            f"{name}_logit": round(self._mean(adversaries, pictures, labels[name], seen), 6)
            for name, pictures in sets.items()
        }

    @torch.no_grad()
    def _mean(self, adversaries: Adversaries, pictures: Tensor, labels: Tensor | None, seen: int) -> float:
        random = random_source(adversaries.settings.seed, "overfitting", seen)
        buffers = {name: buffer.clone() for name, buffer in adversaries.discriminator.named_buffers()}
        total = 0.0
        for start in range(0, len(pictures), self.batch):
            part = pictures[start : start + self.batch].to(adversaries.device, memory_format=torch.channels_last)
            label = None if labels is None else labels[start : start + self.batch].to(adversaries.device)
            with adversaries.accelerator.autocast():
                told = (adversaries.augmentation(part, random), label)
                total += float(functional_call(adversaries.discriminator, buffers, told).float().sum())
        return total / len(pictures)


def choices(dataset: ImageDataset, labelled: bool) -> np.ndarray:
    """Return the positions of all pictures, or of those that have a class."""
    if not labelled:
        return np.arange(len(dataset))
    return np.flatnonzero([row["label"] >= 0 for row in dataset.rows])


def evenly(total: int, count: int) -> np.ndarray:
    """Return `count` positions below `total`, evenly apart, int64."""
    return np.linspace(0, max(total - 1, 0), count).astype(int)


def watched(dataset: ImageDataset, positions: np.ndarray) -> Tensor:
    """Return pictures, float32 in [-1, 1], shape (N, C, H, W)."""
    return torch.from_numpy(to_float(dataset.pixels[positions])).permute(0, 3, 1, 2)


def labels_at(dataset: ImageDataset, positions: np.ndarray) -> Tensor:
    """Return the classes of pictures, int64 (N,)."""
    return torch.tensor([dataset.rows[position]["label"] for position in positions], dtype=torch.int64)
