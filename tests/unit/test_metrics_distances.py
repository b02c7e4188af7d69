"""Distances against closed forms and against their definitions."""

import numpy as np
import pytest

from stages.metrics.distances import Features, Options, compare, frechet_distance, kernel_distance, precision_recall

COUNT, DIMENSION = 600, 12
OPTIONS = Options(kid_subset=100, kid_subsets=20, neighbours=5, seed=3)


def normal(seed: int, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def whitened(seed: int) -> np.ndarray:
    """Return a sample whose covariance is the identity and whose mean is zero to rounding."""
    centred = normal(seed) - normal(seed).mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.astype(np.float64), rowvar=False))
    return centred @ (vectors / np.sqrt(values)) @ vectors.T


def test_frechet_distance_of_equal_covariances_is_the_squared_distance_of_means():
    first, shift = normal(0), np.linspace(-1, 2, DIMENSION, dtype=np.float32)
    found = frechet_distance(Features(first), Features(first + shift))
    assert found == pytest.approx(float(np.sum(shift.astype(np.float64) ** 2)), rel=1e-5)


def test_frechet_distance_of_diagonal_covariances_has_its_closed_form():
    scales = np.linspace(0.5, 3, DIMENSION)
    found = frechet_distance(Features(whitened(0)), Features(whitened(1) * scales))
    assert found == pytest.approx(float(np.sum((1 - scales) ** 2)), rel=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero_and_it_is_symmetric():
    first, second = Features(normal(0)), Features(normal(1) * 2)
    assert abs(frechet_distance(first, first)) < 1e-9
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)


def test_frechet_distance_survives_fewer_pictures_than_features():
    few = np.random.default_rng(0).standard_normal((40, 100)).astype(np.float32)
    assert abs(frechet_distance(Features(few), Features(few))) < 1e-3
    assert frechet_distance(Features(few), Features(few + 1)) == pytest.approx(100, rel=1e-3)


def test_kernel_distance_is_the_unbiased_estimate_of_its_definition():
    first, second = normal(0, 30).astype(np.float64), normal(1, 30).astype(np.float64) + 0.5
    everything = Options(kid_subset=30, kid_subsets=1, neighbours=5, seed=0)  # the one subset holds all rows
    found, deviation = kernel_distance(Features(first), Features(second), everything)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / DIMENSION + 1) ** 3)

    within = sum(kernel(a[i], a[j]) for a in (first, second) for i in range(30) for j in range(30) if i != j)
    between = sum(kernel(x, y) for x in first for y in second)
    assert found == pytest.approx(within / (30 * 29) - 2 * between / 30**2, rel=1e-9)
    assert deviation == 0


def test_kernel_distance_of_one_distribution_is_zero_within_its_deviation_and_seeded():
    first, second = Features(normal(0)), Features(normal(1))
    found, deviation = kernel_distance(first, second, OPTIONS)
    assert abs(found) < 3 * deviation
    assert kernel_distance(first, second, OPTIONS) == (found, deviation)
    assert kernel_distance(first, Features(normal(1) + 1), OPTIONS)[0] > 0.5


def test_precision_and_recall_of_equal_apart_and_narrow_sets():
    real, narrow = normal(0), normal(1) * 0.3
    assert precision_recall(Features(real), Features(real), 5) == (1, 1)
    assert precision_recall(Features(real + 50), Features(real), 5) == (0, 0)
    precision, recall = precision_recall(Features(narrow), Features(real), 5)
    assert precision > 0.95 and recall < 0.2  # generated pictures are real ones, but only a few kinds of them


def test_compare_names_all_scores():
    found = compare(Features(normal(0)), Features(normal(1)), OPTIONS)
    assert list(found) == ["fd", "kid", "kid_std", "precision", "recall"]
    assert all(np.isfinite(value) for value in found.values())
