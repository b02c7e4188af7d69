"""How much of a picture is left at a timestep, and which diffusers scheduler walks back from noise to it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from stages.errors import InputError

Prediction = Literal["epsilon", "v", "flow"]
BetaSchedule = Literal["linear", "scaled_linear", "cosine"]
Sampler = Literal["ddpm", "ddim", "dpm++", "euler", "heun", "flow_euler"]

SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)

_BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},  # Ho 2020, section 4
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},  # Rombach 2022
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},  # Nichol and Dhariwal 2021, eq. 17
}

# Clipping would make a sampler non-linear: then no table of coefficients could stand for it.
_DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "thresholding": False, "set_alpha_to_one": True}
_SCHEDULERS: dict[str, dict[str, Any]] = {
    "ddpm": _DDIM,  # its eta is 1 and is given to each step; the config does not hold it
    "ddim": _DDIM,
    "dpm++": {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "lower_order_final": True,
        "final_sigmas_type": "zero",
        "thresholding": False,
    },
    "euler": {"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "zero"},
    "heun": {"_class_name": "HeunDiscreteScheduler", "clip_sample": False},
}


@dataclass(frozen=True)
class NoiseSchedule:
    """What the network predicts and how noise mixes with the picture over `train_steps` timesteps.

    prediction: `epsilon` (Ho 2020), `v` = alpha eps - sigma x0 (Salimans and Ho 2022) or `flow` = eps - x0 along
    x_t = (1 - t) x0 + t eps (Lipman 2022, Liu 2022), where the network is given the timestep t * train_steps and
    `schedule` and `zero_terminal_snr` mean nothing (its SNR ends at 0 by itself).

    Raises:
        InputError: a name is unknown, `train_steps` is below 2, or epsilon is asked for with zero terminal SNR.
    """

    prediction: Prediction
    schedule: BetaSchedule = "linear"
    zero_terminal_snr: bool = False
    train_steps: int = 1000

    def __post_init__(self) -> None:
        _refuse_unknown("prediction", self.prediction, get_args(Prediction))
        _refuse_unknown("schedule", self.schedule, get_args(BetaSchedule))
        if self.train_steps < 2:
            raise InputError(f"train_steps: found {self.train_steps}, expected at least 2")
        if self.prediction == "epsilon" and self.zero_terminal_snr:
            raise InputError(
                "zero_terminal_snr: found true with prediction 'epsilon', expected prediction 'v': "
                "at SNR 0 the noise says nothing of the picture (Lin 2023)"
            )


def _refuse_unknown(setting: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise InputError(f"{setting}: found {found!r}, expected one of {', '.join(known)}")


def scheduler_config(schedule: NoiseSchedule, sampler: Sampler) -> dict[str, Any]:
    """Return the config of a diffusers scheduler, with its class in `_class_name`, as `scheduler_config.json` holds it.

    Timesteps are spaced `trailing` (Lin 2023, table 2): the first one is the noisiest, which zero terminal SNR needs.

    Raises:
        InputError: the sampler is unknown, or cannot draw from this prediction or schedule.
    """
    _refuse_mismatch(schedule, sampler)
    if sampler == "flow_euler":
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": schedule.train_steps,
            "shift": 1.0,
        }
    config = _SCHEDULERS[sampler] | _BETAS[schedule.schedule]
    config |= {"num_train_timesteps": schedule.train_steps, "timestep_spacing": "trailing"}
    config["prediction_type"] = {"epsilon": "epsilon", "v": "v_prediction"}[schedule.prediction]
    if sampler != "heun":  # it has no such option
        config["rescale_betas_zero_snr"] = schedule.zero_terminal_snr
    return config


def _refuse_mismatch(schedule: NoiseSchedule, sampler: Sampler) -> None:
    _refuse_unknown("sampler", sampler, SAMPLERS)
    if (sampler == "flow_euler") != (schedule.prediction == "flow"):
        fitting = "flow_euler" if schedule.prediction == "flow" else ", ".join(_SCHEDULERS)
        raise InputError(f"sampler: found {sampler!r} with prediction {schedule.prediction!r}, expected {fitting}")
    # Its second evaluation is multiplied by the ratio of two sigmas, and the first one is 20291 for cosine, infinite
    # at zero terminal SNR. Even the exact denoiser of two narrow modes ends far from both (cosine, 10 steps: 1.6).
    if sampler == "heun" and (schedule.zero_terminal_snr or schedule.schedule == "cosine"):
        found = "zero_terminal_snr" if schedule.zero_terminal_snr else "schedule 'cosine'"
        raise InputError(
            f"sampler: found 'heun' with {found}, expected ddpm, ddim, dpm++ or euler: its first sigma is too large"
        )


def build_scheduler(schedule: NoiseSchedule, sampler: Sampler) -> Any:
    """Return the diffusers scheduler of `scheduler_config`, before `set_timesteps`.

    Raises:
        InputError: as `scheduler_config`.
    """
    import diffusers

    config = scheduler_config(schedule, sampler)
    return getattr(diffusers, config["_class_name"]).from_config(config)


@lru_cache(maxsize=16)
def alphas_cumprod(schedule: NoiseSchedule) -> np.ndarray:
    """Return the product of 1 - beta up to each timestep, float64 (train_steps,), falling, in [0, 1); read-only.

    The values are diffusers' own, float32 at heart, so that training and sampling see the same noise levels.
    With zero terminal SNR the last one is 0 (Lin 2023, algorithm 1).

    Raises:
        ValueError: a flow has no such product.
    """
    if schedule.prediction == "flow":
        raise ValueError("alphas_cumprod: found prediction 'flow', expected epsilon or v")
    values = build_scheduler(schedule, "ddim").alphas_cumprod.double().numpy()
    values.setflags(write=False)
    return values


def signal_and_noise(schedule: NoiseSchedule, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and sigma of x_t = alpha x0 + sigma eps, float64, each of the shape of `timesteps`.

    timesteps: whole numbers in [0, train_steps) for epsilon and v, where alpha = sqrt(alphas_cumprod[t]) and
    sigma = sqrt(1 - alphas_cumprod[t]); any in [0, train_steps] for flow, where sigma = t / train_steps = 1 - alpha.

    Raises:
        ValueError: a timestep is outside its range, or not whole where it must be.
    """
    times = np.asarray(timesteps, np.float64)
    if schedule.prediction == "flow":
        _refuse_outside(times, schedule.train_steps)
        sigma = times / schedule.train_steps
        return 1 - sigma, sigma
    _refuse_outside(times, schedule.train_steps - 1)
    if (times != np.floor(times)).any():
        raise ValueError(f"timesteps: found a fraction with prediction {schedule.prediction!r}, expected whole numbers")
    kept = alphas_cumprod(schedule)[times.astype(np.int64)]
    return np.sqrt(kept), np.sqrt(1 - kept)


def _refuse_outside(times: np.ndarray, last: int) -> None:
    if not ((times >= 0) & (times <= last)).all():
        raise ValueError(f"timesteps: found {times.min()} to {times.max()}, expected 0 to {last}")


def place_timesteps(scheduler: Any, steps: int) -> None:
    """Give a scheduler its timesteps; for flow matching evenly from 1 to 1 / steps, as the pipeline of Flux does.

    diffusers' own default ends at sigma .001 whatever the number of steps: the last evaluation would be nearly wasted.
    """
    if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps))
    else:
        scheduler.set_timesteps(steps)
