"""What is known of one training, running or finished: the part that a live run and a published one share."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.errors import StageError
from stages.settings import load_settings
from stages.storage import sha256_file
from stages.trainer.fingerprint import WITHOUT_EFFECT, effective_settings

MAX_GRIDS = 10
# The names that stages.trainer.state and stages.train.adoption write; those modules load torch.
VALUES, MANIFEST, PARTS, LINEAGE = "values.json", "manifest.json", "fingerprint.json", "lineage.json"


@dataclass(frozen=True)
class Training:
    """One training: what decides it, its curve as far as it is final, and its chosen grids by kimg.

    `moments` tell when each row of the curve was made, and `started` when the first session began (seconds since 1970).
    """

    name: str
    fingerprint: str
    settings: dict[str, Any]
    policy: dict[str, Any]
    dataset: str | None
    kimg: float
    started: float
    curve: list[dict[str, Any]] = field(default_factory=list)
    moments: dict[float, float] = field(default_factory=dict)
    grids: dict[float, Path] = field(default_factory=dict)
    pace: list[dict[str, Any]] = field(default_factory=list)  # at the same kimg: what training cost
    lineage: list[Any] = field(default_factory=list)

    @property
    def step_unit(self) -> str:
        """What MLflow's integer steps count: `kimg`, or `pictures` where the curve has more than one point per kimg."""
        return "kimg" if self.settings.get("tick_kimg", 1.0) >= 1.0 else "pictures"

    def step_at(self, kimg: float) -> int:
        """Return the step of a moment in the training."""
        return math.floor(kimg * (1 if self.step_unit == "kimg" else 1000) + 0.5)


def read_training(name: str, folder: Path) -> Training:
    """Read a training from the folder of its states, up to the newest whole one.

    Later rows and grids are left out: a training that goes on from that state makes them again, on a GPU differently.
    """
    parts = json.loads((folder / PARTS).read_text())
    values = newest_values(folder)
    curve = values.get("progress", {}).get("curve", [])
    kimg = values.get("seen", 0) / 1000
    settings = parts["settings"] | growing_settings(name, parts["settings"])
    grids = grid_files(folder / "samples")
    wanted = chosen(planned_grids(settings))[:-1]  # the last is drawn anew at the end, and published
    return Training(
        name,
        folder.name,
        settings,
        parts["policy"],
        parts["dataset"],
        kimg,
        _earliest(folder, grids.values()),
        curve,
        {row["kimg"]: _modified(grids.get(row["kimg"], folder / PARTS)) for row in curve},
        {at: grids[at] for at in wanted if at in grids and at <= kimg},
        values.get("progress", {}).get("pace", []),
        json.loads((folder / LINEAGE).read_text()) if (folder / LINEAGE).exists() else [],
    )


def newest_values(folder: Path) -> dict[str, Any]:
    """Return the plain values of the newest state that is whole, {} where there is none."""
    for state in sorted(folder.glob("state-*"), reverse=True):
        try:
            manifest = json.loads((state / MANIFEST).read_text())
            if manifest[VALUES] == sha256_file(state / VALUES):
                return dict(json.loads((state / VALUES).read_text()))
        except (OSError, ValueError, LookupError, TypeError):  # torn, or dropped by the training this moment
            continue
    return {}


def growing_settings(name: str, recorded: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a fingerprint leaves out, from params.yaml; {} where that is of another training now."""
    try:
        now = load_settings().model(name).model_dump()
    except (StageError, OSError):
        return {}
    return {key: now[key] for key in WITHOUT_EFFECT} if effective_settings(now) == recorded else {}


def planned_grids(settings: dict[str, Any]) -> list[float]:
    """Return the kimg of the grids that a training will have published at its end; [] where its budget is not known."""
    if "budget_kimg" not in settings:
        return []
    budget, tick = settings["budget_kimg"], settings["tick_kimg"]
    ticks = [round(number * tick, 3) for number in range(1, math.ceil(budget / tick) + 1)]
    return [kimg for kimg in ticks if kimg < budget] + [float(budget)]


def grid_files(folder: Path) -> dict[float, Path]:
    """Return a folder's sample grids by kimg."""
    files = sorted(folder.glob("*.png"))
    return {float(found[1]): path for path in files if (found := re.search(r"(\d+(?:\.\d+)?)", path.stem))}


def chosen(kimgs: Iterable[float]) -> list[float]:
    """Return at most ten of the grids' kimg, evenly apart and always the last: MLflow's page is slow with more."""
    steps = sorted(kimgs)
    stride = 1
    while len(steps[::-1][::stride]) > MAX_GRIDS:
        stride *= 2  # grids of a longer training are then mostly among those of a shorter one
    return sorted(steps[::-1][::stride])


def chosen_grids(folder: Path) -> dict[float, Path]:
    """Return the grids of a finished training that are shown, by kimg."""
    grids = grid_files(folder)
    return {kimg: grids[kimg] for kimg in chosen(grids)}


def _earliest(folder: Path, grids: Iterable[Path]) -> float:
    """Return when the training began: its parts are written anew with each session, its first grids are not."""
    return min(map(_modified, [folder / PARTS, *grids]))


def _modified(path: Path) -> float:
    return path.stat().st_mtime
