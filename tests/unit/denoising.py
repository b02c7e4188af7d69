"""Small trainings of a denoiser without the stages before it: pictures as in data/images, settings, a learner."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator

from stages.dataset import INDEX_SCHEMA, shard_name
from stages.settings.diffusion import DiffusionSettings
from stages.storage import write_json
from stages.trainer.augmentation import Policy
from stages.trainer.denoising.learner import DenoisingLearner
from stages.trainer.job import Job
from stages.trainer.world import World

PLAIN = Policy("none", (), 0.0, False, 0.6, 4, 500, False)
MIRRORED = replace(PLAIN, mirror=True)
TINY: dict[str, Any] = {
    "family": "diffusion",
    "denoiser": "unet",
    "widths": [8, 16],
    "attention": [False, True],
    "head_width": 8,
    "prediction": "flow",
    "sampler": "flow_euler",
    "steps": 4,
    "lr": 1e-3,
    "beta1": 0.9,
    "beta2": 0.99,
    "batch": 8,
    "accumulation": 1,
    "checkpointing": False,
    "precision": "fp32",
    "threads": 1,
    "seed": 0,
    "budget_kimg": 0.1,
    "ema_half_life_kimg": 0.01,
    "ema_rampup": 0.05,
    "tick_kimg": 0.04,
    "checkpoint_kimg": 0.03,
}
ANCESTRAL: dict[str, Any] = {"prediction": "epsilon", "sampler": "ddim"}  # what the papers before flow matching do


def write_images(
    folder: Path,
    pixels: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    class_names: Sequence[str] = (),
    captions: Sequence[str] | None = None,
) -> Path:
    """Write pictures, uint8 (N, S, S, C), as one shard of data/images, all in the train split; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    empty = dict.fromkeys(INDEX_SCHEMA.names)
    rows = [
        empty
        | {"key": f"{number:05d}", "shard": 0, "row": number, "split": "train", "group": f"{number:05d}"}
        | {"label": -1 if labels is None else int(labels[number]), "caption": captions[number] if captions else None}
        for number in range(len(pixels))
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / "index.parquet")
    np.save(folder / shard_name(0), np.ascontiguousarray(pixels))
    about = {"resolution": pixels.shape[1], "channels": pixels.shape[3], "class_names": list(class_names)}
    write_json(folder / "dataset.json", about)
    return folder


def random_pictures(count: int, size: int = 8, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Return pictures of four flat quarters in random colours, uint8 (N, S, S, C)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, channels), dtype=np.uint8)
    return coarse.repeat(size // 2, axis=1).repeat(size // 2, axis=2)


def settings_of(**changes: Any) -> DiffusionSettings:
    """Return the settings of a tiny flow-matching model, changed."""
    return DiffusionSettings.model_validate(TINY | changes)


def open_job(images: Path, settings: DiffusionSettings, policy: Policy = PLAIN, world: World | None = None) -> Job:
    """Return a job on pictures, in this process alone unless a world is given."""
    alone = world or World(Accelerator(cpu=True, mixed_precision="no"))
    return Job("tiny", "models.tiny", settings, images, images, policy, alone)


def open_tiny(images: Path, world: World | None = None, policy: Policy = PLAIN, **changes: Any) -> DenoisingLearner:
    """Return a fresh learner of a tiny model on pictures."""
    settings = settings_of(**changes)
    return DenoisingLearner(open_job(images, settings, policy, world), settings)


def gradients_of(learner: DenoisingLearner, positions: np.ndarray, seen: int = 0) -> dict[str, torch.Tensor]:
    """Return the gradients that a step of the learner would take, by the names of parameters; weights stay."""
    kept: dict[str, torch.Tensor] = {}

    def keep(*_: Any) -> None:
        kept.update({name: p.grad.clone() for name, p in learner.denoiser.named_parameters() if p.grad is not None})

    before = {name: tensor.clone() for name, tensor in learner.denoiser.state_dict().items()}
    hook = learner.optimizer.register_step_pre_hook(keep)
    learner.step(positions, seen)
    hook.remove()
    learner.denoiser.load_state_dict(before)
    return kept
