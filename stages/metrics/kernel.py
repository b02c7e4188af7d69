"""The kernel distance (KID), by torch-fidelity, and its standard error by a jackknife over pictures."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from stages.errors import InputError
from stages.metrics.frechet import require_same_dimension
from stages.metrics.gaussians import Features
from stages.metrics.intervals import jackknife_error

TILE = 2048  # pictures on a side of the kernel matrix's parts: 32 MiB each


@dataclass(frozen=True)
class KernelDistance:
    """KID over subsets: mean, deviation between subsets, and the mean's standard error."""

    mean: float
    std: float
    standard_error: float


def kernel_distance(
    generated: Features,
    real: Features,
    *,
    subset: int,
    subsets: int,
    seed: int,
    reference_too: bool = False,
) -> KernelDistance:
    """Return KID: mean and deviation over subsets of the unbiased MMD^2 with kernel (x.y / D + 1)^3.

    Binkowski et al. 2018, "Demystifying MMD GANs"; slightly negative values are those of equal distributions.
    The subsets are drawn anew from the same pictures and overlap, so std / sqrt(subsets) says nothing of other
    pictures. The standard error is that of the MMD^2 of all pictures (`picture_error`), to which the mean over
    subsets converges, plus the chance of the subsets: se^2 = picture_error^2 + std^2 / subsets, by the law of total
    variance.

    Raises:
        InputError: a set has fewer pictures than a subset, a subset fewer than 2, or the feature numbers differ.
    """
    require_same_dimension(generated, real)
    smallest = min(len(generated), len(real))
    if not 2 <= subset <= smallest:
        raise InputError(
            f"evaluate.kid_subset is {subset}, but the smallest set has {smallest} pictures; "
            f"set it from 2 to {smallest}, or give more pictures"
        )
    if subsets < 1:
        raise InputError(f"evaluate.kid_subsets is {subsets}, expected at least 1")
    found = kid_features_to_metric(
        torch.from_numpy(generated.values.astype(np.float64)),
        torch.from_numpy(real.values.astype(np.float64)),
        kid_subsets=subsets,
        kid_subset_size=subset,
        rng_seed=seed,
        verbose=False,
    )
    mean, std = found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]
    error = picture_error(generated, real, reference_too=reference_too)
    return KernelDistance(mean, std, float(np.hypot(error, std / subsets**0.5)))


def picture_error(generated: Features, real: Features, *, reference_too: bool = False) -> float:
    """Return the jackknife standard error of the unbiased MMD^2 of all pictures, each left out once.

    By the kernel matrix's row sums, in one pass over its parts. Over the generated pictures, and with
    `reference_too` also over the real ones, whose chance is the same for every model compared with them.

    Raises:
        InputError: a set has fewer than 3 pictures, so that none can be left out.
    """
    if (smallest := min(len(generated), len(real))) < 3:
        raise InputError(f"the smallest set has {smallest} pictures; KID's standard error needs at least 3")
    across, across_real = _row_sums(generated.values, real.values)
    error = _one_side(_inner_sums(generated.values), across, len(real))
    if reference_too:
        error = float(np.hypot(error, _one_side(_inner_sums(real.values), across_real, len(generated))))
    return error


def _one_side(inner: np.ndarray, across: np.ndarray, others: int) -> float:
    """Return the jackknife error over one set, of the terms of MMD^2 in which it takes part."""
    count = len(inner)
    within = (inner.sum() - 2 * inner) / ((count - 1) * (count - 2))
    between = (across.sum() - across) / ((count - 1) * others)
    return jackknife_error(within - 2 * between)


def _kernel(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows @ columns.T / rows.shape[1] + 1) ** 3


def _parts(features: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(features), TILE):
        part = slice(start, start + TILE)
        yield part, torch.from_numpy(features[part].astype(np.float64))


def _row_sums(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel matrix's sums over its columns (N,) and over its rows (M,)."""
    rows, columns = np.zeros(len(first)), np.zeros(len(second))
    for row, some in _parts(first):
        for column, others in _parts(second):
            kernel = _kernel(some, others)
            rows[row] += kernel.sum(dim=1).numpy()
            columns[column] += kernel.sum(dim=0).numpy()
    return rows, columns


def _inner_sums(features: np.ndarray) -> np.ndarray:
    """Return each picture's kernel sum with all others of its set, without itself."""
    own = (np.einsum("nd,nd->n", features, features, dtype=np.float64) / features.shape[1] + 1) ** 3
    return _row_sums(features, features)[0] - own
