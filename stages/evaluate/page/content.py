"""What a report is made of: plain numbers and pictures, any part of which may be absent."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Pair = tuple[np.ndarray, np.ndarray, float, str]
Report = dict[str, Any]

NOT_MEASURED = "It was not measured."


@dataclass(frozen=True)
class ModelReport:
    """One model's evaluation as the pages show it.

    `report` is what scores.json holds. `samples` are uint8 (N, H, W, C) of the seeds from `first_seed` on; `pairs` are
    (generated uint8 (H, W, C), nearest training picture uint8 (H, W, C), distance, its key), the closest first;
    `strips` are uint8 (rows, steps, H, W, C), `sheets` other ways to sample by name, uint8 (rows, columns, H, W, C),
    `mixing` is of that form, too, and `walk` an MP4 of square frames;
    `benchmark` is benchmark.json and `record` is the training's record.json. Pictures have 1 or 3 channels.
    An array without pictures, an empty list and None say that a part is absent.
    """

    name: str
    report: Report
    samples: np.ndarray
    pairs: list[Pair] = field(default_factory=list)
    strips: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0, 3), np.uint8))
    benchmark: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    first_seed: int = 0
    sheets: dict[str, np.ndarray] = field(default_factory=dict)
    mixing: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0, 3), np.uint8))
    walk: bytes = b""

    def part(self, name: str) -> dict[str, Any]:
        """Return a part of the report by name, an empty dictionary where there is none."""
        found = self.report.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """Return by feature network the recipes of the scores that carry one."""
        return {name: recipe for name, recipe in self.part("recipes").items() if isinstance(recipe, dict)}

    def absent(self, name: str) -> str | None:
        """Return in one line why a part of the report is not there, None where it is."""
        found = self.part(name)
        if not found:
            return NOT_MEASURED
        return str(found["absent"]) if "absent" in found else None
