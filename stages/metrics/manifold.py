"""Precision, recall, density and coverage from one pass over the parts of the three matrices of distances."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.errors import InputError
from stages.metrics.frechet import require_same_dimension
from stages.metrics.gaussians import Features
from stages.metrics.intervals import jackknife_error

ROWS = 2048  # of a part of the distance matrix
COLUMNS = 4096  # at most; the parts and the temporaries beside them are of 64 MiB each
BLOCKS = 20  # of generated pictures, each left out once for the standard errors
ROUNDED_BITS = 24  # of a squared distance's 52: equal distances, differently rounded, become equal again
COINCIDENT = 1e-12  # of the summed squared lengths: less is rounding, so the two are one point
SHUFFLE = 5  # the seed by which generated pictures are dealt to blocks, which are not to follow their classes


@dataclass(frozen=True)
class Manifold:
    """The four scores, their standard errors over the generated set, and which pictures count.

    precision, recall and coverage are shares in [0, 1]; density is at least 0 and 1 is expected of real pictures.
    `inside` (generated pictures, bool (N,)) are within a real ball, so that precision is its mean; `recalled` and
    `covered` (real pictures, bool (M,)) have means recall and coverage. An error is NaN below 3 pictures a block.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    inside: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray
    errors: dict[str, float]


def manifold(generated: Features, real: Features, neighbours: int) -> Manifold:
    """Return precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), k = neighbours.

    A picture's ball reaches to the k-th nearest other picture of its own set. A picture on its rim counts for
    precision and recall, as torch-fidelity does, and does not for density and coverage, as prdc does: this matters
    where pictures repeat. Distances are in float64 from parts of at most 2,048 by 4,096, so that 50,000 pictures of
    2,048 features on both sides need the features and below 1 GiB more.
    The standard errors of precision and density are those of a mean over pictures, given the real balls; those of
    recall and coverage come from leaving out each of 20 blocks of generated pictures (recall's balls grow then).
    All are over the generated set alone, with the real one as it is; that of a share is at least one picture's part,
    so that a share of 1 is not taken for certain. On Gaussians 94 to 100 % of such intervals hold the mean.

    Raises:
        InputError: a set has no more than k pictures, or the numbers of features differ.
    """
    require_same_dimension(generated, real)
    for features in (generated, real):
        if not 1 <= neighbours < len(features):
            raise InputError(
                f"evaluate.neighbours is {neighbours}, but {features.name} has {len(features)} pictures; "
                f"set it from 1 to {len(features) - 1}, or give more pictures"
            )
    centre = real.mean
    order = np.random.default_rng(SHUFFLE).permutation(len(generated))
    blocks = np.array_split(order, min(BLOCKS, len(generated)))
    drawn = _Points(generated.values, centre, blocks)
    reals = _Points(real.values, centre, np.array_split(np.arange(len(real)), -(-len(real) // COLUMNS)))
    counted = _Counts(drawn, reals, neighbours)
    return counted.scores(neighbours)


class _Points:
    """Features of one set in blocks of pictures, taken to float64 and centred when a block is asked for."""

    def __init__(self, values: np.ndarray, centre: np.ndarray, blocks: list[np.ndarray]) -> None:
        self.values, self.centre, self.blocks = values, centre, blocks

    def __len__(self) -> int:
        return len(self.values)

    def take(self, chosen: np.ndarray) -> Tensor:
        return torch.from_numpy(self.values[chosen] - self.centre)

    def parts(self, block: np.ndarray) -> list[np.ndarray]:
        return np.array_split(block, -(-len(block) // COLUMNS))

    def rows(self) -> list[np.ndarray]:
        return np.array_split(np.arange(len(self)), -(-len(self) // ROWS))


class _Counts:
    """What the distance matrices say of each picture, with all generated pictures and without each block of them."""

    def __init__(self, drawn: _Points, reals: _Points, neighbours: int) -> None:
        self.drawn, self.blocks = drawn, len(drawn.blocks)
        real_radii = _radii(_nearest(reals, neighbours), neighbours)
        nearest = _nearest(drawn, neighbours)
        keep = ~torch.eye(self.blocks, dtype=torch.bool)
        self.radii = torch.stack([_radii(nearest[:, keep[block]], neighbours) for block in range(self.blocks)])
        self.full_radii = _radii(nearest, neighbours)
        self.inside = torch.zeros(len(drawn), dtype=torch.bool)
        self.balls = torch.zeros(len(drawn), dtype=torch.int64)
        self.recalled = torch.zeros(len(reals), dtype=torch.bool)
        self.recalled_without = torch.zeros((self.blocks, len(reals)), dtype=torch.bool)
        self.hit = torch.zeros((self.blocks, len(reals)), dtype=torch.bool)
        for rows in reals.rows():
            points = reals.take(rows)
            for block, members in enumerate(drawn.blocks):
                for columns in drawn.parts(members):
                    squared = squared_distances(points, drawn.take(columns))
                    self._count(rows, block, columns, squared, real_radii[rows, None])

    def _count(self, rows: np.ndarray, block: int, columns: np.ndarray, squared: Tensor, real_radii: Tensor) -> None:
        strictly = squared < real_radii
        self.balls[columns] += strictly.sum(dim=0)
        self.inside[columns] |= (squared <= real_radii).any(dim=0)
        self.hit[block, rows] |= strictly.any(dim=1)
        self.recalled[rows] |= (squared <= self.full_radii[columns]).any(dim=1)
        for left_out in range(self.blocks):
            if left_out != block:
                self.recalled_without[left_out, rows] |= (squared <= self.radii[left_out, columns]).any(dim=1)

    def scores(self, neighbours: int) -> Manifold:
        inside, covered = self.inside.numpy(), self.hit.any(dim=0).numpy()
        recalled, density = self.recalled.numpy(), self.balls.numpy() / neighbours
        errors = {"precision": max(_mean_error(inside), 1 / len(inside)), "density": _mean_error(density)}
        errors |= {"recall": float("nan"), "coverage": float("nan")}
        if len(self.drawn) >= 3 * self.blocks:
            hits = self.hit.sum(dim=0)
            covered_without = ((hits - self.hit.long()) > 0).double().mean(dim=1).numpy()
            recalled_without = self.recalled_without.double().mean(dim=1).numpy()
            errors["coverage"] = max(jackknife_error(covered_without), 1 / len(covered))
            errors["recall"] = max(jackknife_error(recalled_without), 1 / len(recalled))
        precision, recall, coverage = (float(found.mean()) for found in (inside, recalled, covered))
        return Manifold(precision, recall, float(density.mean()), coverage, inside, recalled, covered, errors)


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Return squared distances, float64 (N, M), of float64 points (N, D) and (M, D), rounded to 29 bits.

    Rounding makes equal distances equal that were summed in another order, so that the counts do not depend on the
    parts' sizes and copies of pictures lie at a distance of zero.
    """
    lengths = rows.square().sum(dim=1)[:, None] + columns.square().sum(dim=1)
    squared = torch.addmm(lengths, rows, columns.T, alpha=-2)
    squared[squared < COINCIDENT * lengths] = 0
    half = 1 << (ROUNDED_BITS - 1)
    return ((squared.view(torch.int64) + half) >> ROUNDED_BITS << ROUNDED_BITS).view(torch.float64)


def _nearest(points: _Points, neighbours: int) -> Tensor:
    """Return the k + 1 smallest squared distances of each picture to each block of its set, itself included.

    Of shape (N, blocks, k + 1), infinity where a block has fewer pictures.
    """
    found = torch.full((len(points), len(points.blocks), neighbours + 1), torch.inf, dtype=torch.float64)
    for rows in points.rows():
        some = points.take(rows)
        for block, members in enumerate(points.blocks):
            for columns in points.parts(members):
                squared = torch.cat([found[rows, block], squared_distances(some, points.take(columns))], dim=1)
                found[rows, block] = squared.topk(neighbours + 1, dim=1, largest=False).values
    return found


def _radii(nearest: Tensor, neighbours: int) -> Tensor:
    """Return the squared radius of each picture's ball, (N,), from its nearest pictures by block, itself among them."""
    flat = nearest.flatten(start_dim=1)
    if flat.shape[1] <= neighbours:
        return torch.full((len(flat),), torch.inf, dtype=torch.float64)
    return flat.kthvalue(neighbours + 1, dim=1).values


def _mean_error(found: np.ndarray) -> float:
    return float(found.std(ddof=1) / len(found) ** 0.5)
