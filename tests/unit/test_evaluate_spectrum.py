"""Checkerboard measure: planted patterns are found at their frequency, and nothing else is."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from stages.errors import InputError
from stages.evaluate.unseen.spectrum import Checkerboard, log_power, measure_checkerboard, measure_spectra

SIDE = 32
COUNT = 120


def scenes(seed: int, count: int = COUNT, side: int = SIDE) -> np.ndarray:
    """Return natural-looking pictures: discs of any colour with sharp edges and a little noise, uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    pictures = np.empty((count, 3, side, side))
    for picture in pictures:
        picture[:] = random.uniform(60, 200, (3, 1, 1))
        for _ in range(4):
            centre, radius = random.uniform(0, side, 2), random.uniform(3, side / 2)
            inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
            picture[:, inside] = random.uniform(40, 220, (3, 1))
    return to_uint8(gaussian_filter(pictures, (0, 0, 0.5, 0.5)) + random.normal(0, 1, pictures.shape))


def to_uint8(pictures: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def wave(period_y: int, period_x: int, side: int = SIDE) -> np.ndarray:
    """Return a wave of amplitude 1; period 0 is constant along that axis."""
    y, x = np.mgrid[:side, :side]
    phase = sum(2 * np.pi * at / period if period else 0 for at, period in ((y, period_y), (x, period_x)))
    return np.cos(phase)


REAL = scenes(0)


def check(pictures: np.ndarray) -> Checkerboard:
    return measure_checkerboard([pictures[:50], pictures[50:]], [REAL])


@pytest.mark.parametrize(("periods", "amplitude"), [((2, 2), 3), ((0, 2), 6), ((2, 0), 6), ((0, 4), 16), ((4, 4), 8)])
def test_a_planted_pattern_is_found_at_its_period(periods: tuple[int, int], amplitude: float):
    found = check(to_uint8(scenes(1) + amplitude * wave(*periods)))
    assert found.found
    worst = found.worst.to_json()
    assert (worst["period_y"], worst["period_x"]) == tuple(period or None for period in periods)
    assert worst["difference"] > 3
    assert worst["error"] < 0.6


def test_a_stronger_pattern_gives_a_higher_peak():
    heights = [check(to_uint8(scenes(1) + amplitude * wave(2, 2))).worst.generated for amplitude in (2, 4, 8)]
    assert heights[1] - heights[0] == pytest.approx(6, abs=1)  # twice the amplitude is four times the power
    assert heights[2] - heights[1] == pytest.approx(6, abs=1)


def test_the_other_diagonal_is_another_frequency():
    y, x = np.mgrid[:SIDE, :SIDE]
    for sign, frequency in ((1, (4, 4)), (-1, (4, 12))):
        found = check(to_uint8(scenes(1) + 8 * np.cos(np.pi / 2 * (y + sign * x))))
        assert found.worst.frequency == frequency


def blurred(sigma: float):
    return lambda pictures: to_uint8(gaussian_filter(pictures.astype(float), (0, 0, sigma, sigma)))


def noisy(deviation: float):
    noise = np.random.default_rng(9).normal(0, deviation, (COUNT, 3, SIDE, SIDE))
    return lambda pictures: to_uint8(pictures + noise)


@pytest.mark.parametrize(
    "change",
    [
        lambda pictures: pictures,
        blurred(0.6),
        blurred(1),
        blurred(2),
        noisy(3),
        noisy(20),
        lambda pictures: pictures // 2 + 60,
        lambda pictures: np.full_like(pictures, 7),
        lambda pictures: np.broadcast_to(pictures[:, :, :1, :1], pictures.shape),
        lambda pictures: np.concatenate([pictures[..., : SIDE // 2], pictures[..., SIDE // 2 - 1 :: -1]], axis=3),
    ],
    ids=["same", "blur 0.6", "blur 1", "blur 2", "noise 3", "noise 20", "dim", "equal", "plain", "symmetric"],
)
def test_other_pictures_have_no_pattern(change):
    found = check(change(scenes(1)))
    assert not found.found, found.worst.to_json()
    json.dumps(found.to_json(), allow_nan=False)


def test_symmetric_real_pictures_do_not_make_others_suspicious():
    """The halves of a symmetric picture cancel at period 2 in its whole spectrum, by 15 dB and more."""
    half = scenes(2)[..., : SIDE // 2]
    symmetric = np.concatenate([half, half[..., ::-1]], axis=3)
    whole = log_power(symmetric).mean(axis=0)
    assert whole[0, SIDE // 2] < whole[0, SIDE // 2 - 1] - 15
    assert not measure_checkerboard([scenes(1)], [symmetric]).found


def transposed(weights: list[float], layers: int = 1) -> np.ndarray:
    """Return smooth fields that pass transposed convolutions of stride 2 with separable kernels, uint8."""
    side = SIDE // 2**layers + 8
    fields = gaussian_filter(np.random.default_rng(3).normal(size=(COUNT, 3, side, side)), (0, 0, 2, 2))
    values = torch.from_numpy(fields)
    kernel = torch.tensor(np.outer(weights, weights).astype(float)).expand(3, 1, -1, -1)
    for _ in range(layers):
        values = nn.functional.conv_transpose2d(values + values.std(), kernel, stride=2, groups=3)
    picture = values[..., 8 : 8 + SIDE, 8 : 8 + SIDE].numpy()
    return to_uint8(128 + 40 * (picture - picture.mean()) / picture.std())


def test_uneven_overlap_of_a_transposed_convolution_is_found_and_even_is_not():
    """A kernel of 3 overlaps unevenly at stride 2, one of 4 does not (Odena et al. 2016)."""
    uneven = measure_checkerboard([transposed([1, 1, 1])], [REAL])
    assert {peak.frequency for peak in uneven.peaks if peak.found} >= {(0, 8), (8, 0), (8, 8)}
    assert not measure_checkerboard([transposed([1, 3, 3, 1])], [REAL]).found


def test_two_such_layers_leave_period_four_too():
    found = measure_checkerboard([transposed([1, 1, 1], layers=2)], [REAL])
    assert any(4 in peak.frequency for peak in found.peaks if peak.found)


def test_white_noise_has_its_variance_at_every_frequency():
    noise = np.random.default_rng(0).normal(128, 20, (400, 1, 32, 32))
    power = log_power(noise - noise.mean(axis=(2, 3), keepdims=True)).mean(axis=0)
    expected = 10 * np.log10(400) - 2.507  # the mean log of an exponential variable: -Euler's constant
    assert power[3, 5] == pytest.approx(expected, abs=1)
    found = measure_spectra("noise", [noise])
    assert np.abs(found.excess.mean(axis=0)).max() < 1
    radial = found.radial()
    assert radial.shape == (17,)
    np.testing.assert_allclose(radial[3:], expected, atol=0.6)


def test_the_radial_profile_of_blurred_pictures_falls_faster():
    found = check(blurred(1)(scenes(1)))
    assert found.radial_generated[2] == pytest.approx(found.radial_real[2], abs=3)
    assert found.radial_generated[12] < found.radial_real[12] - 6


def test_batches_do_not_matter_and_grey_pictures_do_as_well():
    pictures = scenes(1)[:, :1]
    whole = measure_spectra("grey", [pictures])
    parts = measure_spectra("grey", (part for part in np.array_split(pictures, 7)))
    np.testing.assert_allclose(whole.power, parts.power, rtol=1e-12)
    np.testing.assert_allclose(whole.excess, parts.excess, rtol=1e-9, atol=1e-9)


def test_sides_that_are_no_powers_of_two_are_taken_as_they_are():
    pictures = np.random.default_rng(0).uniform(100, 140, (60, 3, 45, 27))
    pattern = 4 * np.where(np.add.outer(np.arange(45), np.arange(27)) % 2, 1, -1)
    assert not measure_checkerboard([pictures], [pictures[::-1]]).found
    assert measure_checkerboard([pictures + pattern], [pictures]).worst.frequency == (8, 8)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "there are 0 generated pictures"),
        ([REAL[:1]], "there are 1 generated pictures"),
        ([REAL[:, :, :8, :8]], "at least 16 pixels"),
        ([REAL[0]], r"expected \(N, C, H, W\)"),
        ([REAL, REAL[:, :1]], "several shapes"),
        ([REAL[:, :, :20, :20]], "20 x 20 pixels and real ones 32 x 32"),
        ([np.full((3, 3, 32, 32), np.nan)], "NaN"),
    ],
)
def test_bad_input_is_one_line(batches: list[np.ndarray], words: str):
    with pytest.raises(InputError, match=words) as caught:
        measure_checkerboard(batches, [REAL])
    assert "\n" not in str(caught.value)
