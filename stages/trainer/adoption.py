"""Folders of resumable states by fingerprint, and how a training goes on from a state of other code or settings."""

import shutil
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.storage import read_json, whole_folder, write_json
from stages.trainer.fingerprint import Fingerprint
from stages.trainer.state import StateFolder

PARTS, LINEAGE = "fingerprint.json", "lineage.json"


def prepare_folder(root: Path, fingerprint: Fingerprint) -> Path:
    """Return the folder of a training's states, with the fingerprint's parts inside."""
    folder = root / fingerprint.digest
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PARTS, vars(fingerprint))
    return folder


def read_lineage(folder: Path) -> list[dict[str, Any]]:
    """Return the adoptions that a training has behind it, oldest first."""
    path = folder / LINEAGE
    return list(read_json(path)) if path.exists() else []


def adopt_state(root: Path, fingerprint: Fingerprint, adopted: str, budget: float) -> None:
    """Take another fingerprint's newest state as the start of this training, and record it for good.

    Raises:
        InputError: there is no such state within the budget (kimg), or this training has states of its own.
    """
    source, target = root / adopted, root / fingerprint.digest
    if adopted == fingerprint.digest:
        raise InputError(f"--adopt {adopted}: that is this training's own fingerprint; it resumes without --adopt")
    counts = [seen for seen in StateFolder(source).seen_counts() if not StateFolder(source).problem(seen)]
    if not counts:
        known = sorted(path.name for path in root.iterdir() if StateFolder(path).seen_counts())
        raise InputError(
            f"--adopt {adopted}: no usable state there; fingerprints with states: {', '.join(known) or 'none'}"
        )
    if StateFolder(target).seen_counts():
        raise InputError(
            f"--adopt {adopted}: {fingerprint.digest} has states of its own; delete {target} to start over"
        )
    if counts[-1] > budget * 1000:
        raise InputError(
            f"--adopt {adopted}: its state is at {counts[-1] / 1000:.1f} kimg, beyond budget_kimg {budget:g}"
        )
    changed = fingerprint.differences(read_json(source / PARTS))
    step = {"adopted": adopted, "kimg": counts[-1] / 1000, "changed": changed}
    write_json(target / LINEAGE, [*read_lineage(source), step])  # before the state: none is ever used unrecorded
    if (source / "samples").is_dir():
        shutil.copytree(source / "samples", target / "samples", dirs_exist_ok=True)
    newest = StateFolder(source).path(counts[-1])
    with whole_folder(target / newest.name) as folder:
        shutil.copytree(newest, folder, dirs_exist_ok=True)


def explain_others(root: Path, fingerprint: Fingerprint) -> list[str]:
    """Say which states of other fingerprints exist, what differs, and how to go on from them."""
    lines = []
    for folder in sorted(root.iterdir()):
        counts = StateFolder(folder).seen_counts()
        if folder.name == fingerprint.digest or not counts:
            continue
        changed = ", ".join(fingerprint.differences(read_json(folder / PARTS))) or "nothing"
        lines.append(
            f"a state at {counts[-1] / 1000:.1f} kimg is kept, but not used: {changed} changed; --adopt {folder.name}"
        )
    return lines
