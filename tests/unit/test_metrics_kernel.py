"""KID against its definition and torch-fidelity, and its standard error against many draws."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from stages.errors import InputError
from stages.metrics import kernel
from stages.metrics.gaussians import Features
from stages.metrics.kernel import kernel_distance, picture_error

DIMENSION = 12


def normal(seed: int, count: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION))


def unbiased_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """Return the unbiased MMD^2 of all pictures, pair by pair."""

    def value(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / DIMENSION + 1) ** 3)

    n, m = len(first), len(second)
    inner = sum(value(first[i], first[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    outer = sum(value(second[i], second[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return inner + outer - 2 * sum(value(x, y) for x in first for y in second) / (n * m)


def test_one_subset_of_all_pictures_is_the_unbiased_estimate_of_the_definition():
    first, second = normal(0, 30), normal(1, 30) + 0.5
    found = kernel_distance(Features(first), Features(second), subset=30, subsets=1, seed=0)
    assert found.mean == pytest.approx(unbiased_mmd(first, second), rel=1e-9)
    assert found.std == 0


def test_it_is_torch_fidelity_s_for_the_same_seed():
    first, second = normal(0).astype(np.float32), (normal(1, 250) * 1.2).astype(np.float32)
    found = kernel_distance(Features(first), Features(second), subset=100, subsets=20, seed=7)
    tensors = (torch.from_numpy(features) for features in (first, second))
    other = kid_features_to_metric(*tensors, kid_subsets=20, kid_subset_size=100, rng_seed=7, verbose=False)
    assert found.mean == pytest.approx(other[KEY_METRIC_KID_MEAN], rel=1e-4)  # its sums are in float32
    assert found.std == pytest.approx(other[KEY_METRIC_KID_STD], rel=1e-4)


def test_equal_distributions_are_at_zero_within_the_error_and_shifted_ones_are_not():
    found = kernel_distance(Features(normal(0)), Features(normal(1)), subset=100, subsets=20, seed=3)
    assert abs(found.mean) < 3 * found.standard_error
    shifted = kernel_distance(Features(normal(0)), Features(normal(1) + 1), subset=100, subsets=20, seed=3)
    assert shifted.mean > 10 * shifted.standard_error > 0


def test_the_jackknife_is_that_of_the_estimate_with_each_picture_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "TILE", 7)  # several parts, the last one smaller
    first, second = normal(0, 20), normal(1, 17) + 0.4
    values = np.array([unbiased_mmd(np.delete(first, i, axis=0), second) for i in range(20)])
    expected = np.sqrt(19 / 20 * np.sum((values - values.mean()) ** 2))
    assert picture_error(Features(first), Features(second)) == pytest.approx(expected, rel=1e-9)
    others = np.array([unbiased_mmd(first, np.delete(second, i, axis=0)) for i in range(17)])
    both = np.hypot(expected, np.sqrt(16 / 17 * np.sum((others - others.mean()) ** 2)))
    assert picture_error(Features(first), Features(second), reference_too=True) == pytest.approx(both, rel=1e-9)


@pytest.mark.parametrize(("shift", "reference_too"), [(0.0, False), (0.3, False), (0.3, True)])
def test_nineteen_in_twenty_intervals_hold_the_mean_over_many_draws(shift: float, reference_too: bool):
    rng, found = np.random.default_rng(1), []
    real = Features(rng.standard_normal((120, DIMENSION)))
    for seed in range(150):
        if reference_too:
            real = Features(rng.standard_normal((120, DIMENSION)))
        generated = Features(rng.standard_normal((100, DIMENSION)) + shift)
        found.append(kernel_distance(generated, real, subset=50, subsets=20, seed=seed, reference_too=reference_too))
    means, errors = np.array([[one.mean, one.standard_error] for one in found]).T
    share = np.mean(np.abs(means - means.mean()) < 1.96 * errors)
    assert 0.85 <= share <= 0.99
    naive = np.array([one.std for one in found]) / 20**0.5
    assert np.mean(np.abs(means - means.mean()) < 1.96 * naive) < 0.8  # what the subsets alone would claim


@pytest.mark.parametrize("subset", [-1, 0, 1, 31, 1000])
def test_subsets_larger_than_a_set_are_refused(subset: int):
    with pytest.raises(InputError, match=rf"evaluate.kid_subset is {subset}, but the smallest set has 30 pictures"):
        kernel_distance(Features(normal(0, 30)), Features(normal(1)), subset=subset, subsets=5, seed=0)


def test_no_subsets_two_pictures_and_unlike_networks_are_refused():
    with pytest.raises(InputError, match=r"evaluate.kid_subsets is 0"):
        kernel_distance(Features(normal(0)), Features(normal(1)), subset=10, subsets=0, seed=0)
    with pytest.raises(InputError, match="2 pictures; KID's standard error needs at least 3"):
        kernel_distance(Features(normal(0, 2)), Features(normal(1)), subset=2, subsets=1, seed=0)
    with pytest.raises(InputError, match="same feature network"):
        kernel_distance(Features(normal(0)), Features(normal(1)[:, :5].copy()), subset=10, subsets=1, seed=0)
