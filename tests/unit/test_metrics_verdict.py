"""Verdicts: better, worse or not shown, and how often chance is taken for a difference."""

import numpy as np
import pytest

from stages.errors import InputError
from stages.metrics.verdict import Score, Verdict, compare

RECIPE = {"features": "inception", "count": 1000}


def score(value: float, error: float, **changes: object) -> Score:
    return Score(value, error, RECIPE | changes)


def test_what_lies_outside_the_interval_of_the_difference_is_shown():
    lower = compare(score(10, 1), score(20, 2), lower_is_better=True)
    assert lower.verdict == "better" and lower.difference == -10
    assert (lower.low, lower.high) == pytest.approx((-10 - 1.96 * 5**0.5, -10 + 1.96 * 5**0.5), rel=1e-3)
    assert compare(score(10, 1), score(20, 2), lower_is_better=False).verdict == "worse"
    assert compare(score(20, 2), score(10, 1), lower_is_better=True).verdict == "worse"
    assert compare(score(20, 2), score(10, 1), lower_is_better=False).verdict == "better"


def test_what_lies_inside_is_not():
    assert compare(score(10, 3), score(14, 4), lower_is_better=True).verdict == "not shown"
    assert compare(score(10, 0), score(10, 0), lower_is_better=True) == Verdict("not shown", 0, 0, 0)
    found = compare(score(0.5, 0.1), score(0.4, 0.1), lower_is_better=False).to_json()
    assert found["verdict"] == "not shown" and found["low"] < 0 < found["high"]


def test_one_in_twenty_equal_scores_is_taken_for_different():
    rng = np.random.default_rng(0)
    pairs = rng.normal(0, [1, 3], (4000, 2))
    shown = [compare(score(a, 1), score(b, 3), True).verdict != "not shown" for a, b in pairs]
    assert np.mean(shown) == pytest.approx(0.05, abs=0.012)


def test_unlike_recipes_are_refused_by_name():
    with pytest.raises(InputError, match="count is 1000 and 500") as raised:
        compare(score(1, 1), score(2, 1, count=500), lower_is_better=True)
    assert "features" not in str(raised.value)


@pytest.mark.parametrize(("value", "error"), [(np.nan, 1), (np.inf, 1), (1, np.nan), (1, -0.1), (1, np.inf)])
def test_scores_without_a_number_or_an_error_are_refused(value: float, error: float):
    with pytest.raises(InputError, match="score it again"):
        compare(score(1, 1), score(value, error), lower_is_better=True)
