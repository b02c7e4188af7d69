"""What normalize found, as numbers: sizes, colours, classes, duplicates, rejects, whether the pictures suffice."""

from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np

from stages.normalize.collect import Collected
from stages.normalize.groups import Grouping, Near, components
from stages.normalize.shards import Written
from stages.storage import sha256_bytes
from stages.sufficiency import PUBLISHED, expectations

BINS = 32  # of a colour histogram
EXAMPLES = 6  # pictures of a class or of a set of duplicates
SETS_SHOWN = 16
CLASSES_SHOWN = 24
REJECTS_SHOWN = 200
IGNORED_SHOWN = 20
Findings = dict[str, Any]


def find_all(
    written: Written, collected: Collected, grouping: Grouping, near: Near, rejects: dict[str, str]
) -> Findings:
    """Return what report.json holds; every list in it is bounded, every count is of all pictures."""
    description, rows = written.description, written.rows
    counts = {name: description[name] for name in ("pictures", "groups", "splits", "resolution", "licences")}
    return {
        **counts,
        "files": len(collected.files),
        "sizes": {
            "width": _sizes([f.width for f in collected.files]),
            "height": _sizes([f.height for f in collected.files]),
        },
        "colour": _colour(written),
        "classes": stratify(rows, description["class_names"]),
        "duplicates": _duplicates(rows, collected, grouping, near),
        "rejects": _first(rejects, REJECTS_SHOWN),
        "ignored": _first({f.picture.key: f.ignored for f in collected.files if f.ignored}, IGNORED_SHOWN),
        "sufficiency": expectations(description["splits"]["train"], description["resolution"]),
        "published": [asdict(row) for row in PUBLISHED],
    }


def _first(reasons: dict[str, str], limit: int) -> dict[str, Any]:
    return {"count": len(reasons), "first": dict(sorted(reasons.items())[:limit])}


def _sizes(lengths: list[int]) -> dict[str, Any]:
    """Count lengths in bins from each power of two to the next."""
    bins = Counter(length.bit_length() - 1 for length in lengths)
    span = range(min(bins), max(bins) + 1)
    counts = [{"from": 1 << power, "below": 2 << power, "count": bins[power]} for power in span]
    return {"smallest": min(lengths), "median": int(np.median(lengths)), "largest": max(lengths), "bins": counts}


def _colour(written: Written) -> dict[str, Any]:
    coarse = written.histogram.reshape(3, BINS, -1).sum(axis=2)
    shares = (coarse / coarse.sum(axis=1, keepdims=True)).round(6)
    mean, deviation = written.description["mean"], written.description["std"]
    return {"mean": mean, "std": deviation, "histogram": dict(zip("rgb", shares.tolist(), strict=True))}


def stratify(rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Return for each class, by label, its pictures per split, groups, and what is wrong; -1: no class."""
    of_label: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        of_label[row["label"]].append(row)
    labels = ([-1] if -1 in of_label else []) + list(range(len(names)))
    return [_class(of_label[label], label, names[label] if label >= 0 else "", len(rows)) for label in labels]


def _class(rows: list[dict[str, Any]], label: int, name: str, total: int) -> dict[str, Any]:
    splits = Counter(row["split"] for row in rows)
    return {
        "name": name,
        "label": label,
        "pictures": len(rows),
        "share": round(len(rows) / total, 6),
        "train": splits["train"],
        "holdout": splits["holdout"],
        "holdout_share": round(splits["holdout"] / len(rows), 6) if rows else 0.0,
        "groups": len({row["group"] for row in rows}),
        "warning": _class_warning(len(rows), splits),
        "examples": _chosen([row["key"] for row in rows]),
    }


def _class_warning(count: int, splits: Counter) -> str:
    if count == 0:
        return "no picture any more; its label stays taken"
    if count == 1:
        return "one picture only"
    missing = [split for split in ("train", "holdout") if not splits[split]]
    return f"no picture in the {missing[0]} split" if missing else ""


def _chosen(keys: list[str]) -> list[str]:
    return sorted(keys, key=lambda key: sha256_bytes(key.encode()))[:EXAMPLES]


def _duplicates(rows: list[dict[str, Any]], collected: Collected, grouping: Grouping, near: Near) -> dict[str, Any]:
    """Tell of files that are alike: how many, which share a group, and which of different groups are only reported."""
    sets = _alike_sets(collected, grouping, near)
    split_of_key = {row["key"]: row["split"] for row in rows}
    described = [_describe_set(files, collected, grouping, split_of_key) for files in sets]
    shown = sorted(described, key=lambda one: (-len(one["groups"]), -one["files"], one["examples"][0]["key"]))
    return {
        "sets": len(described),
        "files": sum(one["files"] for one in described),
        "of_several_groups": sum(len(one["groups"]) > 1 for one in described),
        "of_both_splits": sum(one["both_splits"] for one in described),
        "shown": shown[:SETS_SHOWN],
    }


def _alike_sets(collected: Collected, grouping: Grouping, near: Near) -> list[list[int]]:
    """Return sets of files, by position, of which each is alike to another; not those of one group of the source."""
    edges, count = [], len(collected.files)
    for position, file in enumerate(collected.files):
        if file.picture.key in grouping.names:
            edges += [(position, count + look) for look in file.crops.values()]
    edges += [(count + look, count + other) for look, others in near.items() for other, _ in others]
    of_label: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(components(count + len(collected.hashes), edges)[:count]):
        if collected.files[position].picture.key in grouping.names:
            of_label[label].append(position)
    return [files for files in of_label.values() if len(files) > 1 and not _told_by_source(files, collected)]


def _told_by_source(files: list[int], collected: Collected) -> bool:
    groups = {collected.files[position].picture.group for position in files}
    return len(groups) == 1 and groups != {""}


def _describe_set(files: list[int], collected: Collected, grouping: Grouping, splits: dict[str, str]) -> dict[str, Any]:
    found = [collected.files[position] for position in files]
    looks = {look for file in found for look in file.crops.values()}
    groups = sorted({grouping.names[file.picture.key] for file in found})
    crops = sorted(key for file in found for key in file.crops)
    return {
        "files": len(found),
        "identical": len(looks) == 1,
        "groups": groups[:EXAMPLES],
        "both_splits": len({splits[key] for key in crops}) > 1,
        "examples": [{"key": key, "split": splits[key]} for key in crops[:EXAMPLES]],
    }
