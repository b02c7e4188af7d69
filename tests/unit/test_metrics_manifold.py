"""Precision, recall, density and coverage against torch-fidelity, prdc, formulas and many draws."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from stages.errors import InputError
from stages.metrics import manifold as module
from stages.metrics.gaussians import Features
from stages.metrics.manifold import Manifold, manifold

SCORES = ("precision", "recall", "density", "coverage")


def normal(seed: int, count: int = 500, dimension: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def values(found: Manifold) -> list[float]:
    return [getattr(found, name) for name in SCORES]


def lattice(seed: int, count: int) -> np.ndarray:
    """Return points with whole coordinates: many copies and many equal distances, all exact in floating point."""
    return np.random.default_rng(seed).integers(0, 3, (count, 6)).astype(np.float32)


PAIRS = {
    "normal": (normal(0, 500, 64), normal(1, 400, 64)),
    "narrow": (normal(0, 300) * 0.6 + 0.2, normal(1, 400)),
    "lattice": (lattice(0, 300), lattice(1, 200)),
    "copies": (np.repeat(lattice(0, 40), 6, axis=0), lattice(1, 200)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_precision_and_recall_are_exactly_torch_fidelity_s(name: str, neighbours: int):
    generated, real = PAIRS[name]
    found = manifold(Features(generated), Features(real), neighbours)
    tensors = (torch.from_numpy(features.astype(np.float64)) for features in (generated, real))
    other = prc_features_to_metric(*tensors, prc_neighborhood=neighbours, save_cpu_ram=False, verbose=False)
    assert found.inside.mean() == found.precision == pytest.approx(other[KEY_METRIC_PRECISION], abs=1e-7)
    assert found.recalled.mean() == found.recall == pytest.approx(other[KEY_METRIC_RECALL], abs=1e-7)


@pytest.mark.parametrize("name", ["normal", "narrow", "lattice"])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_density_and_coverage_are_exactly_those_of_prdc(name: str, neighbours: int):
    prdc = pytest.importorskip("prdc")
    generated, real = PAIRS[name]
    found = manifold(Features(generated), Features(real), neighbours)
    other = prdc.compute_prdc(real, generated, neighbours)
    assert found.density == pytest.approx(other["density"], abs=1e-12)
    assert found.coverage == pytest.approx(other["coverage"], abs=1e-12)
    assert found.covered.mean() == found.coverage


@pytest.mark.parametrize("name", PAIRS)
def test_the_size_of_the_parts_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    generated, real = (features + np.float32(0.1) for features in PAIRS[name])
    whole = manifold(Features(generated), Features(real), 3)
    for size in (60, 151):
        monkeypatch.setattr(module, "ROWS", size)
        monkeypatch.setattr(module, "COLUMNS", size + 2)
        parts = manifold(Features(generated), Features(real), 3)
        assert values(parts) == values(whole)
        assert parts.errors == pytest.approx(whole.errors)
        assert (parts.covered == whole.covered).all() and (parts.inside == whole.inside).all()


def test_equal_apart_narrow_and_wide_sets():
    real = Features(normal(0))
    same = manifold(real, real, 5)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert values(manifold(Features(real.values + 50), real, 5)) == [0, 0, 0, 0]
    narrow = manifold(Features(normal(1) * 0.2), real, 5)
    assert narrow.precision == 1 and narrow.recall < 0.01  # generated pictures are real ones of few kinds
    wide = manifold(Features(normal(1) * 5), real, 5)
    assert wide.precision < 0.01 and wide.recall == 1


def test_one_far_picture_does_not_raise_density_as_it_raises_precision():
    """Naeem et al. 2020: an outlier among the real pictures has a ball that covers everything."""
    real, generated = normal(0, 200), normal(1, 200) + 6
    outlier = np.concatenate([real, np.full((1, 16), 6, np.float32)])
    found = manifold(Features(generated), Features(outlier), 5)
    assert found.precision == 1 and found.density < 0.25


@pytest.mark.parametrize("neighbours", [3, 5])
def test_density_and_coverage_of_one_distribution_have_their_expectation(neighbours: int):
    count, draws = 250, 12
    found = [
        manifold(Features(normal(seed, count, 8)), Features(normal(seed + 500, count, 8)), neighbours)
        for seed in range(draws)
    ]
    missed = np.prod([(count - i) / (2 * count - i) for i in range(1, neighbours + 1)])
    for expected, values_ in ((1.0, [m.density for m in found]), (1 - missed, [m.coverage for m in found])):
        assert np.mean(values_) == pytest.approx(expected, abs=4 * np.std(values_) / draws**0.5)
        assert np.std(values_) < 0.1


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_nineteen_in_twenty_intervals_hold_the_mean_over_many_draws(scale: float):
    rng = np.random.default_rng(1)
    real = Features(rng.standard_normal((150, 8)))
    found = [manifold(Features(rng.standard_normal((120, 8)) * scale + 0.4), real, 5) for _ in range(60)]
    for name in SCORES:
        drawn = np.array([getattr(one, name) for one in found])
        errors = np.array([one.errors[name] for one in found])
        assert np.mean(np.abs(drawn - drawn.mean()) < 1.96 * errors) >= 0.85, name
        assert errors.mean() < 2 * drawn.std()


def test_small_sets_have_scores_but_no_error_of_recall_and_coverage():
    found = manifold(Features(normal(0, 30)), Features(normal(1, 30)), 5)
    assert np.isfinite(values(found)).all()
    assert np.isnan([found.errors["recall"], found.errors["coverage"]]).all()
    assert found.errors["precision"] >= 1 / 30


@pytest.mark.parametrize("neighbours", [0, 20, 500])
def test_more_neighbours_than_pictures_are_refused(neighbours: int):
    with pytest.raises(InputError, match=f"evaluate.neighbours is {neighbours}, but .* pictures; set it from 1 to"):
        manifold(Features(normal(0, 20)), Features(normal(1, 400)), neighbours)


def test_unlike_networks_are_refused():
    with pytest.raises(InputError, match="same feature network"):
        manifold(Features(normal(0)), Features(normal(1, 500, 8)), 3)


PROBE = """
import resource, sys
import numpy as np, torch
from stages.metrics.gaussians import Features
from stages.metrics.manifold import manifold
torch.set_num_threads(1)
count = int(sys.argv[1])
rng = np.random.default_rng(0)
sets = [Features(rng.standard_normal((count, 32), dtype=np.float32)) for _ in range(2)]
manifold(Features(sets[0].values[:300]), Features(sets[1].values[:300]), 5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
manifold(*sets, 5)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_does_not_grow_with_the_square_of_the_pictures():
    """One full matrix of 12,000 x 12,000 float64 distances has 1,100 MiB; the parts must stay far below it."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    command = [sys.executable, "-c", PROBE, "12000"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(found.stdout) < 500
