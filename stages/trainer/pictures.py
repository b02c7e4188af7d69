"""Training pictures as a step takes them: this process's share of a batch, on the device."""

import numpy as np
import torch
from torch import Tensor

from stages.dataset import ImageDataset, to_float
from stages.trainer.order import random_source
from stages.trainer.world import World


class ImageSource:
    """The pictures of a split in memory, mirrored by chance where the policy allows it."""

    def __init__(self, dataset: ImageDataset, world: World, mirror: bool, seed: int) -> None:
        self.dataset, self.world, self.mirror, self.seed = dataset, world, mirror, seed
        self.pixels = dataset.pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def pictures(self, positions: np.ndarray, seen: int) -> Tensor:
        """Return this process's share of a batch, float32 in [-1, 1], shape (N / processes, C, H, W), channels last."""
        whole = torch.from_numpy(self.pixels[positions])
        pixels = self.world.share(whole).to(self.world.accelerator.device)
        pictures = (pixels.float() / 127.5 - 1).permute(0, 3, 1, 2)
        if not self.mirror:
            return pictures
        flip = self.world.share(mirrored(len(whole), self.seed, seen))
        return torch.where(flip[:, None, None, None].to(pictures.device), pictures.flip(3), pictures)

    def first(self, count: int) -> Tensor:
        """Return the first pictures, float32 (N, C, H, W) in [-1, 1], on the CPU."""
        return torch.from_numpy(to_float(self.pixels[:count])).permute(0, 3, 1, 2)


def mirrored(count: int, seed: int, seen: int) -> Tensor:
    """Return which pictures of a whole batch are mirrored, half of them by chance, bool (N,)."""
    random = random_source(seed, "mirror", seen)
    return torch.rand(count, 1, 1, 1, generator=random).flatten() < 0.5
