"""How smoothly pictures change with the latent: path length, interpolations, the largest jump."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import GateError, InputError
from stages.evaluate.conditioning import Conditions, conditions_in_turn
from stages.generators.interface import Generator
from stages.generators.noise import latents

FeatureFunction = Callable[[np.ndarray], np.ndarray]  # float32 (N, C, H, W) in [0, 255], not rounded, to (N, D)

# Of the way from one latent to the other. Measured on a trained and on a random DCGAN in EfficientNet-Lite0: from 1e-4,
# the paper's, to 1e-3 the length stays within 2 %, above 3e-3 the bends of the path cut it short (4 % at 0.01). The
# largest that is safe leaves rounding the least part. Of pictures rounded to 256 levels it would be 4 to 170 times the
# length at 1e-3, and 36 to 3,700 times at 1e-4.
EPSILON = 0.001
PRUNED = 0.01  # at either end, as in the paper
STABLE = 0.05  # relative change when epsilon is doubled
BATCH = 64


@dataclass(frozen=True)
class PathLength:
    """Mean squared feature distance per squared step of the interpolation parameter, pruned, with its standard error.

    `doubled` is the length at twice the epsilon over `length`: 1 where the result does not depend on epsilon.
    """

    length: float
    error: float
    epsilon: float
    doubled: float
    pairs: int

    @property
    def stable(self) -> bool:
        """Whether epsilon is neither lost in rounding nor so large that the path bends within it."""
        return abs(self.doubled - 1) <= STABLE

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return vars(self) | {"stable": self.stable}


@dataclass(frozen=True)
class Jumps:
    """Of each interpolation the largest feature distance of neighbours over the mean one, float (pairs,).

    1 is a steady change, `steps` is one jump between two still pictures. `positions` says after which step it is.
    """

    ratios: np.ndarray
    positions: np.ndarray
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: the distribution over pairs, and which pair jumps farthest."""
        worst = int(self.ratios.argmax())
        shares = {name: float(np.quantile(self.ratios, q)) for name, q in (("median", 0.5), ("high", 0.95))}
        largest = {"largest": float(self.ratios[worst]), "pair": worst, "step": int(self.positions[worst])}
        return {"steps": self.steps, "pairs": len(self.ratios), **shares, **largest}


def slerp(first: np.ndarray, second: np.ndarray, t: np.ndarray | float) -> np.ndarray:
    """Interpolate latents (N, ...) on the sphere, and their norms linearly; `t` in [0, 1] is one number or (N,).

    Straight lines would pass through short latents, which Gaussian noise never gives (White 2016, "Sampling generative
    networks"). Opposite latents have no one way between them; the straight line is taken there, as for equal ones.
    """
    share = np.broadcast_to(np.asarray(t, np.float64), len(first))[:, None]
    ends = [latent.reshape(len(latent), -1).astype(np.float64) for latent in (first, second)]
    norms = [np.linalg.norm(end, axis=1, keepdims=True) for end in ends]
    one, two = (end / np.maximum(norm, np.finfo(float).tiny) for end, norm in zip(ends, norms, strict=True))
    angle = np.arccos(np.clip((one * two).sum(axis=1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    curved = sine > 1e-6
    safe = np.where(curved, sine, 1)
    weights = [np.where(curved, np.sin(part * angle) / safe, part) for part in (1 - share, share)]
    norm = (1 - share) * norms[0] + share * norms[1]
    return ((weights[0] * one + weights[1] * two) * norm).astype(np.float32).reshape(first.shape)


def measure_path_length(
    generator: Generator,
    features: FeatureFunction,
    seeds: range,
    epsilon: float = EPSILON,
    batch: int = BATCH,
    captions: Sequence[str] = (),
) -> PathLength:
    """Measure E[d(G(t), G(t + epsilon))^2 / epsilon^2] over pairs of latents and t, of pictures that are not rounded.

    Karras et al. 2019 ("A style-based generator architecture", section 4.1), in the given features, in Z. Pair i takes
    its latents from the seeds 2 i and 2 i + 1 of `seeds`, and t uniform in (epsilon, 1 - epsilon) from the first. A
    conditional generator draws all of a pair with one condition: its class in turn, or a caption.

    Raises:
        InputError: epsilon is not in (0, 0.25], or there are fewer than four seeds.
        GateError: the generator draws NaN or infinity.
    """
    if not 0 < epsilon <= 0.25:
        raise InputError(f"epsilon is {epsilon}; expected more than 0 and at most 0.25")
    parts = [
        _squared_speeds(generator, features, pair_seeds, epsilon, conditions)
        for pair_seeds, conditions in _pair_batches(generator, seeds, max(1, batch // 3), captions)
    ]
    single, double = (np.concatenate(part) for part in zip(*parts, strict=True))
    length, error = pruned_mean(single)
    doubled = pruned_mean(double)[0] / length if length > 0 else float(np.isclose(pruned_mean(double)[0], 0))
    return PathLength(length, error, epsilon, doubled, len(single))


def pruned_mean(values: np.ndarray, share: float = PRUNED) -> tuple[float, float]:
    """Return the mean without a share of the values at either end, and its standard error.

    The error of a trimmed mean is that of the Winsorised values over 1 - 2 share (Tukey and McLaughlin 1963).
    """
    low, high = np.quantile(values, [share, 1 - share])
    kept = values[(values >= low) & (values <= high)]
    spread = np.clip(values, low, high).std(ddof=1) / (1 - 2 * share)
    return float(kept.mean()), float(spread / np.sqrt(len(values)))


def interpolate(
    generator: Generator, seeds: range, steps: int, batch: int = BATCH, captions: Sequence[str] = ()
) -> np.ndarray:
    """Draw interpolations between pairs of seeds, both ends included: float32 (pairs, steps, C, H, W) in [-1, 1].

    A conditional generator draws all of a pair with one condition: its class in turn, or a caption.

    Raises:
        InputError: there are fewer than two steps or seeds.
        GateError: the generator draws NaN or infinity.
    """
    if steps < 2:
        raise InputError(f"an interpolation of {steps} pictures was asked for; expected two or more")
    rows = []
    for pair_seeds, conditions in _pair_batches(generator, seeds, max(1, batch // steps), captions, at_least=1):
        first, second = _ends(generator, pair_seeds)
        path = np.concatenate([slerp(first, second, t) for t in np.linspace(0, 1, steps)])
        drawn = draw_paths(generator, path, conditions)
        rows.append(drawn.reshape(steps, len(first), *drawn.shape[1:]).swapaxes(0, 1))
    return np.concatenate(rows)


def measure_jumps(pictures: np.ndarray, features: FeatureFunction) -> Jumps:
    """Find the largest jump of each interpolation, given pictures (pairs, steps, C, H, W) in [-1, 1].

    A generator with a discontinuity shows its whole change in one step, however fine the steps are.

    Raises:
        InputError: there are fewer than three pictures in an interpolation.
    """
    if pictures.ndim != 5 or pictures.shape[1] < 3:
        raise InputError(f"interpolations have shape {pictures.shape}; expected (pairs, steps >= 3, C, H, W)")
    ratios, positions = [], []
    for row in pictures:
        found = np.asarray(features(to_grey_levels(row)), np.float64)
        distances = np.linalg.norm(np.diff(found, axis=0), axis=1)
        mean = distances.mean()
        ratios.append(distances.max() / mean if mean > 0 else 1.0)
        positions.append(distances.argmax())
    return Jumps(np.array(ratios), np.array(positions), pictures.shape[1] - 1)


def draw_paths(generator: Generator, latent: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Draw paths, the latents of all paths at one place after the other; `conditions` are those of the paths.

    Raises:
        GateError: the generator draws NaN or infinity.
    """
    paths = len(conditions)
    wanted = conditions.take(np.arange(len(latent)) % paths) if paths else conditions
    pictures = generator.generate(wanted.request(latent))
    if not np.isfinite(pictures).all():
        raise GateError("the generator draws NaN or infinity along an interpolation; train it with other settings")
    return pictures


def to_grey_levels(pictures: np.ndarray) -> np.ndarray:
    """Map float pictures in [-1, 1] to float32 in [0, 255] as `to_uint8` does, but without rounding."""
    levels: np.ndarray = np.clip((pictures.astype(np.float32) + np.float32(1)) * np.float32(127.5), 0, 255)
    return levels


def _squared_speeds(
    generator: Generator, features: FeatureFunction, seeds: range, epsilon: float, conditions: Conditions
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared feature distance per squared step of pairs, at epsilon and at twice that, float64 (pairs,)."""
    first, second = _ends(generator, seeds)
    draws = [np.random.Generator(np.random.Philox(key=seed)).uniform() for seed in seeds[::2]]
    t = epsilon + (1 - 2 * epsilon) * np.array(draws[: len(first)])
    path = np.concatenate([slerp(first, second, t + step) for step in (-epsilon, 0, epsilon)])
    found = np.asarray(features(to_grey_levels(draw_paths(generator, path, conditions))), np.float64)
    before, here, after = np.split(found, 3)
    halves = [np.square(here - side).sum(axis=1) / epsilon**2 for side in (before, after)]
    return (halves[0] + halves[1]) / 2, np.square(after - before).sum(axis=1) / (2 * epsilon) ** 2


def _ends(generator: Generator, seeds: range) -> tuple[np.ndarray, np.ndarray]:
    found = latents(seeds, generator.capabilities.latent_shape)
    return found[0::2], found[1::2]


def _pair_batches(
    generator: Generator, seeds: range, pairs: int, captions: Sequence[str], at_least: int = 2
) -> Iterator[tuple[range, Conditions]]:
    """Yield the seeds of a number of pairs at a time, and the pairs' conditions; a seed left over is not used."""
    whole = seeds[: len(seeds) // 2 * 2]
    if len(whole) < 2 * at_least:
        raise InputError(f"{len(seeds)} seeds were given; expected {2 * at_least} or more, two for each interpolation")
    conditions = conditions_in_turn(generator.capabilities, len(whole) // 2, captions)
    for start in range(0, len(whole), 2 * pairs):
        part = whole[start : start + 2 * pairs]
        yield part, conditions.take(range(start // 2, (start + len(part)) // 2))
