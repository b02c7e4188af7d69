"""Draw from a diffusion or flow network with numpy alone: copy this file beside the exported network.

trajectory = read_trajectory("trajectory.json")
picture = sample(lambda x, t: session.run(None, {"sample": x, "timestep": t})[0], noise, trajectory)
"""

import json
from collections.abc import Callable, Iterator  # the standard library's: nothing to install but numpy

import numpy as np

Network = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x (N, *shape), timesteps (N,) -> output (N, *shape)
COLUMNS = ("timesteps", "input_scale", "sample", "output", "previous_sample", "previous_output", "noise")


def read_trajectory(path: str) -> dict:
    """Read the coefficients of a sampler: lists of one number per network evaluation, and `initial_scale`."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be one import more
        return json.load(file)


def guided(network: Network, guidance: float = 1.0, unconditional: Network | None = None) -> Network:
    """Return u + guidance * (c - u), classifier-free guidance (Ho and Salimans 2022); 1 is the network c alone.

    Raises:
        ValueError: guidance is not 1 and there is no unconditional network.
    """
    if guidance == 1:
        return network
    if unconditional is None:
        raise ValueError(f"guidance: found {guidance} without an unconditional network, expected 1")

    def blend(x: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
        without = unconditional(x, timesteps)
        return without + guidance * (network(x, timesteps) - without)

    return blend


def states(network: Network, noise: np.ndarray, trajectory: dict) -> Iterator[np.ndarray]:
    """Yield x after each network evaluation, float64 (N, *shape); noise as in `sample`.

    x_{k+1} = a_k x_k + b_k out_k + c_k x_{k-1} + d_k out_{k-1} + s_k noise_k, out_k = network(scale_k x_k, t_k).

    Raises:
        ValueError: a stochastic sampler's noise has not one row for the start and one for each step that adds noise.
    """
    rows = sum(s != 0 for s in trajectory["noise"])
    if rows and (noise.ndim < 3 or noise.shape[1] != 1 + rows):
        raise ValueError(f"noise: found shape {noise.shape}, expected (N, {1 + rows}, *shape)")
    added = iter(noise.swapaxes(0, 1)[1:] if rows else ())
    x = trajectory["initial_scale"] * (noise[:, 0] if rows else noise).astype(np.float64)
    last_x = last_out = np.zeros_like(x)
    for t, scale, a, b, c, d, s in zip(*(trajectory[name] for name in COLUMNS), strict=True):
        out = network((scale * x).astype(noise.dtype), np.full(len(x), t, noise.dtype)).astype(np.float64)
        following = a * x + b * out + c * last_x + d * last_out + (s * next(added) if s else 0.0)
        x, last_x, last_out = following, x, out
        yield x


def sample(
    network: Network, noise: np.ndarray, trajectory: dict, guidance: float = 1.0, unconditional: Network | None = None
) -> np.ndarray:
    """Return the drawn x0, shape (N, *shape), in the dtype of the noise; the network sees that dtype too.

    noise: standard normal (N, *shape), or (N, 1 + noise rows, *shape) for a stochastic sampler, row 0 being the start.

    Raises:
        ValueError: as `guided` and `states`.
    """
    x = np.empty(0)
    for x in states(guided(network, guidance, unconditional), noise, trajectory):  # noqa: B007 - the last one counts
        pass
    return x.astype(noise.dtype)
