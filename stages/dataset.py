"""The data contract of data/images: uint8 NHWC shards, an index, and a reader that yields float in [-1, 1]."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stages.errors import InputError
from stages.storage import read_json, require, sha256_file, sha256_json
from stages.tables import read_rows

VALUE_MAP = "x / 127.5 - 1"
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # unique name of the picture, the order inside a shard
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("label", pa.int32()),  # -1 where there are no classes
        ("class_name", pa.string()),
        ("caption", pa.string()),
        ("group", pa.string()),  # near-duplicates share one; a split never cuts a group
        ("pair_id", pa.string()),  # the same subject in another rendering
        ("role", pa.string()),
        ("split", pa.string()),  # train or holdout
        ("source", pa.string()),  # archive!member
        ("sha256", pa.string()),  # of the source file
        ("licence", pa.string()),
    ]
)


def hash_share(text: str) -> float:
    """Map a text to a number in [0, 1) by sha256, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / (1 << 56)


def split_of(group: str, salt: str, holdout: float) -> str:
    """Return `holdout` for the given share of groups and `train` for the others; other groups never matter."""
    return "holdout" if hash_share(f"split\0{salt}\0{group}") < holdout else "train"


def shard_of(group: str, shards: int) -> int:
    """Return the shard of a group, so that all its pictures share one."""
    return int(hash_share(f"shard\0{group}") * shards)


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Map uint8 pictures of any layout to float32 in [-1, 1] by x / 127.5 - 1."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(pictures: np.ndarray) -> np.ndarray:
    """Map float pictures in [-1, 1] to uint8, rounding to the nearest of 256 levels; values outside are clipped."""
    return np.clip(np.rint((pictures + 1) * 127.5), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class ImageDataset:
    """A reader of data/images, optionally of one split.

    Pictures are found by their position 0 to len - 1 in the order of (shard, row).
    """

    folder: Path
    split: str | None = None

    @cached_property
    def description(self) -> dict[str, Any]:
        """dataset.json: resolution, channels, class names, counts, mean, std, filter, value map."""
        return dict(read_json(require(self.folder, "normalize") / "dataset.json", "run `python -m stages.normalize`"))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The index's rows of this split."""
        rows = read_rows(self.folder / "index.parquet", INDEX_SCHEMA, "normalize")
        return [row for row in rows if self.split in (None, row["split"])]

    @cached_property
    def pixels(self) -> np.ndarray:
        """All pictures of this split, uint8, shape (N, H, W, C); shards are memory-mapped while they are read."""
        size = self.resolution
        pixels = np.empty((len(self.rows), size, size, self.channels), np.uint8)
        filled = 0
        for shard in sorted({row["shard"] for row in self.rows}):
            wanted = [row["row"] for row in self.rows if row["shard"] == shard]
            pixels[filled : filled + len(wanted)] = read_shard(self.folder / shard_name(shard), wanted)
            filled += len(wanted)
        return pixels

    @property
    def resolution(self) -> int:
        """Height and width in pixels."""
        return int(self.description["resolution"])

    @property
    def channels(self) -> int:
        """Colour channels."""
        return int(self.description["channels"])

    @property
    def content_hash(self) -> str:
        """The sha256 over shards, index and description; sheets for people do not count."""
        folder = require(self.folder, "normalize")
        files = ["dataset.json", "index.parquet", *sorted(path.name for path in folder.glob("shard-*.npy"))]
        return sha256_json({name: sha256_file(require(folder / name, "normalize")) for name in files})

    def __len__(self) -> int:
        return len(self.rows)

    def pictures(self, positions: np.ndarray | slice) -> np.ndarray:
        """Return pictures as float32 in [-1, 1], shape (N, C, H, W) with NHWC memory (channels_last for free)."""
        return to_float(self.pixels[positions]).transpose(0, 3, 1, 2)


def read_shard(path: Path, rows: list[int]) -> np.ndarray:
    """Return rows of a shard, uint8 NHWC; the file is memory-mapped, so the others are not read.

    Raises:
        InputError: the shard is absent, torn or shorter than the index says.
    """
    try:
        pixels: np.ndarray = np.load(require(path, "normalize"), mmap_mode="r", allow_pickle=False)[rows]
    except (ValueError, EOFError, IndexError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); run `python -m stages.normalize`") from error
    return pixels


def shard_name(shard: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{shard:04d}.npy"
