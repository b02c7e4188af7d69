"""Remembers classes and groups of the pictures in data/images, before the source changes: data/groups.lock.json."""

import json
from pathlib import Path

from stages.dataset import INDEX_SCHEMA
from stages.normalize.known import Known, digest_of, read_known
from stages.storage import read_json, write_bytes
from stages.tables import read_rows


def extend_known(images: Path, lock: Path) -> bool:
    """Add the pictures of data/images to the lock and tell whether that changed it; what it holds stays.

    Raises:
        InputError: data/images or the lock is damaged.
    """
    if not (images / "index.parquet").exists():
        return False
    known = read_known(lock)
    rows = read_rows(images / "index.parquet", INDEX_SCHEMA, "normalize")
    groups = {digest_of(row["sha256"]): row["group"] for row in rows} | known.groups
    description = read_json(images / "dataset.json", "run `python -m stages.normalize`")
    extended = Known(known.classes | {description["source"]: description["class_names"]}, groups)
    if extended != known:
        write_bytes(lock, lock_text(extended).encode())
    return extended != known


def lock_text(known: Known) -> str:
    """Return the lock's JSON: groups sorted, one line per entry, so that Git shows what was added."""
    sorted_groups = dict(sorted(known.groups.items()))
    return (
        json.dumps(
            {"classes": dict(sorted(known.classes.items())), "groups": sorted_groups}, indent=2, ensure_ascii=False
        )
        + "\n"
    )
