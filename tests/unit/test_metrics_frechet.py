"""The Fréchet distance against closed forms, torch-fidelity and other ways to compute it."""

import functools
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from stages.errors import InputError
from stages.metrics.frechet import EXACT, frechet_distance, nuclear_norm
from stages.metrics.gaussians import ROWS, Features, Gaussian, Moments, root
from stages.metrics.resampling import Resampler, frechet_at_infinity

DIMENSION = 12


def normal(seed: int, count: int = 600, dimension: int = DIMENSION) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension))


def whitened(seed: int) -> np.ndarray:
    """Return a sample whose covariance is the identity and whose mean is zero to rounding."""
    centred = normal(seed) - normal(seed).mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred, rowvar=False))
    found: np.ndarray = centred @ (vectors / np.sqrt(values)) @ vectors.T
    return found


def decaying(seed: int, count: int, dimension: int) -> np.ndarray:
    """Return features whose covariance has eigenvalues over eight orders of magnitude, as those of networks have."""
    mix = np.random.default_rng(99).standard_normal((dimension, dimension)) / dimension**0.5
    found: np.ndarray = normal(seed, count, dimension) * np.geomspace(1, 1e-4, dimension) @ mix
    return found


def by_torch_fidelity(first: np.ndarray, second: np.ndarray) -> float:
    statistics = [fid_features_to_statistics(torch.from_numpy(found)) for found in (first, second)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    """Return the distance by singular values of centred pictures: exact for any number of them."""
    one, other = (found - found.mean(axis=0) for found in (first, second))
    shared = np.linalg.svd(one @ other.T, compute_uv=False).sum() / ((len(one) - 1) * (len(other) - 1)) ** 0.5
    apart = first.mean(axis=0) - second.mean(axis=0)
    traces = sum(found.var(axis=0, ddof=1).sum() for found in (first, second))
    return float(apart @ apart + traces - 2 * shared)


def test_equal_covariances_are_as_far_apart_as_their_means():
    shift = np.linspace(-1, 2, DIMENSION)
    found = frechet_distance(Features(normal(0)), Features(normal(0) + shift))
    assert found == pytest.approx(float(shift @ shift), rel=1e-12)


def test_diagonal_covariances_have_their_closed_form():
    scales = np.linspace(0.5, 3, DIMENSION)
    found = frechet_distance(Features(whitened(0)), Features(whitened(1) * scales))
    assert found == pytest.approx(float(np.sum((1 - scales) ** 2)), rel=1e-9)


def test_statistics_alone_have_the_same_closed_form():
    scales = np.linspace(0.5, 3, DIMENSION)
    first = Gaussian(np.zeros(DIMENSION), np.eye(DIMENSION))
    second = Gaussian(np.ones(DIMENSION), np.diag(scales**2))
    assert frechet_distance(first, second) == pytest.approx(DIMENSION + np.sum((1 - scales) ** 2), rel=1e-12)


@pytest.mark.parametrize(("count", "dimension"), [(600, 12), (40, 100), (12, 12), (13, 12), (600, 550)])
def test_a_set_is_at_no_distance_from_itself_and_the_distance_is_symmetric(count: int, dimension: int):
    first, second = Features(normal(0, count, dimension)), Features(normal(1, count, dimension) * 2)
    assert abs(frechet_distance(first, first)) < 1e-10 * first.trace()
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-12)


@pytest.mark.parametrize("counts", [(30, 40), (30, 500), (500, 500)])
def test_turning_and_shifting_both_sets_changes_nothing(counts: tuple[int, int]):
    first, second = normal(0, counts[0], 64), normal(1, counts[1], 64) * 1.3
    turn = np.linalg.qr(normal(2, 64, 64)).Q
    turned = frechet_distance(Features(first @ turn + 7), Features(second @ turn + 7))
    assert turned == pytest.approx(frechet_distance(Features(first), Features(second)), rel=1e-10)


@pytest.mark.parametrize(("dimension", "spread"), [(64, "flat"), (300, "flat"), (64, "decaying"), (300, "decaying")])
def test_above_as_many_pictures_as_features_it_is_torch_fidelity_s(dimension: int, spread: str):
    draw = normal if spread == "flat" else decaying
    first, second = draw(0, 900, dimension), draw(1, 700, dimension) * 1.2
    found = frechet_distance(Features(first), Features(second))
    assert found == pytest.approx(by_torch_fidelity(first, second), rel=1e-6)
    assert found == pytest.approx(by_definition(first, second), rel=1e-9)


@pytest.mark.parametrize("counts", [(50, 60), (100, 100), (100, 101), (60, 400), (400, 60), (101, 101), (2, 2)])
def test_below_as_many_pictures_as_features_it_keeps_to_the_definition(counts: tuple[int, int]):
    first, second = decaying(0, counts[0], 100), decaying(1, counts[1], 100) * 1.2
    expected = by_definition(first, second)
    assert frechet_distance(Features(first), Features(second)) == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(by_torch_fidelity(first, second), rel=1e-3)


@pytest.mark.parametrize("kind", ["generic", "copies", "graded"])
def test_the_fast_nuclear_norm_of_large_matrices_is_the_sum_of_singular_values(kind: str):
    matrix = torch.from_numpy(decaying(0, EXACT + 90, EXACT + 40))
    if kind == "copies":
        matrix[100:500] = matrix[:1]
    if kind == "graded":
        matrix = matrix * torch.logspace(0, -9, len(matrix), dtype=torch.float64)[:, None]
    expected = float(torch.linalg.svdvals(matrix).sum())
    assert nuclear_norm(matrix) == pytest.approx(expected, rel=1e-10)
    assert nuclear_norm(matrix.T) == pytest.approx(expected, rel=1e-10)


def test_features_that_never_change_or_repeat_are_no_hindrance():
    first, second = normal(0, 300, 20), normal(1, 300, 20) + 1
    plain = frechet_distance(Features(first), Features(second))
    dead = [np.hstack([found, np.zeros((300, 3))]) for found in (first, second)]
    assert frechet_distance(Features(dead[0]), Features(dead[1])) == pytest.approx(plain, rel=1e-9)
    doubled = [np.hstack([found, found]) for found in (first, second)]
    assert frechet_distance(Features(doubled[0]), Features(doubled[1])) == pytest.approx(2 * plain, rel=1e-6)
    copies = Features(np.ones((50, 20)))
    assert frechet_distance(copies, copies) == 0
    assert frechet_distance(copies, Features(first)) == pytest.approx(
        Features(first).trace() + np.sum((1 - first.mean(axis=0)) ** 2), rel=1e-9
    )


def test_float32_features_are_taken_to_float64_before_sums():
    first = (normal(0, 3000, 8) + 1000).astype(np.float32)
    assert Features(first).gaussian.covariance == pytest.approx(
        np.cov(first.astype(np.float64), rowvar=False), rel=1e-9
    )


def test_statistics_summed_in_parts_are_those_of_the_whole():
    whole = normal(0, ROWS + 77) + 5
    first, second = Moments(DIMENSION).add(whole[:10]).add(whole[10:10]), Moments(DIMENSION).add(whole[10:])
    found = first.merge(second).merge(Moments(DIMENSION)).gaussian()
    assert found.count == len(whole)
    assert found.mean == pytest.approx(whole.mean(axis=0), rel=1e-12)
    assert found.covariance == pytest.approx(np.cov(whole, rowvar=False), rel=1e-10, abs=1e-14)
    with pytest.raises(InputError, match="1 pictures have no covariance"):
        Moments(DIMENSION).add(whole[:1]).gaussian()


def test_a_root_of_a_singular_covariance_has_its_rank():
    factor = torch.from_numpy(normal(0, 5, 30))
    found = root(factor.T @ factor)
    assert len(found) == 5
    assert torch.allclose(found.T @ found, factor.T @ factor, rtol=0, atol=1e-10)


def test_a_file_of_statistics_is_read_as_it_was_written_and_as_others_write_it(tmp_path: Path):
    first, second = Features(normal(0)), Features(normal(1) + 1)
    first.gaussian.save(tmp_path / "own.npz")
    np.savez(tmp_path / "other.npz", mu=first.gaussian.mean, sigma=first.gaussian.covariance)
    expected = frechet_distance(first, second)
    own, other = Gaussian.load(tmp_path / "own.npz"), Gaussian.load(tmp_path / "other.npz")
    assert (own.count, other.count) == (600, None)
    assert frechet_distance(own, second) == frechet_distance(other, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no .npz"),
        (b"PK\3\4 torn", "is no .npz"),
        ({"mu": np.zeros(3)}, "is no .npz with mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.zeros((3, 2))}, r"expected \(D,\) and \(D, D\)"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "NaN or infinity"),
        ({"mu": np.array([{}, {}]), "sigma": np.zeros((2, 2))}, "is no .npz"),
        ({"mu": np.array(["a", "b"]), "sigma": np.zeros((2, 2))}, "is no .npz"),
    ],
)
def test_what_is_no_file_of_statistics_is_refused(tmp_path: Path, content: bytes | dict, message: str):
    path = tmp_path / "statistics.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(InputError, match=message) as raised:
        Gaussian.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_covariance_is_refused():
    indefinite = Gaussian(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(InputError, match="not positive semi-definite"):
        frechet_distance(indefinite, Gaussian(np.zeros(2), np.eye(2)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 4)), "generated has 0 pictures"),
        (np.zeros((1, 4)), "generated has 1 pictures"),
        (np.zeros((5, 0)), "0 features"),
        (np.zeros(5), r"expected floats \(N, D\)"),
        (np.zeros((5, 4), int), r"expected floats \(N, D\)"),
        (np.array([[1.0, np.nan], [0, 1], [np.inf, 2]]), "2 of 3 pictures of generated .* NaN or infinity"),
    ],
)
def test_sets_that_have_no_gaussian_are_refused(values: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        Features(values, "generated")


def test_sets_of_different_networks_are_refused():
    with pytest.raises(InputError, match="12 features a picture and the other 13"):
        frechet_distance(Features(normal(0)), Features(normal(0, 600, 13)))


@pytest.mark.parametrize(
    ("count", "dimension", "reference"), [(30, 50, 40), (80, 50, 40), (80, 50, 300), (30, 50, 300)]
)
def test_a_resample_s_distance_is_that_of_the_set_with_its_duplicates(count: int, dimension: int, reference: int):
    generated, real = normal(0, count, dimension) + 0.2, Features(normal(1, reference, dimension))
    resampler = Resampler(Features(generated), real)
    drawn = np.random.default_rng(2).multinomial(count, np.full(count, 1 / count))
    expected = frechet_distance(Features(np.repeat(generated, drawn, axis=0)), real)
    assert resampler.distance(drawn) == pytest.approx(expected, rel=1e-6)
    assert resampler.distance(np.ones(count, int)) == pytest.approx(
        frechet_distance(Features(generated), real), rel=1e-6
    )


@pytest.mark.parametrize(("count", "reference"), [(400, 300), (30, 200)])
def test_influences_are_the_change_of_the_distance_when_a_picture_weighs_more(count: int, reference: int):
    dimension = 40
    generated, real = Features(normal(0, count, dimension) * 1.3), Features(normal(1, reference, dimension))
    resampler = Resampler(generated, real)
    influence = resampler.influence()
    assert abs(influence.mean()) < 1e-10
    # weights of a million for each picture stand for shares, so that one more is a small step
    many = 1_000_000
    base = resampler.distance(np.full(count, many))
    for picture in range(3):
        weights = np.full(count, many)
        weights[picture] += many // 100
        step = (weights[picture] - many) / weights.sum()
        assert (resampler.distance(weights) - base) / step == pytest.approx(influence[picture], rel=0.05, abs=0.05)


def test_the_distance_at_infinity_is_nearer_to_the_truth_and_seeded():
    truth, rng = 16 * 0.3**2, np.random.default_rng(0)
    real = Gaussian(np.zeros(16), np.eye(16))
    plain, infinite = [], []
    for seed in range(20):
        generated = Features(rng.standard_normal((400, 16)) + 0.3)
        plain.append(frechet_distance(generated, real))
        infinite.append(frechet_at_infinity(generated, real, seed))
    bias, spread = np.mean(plain) - truth, np.std(infinite) / 20**0.5
    assert bias > 0.1  # finite sets are too far away
    assert abs(np.mean(infinite) - truth) < max(0.25 * bias, 3 * spread)
    assert infinite[-1] == frechet_at_infinity(generated, real, 19) != frechet_at_infinity(generated, real, 20)


def test_too_few_pictures_for_infinity_are_refused():
    with pytest.raises(InputError, match="3 generated pictures are too few"):
        frechet_at_infinity(Features(normal(0, 3)), Features(normal(1)), 0)


def test_the_step_for_2048_features_is_quick_below_as_many_pictures():
    first, second = (Features(normal(seed, 300, 2048).astype(np.float32)) for seed in (0, 1))
    start = time.process_time()
    found = frechet_distance(first, second)
    assert time.process_time() - start < 2
    assert found == pytest.approx(by_definition(first.values.astype(np.float64), second.values), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2000, 2049, 5000])
def test_the_step_for_2048_features_is_under_two_seconds_of_two_threads(count: int, request: pytest.FixtureRequest):
    request.addfinalizer(functools.partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    first, second = (Features(decaying(seed, count, 2048).astype(np.float32)) for seed in (0, 1))
    for features in (first, second):
        if not features.is_deficient:
            assert features.gaussian.count == count  # statistics are gathered while features are computed
    seconds = []
    for _ in range(3):  # other work on the machine lengthens one or another
        start = time.process_time()
        found = frechet_distance(first, second)
        seconds.append(time.process_time() - start)
        assert 0 < found < first.trace() + second.trace()
    assert min(seconds) < 2 * torch.get_num_threads()
