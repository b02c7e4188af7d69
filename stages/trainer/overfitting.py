"""Shows overfitting: what the discriminator says of training pictures, of hold-out ones, and of generated ones."""

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from stages.dataset import ImageDataset, to_float
from stages.generators.noise import latents
from stages.trainer.adversarial import Adversaries
from stages.trainer.order import random_source

WATCHED = 256  # pictures of each kind


class OverfittingWatch:
    """Fixed pictures of both splits, and fixed latents, for one training.

    A discriminator that gives training pictures higher logits than hold-out ones knows them by heart (Karras 2020,
    figure 1). Nothing here changes the training: no gradient, no running moment, no random number of its own.
    """

    def __init__(self, train: ImageDataset, holdout: ImageDataset, batch: int, latent: int) -> None:
        count = min(WATCHED, len(train), len(holdout))
        self.batch = min(batch, count)
        self.count = count - count % self.batch if count > 1 else 0  # whole batches: batch norm sees equal ones
        self.pictures = {name: watched(data, self.count) for name, data in (("train", train), ("holdout", holdout))}
        self.latent = torch.from_numpy(latents(range(self.count), (latent,)))

    def mean_logits(self, adversaries: Adversaries, seen: int) -> dict[str, float]:
        """Return train_logit, holdout_logit and generated_logit; nothing where there is no hold-out.

        All three pass the same augmentations; the averaged generator draws. Batch norm takes each batch's own
        moments, as in training.
        """
        if not self.count:
            return {}
        sets = {**self.pictures, "generated": adversaries.draw(self.latent)}
        return {f"{name}_logit": round(self._mean(adversaries, pictures, seen), 6) for name, pictures in sets.items()}

    @torch.no_grad()
    def _mean(self, adversaries: Adversaries, pictures: Tensor, seen: int) -> float:
        random = random_source(adversaries.settings.seed, "overfitting", seen)
        buffers = {name: buffer.clone() for name, buffer in adversaries.discriminator.named_buffers()}
        total = 0.0
        for part in pictures.split(self.batch):
            placed = part.to(adversaries.device, memory_format=torch.channels_last)
            with adversaries.accelerator.autocast():
                augmented = adversaries.augmentation(placed, random)
                total += float(functional_call(adversaries.discriminator, buffers, (augmented,)).float().sum())
        return total / len(pictures)


def watched(dataset: ImageDataset, count: int) -> Tensor:
    """Return `count` pictures evenly apart, float32 in [-1, 1], shape (count, C, H, W)."""
    positions = np.linspace(0, len(dataset) - 1, count).astype(int)
    return torch.from_numpy(to_float(dataset.pixels[positions])).permute(0, 3, 1, 2)
