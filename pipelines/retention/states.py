"""Which training states are superseded: those of no present training, no champion and no release."""

import shutil
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.retention.superseded import Finding, Superseded, age, bytes_of, newest_change
from pipelines.sessions import running_sessions
from pipelines.training import LINEAGE, MANIFEST
from stages.errors import InputError
from stages.process import WORK, stage_lock
from stages.storage import read_json

TRAIN = WORK / "train"
MODELS = Path("models")
AUTOENCODER = "autoencoder-"  # before an autoencoder's name, in the folder of its states


def autoencoder_states(name: str) -> str:
    """Return the name under which the states of an autoencoder lie beside those of models."""
    return f"{AUTOENCODER}{name}"


def find_states(selected: Collection[str], protected: Collection[str]) -> Finding:
    """Return the states that no present training needs; `protected` are fingerprints of champions and releases."""
    finding = Finding("training states", [])
    at_work = {session.name for session in running_sessions()}
    for root in sorted(TRAIN.glob("*/")):
        if root.name in at_work:
            finding.notes.append(f"{root.name}: all states stay, since it is being trained now")
            continue
        for folder in sorted(root.glob("*/")):
            reason, stays = judge(folder, root.name in selected, protected)
            if not stays:
                finding.items.append(_superseded(folder, reason))
            elif reason:
                finding.notes.append(f"{root.name} {folder.name} stays: {reason}")
    return finding


def judge(folder: Path, selected: bool, protected: Collection[str]) -> tuple[str, bool]:
    """Return why the states of one fingerprint are superseded or stay, and whether they stay."""
    name, fingerprint = folder.parent.name, folder.name
    if fingerprint in protected:
        return "a champion, another alias or a release is of this training", True
    if not selected:
        return "the model is not selected any more", False
    record = _read_record(name)
    if record.get("fingerprint") == fingerprint:
        return "", True
    if not record:
        return "the model has no finished training yet", True
    if "fingerprint" not in record:
        return "pretrained weights have taken its place", False
    if newest_change(folder) >= datetime.fromisoformat(record["finished"]).timestamp():
        return "newer than the model's finished training", True
    if heir := _heir_without_states(folder, record):
        return f"{heir} goes on from it and has no states of its own yet", True
    return f"superseded by {record['fingerprint']}", False


def _read_record(name: str) -> dict[str, Any]:
    folder = MODELS / "autoencoders" / name.removeprefix(AUTOENCODER) if name.startswith(AUTOENCODER) else MODELS / name
    path = folder / "training" / "record.json"
    return dict(read_json(path, f"run `dvc checkout` or `dvc repro {_stage_of(name)}`")) if path.exists() else {}


def _stage_of(name: str) -> str:
    """Return the stage that trains, and locks, what lies under a name."""
    if name.startswith(AUTOENCODER):
        return f"autoencoder@{name.removeprefix(AUTOENCODER)}"
    return f"train@{name}"


def _heir_without_states(folder: Path, record: dict[str, Any]) -> str | None:
    """Return the training that adopted these states and has nothing else to go on from."""
    for other in folder.parent.glob("*/"):
        if (other / LINEAGE).exists() and not has_states(other) and _adopted(read_json(other / LINEAGE), folder.name):
            return other.name
    heir = str(record["fingerprint"])
    adopted = _adopted(record.get("lineage", []), folder.name)
    return heir if adopted and not has_states(folder.with_name(heir)) else None


def _adopted(lineage: list[dict[str, Any]], fingerprint: str) -> bool:
    return any(step.get("adopted") == fingerprint for step in lineage)


def has_states(folder: Path) -> bool:
    """Return whether a training's folder holds a finished state."""
    return any(folder.glob(f"state-*/{MANIFEST}"))


def pictures_seen(folder: Path) -> int:
    """Return the pictures that the newest state of a training has seen, 0 where it has none."""
    return max((int(path.name.removeprefix("state-")) for path in folder.glob("state-*")), default=0)


def _superseded(folder: Path, reason: str) -> Superseded:
    seen = newest_change(folder)
    kimg = f"{pictures_seen(folder) / 1000:.1f} kimg"

    def drop() -> str | None:
        return drop_states(folder, seen)

    return Superseded(f"{folder.parent.name} {folder.name}", f"{kimg}, {age(seen)}; {reason}", bytes_of(folder), drop)


def drop_states(folder: Path, unchanged_since: float) -> str | None:
    """Remove a training's states, or say why they stay: it is being trained, or was since they were looked at."""
    try:
        with stage_lock(_stage_of(folder.parent.name)):
            if newest_change(folder) > unchanged_since:
                return f"{folder} stays: it was written to meanwhile"
            shutil.rmtree(folder)
    except InputError as error:
        return f"{folder} stays: {error}"
    return None
