"""Rates and moments of ADA's 18 transforms against appendix B of its paper, on 100,000 draws of the parameters."""

import math

import numpy as np
import pytest
import torch

from stages.settings.augment import ADA_TRANSFORMS
from stages.trainer.ada.corruption import EXPECTED_POWER, band_gains
from stages.trainer.ada.draws import NOWHERE, TRANSFORMS, draw_parameters

COUNT = 100_000
P = 0.3
RATE_TOLERANCE = 5 * math.sqrt(0.25 / COUNT)  # five standard errors of a share, 0.008
HALF_NORMAL_MEAN, HALF_NORMAL_DEVIATION = 0.1 * math.sqrt(2 / math.pi), 0.1 * math.sqrt(1 - 2 / math.pi)
TURN = math.pi / math.sqrt(3)  # standard deviation of U(-pi, pi)
MOMENTS = {  # of what is drawn where a transform acts: mean, standard deviation, on which scale
    "xint": (0.0, 0.125 / math.sqrt(3), None),
    "scale": (0.0, 0.2, np.log2),
    "rotate_before": (0.0, TURN, None),
    "aniso": (0.0, 0.2, np.log2),
    "rotate_after": (0.0, TURN, None),
    "xfrac": (0.0, 0.125, None),
    "brightness": (0.0, 0.2, None),
    "contrast": (0.0, 0.5, np.log2),
    "hue": (0.0, TURN, None),
    "saturation": (0.0, 1.0, np.log2),
    "band0": (0.0, 1.0, np.log2),
    "band1": (0.0, 1.0, np.log2),
    "band2": (0.0, 1.0, np.log2),
    "band3": (0.0, 1.0, np.log2),
    "noise": (HALF_NORMAL_MEAN, HALF_NORMAL_DEVIATION, None),
    "cutout": (0.5, 1 / math.sqrt(12), None),
}
SHARES = {"xflip": 2, "rotate90": 4, "lumaflip": 2}  # equally likely choices, 0 among them


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return draw_parameters(ADA_TRANSFORMS, P, COUNT, random())


def acting(values: np.ndarray, name: str) -> np.ndarray:
    """Tell where a transform's parameter is not the identity."""
    return (values != TRANSFORMS[name].identity).reshape(len(values), -1).any(1)


def test_there_are_eighteen_transforms_and_rotation_is_drawn_twice(drawn):
    assert len(ADA_TRANSFORMS) == 18
    names = [name.removesuffix("_before").removesuffix("_after") for name in drawn]
    assert sorted(set(names)) == sorted(ADA_TRANSFORMS)
    assert names.count("rotate") == 2 and len(names) == 19


@pytest.mark.parametrize("name", list(MOMENTS))
def test_rates_and_moments_are_the_papers(drawn, name):
    mean, deviation, scale = MOMENTS[name]
    acts = acting(drawn[name], name)
    rate = 1 - math.sqrt(1 - P) if name.startswith("rotate_") else P
    assert acts.mean() == pytest.approx(rate, abs=RATE_TOLERANCE)
    values = drawn[name][acts] if scale is None else scale(drawn[name][acts])
    error = deviation / math.sqrt(len(values))
    assert values.mean() == pytest.approx(mean, abs=5 * error)
    assert values.std() == pytest.approx(deviation, rel=0.03)  # 5 standard errors of 16,000 normal draws


@pytest.mark.parametrize("name", list(SHARES))
def test_choices_are_equally_likely_and_one_of_them_changes_nothing(drawn, name):
    options = SHARES[name]
    for option in range(1, options):
        assert (drawn[name] == option).mean() == pytest.approx(P / options, abs=RATE_TOLERANCE)
    assert acting(drawn[name], name).mean() == pytest.approx(P * (options - 1) / options, abs=RATE_TOLERANCE)
    assert set(np.unique(drawn[name])) == set(range(options))


def test_distributions_have_the_papers_shapes(drawn):
    """Fractions inside one deviation and the ends tell uniform from normal ones of equal moments."""
    assert np.abs(drawn["xint"]).max() == pytest.approx(0.125, abs=1e-4)
    assert np.abs(drawn["hue"]).max() == pytest.approx(math.pi, abs=1e-3)
    for name in ("scale", "contrast", "saturation", "band2"):
        logs = np.log2(drawn[name][acting(drawn[name], name)])
        assert (np.abs(logs) < MOMENTS[name][1]).mean() == pytest.approx(0.6827, abs=0.015)
    boxes = drawn["cutout"][acting(drawn["cutout"], "cutout")]
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert drawn["noise"].min() == 0


def test_either_rotation_acts_with_probability_p(drawn):
    either = acting(drawn["rotate_before"], "rotate_before") | acting(drawn["rotate_after"], "rotate_after")
    assert either.mean() == pytest.approx(P, abs=RATE_TOLERANCE)


def test_transforms_and_pictures_are_independent(drawn):
    acts = np.stack([acting(values, name) for name, values in drawn.items()]).astype(float)
    between = np.corrcoef(acts)[~np.eye(len(acts), dtype=bool)]
    assert np.abs(between).max() < 5 / math.sqrt(COUNT)
    neighbours = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in acts]
    assert np.abs(neighbours).max() < 5 / math.sqrt(COUNT)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_never_and_always(p):
    drawn = draw_parameters(ADA_TRANSFORMS, p, 1000, random())
    for name, values in drawn.items():
        share = acting(values, name).mean()
        expected = 0.0 if p == 0 else 1 - 1 / SHARES.get(name, math.inf)
        assert share == pytest.approx(expected, abs=0.08), name


def test_what_is_not_selected_is_not_drawn():
    assert list(draw_parameters(("noise", "xflip"), 0.5, 3, random())) == ["xflip", "noise"]


def test_equal_seeds_draw_equally():
    first, second, other = (draw_parameters(ADA_TRANSFORMS, 0.5, 8, random(seed)) for seed in (1, 1, 2))
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_band_gains_keep_the_power_of_the_expected_spectrum(drawn):
    one = {"band2": drawn["band2"]}
    gains = band_gains(one, COUNT)
    assert (gains**2 * EXPECTED_POWER).sum(1) == pytest.approx(1.0)
    assert EXPECTED_POWER.sum() == pytest.approx(1.0)
    ratio = gains[:, 2] / gains[:, 0]
    assert ratio == pytest.approx(drawn["band2"])
    untouched = ~acting(drawn["band2"], "band2")
    assert (gains[untouched] == 1).all()
    both = band_gains({"band0": drawn["band0"], **one}, COUNT)
    assert both == pytest.approx(gains * band_gains({"band0": drawn["band0"]}, COUNT))


def test_a_cutout_that_was_not_drawn_lies_outside():
    assert NOWHERE + 0.25 < 0
