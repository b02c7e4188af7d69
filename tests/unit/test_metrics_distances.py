"""All scores together: their names, intervals and warnings."""

import json

import numpy as np
import pytest

from stages.errors import InputError
from stages.metrics.distances import LOWER_IS_BETTER, Features, Options, compare, compare_in_full, warnings
from stages.metrics.frechet import frechet_distance
from stages.metrics.verdict import Score
from stages.metrics.verdict import compare as judge

COUNT, DIMENSION = 300, 12
OPTIONS = Options(kid_subset=100, kid_subsets=20, neighbours=5, seed=3, resamples=100)


def normal(seed: int, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def test_compare_names_all_scores():
    found = compare(Features(normal(0)), Features(normal(1)), OPTIONS)
    manifold_scores = ["precision", "density", "recall", "coverage"]
    assert list(found) == ["fd", "fd_inf", "kid", "kid_std", "kid_se", *manifold_scores]
    assert all(np.isfinite(value) for value in found.values())
    assert all(type(value) is float for value in found.values())
    with_logits = compare(Features(normal(0)), Features(normal(1)), OPTIONS, logits=normal(2))
    assert list(with_logits)[-2:] == ["isc", "isc_std"]
    assert {name: value for name, value in with_logits.items() if name in found} == found


def test_the_same_pictures_give_the_same_bytes_again():
    found = [compare_in_full(Features(normal(0)), Features(normal(1)), OPTIONS, normal(2)) for _ in range(2)]
    texts = [json.dumps([one.scores, {k: i.to_json() for k, i in one.intervals.items()}]) for one in found]
    assert texts[0] == texts[1]
    json.loads(texts[0], parse_constant=pytest.fail)  # no NaN, no infinity


def test_intervals_hold_their_values_and_every_score_has_a_direction():
    found = compare_in_full(Features(normal(0)), Features(normal(1) + 0.3), OPTIONS, normal(2))
    assert set(found.intervals) == {"fd", "kid", "precision", "recall", "density", "coverage", "isc"}
    for name, interval in found.intervals.items():
        assert interval.low <= found.scores[name] <= interval.high
        assert interval.standard_error > 0
        assert name in LOWER_IS_BETTER
    assert found.manifold.covered.mean() == found.scores["coverage"]


def test_a_far_set_is_told_from_a_near_one_and_equals_are_not():
    real = Features(normal(9))

    def scored(seed: int, shift: float) -> dict[str, Score]:
        found = compare_in_full(Features(normal(seed) + shift), real, OPTIONS)
        return {name: Score(found.scores[name], i.standard_error, {}) for name, i in found.intervals.items()}

    near, far, other = scored(0, 0), scored(1, 1), scored(2, 0)
    for name in near:
        assert judge(near[name], far[name], LOWER_IS_BETTER[name]).verdict == "better", name
    shown = [judge(near[name], other[name], LOWER_IS_BETTER[name]).verdict for name in near]
    assert shown.count("not shown") >= len(shown) - 1


def test_small_sets_have_no_interval_that_is_not_a_number():
    small = Options(kid_subset=20, kid_subsets=5, neighbours=3, seed=0, resamples=50)
    found = compare_in_full(Features(normal(0, 40)), Features(normal(1, 30)), small)
    assert set(found.intervals) == {"fd", "kid", "precision", "density"}


def test_fewer_pictures_than_features_are_warned_of():
    found = warnings(1000, 400, 1280, "fd_efficientnet_lite0")
    assert len(found) == 1 and "1000 generated and 400 real pictures" in found[0] and "1280 features" in found[0]
    assert warnings(5000, 1281, 1280, "fd") == []
    assert warnings(5000, 1280, 1280, "fd") != []


def test_sets_too_small_for_the_options_are_refused():
    few = Features(normal(0, 50), "generated")
    with pytest.raises(InputError, match=r"evaluate.kid_subset is 100, but the smallest set has 50"):
        compare(few, Features(normal(1)), OPTIONS)
    with pytest.raises(InputError, match=r"evaluate.neighbours is 60, but generated has 50 pictures"):
        compare(few, Features(normal(1)), Options(10, 5, 60, 0))
    assert frechet_distance(few, Features(normal(1))) > 0
