"""Resumable states on disk: written whole, verified when read, the two newest kept."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.storage import read_json, sha256_file, whole_folder, write_json

KEPT = 2
TENSORS, VALUES, MANIFEST = "tensors.safetensors", "values.json", "manifest.json"


@dataclass
class TrainingState:
    """All that a training needs to go on: tensors by name, and plain values."""

    seen: int  # pictures
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class StateFolder:
    """The states of one training, a folder each, named by the pictures seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, seen: int) -> Path:
        """Return the folder of the state at a number of pictures."""
        return self.folder / f"state-{seen:012d}"

    def save(self, state: TrainingState) -> None:
        """Write a state (files, then the manifest with their sha256, then the folder's name) and drop old ones.

        One that is there undamaged is the same, and stays.
        """
        if self.path(state.seen).exists() and not self.problem(state.seen):
            return
        with whole_folder(self.path(state.seen)) as partial:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
            save_file(tensors, partial / TENSORS)
            write_json(partial / VALUES, {"seen": state.seen, **state.values})
            write_json(partial / MANIFEST, {name: sha256_file(partial / name) for name in (TENSORS, VALUES)})
        self._drop_old(state.seen)

    def load_newest(self, at_most: int) -> TrainingState | None:
        """Return the newest undamaged state with no more pictures than `at_most`, or None.

        A torn or altered state is named on the terminal and the one before it is used.
        """
        for seen in sorted(self.seen_counts(), reverse=True):
            if seen <= at_most:
                problem = self.problem(seen)
                if not problem:
                    return self._load(seen)
                print(f"{self.path(seen)} is damaged ({problem}) and not used", flush=True)
        return None

    def seen_counts(self) -> list[int]:
        """Return the pictures seen of every state that is there, oldest first."""
        return sorted(int(path.name.removeprefix("state-")) for path in self.folder.glob("state-*"))

    def problem(self, seen: int) -> str:
        """Return why a state cannot be used, or an empty text."""
        folder = self.path(seen)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            changed = [name for name, expected in manifest.items() if sha256_file(folder / name) != expected]
        except (OSError, ValueError, AttributeError) as error:
            return f"{type(error).__name__}"
        if set(manifest) != {TENSORS, VALUES}:
            return "manifest is incomplete"
        return f"{', '.join(changed)} altered" if changed else ""

    def _load(self, seen: int) -> TrainingState:
        folder = self.path(seen)
        return TrainingState(seen, load_file(folder / TENSORS), read_json(folder / VALUES))

    def _drop_old(self, newest: int) -> None:
        """Keep the two newest up to here; later ones belong to a larger budget and are still right."""
        for seen in [count for count in self.seen_counts() if count <= newest][:-KEPT]:
            shutil.rmtree(self.path(seen), ignore_errors=True)


def flatten_optimizer(name: str, state: dict[str, Any]) -> dict[str, Tensor]:
    """Return an optimizer's per-parameter tensors by flat names; its groups come from the settings."""
    return {f"{name}/{number}/{key}": value for number, entry in state["state"].items() for key, value in entry.items()}


def unflatten_optimizer(name: str, tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what `Optimizer.load_state_dict` takes, from flat names and the optimizer's own groups."""
    state: dict[int, dict[str, Tensor]] = {}
    for flat, tensor in tensors.items():
        if flat.startswith(f"{name}/"):
            _, number, key = flat.split("/")
            state.setdefault(int(number), {})[key] = tensor
    return {"state": state, "param_groups": groups}
