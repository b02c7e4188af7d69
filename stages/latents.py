"""The data contract of data/latents/NAME: posteriors of an autoencoder per picture, and the autoencoder itself."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.dataset import INDEX_SCHEMA, ImageDataset
from stages.errors import InputError
from stages.storage import read_json, require, sha256_file, sha256_json
from stages.tables import read_rows

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

FORMAT = "latents.json"
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
KINDS = ("posteriors", "mirrored")  # of the pictures, and of the same pictures mirrored where the policy allows it


def shard_name(kind: str, shard: int) -> str:
    """Return the file name of a shard: float32 (N, 2, C, h, w), mean and standard deviation of each posterior."""
    return f"{kind}-{shard:04d}.npy"


@dataclass(frozen=True)
class LatentDataset:
    """A reader of data/latents/NAME, optionally of one split; rows are in the order of data/images.

    Raises:
        InputError: a file is absent or torn, or the autoencoder beside the latents is not the one that made them.
    """

    folder: Path
    split: str | None = None

    @property
    def stage(self) -> str:
        """The stage that writes these latents."""
        return f"autoencoder {self.folder.name}"

    @cached_property
    def description(self) -> dict[str, Any]:
        """latents.json: shapes, scaling factor, hashes of autoencoder and pictures, the autoencoder's figures."""
        found = dict(read_json(require(self.folder, self.stage) / FORMAT, f"run `python -m stages.{self.stage}`"))
        if sha256_file(require(self.folder / WEIGHTS, self.stage)) != found["autoencoder_sha256"]:
            raise InputError(
                f"{self.folder} holds latents of autoencoder {found['autoencoder_sha256'][:12]}, but {WEIGHTS} in it "
                f"is another one; run `python -m stages.{self.stage}`"
            )
        return found

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The index's rows of this split."""
        rows = read_rows(self.folder / "index.parquet", INDEX_SCHEMA, self.stage)
        return [row for row in rows if self.split in (None, row["split"])]

    def posteriors(self, kind: str = "posteriors") -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations of this split, float32 (N, C, h, w) each."""
        shape = tuple(self.description["latent_shape"])
        found = np.empty((len(self.rows), 2, *shape), np.float32)
        filled = 0
        for shard in sorted({row["shard"] for row in self.rows}):
            wanted = [row["row"] for row in self.rows if row["shard"] == shard]
            found[filled : filled + len(wanted)] = self._shard(kind, shard, wanted, shape)
            filled += len(wanted)
        return found[:, 0], found[:, 1]

    def _shard(self, kind: str, shard: int, wanted: list[int], shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / shard_name(kind, shard)
        try:
            values: np.ndarray = np.load(require(path, self.stage), mmap_mode="r", allow_pickle=False)[wanted]
        except (ValueError, EOFError, IndexError, OSError) as error:
            raise InputError(f"{path} is damaged ({error}); run `python -m stages.{self.stage}`") from error
        if values.shape[1:] != (2, *shape):
            found, expected = tuple(values.shape[1:]), (2, *shape)
            raise InputError(
                f"{path} holds rows of shape {found}, expected {expected}; run `python -m stages.{self.stage}`"
            )
        return values

    @property
    def scaling_factor(self) -> float:
        """What latents are multiplied by to have unit variance: 1 / std of the train split's latents."""
        return float(self.description["scaling_factor"])

    @property
    def is_mirrored(self) -> bool:
        """Whether mirrored copies are there."""
        return bool(self.description["mirrored"])

    @property
    def content_hash(self) -> str:
        """The sha256 over shards, index, description and autoencoder."""
        folder = require(self.folder, self.stage)
        shards = sorted(path.name for kind in KINDS for path in folder.glob(f"{kind}-*.npy"))
        files = [FORMAT, "index.parquet", WEIGHTS, *shards]
        return sha256_json({name: sha256_file(require(folder / name, self.stage)) for name in files})

    def check_same_pictures(self, images: Path) -> None:
        """Refuse latents of other pictures than data/images holds now.

        Raises:
            InputError: both hashes.
        """
        now, then = ImageDataset(images).content_hash, self.description["dataset"]
        if now != then:
            raise InputError(
                f"{self.folder} holds latents of pictures {then[:12]}, but {images} has {now[:12]}; "
                f"run `python -m stages.{self.stage}`"
            )

    def open_autoencoder(self) -> "AutoencoderKL":
        """Return the autoencoder of these latents, whose config holds their scaling factor."""
        from diffusers.models import AutoencoderKL

        opened: AutoencoderKL = AutoencoderKL.from_pretrained(self.folder / "vae", local_files_only=True)
        assert self.description
        return opened.eval().requires_grad_(False)
