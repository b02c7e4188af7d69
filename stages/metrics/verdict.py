"""Whether one score is better than another, worse, or whether the set-up cannot tell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.errors import InputError
from stages.metrics.proportions import NORMAL_95
from stages.metrics.recipe import require_alike


@dataclass(frozen=True)
class Score:
    """A value, its standard error in the same unit, and the recipe by which it was measured."""

    value: float
    standard_error: float
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What the first score is against the second; the difference is first less second, with its 95 % interval."""

    verdict: Literal["better", "worse", "not shown"]
    difference: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"verdict": self.verdict, "difference": self.difference, "low": self.low, "high": self.high}


def compare(first: Score, second: Score, lower_is_better: bool) -> Verdict:
    """Say whether the first score is better or worse than the second, or that it is not shown.

    Shown is what lies outside the 95 % interval of the difference of two independent scores. The standard errors are
    of the generated pictures: the reference is the same for both (the recipes say so), and its chance with it.

    Raises:
        InputError: the recipes differ, or a value or standard error is no finite number.
    """
    require_alike(first.recipe, second.recipe, "the two scores")
    for score in (first, second):
        if not (math.isfinite(score.value) and math.isfinite(score.standard_error) and score.standard_error >= 0):
            raise InputError(
                f"a score is {score.value} with standard error {score.standard_error}, expected finite numbers, "
                "the error not below 0; score it again"
            )
    difference = first.value - second.value
    reach = NORMAL_95 * math.hypot(first.standard_error, second.standard_error)
    low, high = difference - reach, difference + reach
    if low <= 0 <= high:
        return Verdict("not shown", difference, low, high)
    return Verdict("better" if (difference < 0) == lower_is_better else "worse", difference, low, high)
