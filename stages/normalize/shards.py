"""Writes data/images: shards by hash of group, rows sorted inside, an index and a description."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.catalogue import Picture
from stages.dataset import INDEX_SCHEMA, VALUE_MAP, shard_name, shard_of, split_of
from stages.settings import NormalizeSettings
from stages.storage import write_json


@dataclass(frozen=True)
class Item:
    """One picture of the data set: what is known of it, its file's sha256, its place among the pixels, its group."""

    picture: Picture
    sha256: str
    position: int
    group: str


@dataclass(frozen=True)
class Written:
    """What was written: the index's rows in order, dataset.json, and counts of values per channel, (3, 256)."""

    rows: list[dict[str, Any]]
    description: dict[str, Any]
    histogram: np.ndarray


def write_dataset(
    folder: Path, source: str, items: list[Item], pixels: np.ndarray, classes: list[str], settings: NormalizeSettings
) -> Written:
    """Write shards, index.parquet and dataset.json for items in any order; no more than a picture is held in memory."""
    shards: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        shards[shard_of(item.group, settings.shards)].append(item)
    labels = {name: label for label, name in enumerate(classes)}
    rows: list[dict[str, Any]] = []
    histogram = np.zeros((3, 256), np.int64)
    for shard in sorted(shards):
        members = sorted(shards[shard], key=lambda item: item.picture.key)
        histogram += _write_shard(folder / shard_name(shard), pixels, [item.position for item in members])
        rows += [_index_row(shard, row, item, labels, settings) for row, item in enumerate(members)]
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / "index.parquet")
    description = {"source": source, **_describe(rows, histogram, classes, settings)}
    write_json(folder / "dataset.json", description)
    return Written(rows, description, histogram)


def _write_shard(path: Path, pixels: np.ndarray, positions: list[int]) -> np.ndarray:
    """Write chosen pictures as one .npy file, as np.save does but without a copy; return their histogram."""
    histogram = np.zeros((3, 256), np.int64)
    header = np.lib.format.header_data_from_array_1_0(pixels) | {"shape": (len(positions), *pixels.shape[1:])}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for position in positions:
            stream.write(pixels[position].data)
            histogram += np.reshape(Image.fromarray(pixels[position]).histogram(), (3, 256))
    return histogram


def _index_row(shard: int, row: int, item: Item, labels: dict[str, int], settings: NormalizeSettings) -> dict[str, Any]:
    picture = item.picture
    return {
        "key": picture.key,
        "shard": shard,
        "row": row,
        "label": labels.get(picture.class_name, -1),
        "class_name": picture.class_name,
        "caption": picture.caption,
        "group": item.group,
        "pair_id": picture.pair_id or picture.key,
        "role": "picture",
        "split": split_of(item.group, settings.salt, settings.holdout),
        "source": f"{picture.archive}!{picture.member}",
        "sha256": item.sha256,
        "licence": picture.licence,
    }


def _describe(
    rows: list[dict[str, Any]], histogram: np.ndarray, classes: list[str], settings: NormalizeSettings
) -> dict[str, Any]:
    splits = Counter(row["split"] for row in rows)
    of_class = Counter(row["class_name"] for row in rows)
    mean, deviation = moments(histogram)
    return {
        "resolution": settings.resolution,
        "channels": 3,
        "value_map": VALUE_MAP,
        "filter": settings.filter,
        "background": list(settings.background),
        "class_names": classes,
        "pictures": len(rows),
        "splits": {split: splits[split] for split in ("train", "holdout")},
        "groups": len({row["group"] for row in rows}),
        "classes": {name: of_class[name] for name in classes},
        "licences": dict(sorted(Counter(row["licence"] for row in rows).items())),
        "mean": mean,
        "std": deviation,
    }


def moments(histogram: np.ndarray) -> tuple[list[float], list[float]]:
    """Return per-channel mean and standard deviation of uint8 values from exact counts: any order agrees."""
    values = np.arange(256)
    count = histogram.sum(axis=1)
    mean = (histogram * values).sum(axis=1) / count
    return mean.round(6).tolist(), np.sqrt((histogram * values**2).sum(axis=1) / count - mean**2).round(6).tolist()
