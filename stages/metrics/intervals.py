"""How far a score would move with other generated pictures: standard errors and 95 % intervals."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from stages.errors import InputError
from stages.metrics.gaussians import Features, Gaussian
from stages.metrics.proportions import NORMAL_95
from stages.metrics.resampling import Resampler

TAIL = 2.5  # percent on either side of a 95 % interval
RESAMPLES = 1000
FEWEST = 20  # resamples, below which a percentile of 2.5 says nothing


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; `resamples` is 0 where the standard error comes from a formula or a jackknife."""

    low: float
    high: float
    standard_error: float
    resamples: int = 0

    def to_json(self) -> dict[str, float | int]:
        """Return plain JSON values."""
        return {
            "low": self.low,
            "high": self.high,
            "standard_error": self.standard_error,
            "resamples": self.resamples,
        }


def normal_interval(value: float, standard_error: float, within: tuple[float, float] | None = None) -> Interval:
    """Return value +- 1.96 standard errors, cut to `within` where the score has bounds."""
    low, high = value - NORMAL_95 * standard_error, value + NORMAL_95 * standard_error
    if within:
        low, high = max(low, within[0]), min(high, within[1])
    return Interval(low, high, standard_error)


def frechet_interval(
    value: float,
    generated: Features | Resampler,
    reference: Features | Gaussian,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    reference_too: bool = False,
) -> Interval:
    """Return the bootstrap interval of a Fréchet distance over the generated set, and with `reference_too` over both.

    Each resample is judged by the pictures' influences, the distance's first derivative (the infinitesimal jackknife,
    Efron 1982), and not by the distance of the resample itself: that set has only 63 % of the pictures, each of some
    twice or more, which below N = D raises the distance by a tenth to a half and its spread to up to 2.5 times that of
    fresh sets. The influences' spread costs one eigendecomposition, and on Gaussians from N = D / 6 to N = 20 D it was
    0.95 to 1.2 times the true one (up to 1.4 times near N = D with `reference_too`): too wide, if anything.
    The interval is for the mean distance of fresh sets of the same N, its bias included. A model and its rival are
    compared with one reference, whose own chance is left out unless `reference_too`. With `resamples` = 0 nothing is
    drawn: the interval is 1.96 standard errors to either side.

    Raises:
        InputError: 1 to 19 resamples are asked for, or the reference is not given as pictures.
    """
    if resamples:
        _require_resamples(resamples)
    resampler = generated if isinstance(generated, Resampler) else Resampler(generated, reference)
    influences = [resampler.influence()]
    if reference_too:
        if not isinstance(reference, Features):
            raise InputError("the reference is a file of statistics: its own noise needs its pictures' features")
        influences.append(Resampler(reference, resampler.generated).influence())
    error = float(np.sqrt(sum(influence.var(ddof=1) / len(influence) for influence in influences)))
    if not resamples:
        return normal_interval(value, error)
    rng = np.random.default_rng(seed)
    moves = np.sum([_resampled_means(influence, resamples, rng) for influence in influences], axis=0)
    return _around(value, moves, error)


def recomputed_interval(value: float, resampler: Resampler, resamples: int, seed: int) -> Interval:
    """Return the plain bootstrap interval of a Fréchet distance: the distance of each resample, computed anew.

    For N well above D, as a check of `frechet_interval`: below, it is far too wide. Duplicates bias every resample
    upwards, so the percentiles are taken about the resamples' own mean and put around the value.

    Raises:
        InputError: fewer than 20 resamples are asked for.
    """
    _require_resamples(resamples)
    rng, count = np.random.default_rng(seed), resampler.count
    draws = [rng.multinomial(count, np.full(count, 1 / count)) for _ in range(resamples)]
    found = np.array([resampler.distance(weights) for weights in draws])
    return _around(value, found, float(found.std(ddof=1)))


def jackknife_error(left_out: np.ndarray) -> float:
    """Return the standard error from the values with each of g equal blocks left out, shape (g,) (Tukey 1958)."""
    count = len(left_out)
    return float(np.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum()))


def smallest_difference(first: float, second: float | None = None, power: float | None = None) -> float:
    """Return the smallest difference of two independent scores that a two-sided 95 % test can tell from none.

    Of standard errors `first` and `second` (the same, if None). Without `power` this is the smallest observed
    difference that counts as shown; with power, such as 0.8, the smallest true difference that is shown that often.

    Raises:
        InputError: a standard error is negative or not finite, or the power is not between 0 and 1.
    """
    errors = np.array([first, first if second is None else second])
    if not (np.isfinite(errors).all() and (errors >= 0).all()):
        raise InputError(f"standard errors are {first} and {second}, expected finite numbers of at least 0")
    if power is not None and not 0 < power < 1:
        raise InputError(f"power is {power}, expected a share between 0 and 1, such as 0.8")
    reach = NORMAL_95 + (NormalDist().inv_cdf(power) if power is not None else 0)
    return float(reach * np.hypot(*errors))


def _require_resamples(resamples: int) -> None:
    if resamples < FEWEST:
        raise InputError(f"{resamples} resamples are too few for a 95 % interval; ask for at least {FEWEST}")


def _resampled_means(influence: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    count = len(influence)
    return np.array([influence[rng.integers(0, count, count)].mean() for _ in range(resamples)])


def _around(value: float, found: np.ndarray, error: float) -> Interval:
    low, high = np.percentile(found, (TAIL, 100 - TAIL)) - found.mean()
    return Interval(value + float(low), value + float(high), error, len(found))
