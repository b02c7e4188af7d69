"""The forward process against the papers' formulas, written out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from stages.generators.diffusion.schedules import BetaSchedule, NoiseSchedule
from stages.trainer.denoising.process import Noised, Process

STEPS = 1000
SCHEDULES: tuple[BetaSchedule, ...] = ("linear", "scaled_linear", "cosine")
EVERY = [NoiseSchedule("epsilon", name) for name in SCHEDULES]
EVERY += [NoiseSchedule("v", name, zero) for name in SCHEDULES for zero in (False, True)]
EVERY += [NoiseSchedule("flow")]


def label(schedule: NoiseSchedule) -> str:
    return f"{schedule.prediction}-{schedule.schedule}{'-zero' if schedule.zero_terminal_snr else ''}"


every_schedule = pytest.mark.parametrize("schedule", EVERY, ids=label)


def process_of(schedule: NoiseSchedule, timesteps: str = "uniform", weighting: str = "uniform") -> Process:
    return Process(schedule, timesteps, weighting)


def noised_at(schedule: NoiseSchedule, timesteps: torch.Tensor) -> Noised:
    random = torch.Generator().manual_seed(0)
    clean = torch.rand(len(timesteps), 3, 4, 4, generator=random) * 2 - 1
    return process_of(schedule).add_noise(clean, torch.randn(clean.shape, generator=random), timesteps)


def products_of_the_linear_schedule() -> np.ndarray:
    """Ho 2020, section 4: betas from 1e-4 to 0.02 in equal steps; the running product of 1 - beta."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, STEPS))


def test_pictures_and_noise_mix_as_in_equation_4_of_ho_2020():
    timesteps = torch.tensor([0.0, 1.0, 250.0, 999.0])
    noised = noised_at(NoiseSchedule("epsilon"), timesteps)
    kept = products_of_the_linear_schedule()[timesteps.long().numpy()]
    for row, product in enumerate(kept):
        expected = math.sqrt(product) * noised.clean[row] + math.sqrt(1 - product) * noised.noise[row]
        assert torch.allclose(noised.noisy[row], expected, atol=1e-5)


def test_the_cosine_schedule_is_that_of_nichol_2021():
    """Equation 17, each beta at most 0.999, as in the paper."""

    def level(step: np.ndarray) -> np.ndarray:
        return np.cos((step / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    numbers = np.arange(STEPS)
    expected = np.cumprod(1 - np.minimum(1 - level(numbers + 1) / level(numbers), 0.999))
    signal, _ = process_of(NoiseSchedule("epsilon", "cosine")).levels(torch.from_numpy(numbers).float())
    assert np.allclose(signal.flatten().numpy() ** 2, expected, atol=1e-5)


def test_flow_goes_along_a_straight_line_at_any_time():
    timesteps = torch.tensor([0.0, 0.5, 333.3, 999.9, 1000.0])
    noised = noised_at(NoiseSchedule("flow"), timesteps)
    share = (timesteps / STEPS)[:, None, None, None]
    assert torch.allclose(noised.noisy, (1 - share) * noised.clean + share * noised.noise, atol=1e-6)
    assert torch.allclose(process_of(NoiseSchedule("flow")).target(noised), noised.noise - noised.clean)


def test_targets_are_those_of_the_papers():
    timesteps = torch.tensor([10.0, 600.0])
    noised = noised_at(NoiseSchedule("epsilon"), timesteps)
    assert torch.equal(process_of(NoiseSchedule("epsilon")).target(noised), noised.noise)
    kept = torch.from_numpy(products_of_the_linear_schedule())[timesteps.long()].float()[:, None, None, None]
    velocity = kept.sqrt() * noised.noise - (1 - kept).sqrt() * noised.clean  # Salimans and Ho 2022, section 4
    assert torch.allclose(process_of(NoiseSchedule("v")).target(noised), velocity, atol=1e-5)


@every_schedule
def test_the_target_stands_for_picture_and_noise_at_every_timestep(schedule):
    noised = noised_at(schedule, torch.arange(STEPS).float())
    process = process_of(schedule)
    target = process.target(noised)
    error = (process.to_clean(target, noised) - noised.clean).abs()
    if schedule.prediction == "epsilon":
        error *= noised.signal  # by which x_0 is divided: what is left after it is float32's rounding
    assert error.max() < 1e-5
    assert (process.to_noise(target, noised) - noised.noise).abs().max() < 1e-5


@every_schedule
def test_what_a_prediction_stands_for_makes_the_noisy_sample_again(schedule):
    """Any prediction, a wrong one too: x_t = signal x_0 + sigma noise holds for what it stands for."""
    noised = noised_at(schedule, torch.tensor([3.0, 500.0, 900.0]))
    process = process_of(schedule)
    wrong = torch.randn(noised.noise.shape, generator=torch.Generator().manual_seed(7))
    mixed = noised.signal * process.to_clean(wrong, noised) + noised.sigma * process.to_noise(wrong, noised)
    assert torch.allclose(mixed, noised.noisy, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_leaves_pure_noise_at_the_last_timestep(name):
    noised = noised_at(NoiseSchedule("v", name, True), torch.tensor([998.0, 999.0]))
    assert noised.signal[1].item() == 0
    assert torch.equal(noised.noisy[1], noised.noise[1])
    assert torch.equal(process_of(NoiseSchedule("v", name, True)).target(noised)[1], -noised.clean[1])
    assert noised.signal[0].item() > 0
    assert noised_at(NoiseSchedule("v", name), torch.tensor([999.0])).signal.item() > 0  # without it some is left


def published_weights(schedule: NoiseSchedule, timesteps: torch.Tensor) -> torch.Tensor:
    """Hang 2023, section 3.4 with gamma 5: min(SNR, 5) / SNR for epsilon, min(SNR, 5) / (SNR + 1) for v."""
    signal, sigma = (factor.double() for factor in process_of(schedule).levels(timesteps))
    ratio = (signal / sigma).square()
    return ratio.clamp(max=5) / (ratio if schedule.prediction == "epsilon" else ratio + 1)


@pytest.mark.parametrize("schedule", [one for one in EVERY if one.prediction != "flow"], ids=label)
def test_min_snr_weights_are_the_published_ones(schedule):
    timesteps = torch.arange(STEPS).float()
    process = process_of(schedule, weighting="min_snr_5")
    weights = process.weights(*process.levels(timesteps)).double()
    assert torch.allclose(weights, published_weights(schedule, timesteps), rtol=1e-4, atol=1e-9)
    assert weights.max() <= 1 + 1e-6
    assert len(weights.unique()) > 50


def test_min_snr_of_flow_weighs_the_error_of_the_picture_alike():
    """An error d of the velocity is an error t d of x_0, whose weight is min(SNR, 5)."""
    process = process_of(NoiseSchedule("flow"), weighting="min_snr_5")
    timesteps = torch.tensor([0.0, 100.0, 500.0, 1000.0])
    share = timesteps.double() / STEPS
    ratio = ((1 - share) / share.clamp_min(1e-9)).square()
    expected = ratio.clamp(max=5) * share.square()
    assert torch.allclose(process.weights(*process.levels(timesteps)).flatten().double(), expected, atol=1e-6)


def test_uniform_weights_are_one():
    process = process_of(NoiseSchedule("v"))
    assert process.weights(*process.levels(torch.tensor([0.0, 999.0]))).flatten().tolist() == [1, 1]


def drawn(schedule: NoiseSchedule, timesteps: str, count: int = 20_000) -> np.ndarray:
    random = torch.Generator().manual_seed(11)
    return process_of(schedule, timesteps).draw_timesteps(count, random).double().numpy()


def test_uniform_timesteps_cover_all_alike():
    whole = drawn(NoiseSchedule("epsilon"), "uniform")
    counts = np.bincount(whole.astype(int), minlength=STEPS)
    assert len(counts) == STEPS
    assert (whole == np.floor(whole)).all()
    assert (counts > 0).all()
    assert stats.chisquare(counts).pvalue > 0.01
    flow = drawn(NoiseSchedule("flow"), "uniform")
    assert (flow != np.floor(flow)).any()
    assert stats.kstest(flow / STEPS, "uniform").pvalue > 0.01


def test_logit_normal_timesteps_are_sigmoids_of_normal_numbers():
    """Esser 2024, equation 19 with mean 0 and deviation 1: the logit of t is standard normal."""
    share = drawn(NoiseSchedule("flow"), "logit_normal") / STEPS
    assert stats.kstest(np.log(share / (1 - share)), "norm").pvalue > 0.01
    assert stats.kstest(share, "uniform").pvalue < 1e-6
    whole = drawn(NoiseSchedule("v"), "logit_normal")
    assert (whole == np.floor(whole)).all()
    assert whole.max() < STEPS


@every_schedule
@pytest.mark.parametrize("timesteps", ["uniform", "logit_normal"])
def test_drawn_timesteps_can_always_be_used(schedule, timesteps):
    """In range for the schedule, whatever float32 rounds to."""
    process = process_of(schedule, timesteps)
    signal, sigma = process.levels(process.draw_timesteps(5_000, torch.Generator().manual_seed(2)))
    assert torch.isfinite(signal).all()
    assert torch.allclose(signal.square() + sigma.square(), torch.ones(1), atol=1e-5) != (schedule.prediction == "flow")
