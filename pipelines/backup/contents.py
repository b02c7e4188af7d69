"""What of a project is backed up, under which names: what neither Git nor another source has."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.retention.states import TRAIN
from pipelines.training import MANIFEST as STATE_MANIFEST
from stages.storage import sha256_file

CACHE, DATABASE = "cache", "mlflow.db"  # where they lie is a setting, so that they have names of their own
ARTIFACTS, RELEASES = Path("mlartifacts"), Path("releases")
PINS = ("params.yaml", "dvc.lock", "data/*.lock.json")

Files = Iterator[tuple[str, Path]]


def pins() -> Files:
    """Yield settings and locks: which data and settings made which result."""
    for pattern in PINS:
        yield from ((path.as_posix(), path) for path in sorted(Path().glob(pattern)))


def folder(root: Path) -> Files:
    """Yield all whole files below a folder of the project."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.name.endswith(".partial"):
            yield path.as_posix(), path


def cache(root: Path) -> Files:
    """Yield the files of DVC's cache and run-cache."""
    for part in ("files", "runs"):
        for path in sorted((root / part).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield f"{CACHE}/{path.relative_to(root).as_posix()}", path


def states() -> Files:
    """Yield the newest undamaged state of every training, with its pictures so far, fingerprint and lineage."""
    for training in sorted(TRAIN.glob("*/*/")):
        newest = next((state for state in sorted(training.glob("state-*"), reverse=True) if is_whole(state)), None)
        if newest is not None:
            beside = [*sorted(training.glob("*.json")), *sorted((training / "samples").glob("*.png"))]
            for path in [*beside, *sorted(newest.iterdir())]:
                yield path.as_posix(), path


def is_whole(state: Path) -> bool:
    """Return whether a state's files are those of its manifest."""
    if not (state / STATE_MANIFEST).exists():
        return False
    try:
        manifest = dict(json.loads((state / STATE_MANIFEST).read_text()))
    except (ValueError, TypeError):  # torn
        return False
    return all((state / name).exists() and sha256_file(state / name) == found for name, found in manifest.items())


def parts(cache_root: Path) -> dict[str, Callable[[], Files]]:
    """Return the project's parts in the order in which they must be copied: what names others comes before them."""
    return {
        "settings and locks": pins,
        "MLflow's artifacts": lambda: folder(ARTIFACTS),
        "DVC's cache": lambda: cache(cache_root),
        "releases": lambda: folder(RELEASES),
        "training states": states,
    }
