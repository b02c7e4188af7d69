"""Traced trajectories against the plain diffusers loop, the papers' formulas and networks that know the answer."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.errors import InputError
from stages.generators.diffusion import numpy_sampler, sampling, schedules
from stages.generators.diffusion.sampling import Trajectory, sample, trace, trace_scheduler
from stages.generators.diffusion.schedules import SAMPLERS, NoiseSchedule, build_scheduler, signal_and_noise
from tests.unit.test_noise_schedules import SCHEDULES, fits

EVERY_SCHEDULE = [NoiseSchedule("epsilon", name) for name in SCHEDULES]
EVERY_SCHEDULE += [NoiseSchedule("v", name, zero) for name in SCHEDULES for zero in (False, True)]
EVERY_SCHEDULE += [NoiseSchedule("flow")]
FITTING = [(schedule, sampler) for schedule in EVERY_SCHEDULE for sampler in SAMPLERS if fits(sampler, schedule)]
WIDTH = 6


def name_of(value):
    return f"{value.prediction}-{value.schedule}-{value.zero_terminal_snr}" if hasattr(value, "prediction") else None


fitting = pytest.mark.parametrize(("schedule", "sampler"), FITTING, ids=name_of)
every_count = pytest.mark.parametrize("steps", [1, 2, 5, 20])


def toy_network(x, timesteps):
    matrix = np.random.default_rng(5).standard_normal((WIDTH, WIDTH)).astype(x.dtype)
    return np.tanh(0.4 * x @ matrix + timesteps[:, None] / 1000)


def draw_noise(sampler, steps, dtype=np.float64, rows=4):
    """Noise for a trajectory that need not exist: (rows, *, WIDTH) if it adds noise, else (rows, WIDTH)."""
    added = steps - 1 if sampler == "ddpm" else 0
    noise = np.random.default_rng(steps).standard_normal((rows, 1 + added, WIDTH)).astype(dtype)
    return noise if added else noise[:, 0]


def diffusers_states(schedule, sampler, steps, noise):
    """The state after each step of the loop that every diffusers pipeline runs."""
    scheduler = build_scheduler(schedule, sampler)
    schedules.place_timesteps(scheduler, steps)
    rows = torch.from_numpy(noise if noise.ndim == 3 else noise[:, None])
    x = rows[:, 0] * getattr(scheduler, "init_noise_sigma", 1.0)
    states = []
    for k, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        out = toy_network(scaled.numpy(), np.full(len(x), float(t), noise.dtype))
        # the last step has no noise: what is passed in there must not matter
        options = {"eta": 1.0, "variance_noise": rows[:, (k + 1) % rows.shape[1]]} if sampler == "ddpm" else {}
        x = scheduler.step(torch.from_numpy(out), t, x, **options, return_dict=False)[0]
        states.append(x.numpy())
    return states


def assert_close(found, expected, relative):
    """Beside the size of the state: sampling by sigma, Euler's and Heun's start at noise of 80 to 20000."""
    assert np.abs(found - expected).max() <= relative * max(1, np.abs(expected).max())


@every_count
@fitting
def test_every_state_equals_the_diffusers_loop_or_diffusers_has_no_result(schedule, sampler, steps):
    noise = draw_noise(sampler, steps)
    expected = diffusers_states(schedule, sampler, steps, noise)
    if not np.isfinite(expected[-1]).all():
        with pytest.raises(InputError, match="not finite"):
            trace(schedule, sampler, steps)
        return
    found = list(numpy_sampler.states(toy_network, noise, trace(schedule, sampler, steps).to_json()))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, 1e-6)


@fitting
def test_in_float32_the_whole_trajectory_equals_the_diffusers_loop(schedule, sampler):
    noise = draw_noise(sampler, 50, np.float32)
    found = sample(toy_network, noise, trace(schedule, sampler, 50))
    assert found.dtype == np.float32
    assert_close(found, diffusers_states(schedule, sampler, 50, noise)[-1], 1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
@fitting
def test_a_network_that_knows_the_picture_leads_every_sampler_to_it(schedule, sampler, steps):
    picture = np.linspace(-1, 1, WIDTH)

    def perfect(x, timesteps):
        alpha, sigma = (factor[:, None] for factor in signal_and_noise(schedule, timesteps))
        noise = (x - alpha * picture) / sigma
        return {"epsilon": noise, "v": alpha * noise - sigma * picture, "flow": noise - picture}[schedule.prediction]

    if sampler in ("ddpm", "ddim"):
        steps = {3: 50, 7: 200, 20: 50}.get(steps, steps)  # divisors of 1000 at which diffusers has a result
    found = sample(perfect, draw_noise(sampler, steps), trace(schedule, sampler, steps))
    # One step cannot make good what diffusers leaves of the start: dpm++ and Euler take 2^-12 for an alpha of 0, and
    # epsilon's x0 is divided by the last alpha, for cosine 5e-5, which is rounded to float32.
    hard = steps == 1 and (schedule.zero_terminal_snr or schedule.schedule == "cosine")
    assert np.abs(found - picture).max() < (2e-3 if hard else 1e-4)


@pytest.mark.parametrize("schedule", [NoiseSchedule("epsilon"), NoiseSchedule("v", "scaled_linear", True)], ids=name_of)
@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0), ("ddpm", 1)])
def test_ddim_and_ddpm_are_the_formula_of_the_paper(schedule, sampler, eta):
    """Song 2021, "Denoising Diffusion Implicit Models", equations 12 and 16."""
    noise = draw_noise(sampler, 4)
    times = [999, 749, 499, 249]
    x = noise[:, 0] if eta else noise
    for k, t in enumerate(times):
        alpha, sigma = signal_and_noise(schedule, np.array(float(t)))
        alpha_next, sigma_next = signal_and_noise(schedule, np.array(float(times[k + 1]))) if k < 3 else (1.0, 0.0)
        out = toy_network(x, np.full(len(x), float(t)))
        eps = out if schedule.prediction == "epsilon" else alpha * out + sigma * x
        x0 = (x - sigma * out) / alpha if schedule.prediction == "epsilon" else alpha * x - sigma * out
        spread = eta * sigma_next / sigma * np.sqrt(1 - alpha**2 / alpha_next**2)
        x = alpha_next * x0 + np.sqrt(max(sigma_next**2 - spread**2, 0)) * eps
        x = x + spread * noise[:, k + 1] if eta and k < 3 else x
    assert_close(sample(toy_network, noise, trace(schedule, sampler, 4)), x, 1e-5)


def test_flow_euler_is_euler_along_the_straight_line():
    trajectory = trace(NoiseSchedule("flow"), "flow_euler", 5)
    times = np.append(trajectory.timesteps, 0) / 1000
    np.testing.assert_allclose(trajectory.output, np.diff(times), atol=1e-7)
    np.testing.assert_array_equal(trajectory.sample, 1)
    assert times[0] == 1


def test_evaluations_and_rows_of_noise_are_those_of_the_sampler():
    schedule = NoiseSchedule("v")
    assert [trace(schedule, "heun", steps).evaluations for steps in (1, 2, 10)] == [1, 3, 19]
    assert [trace(schedule, "dpm++", steps).evaluations for steps in (1, 2, 10)] == [1, 2, 10]
    ancestral = trace(schedule, "ddpm", 10)
    assert ancestral.stochastic
    assert ancestral.noise_rows == 9
    assert ancestral.noise[-1] == 0
    assert [trace(schedule, s, 10).stochastic for s in ("ddim", "dpm++", "euler", "heun")] == [False] * 4


def test_only_solvers_of_second_order_look_back():
    schedule = NoiseSchedule("v")
    for sampler, looks_back in (("ddim", False), ("ddpm", False), ("euler", False), ("dpm++", True), ("heun", True)):
        trajectory = trace(schedule, sampler, 10)
        assert bool(trajectory.previous_output.any() or trajectory.previous_sample.any()) == looks_back
        assert trajectory.previous_output[0] == trajectory.previous_sample[0] == 0


def test_other_added_noise_gives_another_picture():
    schedule = NoiseSchedule("v")
    noise = draw_noise("ddpm", 5)
    other = noise.copy()
    other[:, 3] += 1
    first, second = (sample(toy_network, n, trace(schedule, "ddpm", 5)) for n in (noise, other))
    assert np.abs(first - second).min() > 1e-3


@pytest.mark.parametrize("shape", [(4, WIDTH), (4, 4, WIDTH), (4, 6, WIDTH)])
def test_noise_with_too_few_or_too_many_rows_is_refused(shape):
    with pytest.raises(ValueError, match=r"noise: found shape \(4, .*expected \(N, 5, \*shape\)"):
        sample(toy_network, np.zeros(shape), trace(NoiseSchedule("v"), "ddpm", 5))


def test_pictures_of_a_batch_do_not_touch_each_other():
    trajectory = trace(NoiseSchedule("v"), "dpm++", 5)
    noise = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)

    def network(x, timesteps):
        return np.tanh(x + timesteps[:, None, None, None] / 1000)

    together = sample(network, noise, trajectory)
    assert together.shape == noise.shape
    np.testing.assert_array_equal(together[1:2], sample(network, noise[1:2], trajectory))
    assert sample(network, noise[:0], trajectory).shape == (0, 2, 4, 4)


def other_network(x, timesteps):
    return np.sin(x) - timesteps[:, None] / 1000


def test_guidance_1_is_the_conditional_network_alone():
    trajectory, noise = trace(NoiseSchedule("v"), "dpm++", 5), draw_noise("dpm++", 5)

    def never(x, timesteps):
        raise AssertionError("asked for nothing")

    found = sample(toy_network, noise, trajectory, 1.0, never)
    np.testing.assert_array_equal(found, sample(toy_network, noise, trajectory))


def test_guidance_goes_on_from_the_unconditional_through_the_conditional_output():
    trajectory, noise = trace(NoiseSchedule("v"), "euler", 5), draw_noise("euler", 5)
    found = sample(toy_network, noise, trajectory, 3.0, other_network)
    expected = sample(lambda x, t: 3 * toy_network(x, t) - 2 * other_network(x, t), noise, trajectory)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    found = sample(toy_network, noise, trajectory, 0.0, other_network)
    np.testing.assert_allclose(found, sample(other_network, noise, trajectory), atol=1e-12)


def test_guidance_without_an_unconditional_network_is_refused():
    with pytest.raises(ValueError, match=r"guidance: found 2\.0"):
        sample(toy_network, np.zeros((1, WIDTH)), trace(NoiseSchedule("v"), "ddim", 2), 2.0)


def test_the_network_sees_the_dtype_of_the_noise():
    seen = []

    def network(x, timesteps):
        seen.append((x.dtype, timesteps.dtype, timesteps.shape))
        return x

    sample(network, np.ones((3, WIDTH), np.float32), trace(NoiseSchedule("v"), "euler", 2))
    assert seen == [(np.float32, np.float32, (3,))] * 2


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++", "euler", "heun"])
def test_json_gives_every_bit_back(sampler):
    trajectory = trace(NoiseSchedule("epsilon", "scaled_linear"), sampler, 10)
    again = Trajectory.from_json(json.loads(json.dumps(trajectory.to_json())))
    for name in numpy_sampler.COLUMNS:
        found = getattr(again, name)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, getattr(trajectory, name))
    assert again.initial_scale == trajectory.initial_scale


def test_another_team_draws_the_same_from_the_file(tmp_path):
    trajectory = trace(NoiseSchedule("epsilon"), "ddpm", 4)
    (tmp_path / "trajectory.json").write_text(json.dumps(trajectory.to_json()), encoding="utf-8")
    noise = draw_noise("ddpm", 4, np.float32)
    read = numpy_sampler.read_trajectory(str(tmp_path / "trajectory.json"))
    found = numpy_sampler.sample(toy_network, noise, read)
    np.testing.assert_array_equal(found, sample(toy_network, noise, trajectory))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_number_of_steps_out_of_range_is_refused(steps):
    with pytest.raises(InputError, match=f"steps: found {steps}, expected 1 to 1000"):
        trace(NoiseSchedule("v"), "euler", steps)


def test_ddim_is_refused_where_diffusers_would_leave_noise_in_the_picture():
    with pytest.raises(InputError, match="found 30 with sampler 'ddim', expected a divisor of 1000 such as 25 or 40"):
        trace(NoiseSchedule("v"), "ddim", 30)


def test_a_number_of_steps_that_diffusers_miscounts_is_refused():
    with pytest.raises(InputError, match=r"steps: found 61, .* makes 62 timesteps down to -1, expected 61"):
        trace(NoiseSchedule("v"), "euler", 61)


def test_a_scheduler_of_another_form_is_named_and_refused():
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler

    clipping = DDIMScheduler(clip_sample=True)
    third_order = DPMSolverMultistepScheduler(solver_order=3)
    own_noise = EulerAncestralDiscreteScheduler()
    for scheduler in (clipping, third_order, own_noise):
        with pytest.raises(NotImplementedError, match=type(scheduler).__name__):
            trace_scheduler(scheduler, 20)


def top_level_imports(path):
    for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_stand_alone_sampler_needs_numpy_alone():
    source = Path(numpy_sampler.__file__).read_text(encoding="utf-8")
    nested = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert set(top_level_imports(numpy_sampler.__file__)) == {"numpy", "json", "collections.abc"}
    assert len(nested) == 3
    assert len(source.splitlines()) < 80


@pytest.mark.parametrize("module", [sampling, schedules])
def test_torch_and_diffusers_are_imported_where_they_are_used(module):
    assert not {"torch", "diffusers"} & set(top_level_imports(module.__file__))
