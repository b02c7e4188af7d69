"""A sampler's whole trajectory as a table of coefficients, read off the diffusers scheduler itself."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import InputError
from stages.generators.diffusion import numpy_sampler
from stages.generators.diffusion.schedules import NoiseSchedule, Sampler, build_scheduler, place_timesteps

if TYPE_CHECKING:
    import torch

# A probe holds one unit column for each of three steps' (x, output, noise), used in turn, and random columns: the
# first are read, the second must agree with what was read, which they do for a linear step alone.
_UNIT_COLUMNS = 9
_CHECK_COLUMNS = 16
_TOLERANCE = 1e-9  # of the largest value; linear schedulers leave about 1e-14


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The K network evaluations of a sampler, float64 arrays (K,), and the factor of the initial noise.

    out_k = network(input_scale_k x_k, timesteps_k), x_0 = initial_scale * standard normal noise, and
    x_{k+1} = sample_k x_k + output_k out_k + previous_sample_k x_{k-1} + previous_output_k out_{k-1} + noise_k n_k.
    """

    timesteps: np.ndarray
    input_scale: np.ndarray
    sample: np.ndarray
    output: np.ndarray
    previous_sample: np.ndarray
    previous_output: np.ndarray
    noise: np.ndarray
    initial_scale: float

    @property
    def evaluations(self) -> int:
        """Return how often the network is asked: K."""
        return len(self.timesteps)

    @property
    def noise_rows(self) -> int:
        """Return how many steps add noise: the rows of noise that a picture needs besides the first one."""
        return int(np.count_nonzero(self.noise))

    @property
    def stochastic(self) -> bool:
        """Return whether any step adds noise."""
        return self.noise_rows > 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, from which `from_json` gets back every bit."""
        return {f.name: np.asarray(getattr(self, f.name)).tolist() for f in fields(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Trajectory":
        """Read what `to_json` returned."""
        return cls(**{f.name: _from_list(value[f.name]) for f in fields(cls)})


def _from_list(value: list[float] | float) -> Any:
    return np.array(value, np.float64) if isinstance(value, list) else float(value)


@lru_cache(maxsize=64)
def trace(schedule: NoiseSchedule, sampler: Sampler, steps: int) -> Trajectory:
    """Return the trajectory of a sampler in `steps` steps (Heun: 2 steps - 1 evaluations); the same object each time.

    `ddpm` is DDIM with eta 1 (Song 2021, eq. 16): ancestral sampling whose noise can be passed in.

    Raises:
        InputError: sampler and schedule do not fit, or diffusers cannot walk this number of steps correctly.
    """
    if not 1 <= steps <= schedule.train_steps:
        raise InputError(f"steps: found {steps}, expected 1 to {schedule.train_steps}")
    scheduler = build_scheduler(schedule, sampler)
    if sampler in ("ddpm", "ddim"):
        _refuse_uneven(sampler, steps, schedule.train_steps)
    return trace_scheduler(scheduler, steps, ancestral=sampler == "ddpm")


def _refuse_uneven(sampler: str, steps: int, train_steps: int) -> None:
    """diffusers' DDIM lands on t - train_steps // steps, not on the next timestep: noise would be left in the end."""
    if train_steps % steps == 0:
        return
    lower = max(n for n in range(1, steps) if train_steps % n == 0)
    upper = min(n for n in range(steps, train_steps + 1) if train_steps % n == 0)
    raise InputError(
        f"steps: found {steps} with sampler {sampler!r}, expected a divisor of {train_steps} such as {lower} or {upper}"
    )


def trace_scheduler(scheduler: Any, steps: int, ancestral: bool = False) -> Trajectory:
    """Read the trajectory off any diffusers scheduler whose step is linear in two samples, two outputs and noise.

    The step is fed unit vectors in float64, so the table holds what diffusers does with its own float32 sigmas and
    alphas, without further rounding. ancestral: give each step eta 1 and noise (DDIMScheduler).

    Raises:
        InputError: diffusers makes other timesteps than asked for, or coefficients that are not finite.
        NotImplementedError: the scheduler's step is not of this form.
    """
    place_timesteps(scheduler, steps)
    _refuse_miscounted(scheduler, steps)
    table = np.array(list(_probe(scheduler, ancestral))).T.copy()
    table.setflags(write=False)  # `trace` gives the same one to everybody
    columns = zip(numpy_sampler.COLUMNS, table, strict=True)
    return Trajectory(**dict(columns), initial_scale=float(getattr(scheduler, "init_noise_sigma", 1.0)))


def _refuse_miscounted(scheduler: Any, steps: int) -> None:
    """Trailing spacing counts down by a float: for some numbers of steps diffusers adds a timestep of -1."""
    expected = scheduler.order * (steps - 1) + 1
    found = len(scheduler.timesteps)
    if found != expected or float(scheduler.timesteps.min()) < 0:
        raise InputError(
            f"steps: found {steps}, of which diffusers' {type(scheduler).__name__} makes {found} timesteps down to "
            f"{float(scheduler.timesteps.min()):g}, expected {expected} down to 0 or more: take another number of steps"
        )


def _probe(scheduler: Any, ancestral: bool) -> Iterator[list[float]]:
    """Yield timestep, input scale and the five coefficients of each step."""
    random = np.random.default_rng(0)
    past = np.zeros((3, _UNIT_COLUMNS + _CHECK_COLUMNS))
    for k, t in enumerate(scheduler.timesteps):
        now = _unit_vectors(k, random)
        scaled, following = _take_step(scheduler, t, now, ancestral)
        terms = np.stack([now[0], now[1], past[0], past[1], now[2]])
        coefficients = _read_off(scheduler, t, following, terms)
        scale = _read_off(scheduler, t, scaled, now[:1])
        yield [float(t), *scale, *coefficients]
        past = now


def _unit_vectors(k: int, random: np.random.Generator) -> np.ndarray:
    vectors = np.zeros((3, _UNIT_COLUMNS + _CHECK_COLUMNS))
    vectors[range(3), range(3 * (k % 3), 3 * (k % 3) + 3)] = 1
    # powers of two, since some schedulers multiply in float32; wide enough that a clipped x0 is noticed
    powers = 2.0 ** random.integers(-2, 6, (3, _CHECK_COLUMNS))
    vectors[:, _UNIT_COLUMNS:] = powers * random.choice((-1, 1), powers.shape)
    return vectors


def _take_step(scheduler: Any, t: "torch.Tensor", now: np.ndarray, ancestral: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's input and the next sample, float64 vectors."""
    import torch

    x, out, noise = torch.from_numpy(now).unsqueeze(1)
    scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
    options = {"eta": 1.0, "variance_noise": noise} if ancestral else {}
    following = scheduler.step(out, t, x, **options, return_dict=False)[0]
    return scaled[0].numpy(), following[0].numpy()


def _read_off(scheduler: Any, t: "torch.Tensor", vector: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Return the coefficients of a vector in its terms, each of which has a unit column of its own."""
    if not np.isfinite(vector).all():
        raise InputError(
            f"steps: diffusers' {type(scheduler).__name__} gives numbers that are not finite at timestep {float(t):g} "
            f"of {len(scheduler.timesteps)}, expected finite ones: take another number of steps or another sampler"
        )
    units = terms[:, :_UNIT_COLUMNS]
    coefficients = units @ vector[:_UNIT_COLUMNS]
    if np.abs(coefficients @ terms - vector).max() > _TOLERANCE * (1 + np.abs(vector).max()):
        raise NotImplementedError(
            f"{type(scheduler).__name__}: a step is not linear in the last two samples, the last two outputs and noise"
        )
    return coefficients


def sample(
    network: numpy_sampler.Network,
    noise: np.ndarray,
    trajectory: Trajectory,
    guidance: float = 1.0,
    unconditional: numpy_sampler.Network | None = None,
) -> np.ndarray:
    """Return the drawn x0, shape (N, *shape), in the dtype of the noise; network(x, timesteps (N,)) -> output.

    noise: standard normal (N, *shape), or (N, 1 + trajectory.noise_rows, *shape) if it is stochastic, row 0 the start.

    Raises:
        ValueError: the noise has too few or too many rows, or guidance is not 1 without an unconditional network.
    """
    return numpy_sampler.sample(network, noise, trajectory.to_json(), guidance, unconditional)
