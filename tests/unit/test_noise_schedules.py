"""Noise schedules against their papers' formulas, and what is refused before anything is trained."""

import inspect

import numpy as np
import pytest

from stages.errors import InputError
from stages.generators.diffusion.schedules import (
    SAMPLERS,
    BetaSchedule,
    NoiseSchedule,
    alphas_cumprod,
    build_scheduler,
    scheduler_config,
    signal_and_noise,
)

SCHEDULES: tuple[BetaSchedule, ...] = ("linear", "scaled_linear", "cosine")


def fits(sampler, schedule):
    try:
        scheduler_config(schedule, sampler)
    except InputError:
        return False
    return True


def betas(name):
    if name == "linear":
        return np.linspace(1e-4, 0.02, 1000)
    if name == "scaled_linear":
        return np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    left = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - left[1:] / left[:-1], 0.999)


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_left_of_a_picture_follows_the_formula_of_the_paper(name):
    found = alphas_cumprod(NoiseSchedule("epsilon", name))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.cumprod(1 - betas(name)), rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr_shifts_and_scales_the_root_so_that_nothing_is_left_in_the_end(name):
    plain, found = (alphas_cumprod(NoiseSchedule("v", name, zero)) for zero in (False, True))
    root = np.sqrt(plain)
    by_hand = (root - root[-1]) * root[0] / (root[0] - root[-1])  # Lin 2023, algorithm 1
    assert found[-1] == 0
    assert found[0] == pytest.approx(plain[0], rel=1e-6)
    np.testing.assert_allclose(np.sqrt(found), by_hand, atol=2e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_last_target_of_v_at_zero_terminal_snr_is_the_negative_picture(name):
    picture, noise = np.random.default_rng(0).standard_normal((2, 5))
    alpha, sigma = signal_and_noise(NoiseSchedule("v", name, True), np.array([999.0]))
    np.testing.assert_array_equal(alpha * noise - sigma * picture, -picture)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_and_noise_keep_the_variance_and_the_signal_only_falls(name):
    alpha, sigma = signal_and_noise(NoiseSchedule("epsilon", name), np.arange(1000.0))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-12)
    assert (np.diff(alpha) < 0).all()


def test_flow_mixes_in_a_straight_line_from_the_picture_to_noise():
    alpha, sigma = signal_and_noise(NoiseSchedule("flow", "cosine"), np.array([0, 250.5, 1000]))
    np.testing.assert_allclose(sigma, [0, 0.2505, 1])
    np.testing.assert_allclose(alpha, [1, 0.7495, 0])


def test_timesteps_keep_their_shape_and_another_length_of_training_is_followed():
    alpha, sigma = signal_and_noise(NoiseSchedule("flow", train_steps=10), np.full((2, 3), 5))
    assert alpha.shape == sigma.shape == (2, 3)
    assert (alpha == 0.5).all()
    assert len(alphas_cumprod(NoiseSchedule("v", train_steps=10))) == 10


@pytest.mark.parametrize(
    ("prediction", "timestep", "words"),
    [("v", 1000, "0 to 999"), ("v", -1, "0 to 999"), ("v", 3.5, "whole"), ("flow", 1000.5, "0 to 1000")],
)
def test_a_timestep_that_training_never_saw_is_refused(prediction, timestep, words):
    with pytest.raises(ValueError, match=words):
        signal_and_noise(NoiseSchedule(prediction), np.array([timestep]))


def test_not_a_number_is_no_timestep():
    with pytest.raises(ValueError, match="expected 0 to 1000"):
        signal_and_noise(NoiseSchedule("flow"), np.array([np.nan]))


def test_a_flow_has_no_product_of_alphas():
    with pytest.raises(ValueError, match="flow"):
        alphas_cumprod(NoiseSchedule("flow"))


def test_epsilon_at_zero_terminal_snr_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"zero_terminal_snr: .*'epsilon', expected prediction 'v'"):
        NoiseSchedule("epsilon", "linear", True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prediction": "x0"}, "prediction: found 'x0', expected one of epsilon, v, flow"),
        ({"prediction": "v", "schedule": "sigmoid"}, "schedule: found 'sigmoid'"),
        ({"prediction": "v", "train_steps": 1}, "train_steps: found 1"),
    ],
)
def test_an_impossible_setting_is_named(settings, words):
    with pytest.raises(InputError, match=words):
        NoiseSchedule(**settings)


@pytest.mark.parametrize(
    ("schedule", "sampler", "words"),
    [
        (NoiseSchedule("flow"), "ddim", "'ddim' with prediction 'flow', expected flow_euler"),
        (NoiseSchedule("v"), "flow_euler", "'flow_euler' with prediction 'v', expected ddpm, ddim"),
        (NoiseSchedule("v"), "plms", "sampler: found 'plms'"),
        (NoiseSchedule("v", "linear", True), "heun", "'heun' with zero_terminal_snr"),
        (NoiseSchedule("v", "cosine"), "heun", "'heun' with schedule 'cosine'"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused_and_both_are_named(schedule, sampler, words):
    with pytest.raises(InputError, match=words):
        build_scheduler(schedule, sampler)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_diffusers_knows_every_setting_and_a_saved_scheduler_comes_back(sampler, tmp_path):
    schedule = next(s for s in (NoiseSchedule("v", "scaled_linear"), NoiseSchedule("flow")) if fits(sampler, s))
    config, scheduler = scheduler_config(schedule, sampler), build_scheduler(schedule, sampler)
    assert type(scheduler).__name__ == config.pop("_class_name")
    assert set(config) <= set(inspect.signature(type(scheduler).__init__).parameters)
    scheduler.save_pretrained(tmp_path)
    again = type(scheduler).from_pretrained(tmp_path)
    assert {name: again.config[name] for name in config} == config


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_starts_at_the_noisiest_timestep(sampler):
    schedule = next(s for s in (NoiseSchedule("v", "linear"), NoiseSchedule("flow")) if fits(sampler, s))
    scheduler = build_scheduler(schedule, sampler)
    scheduler.set_timesteps(4)
    assert float(scheduler.timesteps[0]) == (1000 if schedule.prediction == "flow" else 999)
