"""Encodes pictures into posteriors, shard by shard as data/images has them, and writes data/latents/NAME."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.dataset import ImageDataset
from stages.latents import FORMAT, WEIGHTS, shard_name
from stages.storage import sha256_file, whole_folder, write_json

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

BATCH = 64  # fixed, so that equal weights and pictures give equal bytes


@torch.no_grad()
def encode(autoencoder: "AutoencoderKL", dataset: ImageDataset, mirror: bool, bar: Any) -> np.ndarray:
    """Return mean and standard deviation of each picture's posterior, float32 (N, 2, C, h, w)."""
    device, found = autoencoder.device, []
    for start in range(0, len(dataset), BATCH):
        pictures = torch.from_numpy(dataset.pictures(slice(start, start + BATCH)))
        placed = (pictures.flip(3) if mirror else pictures).to(device)
        posterior = autoencoder.encode(placed, return_dict=False)[0]
        found.append(torch.stack([posterior.mean, posterior.std], 1).float().cpu().numpy())
        bar.update(len(pictures))
    return np.concatenate(found)


def write_latents(
    folder: Path,
    autoencoder: "AutoencoderKL",
    dataset: ImageDataset,
    encoded: dict[str, np.ndarray],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write shards, index, description and the autoencoder with its measured scaling; returns the latents' figures."""
    train = np.array([row["split"] == "train" for row in dataset.rows])
    figures = statistics(encoded["posteriors"][train])
    scaling = 1 / figures["latent_std"]
    autoencoder.register_to_config(scaling_factor=scaling, shift_factor=0.0)
    with whole_folder(folder) as partial:
        autoencoder.save_pretrained(partial / "vae")
        shutil.copyfile(dataset.folder / "index.parquet", partial / "index.parquet")
        for kind, values in encoded.items():
            write_shards(partial, kind, values, dataset)
        description = {
            "latent_shape": list(encoded["posteriors"].shape[2:]),
            "resolution": dataset.resolution,
            "channels": dataset.channels,
            "class_names": dataset.description.get("class_names", []),
            "scaling_factor": scaling,
            "shift_factor": 0.0,
            "mirrored": "mirrored" in encoded,
            "dataset": dataset.content_hash,
            "autoencoder_sha256": sha256_file(partial / WEIGHTS),
            "autoencoder": about,
        }
        write_json(partial / FORMAT, description)
    return figures


def write_shards(folder: Path, kind: str, values: np.ndarray, dataset: ImageDataset) -> None:
    """Write posteriors into one file per shard, in the order of its rows."""
    shards = np.array([row["shard"] for row in dataset.rows])
    for shard in np.unique(shards):
        np.save(folder / shard_name(kind, int(shard)), values[shards == shard], allow_pickle=False)


def statistics(posteriors: np.ndarray) -> dict[str, float]:
    """Return what latents drawn from posteriors (N, 2, C, h, w) are like.

    Their mean and standard deviation over everything (that of the means and of the posterior noise together), the
    largest excess kurtosis of a channel's means, and the share of channels that carry nothing: whose means vary by
    less than a tenth of their posteriors' noise.
    """
    means, stds = posteriors[:, 0].astype(np.float64), posteriors[:, 1].astype(np.float64)
    per_channel = means.std(axis=(0, 2, 3))
    noise = np.sqrt((stds**2).mean(axis=(0, 2, 3)))
    centred = means - means.mean(axis=(0, 2, 3), keepdims=True)
    kurtosis = (centred**4).mean(axis=(0, 2, 3)) / np.maximum(per_channel**4, 1e-30) - 3
    return {
        "latent_mean": float(means.mean()),
        "latent_std": float(np.sqrt(means.var() + (stds**2).mean())),
        "latent_kurtosis": float(kurtosis.max()),
        "latent_dead_channels": float((per_channel < 0.1 * noise).mean()),
    }
