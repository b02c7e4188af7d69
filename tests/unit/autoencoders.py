"""Small trainings of an autoencoder without the stages before it, and the gradients that a step takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from stages.dataset import INDEX_SCHEMA, shard_name
from stages.settings.autoencoders import AutoencoderSettings, VaeSettings
from stages.storage import write_json
from stages.trainer.augmentation import Policy
from stages.trainer.job import Job
from stages.trainer.reconstruction.autoencoding import Autoencoding
from stages.trainer.reconstruction.learner import AutoencoderLearner, open_learner
from stages.trainer.world import World, open_accelerator
from tests.unit.denoising import PLAIN

TINY: dict[str, Any] = {
    "factor": 2,
    "widths": [8, 16],
    "lr": 0.002,
    "warmup_kimg": 0,
    "perceptual": 0,
    "kl": 1e-6,
    "batch": 8,
    "budget_kimg": 0.2,
    "ema_half_life_kimg": 0.01,
    "tick_kimg": 0.04,
    "checkpoint_kimg": 0.03,
    "threads": 1,
}
ADVERSARY: dict[str, Any] = {"weight": 0.5, "width": 8, "layers": 1}
VAE: dict[str, Any] = {
    "family": "vae",
    "latent_channels": 4,
    "kl": 1.0,
    "noise": 0.1,
    "beta1": 0.9,
    "beta2": 0.99,
    "seed": 0,
    "accumulation": 1,
    "checkpointing": False,
    "ema_rampup": 0.05,
}


def open_tiny(images: Path, world: World | None = None, policy: Policy = PLAIN, **changes: Any) -> AutoencoderLearner:
    """Return a fresh learner of a tiny autoencoder, or of a `family: vae`, on pictures as data/images holds them."""
    kind = VaeSettings if changes.get("family") == "vae" else AutoencoderSettings
    settings = kind.model_validate(TINY | changes)
    alone = world or World(open_accelerator(settings.precision))
    return open_learner(Job("tiny", "autoencoders.tiny", settings, images, images, policy, alone))


def gradients_of(learner: AutoencoderLearner, positions: np.ndarray, seen: int = 0) -> dict[str, dict[str, Tensor]]:
    """Take a step; return by the name of the network that is updated what gradients all networks hold just then."""
    autoencoding, kept = learner.autoencoding, {}
    for name, optimizer in autoencoding.optimizers.items():

        def keep(*_: Any, name: str = name) -> None:
            kept[name] = gradients_now(autoencoding)

        optimizer.register_step_pre_hook(keep)
    learner.step(positions, seen)
    return kept


def gradients_now(autoencoding: Autoencoding) -> dict[str, Tensor]:
    """Return the gradients that all networks hold, by NETWORK.PARAMETER."""
    networks: dict[str, nn.Module] = {**autoencoding.networks, "average": autoencoding.average}
    return {
        f"{name}.{key}": parameter.grad.clone(memory_format=torch.contiguous_format)
        for name, network in networks.items()
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def write_images(folder: Path, pixels: np.ndarray, splits: list[str], shards: int = 2) -> Path:
    """Write pictures, uint8 (N, S, S, C), as data/images: dealt to shards in turn, in the splits given for each."""
    folder.mkdir(parents=True, exist_ok=True)
    empty = dict.fromkeys(INDEX_SCHEMA.names)
    rows = []
    for shard in range(shards):
        numbers = range(shard, len(pixels), shards)
        np.save(folder / shard_name(shard), np.ascontiguousarray(pixels[list(numbers)]))
        rows += [
            empty | {"key": f"{number:05d}", "shard": shard, "row": row, "split": splits[number], "label": -1}
            for row, number in enumerate(numbers)
        ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / "index.parquet")
    about = {"resolution": pixels.shape[1], "channels": pixels.shape[3], "class_names": []}
    write_json(folder / "dataset.json", about)
    return folder
