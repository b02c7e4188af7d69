"""Writes data/images: shards by hash of group, rows sorted inside, an index and a description."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.catalogue import Picture
from stages.dataset import INDEX_SCHEMA, VALUE_MAP, shard_name, shard_of, split_of
from stages.settings import NormalizeSettings
from stages.storage import sha256_bytes, write_json


@dataclass(frozen=True)
class Normalized:
    """One picture as models see it, uint8 HWC, with the sha256 of the file that it came from."""

    pixels: np.ndarray
    sha256: str


def write_dataset(folder: Path, items: list[tuple[Picture, Normalized]], settings: NormalizeSettings) -> dict[str, Any]:
    """Write shards, index.parquet and dataset.json for pictures in any order; return the description.

    A picture without a group is its own, named by its pixels, so that identical pictures never straddle the splits.
    """
    classes = sorted({picture.class_name for picture, _ in items if picture.class_name})
    shards: dict[int, list[tuple[Picture, Normalized, str]]] = defaultdict(list)
    for picture, found in items:
        group = picture.group or sha256_bytes(found.pixels.tobytes())
        shards[shard_of(group, settings.shards)].append((picture, found, group))
    rows: list[dict[str, Any]] = []
    for shard in sorted(shards):
        members = sorted(shards[shard], key=lambda member: member[0].key)
        np.save(folder / shard_name(shard), np.stack([found.pixels for _, found, _ in members]))
        rows += [_index_row(shard, row, *member, classes, settings) for row, member in enumerate(members)]
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / "index.parquet")
    description = _describe(rows, items, classes, settings)
    write_json(folder / "dataset.json", description)
    return description


def _index_row(
    shard: int,
    row: int,
    picture: Picture,
    found: Normalized,
    group: str,
    classes: list[str],
    settings: NormalizeSettings,
) -> dict[str, Any]:
    return {
        "key": picture.key,
        "shard": shard,
        "row": row,
        "label": classes.index(picture.class_name) if picture.class_name else -1,
        "class_name": picture.class_name,
        "caption": picture.caption,
        "group": group,
        "pair_id": picture.pair_id or picture.key,
        "role": "picture",
        "split": split_of(group, settings.salt, settings.holdout),
        "source": f"{picture.archive}!{picture.member}",
        "sha256": found.sha256,
        "licence": picture.licence,
    }


def _describe(
    rows: list[dict[str, Any]],
    items: list[tuple[Picture, Normalized]],
    classes: list[str],
    settings: NormalizeSettings,
) -> dict[str, Any]:
    splits = [row["split"] for row in rows]
    mean, deviation = _moments([found.pixels for _, found in items])
    return {
        "resolution": settings.resolution,
        "channels": 3,
        "value_map": VALUE_MAP,
        "filter": settings.filter,
        "background": list(settings.background),
        "class_names": classes,
        "pictures": len(rows),
        "splits": {split: splits.count(split) for split in ("train", "holdout")},
        "groups": len({row["group"] for row in rows}),
        "classes": {name: sum(row["class_name"] == name for row in rows) for name in classes},
        "licences": {name: sum(r["licence"] == name for r in rows) for name in sorted({r["licence"] for r in rows})},
        "mean": mean,
        "std": deviation,
    }


def _moments(pictures: list[np.ndarray]) -> tuple[list[float], list[float]]:
    """Return per-channel mean and standard deviation of uint8 values, from exact integer sums: any order agrees."""
    total = np.zeros(3, np.int64)
    squares = np.zeros(3, np.int64)
    count = 0
    for pixels in pictures:
        flat = pixels.reshape(-1, 3).astype(np.int64)
        total += flat.sum(axis=0)
        squares += (flat**2).sum(axis=0)
        count += len(flat)
    mean = total / count
    return mean.round(6).tolist(), np.sqrt(squares / count - mean**2).round(6).tolist()
