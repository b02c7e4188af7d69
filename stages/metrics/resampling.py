"""Fréchet distances of resamples and of pictures' weights: at infinite N, and how much each picture moves the value."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from stages.errors import InputError
from stages.metrics.frechet import require_same_dimension, root_sum
from stages.metrics.gaussians import ROWS, Features, Gaussian

SMALLEST_SUBSET = 5000  # of the distance at infinite N, as in Chong and Forsyth 2020, or a tenth of the set
NEGLIGIBLE = 1e-7  # of the largest singular value: rounding, not variance


class Resampler:
    """Fréchet distances of many weighted resamples of one generated set to one reference, without new statistics.

    The generated pictures are taken once to the reference's coordinates, y = F x with F^T F = its covariance: then
    tr (C1 C2)^(1/2) = tr (cov y)^(1/2). A resample is a weight per picture, the number of times it was drawn;
    duplicates are one row times the root of its weight. Where there are fewer pictures than coordinates, the Gram
    matrix of all pictures serves every resample.
    """

    def __init__(self, generated: Features, reference: Features | Gaussian) -> None:
        require_same_dimension(generated, reference)
        self.generated = generated
        self.count = len(generated)
        self.reference_trace = reference.trace()
        self.offset = torch.from_numpy(generated.mean - reference.mean)
        to_reference = reference.root().T
        parts = [(rows @ to_reference, rows.square().sum(dim=1)) for rows in self._centred_parts()]
        self.projected = torch.cat([rows for rows, _ in parts])
        self.squares = torch.cat([squares for _, squares in parts])
        self.small = self.count <= self.projected.shape[1]
        if self.small:
            self.gram = self.projected @ self.projected.T

    def distance(self, weights: np.ndarray) -> float:
        """Return the distance of the resample in which picture i is drawn weights[i] times, weights int (N,)."""
        weight = torch.from_numpy(weights.astype(np.float64))
        total = float(weight.sum())
        parts = zip(weight.split(ROWS), self._centred_parts(), strict=True)
        mean = torch.stack([part @ rows for part, rows in parts]).sum(dim=0) / total
        trace = (float(weight @ self.squares) - total * float(mean @ mean)) / (total - 1)
        spread = self._gram_of(weight, total) if self.small else self._scatter_of(weight, total)
        shared = root_sum(spread / (total - 1))
        return float((mean + self.offset).square().sum()) + trace + self.reference_trace - 2 * shared

    def influence(self) -> np.ndarray:
        """Return each picture's influence on the distance, float64 (N,), with a mean of zero.

        This is the first derivative of the distance when the picture's share grows. That of 2 tr P^(1/2), P = cov y,
        is y^T P^(-1/2) y less its mean; where P is singular, as below N = D, the pseudo-inverse stands for P^(-1/2).
        """
        along = torch.cat([rows @ self.offset for rows in self._centred_parts()])
        found = self.squares + 2 * along - self._whitened_squares()
        return (found - found.mean()).numpy()

    def _centred_parts(self) -> Iterator[Tensor]:
        for start in range(0, self.count, ROWS):
            yield torch.from_numpy(self.generated.values[start : start + ROWS] - self.generated.mean)

    def _whitened_squares(self) -> Tensor:
        """Return y^T P^(-1/2) y of each picture."""
        if self.small:
            values, vectors = torch.linalg.eigh(self.gram / self.count)
            return vectors.square() @ values.clamp_min(0).sqrt() * self.count
        values, vectors = torch.linalg.eigh(self.projected.T @ self.projected / self.count)
        roots = values.clamp_min(0).sqrt()
        kept = roots > NEGLIGIBLE * roots[-1]
        scaled = vectors[:, kept] / roots[kept].sqrt()
        return torch.cat([(rows @ scaled).square().sum(dim=1) for rows in self.projected.split(ROWS)])

    def _scatter_of(self, weight: Tensor, total: float) -> Tensor:
        """Return the scatter of the weighted y about their mean, of as many rows as there are coordinates."""
        scatter, mean = torch.zeros(()), weight @ self.projected / total
        for part, rows in zip(weight.split(ROWS), self.projected.split(ROWS), strict=True):
            drawn = part > 0
            scatter = scatter + (rows[drawn] * part[drawn, None]).T @ rows[drawn]
        return scatter - total * torch.outer(mean, mean)

    def _gram_of(self, weight: Tensor, total: float) -> Tensor:
        """Return the Gram matrix of the weighted, centred y: the same nonzero eigenvalues as their scatter."""
        chosen = torch.nonzero(weight)[:, 0]
        weight = weight[chosen]
        gram = self.gram[chosen][:, chosen]
        to_mean = gram @ weight / total
        gram = gram - to_mean[:, None] - to_mean[None, :] + weight @ to_mean / total
        return gram * torch.outer(weight.sqrt(), weight.sqrt())


def frechet_at_infinity(
    generated: Features | Resampler, real: Features | Gaussian, seed: int, sizes: int = 15
) -> float:
    """Return the distance that infinitely many generated pictures would have: the intercept over 1 / N.

    Ordinary least squares through the distances of `sizes` subsets without replacement, of 5,000 pictures (or a tenth
    of the set) up to all (Chong and Forsyth 2020, "Effectively unbiased FID and Inception Score"). What remains is
    the bias of the reference's own finite number of pictures, which is the same for every model compared with it.
    It may be slightly negative; below N = D the distance is not yet linear in 1 / N and the intercept too high.

    Raises:
        InputError: there are too few pictures for subsets of different sizes.
    """
    resampler = generated if isinstance(generated, Resampler) else Resampler(generated, real)
    count = resampler.count
    smallest = min(SMALLEST_SUBSET, max(count // 10, 2))
    numbers = np.linspace(smallest, count, sizes).astype(int)
    if len(set(numbers)) < 3:
        raise InputError(f"{count} generated pictures are too few to extrapolate to infinity; give at least 4")
    rng = np.random.default_rng(seed)
    found = [resampler.distance(_subset(count, number, rng)) for number in numbers]
    return float(np.polyfit(1 / numbers, found, 1)[1])


def _subset(count: int, chosen: int, rng: np.random.Generator) -> np.ndarray:
    weights = np.zeros(count, np.int64)
    weights[rng.choice(count, chosen, replace=False)] = 1
    return weights
