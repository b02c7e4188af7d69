"""The Fréchet distance between the Gaussians of two sets of features, exact for any number of pictures."""

import torch
from torch import Tensor

from stages.errors import InputError
from stages.metrics.gaussians import Features, Gaussian

EXACT = 512  # singular values of larger matrices are found as roots of eigenvalues, in half the time


def frechet_distance(first: Features | Gaussian, second: Features | Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the two sets' Gaussians (Heusel et al. 2017).

    With C = F^T F on both sides the last trace is the nuclear norm of F1 F2^T. Up to N = D the rows of F are the
    centred pictures, so that no covariance is built and no square root of a zero eigenvalue's rounding is summed.

    Raises:
        InputError: the two have features of different numbers.
    """
    require_same_dimension(first, second)
    apart = first.mean - second.mean
    one, other = first.root(), second.root()
    triangular = len(one) == len(other) == first.dimension  # both are Cholesky's factors
    shared = nuclear_norm(one @ other.T, graded=triangular)
    return float(apart @ apart) + first.trace() + second.trace() - 2 * shared


def require_same_dimension(first: Features | Gaussian, second: Features | Gaussian) -> None:
    """Raise InputError unless both sets have the same number of features."""
    if first.dimension != second.dimension:
        raise InputError(
            f"one set has {first.dimension} features a picture and the other {second.dimension}; "
            "compute both with the same feature network"
        )


def nuclear_norm(matrix: Tensor, graded: bool = False) -> float:
    """Return the sum of a float64 matrix's singular values, shape (N, M); `graded` if its rows shrink downwards.

    Of a large matrix these are the roots of the eigenvalues of R R^T, R its triangular factor. R is graded, and on a
    graded matrix the eigenvalues of its Gram matrix keep their digits: within 1e-12 of the singular values for
    condition numbers up to 1e19, where the Gram matrix of the matrix itself loses half of the digits.
    """
    if min(matrix.shape) <= EXACT:
        return float(torch.linalg.svdvals(matrix).sum())
    if not graded:
        matrix = torch.linalg.qr(matrix if matrix.shape[0] > matrix.shape[1] else matrix.T, mode="r").R
    return root_sum(matrix @ matrix.T)


def root_sum(gram: Tensor) -> float:
    """Return the sum of the roots of a positive semi-definite matrix's eigenvalues; rounding below zero is cut off."""
    return float(torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum())
