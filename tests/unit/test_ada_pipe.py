"""ADA's pipe: exact where it must be, composed as its parts are, differentiable twice, the same on every road."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from stages.settings.augment import ADA_SETS, ADA_TRANSFORMS
from stages.trainer.ada import color
from stages.trainer.ada.corruption import add_noise, amplify_bands, cut_out
from stages.trainer.ada.geometry import blit, blit_matrix, general_matrix, resample
from stages.trainer.ada.pipe import apply, augment
from stages.trainer.ada.wavelets import SYM2, SYM6, doubling, filter_bank, halving

SIZE = 16


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_pictures(count: int = 8, channels: int = 3, size: int = SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, channels, size, size, generator=random(1), dtype=dtype) * 2 - 1


def smooth_pictures(count: int = 4, size: int = 32) -> Tensor:
    """Return pictures of low frequencies only, which resampling can keep, in double precision."""
    line = torch.arange(size, dtype=torch.float64) / (size - 1) * math.pi
    waves = torch.stack([torch.cos(n * line) for n in range(3)])
    weights = torch.rand(count, 3, 3, 3, generator=random(2), dtype=torch.float64) * 0.4 - 0.2
    return torch.einsum("ncij,ih,jw->nchw", weights, waves, waves)


def drawn(count: int = 4, **values: Any) -> dict[str, np.ndarray]:
    return {name: np.tile(np.asarray(value, float), (count, *(1,) * np.ndim(value))) for name, value in values.items()}


def one(pictures: Tensor, **values: Any) -> Tensor:
    return apply(pictures, drawn(len(pictures), **values), random())


# --- identity ---------------------------------------------------------------------------------------------------------


def test_p_zero_returns_the_very_pictures_and_draws_nothing():
    pictures, source = noise_pictures(), random()
    assert augment(pictures, ADA_TRANSFORMS, 0.0, source) is pictures
    assert torch.equal(torch.rand(1, generator=source), torch.rand(1, generator=random()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_pictures_that_drew_nothing_are_untouched_bit_for_bit(dtype):
    pictures = noise_pictures(512, dtype=torch.float64).to(dtype)
    changed = augment(pictures, ADA_TRANSFORMS, 0.05, random())
    same = (changed == pictures).flatten(1).all(1)
    quiet = 2 * (1 - 0.025) * (1 - 0.05 * 0.75) * (1 - 0.05) ** 15 / 2 * (1 - 0.025)  # xflip and lumaflip flip half
    assert same.float().mean() == pytest.approx(quiet, abs=5 * math.sqrt(0.25 / 512))
    assert changed.dtype == dtype


def test_every_identity_parameter_changes_nothing():
    pictures = noise_pictures()
    still = drawn(8, xflip=0, rotate90=0, xint=(0, 0), scale=1, rotate_before=0, aniso=1, rotate_after=0, xfrac=(0, 0))
    still |= drawn(8, brightness=0, contrast=1, lumaflip=0, hue=0, saturation=1, noise=0, cutout=(-1, -1))
    still |= drawn(8, band0=1, band1=1, band2=1, band3=1)
    assert apply(pictures, still, random()) is pictures


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_flips_and_quarter_turns_are_exact():
    pictures = noise_pictures()
    assert torch.equal(one(pictures, xflip=1), pictures.flip(3))
    assert torch.equal(one(one(pictures, xflip=1), xflip=1), pictures)
    for turns in (1, 2, 3):
        assert torch.equal(one(pictures, rotate90=turns), torch.rot90(pictures, turns, (2, 3)))
    turned = pictures
    for _ in range(4):
        turned = one(turned, rotate90=1)
    assert torch.equal(turned, pictures)


@pytest.mark.parametrize(("shift", "right", "down"), [((0.125, -0.125), 2, -2), ((0.1, 0.02), 2, 0), ((0, 0.1), 0, 2)])
def test_whole_shifts_are_exact_and_reflect(shift, right, down):
    pictures = noise_pictures()
    padded = pad(pictures, (2, 2, 2, 2), mode="reflect")
    assert torch.equal(one(pictures, xint=shift), padded[:, :, 2 - down : 18 - down, 2 - right : 18 - right])


def test_blits_compose_exactly_as_a_sequence():
    pictures = noise_pictures()
    together = one(pictures, xflip=1, rotate90=1, xint=(0.125, 0.07))
    sequence = one(one(one(pictures, xflip=1), rotate90=1), xint=(0.125, 0.07))
    inside = slice(3, -3)
    assert torch.equal(together[..., inside, inside], sequence[..., inside, inside])
    assert torch.equal(together, sequence)


def test_the_composed_matrix_is_the_product_of_its_parts():
    values = {"scale": 1.3, "rotate_before": 0.4, "aniso": 0.8, "rotate_after": -1.1, "xfrac": (0.1, -0.2)}
    parts = [general_matrix(drawn(2, **{name: value}), 2, SIZE) for name, value in values.items()]
    product = np.eye(3)
    for part in parts:
        product = product @ part
    assert general_matrix(drawn(2, **values), 2, SIZE) == pytest.approx(product)
    blits = {"xflip": 1, "rotate90": 3, "xint": (0.1, 0.1)}
    product = np.eye(3)
    for name, value in blits.items():
        product = product @ blit_matrix(drawn(2, **{name: value}), 2, SIZE)
    assert (blit_matrix(drawn(2, **blits), 2, SIZE) == product).all()


def test_a_picture_through_the_composed_maps_equals_the_sequence():
    """Away from the borders: the sequence reflects an already turned picture there."""
    pictures = smooth_pictures(size=64)
    values = {"scale": 1.25, "rotate_before": 0.3, "aniso": 1.1, "xfrac": (0.02, -0.03)}
    together = one(pictures, **values)
    sequence = pictures
    for name, value in values.items():
        sequence = one(sequence, **{name: value})
    middle = slice(20, 44)
    assert (together - sequence)[..., middle, middle].abs().max() < 0.005
    assert (together - pictures)[..., middle, middle].abs().max() > 0.05


def test_maps_with_blits_equal_the_blit_first():
    pictures = smooth_pictures(size=64)
    together = one(pictures, xflip=1, rotate90=1, scale=1.2)
    assert (together - one(one(pictures, xflip=1, rotate90=1), scale=1.2)).abs().max() < 0.01


def test_scaling_and_shifting_do_what_they_say():
    size = 33  # odd, so that there is a middle pixel; sym6 delays by 0.1 taps more than 5: 1.6e-3 here
    line = torch.linspace(-1, 1, size, dtype=torch.float64).expand(1, 3, size, size)
    enlarged = resample(line.contiguous(), general_matrix(drawn(1, scale=2.0), 1, size))
    assert enlarged[0, 0, 16, 8:25].numpy() == pytest.approx(line[0, 0, 0, 8:25].numpy() / 2, abs=3e-3)
    stretched = resample(line.mT.contiguous(), general_matrix(drawn(1, aniso=2.0), 1, size))
    assert stretched[0, 0, 12:21, 16].numpy() == pytest.approx(2 * line[0, 0, 0, 12:21].numpy(), abs=5e-3)
    moved = resample(line.contiguous(), general_matrix(drawn(1, xfrac=(4 / size, 0)), 1, size))
    assert moved[0, 0, 16, 8:25].numpy() == pytest.approx(line[0, 0, 0, 4:21].numpy(), abs=3e-3)


@pytest.mark.parametrize("size", [8, 16])
def test_reflection_goes_on_beyond_one_picture(size):
    pictures = noise_pictures(2, size=size)
    shift = np.array([[2.5, -3.25]] * 2)
    far = blit(pictures, blit_matrix({"xint": shift}, 2, size))
    lines = np.arange(size)
    wave = np.abs((lines[:, None] + np.array([2.5, -3.25]) * -size) % (2 * size - 2))
    columns, rows = np.minimum(wave, 2 * size - 2 - wave).astype(int).T
    assert torch.equal(far, pictures[:, :, rows][..., columns])
    far_map = resample(pictures.double(), general_matrix({"xfrac": shift}, 2, size))
    assert (far_map - far).abs().max() < 0.4  # the same picture, through filters
    whole_periods = np.array([[4 * (2 * size - 2) / size] * 2] * 2)
    still = resample(pictures.double(), general_matrix({"xfrac": whole_periods}, 2, size))
    assert (still - pictures).abs().max() < 1e-10


def slow_resample(pictures: Tensor, inverse: np.ndarray) -> Tensor:
    """Resample as the paper words it: reflected margin, zeros between pixels, filter, sample, filter, every other."""
    count, channels, size, _ = pictures.shape
    margin = 2 * size
    lines = np.pad(np.arange(size), margin, mode="reflect")
    padded = pictures[:, :, lines][..., lines]
    taps = torch.tensor(SYM6, dtype=torch.float64) / math.sqrt(2)
    wide = padded.shape[-1]
    spread = torch.zeros(count, channels, 2 * wide, 2 * wide, dtype=torch.float64)
    spread[..., ::2, ::2] = padded
    doubled = convolve(pad(spread, (6, 5, 6, 5)), 2 * taps.flip(0))
    place = torch.arange(-5, 2 * size + 5, dtype=torch.float64) / 2 - (size - 1) / 2
    out = torch.stack([*torch.meshgrid(place, place, indexing="xy"), torch.ones(len(place), len(place))], -1)
    source = torch.einsum("nij,hwj->nhwi", torch.from_numpy(inverse[:, :2]), out.double())
    line = 2 * (source + (size - 1) / 2 + margin)
    sampled = grid_sample(doubled, line * 2 / (2 * wide - 1) - 1, mode="bilinear", align_corners=True)
    return convolve(sampled, taps)[..., ::2, ::2]


def convolve(pictures: Tensor, taps: Tensor) -> Tensor:
    """Slide taps over rows, then over columns (no turning round of the taps)."""
    across = pictures.unfold(3, len(taps), 1) @ taps
    return (across.transpose(2, 3).unfold(3, len(taps), 1) @ taps).transpose(2, 3)


@pytest.mark.parametrize("seed", range(4))
def test_small_matrices_equal_the_papers_padding_zeros_and_convolutions(seed):
    pictures = noise_pictures(4, dtype=torch.float64)
    generator = np.random.default_rng(seed)
    values = {
        "scale": 2 ** generator.normal(0, 0.2, 4),
        "rotate_before": generator.uniform(-np.pi, np.pi, 4),
        "aniso": 2 ** generator.normal(0, 0.2, 4),
        "xfrac": generator.normal(0, 0.05, (4, 2)),
    }
    inverse = general_matrix(values, 4, SIZE)
    assert (resample(pictures, inverse) - slow_resample(pictures, inverse)).abs().max() < 1e-9


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("taps", "moments"), [(SYM6, 6), (SYM2, 2)])
def test_filters_are_orthogonal_wavelets_of_their_order(taps, moments):
    low = np.array(taps)
    for shift in range(0, len(low), 2):
        assert (low[shift:] * low[: len(low) - shift]).sum() == pytest.approx(float(shift == 0), abs=1e-9)
    high = low * (-1.0) ** np.arange(len(low))
    for power in range(moments):
        assert (high * np.arange(len(low), dtype=float) ** power).sum() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_halving_undoes_doubling(size):
    up = doubling(size, torch.float64, torch.device("cpu"))
    down = halving(size, torch.float64, torch.device("cpu"))
    lines = torch.arange(-5, 2 * size + 5) % (len(up) - 1)
    assert (down @ up[lines] - torch.eye(size)).abs().max() < 1e-9
    assert torch.equal(up[0], up[-1])


def test_bands_add_up_to_the_picture_and_rise_in_frequency():
    bank = filter_bank()
    assert bank.shape == (4, 43)
    assert bank.sum(0) == pytest.approx(np.eye(43)[21])
    assert bank == pytest.approx(bank[:, ::-1])  # zero phase
    spectrum = np.abs(np.fft.rfft(bank, 512)) ** 2
    centres = (spectrum * np.arange(spectrum.shape[1])).sum(1) / spectrum.sum(1)
    assert (np.diff(centres) > 0).all()
    assert spectrum[:, 0] == pytest.approx([1, 0, 0, 0], abs=1e-9)


@pytest.mark.parametrize("size", [8, 64])
def test_amplified_bands_equal_a_convolution(size):
    pictures = noise_pictures(2, size=size, dtype=torch.float64)
    gains = np.array([[1.0, 2.0, 0.5, 3.0], [0.2, 1.0, 1.0, 1.0]])
    taps = torch.from_numpy(gains @ filter_bank())
    columns = np.arange(-21, size + 21) % (2 * size - 2)
    lines = np.minimum(columns, 2 * size - 2 - columns)
    padded = pictures[:, :, lines][..., lines]
    expected = torch.stack([convolve(each[None], row)[0] for each, row in zip(padded, taps, strict=True)])
    assert (amplify_bands(pictures, gains) - expected).abs().max() < 1e-12
    assert (amplify_bands(pictures, np.ones((2, 4))) - pictures).abs().max() < 1e-9


# --- colour and corruption --------------------------------------------------------------------------------------------


def luma(pictures: Tensor) -> Tensor:
    return pictures.mean(1)


def test_colour_transforms_do_what_they_say():
    pictures = noise_pictures(dtype=torch.float64)
    grey = luma(pictures)[:, None]
    assert torch.allclose(one(pictures, brightness=0.3), pictures + 0.3)
    assert torch.allclose(one(pictures, contrast=1.5), pictures * 1.5)
    assert torch.allclose(one(pictures, lumaflip=1), pictures - 2 * grey)
    assert torch.allclose(one(one(pictures, lumaflip=1), lumaflip=1), pictures)
    assert torch.allclose(luma(one(pictures, hue=1.3)), luma(pictures))
    assert torch.allclose(one(pictures, hue=2 * math.pi / 3), pictures.roll(1, 1))
    assert torch.allclose(one(one(pictures, hue=0.7), hue=-0.7), pictures)
    assert torch.allclose(one(pictures, saturation=0.0), grey.expand_as(pictures))
    assert torch.allclose(one(pictures, saturation=2.0), grey + 2 * (pictures - grey))
    assert one(pictures, saturation=1.0) is pictures


def test_colours_compose_in_the_papers_order():
    pictures = noise_pictures(dtype=torch.float64)
    values = {"brightness": 0.2, "contrast": 0.7, "lumaflip": 1.0, "hue": 0.9, "saturation": 1.8}
    sequence = pictures
    for name, value in values.items():
        sequence = one(sequence, **{name: value})
    assert torch.allclose(one(pictures, **values), sequence)
    assert not torch.allclose(
        one(one(pictures, contrast=0.7), brightness=0.2), one(pictures, brightness=0.2, contrast=0.7)
    )


def test_grey_pictures_take_what_acts_on_luma():
    grey = noise_pictures(channels=1, dtype=torch.float64)
    coloured = grey.expand(-1, 3, -1, -1)
    values = {"brightness": 0.2, "contrast": 0.7, "lumaflip": 1.0, "hue": 0.9, "saturation": 1.8}
    assert torch.allclose(one(grey, **values), one(coloured, **values)[:, :1])
    assert one(grey, hue=0.9, saturation=2.0) is grey
    with pytest.raises(ValueError, match="the pictures have 2"):
        one(noise_pictures(channels=2), contrast=2.0)


def test_cutout_is_a_grey_box_of_half_the_side():
    white = torch.ones(2, 3, SIZE, SIZE)
    cut = cut_out(white, np.array([[0.5, 0.5], [0.0, 1.0]]))
    assert (cut[0, 0] == 0).sum() == 64 and (cut[0, 0, 4:12, 4:12] == 0).all()
    assert (cut[1, 0] == 0).sum() == 16 and (cut[1, 0, 12:, :4] == 0).all()  # x first: left, below


def test_noise_has_the_drawn_deviation():
    deviation = np.array([0.05, 0.3])
    noise = add_noise(torch.zeros(2, 3, 64, 64), deviation, random())
    assert noise.flatten(1).std(1).numpy() == pytest.approx(deviation, rel=0.05)
    assert noise.mean().abs() < 0.01


# --- gradients and roads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blit", "geom", "color", "filter", "noise", "cutout", "bgcfnc"])
def test_gradients_are_right_also_twice(name):
    pictures = noise_pictures(2, size=4, dtype=torch.float64).requires_grad_()

    def work(x: Tensor) -> Tensor:
        return augment(x, ADA_SETS[name], 0.9, random(3)).square().sum((1, 2, 3))

    assert torch.autograd.gradcheck(work, pictures)
    assert torch.autograd.gradgradcheck(work, pictures)


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_memory_formats_agree_and_are_kept(p):
    pictures = noise_pictures(16)
    by_channel = pictures.to(memory_format=torch.channels_last)
    plain, last = (augment(each, ADA_TRANSFORMS, p, random()) for each in (pictures, by_channel))
    assert torch.equal(plain, last)
    assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_float32_rounded_once_and_autocast_changes_nothing():
    pictures = noise_pictures(16).bfloat16()
    expected = augment(pictures.float(), ADA_TRANSFORMS, 0.8, random())
    half = augment(pictures, ADA_TRANSFORMS, 0.8, random())
    assert torch.equal(half, expected.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(pictures.float(), ADA_TRANSFORMS, 0.8, random()), expected)
    double = augment(pictures.double(), ADA_SETS["bgcf"], 0.8, random())
    single = augment(pictures.float(), ADA_SETS["bgcf"], 0.8, random())
    assert (double - single).abs().max() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_and_computes_the_same():
    pictures = noise_pictures(16)
    there = augment(pictures.cuda(), ADA_TRANSFORMS, 0.8, random()).cpu()
    assert (there - augment(pictures, ADA_TRANSFORMS, 0.8, random())).abs().max() < 1e-3


def test_pictures_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="8 x 16"):
        augment(torch.zeros(2, 3, 8, 16), ("xflip",), 1.0, random())


def test_colour_matrices_keep_the_homogeneous_row():
    matrix = color.color_matrix(drawn(2, brightness=0.1, hue=1.0, saturation=0.3, lumaflip=1, contrast=2), 2, 3)
    assert (matrix[:, 3] == [0, 0, 0, 1]).all()
