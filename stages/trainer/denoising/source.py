"""What a denoiser learns from: pictures as they are, or their latents drawn anew from the posterior each time."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stages.dataset import ImageDataset
from stages.latents import LatentDataset
from stages.trainer.job import Job
from stages.trainer.order import normal_noise
from stages.trainer.pictures import ImageSource, mirrored
from stages.trainer.world import World

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL


class Source(Protocol):
    """Training samples of a denoiser."""

    rows: list[dict[str, Any]]
    shape: tuple[int, int, int]  # of one sample
    autoencoder: "AutoencoderKL | None"  # whose decoder makes pictures of samples
    about: dict[str, Any]  # figures of the autoencoder

    def samples(self, positions: np.ndarray, seen: int) -> Tensor:
        """Return this process's share of a batch, float32 (N / processes, *shape) on the device."""


class PixelSource:
    """Pictures as samples."""

    autoencoder: "AutoencoderKL | None" = None

    def __init__(self, images: ImageSource) -> None:
        self.images, self.rows = images, images.dataset.rows
        self.about: dict[str, Any] = {}
        size = images.dataset.resolution
        self.shape = (images.dataset.channels, size, size)

    def samples(self, positions: np.ndarray, seen: int) -> Tensor:
        """Return pictures in [-1, 1]."""
        # The denoiser's weights are not channels last: pictures that are cost a tenth of a bfloat16 step on the CPU.
        return self.images.pictures(positions, seen).contiguous()


class LatentSource:
    """Latents of a split: a draw from each picture's posterior (Rombach 2022), shifted and scaled."""

    def __init__(self, latents: LatentDataset, world: World, mirror: bool, seed: int) -> None:
        self.latents, self.world, self.mirror, self.seed = latents, world, mirror, seed
        self.rows, self.about = latents.rows, latents.description["autoencoder"]
        self.means, self.stds = latents.posteriors()
        self.shape = tuple(self.means.shape[1:])
        self.scale = latents.scaling_factor
        self.flipped = latents.posteriors("mirrored") if mirror else None
        self.autoencoder: AutoencoderKL | None = latents.open_autoencoder()

    def samples(self, positions: np.ndarray, seen: int) -> Tensor:
        """Return drawn latents; where the policy allows it half of them are of the mirrored picture."""
        means, stds = (torch.from_numpy(values[positions]) for values in (self.means, self.stds))
        if self.flipped:
            flip = mirrored(len(positions), self.seed, seen)[:, None, None, None]
            others = (torch.from_numpy(values[positions]) for values in self.flipped)
            means, stds = (torch.where(flip, other, own) for other, own in zip(others, (means, stds), strict=True))
        noise = normal_noise(tuple(means.shape), self.seed, "posterior", seen)
        drawn = (means + stds * noise) * self.scale
        return self.world.share(drawn).to(self.world.accelerator.device)


def open_source(job: Job) -> Source:
    """Return the samples of a job's train split.

    Raises:
        InputError: latents are of another autoencoder or of other pictures, or lack mirrored copies.
    """
    if job.data == job.images:
        dataset = ImageDataset(job.images, "train")
        return PixelSource(ImageSource(dataset, job.world, job.policy.mirror, job.settings.seed))
    latents = LatentDataset(job.data, "train")
    latents.check_same_pictures(job.images)
    return LatentSource(latents, job.world, job.policy.mirror, job.settings.seed)


def data_hash(job: Job) -> str:
    """Return the sha256 of the content that a job learns from."""
    return ImageDataset(job.images).content_hash if job.data == job.images else LatentDataset(job.data).content_hash
