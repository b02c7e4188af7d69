"""Intervals of scores against many draws, and the smallest difference that can be told apart."""

import numpy as np
import pytest

from stages.errors import InputError
from stages.metrics.frechet import frechet_distance
from stages.metrics.gaussians import Features, Gaussian
from stages.metrics.intervals import (
    frechet_interval,
    jackknife_error,
    normal_interval,
    recomputed_interval,
    smallest_difference,
)
from stages.metrics.resampling import Resampler


def draw(rng: np.random.Generator, count: int, dimension: int, shift: float = 0.0) -> Features:
    return Features(rng.standard_normal((count, dimension)) * np.linspace(0.3, 2, dimension) + shift)


@pytest.mark.parametrize(
    ("count", "reference", "dimension", "reference_too"),
    [
        (40, 60, 100, False),  # fewer pictures than features on both sides
        (60, 300, 100, False),  # on the generated side
        (200, 60, 100, False),  # on the reference's side
        (400, 300, 20, False),
        (60, 60, 64, True),
        (300, 300, 20, True),
    ],
)
def test_nineteen_in_twenty_intervals_hold_the_mean_over_many_draws(
    count: int, reference: int, dimension: int, reference_too: bool
):
    rng = np.random.default_rng(0)
    real, found = draw(rng, reference, dimension), []
    for seed in range(120):
        if reference_too:
            real = draw(rng, reference, dimension)
        generated = draw(rng, count, dimension, 0.3)
        value = frechet_distance(generated, real)
        found.append(
            (value, frechet_interval(value, generated, real, resamples=60, seed=seed, reference_too=reference_too))
        )
    values = np.array([value for value, _ in found])
    mean = values.mean()
    assert np.mean([interval.low < mean < interval.high for _, interval in found]) >= 0.85
    ratio = np.mean([interval.standard_error for _, interval in found]) / values.std(ddof=1)
    assert 0.85 < ratio < 1.45  # the widest are of N near D


def test_the_plain_bootstrap_agrees_well_above_as_many_pictures_as_features_and_is_too_wide_below():
    rng = np.random.default_rng(0)
    for count, dimension, low, high in ((800, 8, 0.8, 1.25), (40, 64, 1.4, 5)):
        generated, real = draw(rng, count, dimension, 0.3), draw(rng, 400, dimension)
        value, resampler = frechet_distance(generated, real), Resampler(generated, real)
        plain = recomputed_interval(value, resampler, 100, 0)
        quick = frechet_interval(value, resampler, real, resamples=400)
        assert low < plain.standard_error / quick.standard_error < high
        assert plain.low < value < plain.high


def test_an_interval_is_seeded_holds_the_value_and_is_plain_json():
    rng = np.random.default_rng(0)
    generated, real = draw(rng, 200, 10, 1), draw(rng, 200, 10)
    value = frechet_distance(generated, real)
    first = frechet_interval(value, generated, real, resamples=200, seed=1)
    assert first == frechet_interval(value, generated, real, resamples=200, seed=1)
    assert first.low != frechet_interval(value, generated, real, resamples=200, seed=2).low
    assert first.low < value < first.high
    assert first.high - first.low == pytest.approx(2 * 1.96 * first.standard_error, rel=0.3)
    assert first.to_json() == {
        "low": first.low,
        "high": first.high,
        "standard_error": first.standard_error,
        "resamples": 200,
    }


def test_without_resamples_the_interval_is_of_the_standard_error_alone():
    rng = np.random.default_rng(0)
    generated, real = draw(rng, 200, 10, 1), draw(rng, 200, 10)
    plain, drawn = (frechet_interval(5.0, generated, real, resamples=count) for count in (0, 500))
    assert plain == normal_interval(5.0, drawn.standard_error)
    assert (plain.low, plain.high) == pytest.approx((drawn.low, drawn.high), abs=0.3 * drawn.standard_error)


def test_more_pictures_narrow_the_interval_by_the_root_of_their_number():
    rng = np.random.default_rng(0)
    real = draw(rng, 300, 10)
    few, many = draw(rng, 200, 10, 1), draw(rng, 3200, 10, 1)
    errors = [frechet_interval(0.0, found, real, resamples=20).standard_error for found in (few, many)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)


def test_a_reference_without_its_pictures_has_no_noise_of_its_own():
    rng = np.random.default_rng(0)
    generated, statistics = draw(rng, 200, 10), Gaussian(np.zeros(10), np.eye(10))
    assert frechet_interval(1.0, generated, statistics, resamples=20).standard_error > 0
    with pytest.raises(InputError, match="file of statistics"):
        frechet_interval(1.0, generated, statistics, resamples=20, reference_too=True)


@pytest.mark.parametrize("resamples", [-1, 1, 19])
def test_too_few_resamples_are_refused(resamples: int):
    rng = np.random.default_rng(0)
    generated, real = draw(rng, 50, 10), draw(rng, 50, 10)
    with pytest.raises(InputError, match="at least 20"):
        frechet_interval(1.0, generated, real, resamples=resamples)
    with pytest.raises(InputError, match="at least 20"):
        recomputed_interval(1.0, Resampler(generated, real), resamples, 0)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).standard_normal(50)
    left_out = (values.sum() - values) / 49
    assert jackknife_error(left_out) == pytest.approx(values.std(ddof=1) / 50**0.5, rel=1e-9)


def test_a_normal_interval_is_cut_to_the_score_s_bounds():
    plain = normal_interval(2.0, 1.0)
    assert (plain.low, plain.high) == pytest.approx((0.04, 3.96), abs=1e-3)
    assert (plain.standard_error, plain.resamples) == (1.0, 0)
    assert normal_interval(0.99, 0.1, (0, 1)).high == 1
    assert normal_interval(0.01, 0.1, (0, 1)).low == 0


def test_the_smallest_difference_is_two_sided_and_larger_where_it_is_to_be_found_reliably():
    assert smallest_difference(1.0, 0.0) == pytest.approx(1.959964, rel=1e-6)
    assert smallest_difference(3.0, 4.0) == pytest.approx(5 * 1.959964, rel=1e-6)
    assert smallest_difference(1.0) == smallest_difference(1.0, 1.0)
    assert smallest_difference(1.0, 0.0, power=0.8) == pytest.approx(1.959964 + 0.841621, rel=1e-6)
    assert smallest_difference(1.0, power=0.5) == pytest.approx(smallest_difference(1.0))


def test_true_differences_of_that_size_are_shown_as_often_as_the_power_says():
    rng, true = np.random.default_rng(0), smallest_difference(1.0, 2.0, power=0.8)
    found = rng.normal(true, 1, 4000) - rng.normal(0, 2, 4000)
    assert np.mean(np.abs(found) > smallest_difference(1.0, 2.0)) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("errors", "power"), [((-1, 1), None), ((np.nan, 1), None), ((1, np.inf), None)])
def test_impossible_errors_are_refused(errors: tuple[float, float], power: float | None):
    with pytest.raises(InputError, match="standard errors are"):
        smallest_difference(*errors, power=power)


@pytest.mark.parametrize("power", [0, 1, -0.2, 80])
def test_impossible_power_is_refused(power: float):
    with pytest.raises(InputError, match="share between 0 and 1"):
        smallest_difference(1.0, power=power)
