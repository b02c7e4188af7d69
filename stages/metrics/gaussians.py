"""Sets of features and their Gaussians: mean, covariance and number, as a whole or summed up in parts."""

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from stages.errors import InputError
from stages.storage import write_bytes

ROWS = 4096  # pictures that are taken to float64 at once: 64 MiB of 2,048 features


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and unbiased covariance (D, D) of features, float64; `count` is None where a file does not say it."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None

    @property
    def dimension(self) -> int:
        """Return the number of features."""
        return len(self.mean)

    def trace(self) -> float:
        """Return the total variance."""
        return float(np.trace(self.covariance))

    def root(self) -> Tensor:
        """Return F, float64 of shape (rank, D), with F^T F = covariance."""
        return root(torch.from_numpy(self.covariance))

    def save(self, path: Path) -> None:
        """Write an .npz with mu, sigma (the names that pytorch-fid and its kin read) and count."""
        stream = io.BytesIO()
        count = {} if self.count is None else {"count": np.int64(self.count)}
        np.savez(stream, allow_pickle=False, mu=self.mean, sigma=self.covariance, **count)
        write_bytes(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Gaussian":
        """Read an .npz with mu (D,) and sigma (D, D), as pytorch-fid, EDM and others write them.

        Raises:
            InputError: the file cannot be read, lacks a part, or holds other shapes, NaN or infinity.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                mean, covariance = found["mu"].astype(np.float64), found["sigma"].astype(np.float64)
                count = int(found["count"]) if "count" in found else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is no .npz with mu and sigma of features ({error}); write it again") from error
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise InputError(f"{path} has mu {mean.shape} and sigma {covariance.shape}, expected (D,) and (D, D)")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise InputError(f"{path} holds NaN or infinity; compute its statistics again")
        return cls(mean, covariance, count)


class Moments:
    """Sums that become a `Gaussian`, taken in part by part; the result does not depend on the parts but by rounding.

    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance": no large sums cancel.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self.scatter = torch.zeros((dimension, dimension), dtype=torch.float64)

    def add(self, features: np.ndarray) -> "Moments":
        """Take in features of any float type, shape (N, D), N >= 0."""
        for start in range(0, len(features), ROWS):
            rows = torch.from_numpy(features[start : start + ROWS].astype(np.float64))
            mean = rows.mean(dim=0)
            centred = rows - mean
            self._merge(len(rows), mean, centred.T @ centred)
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Take in what another process or thread has summed."""
        self._merge(other.count, other.mean, other.scatter)
        return self

    def gaussian(self) -> Gaussian:
        """Return mean and covariance of all that was taken in.

        Raises:
            InputError: fewer than two pictures were taken in.
        """
        if self.count < 2:
            raise InputError(f"{self.count} pictures have no covariance; at least 2 are needed")
        return Gaussian(self.mean.numpy(), (self.scatter / (self.count - 1)).numpy(), self.count)

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        if not total:
            return
        apart = mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(apart, apart) * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total


class Features:
    """A set's features, shape (N, D), kept in their own float type; their Gaussian is computed once, when needed.

    Raises:
        InputError: there are fewer than two pictures, no features, or NaN or infinity among them.
    """

    def __init__(self, features: np.ndarray, name: str = "a set") -> None:
        self.values = np.asarray(features)
        self.name = name
        if self.values.ndim != 2 or not np.issubdtype(self.values.dtype, np.floating):
            raise InputError(f"features of {name} are {self.values.dtype} {self.values.shape}, expected floats (N, D)")
        if len(self.values) < 2 or not self.dimension:
            raise InputError(f"{name} has {len(self.values)} pictures of {self.dimension} features; give at least 2")
        if bad := sum(int((~np.isfinite(rows)).any(axis=1).sum()) for rows in self._parts()):
            raise InputError(f"{bad} of {len(self.values)} pictures of {name} have features that are NaN or infinity")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dimension(self) -> int:
        """Return the number of features of a picture."""
        return int(self.values.shape[1])

    @property
    def is_deficient(self) -> bool:
        """Say whether the covariance cannot have full rank: no more pictures than features."""
        return len(self) <= self.dimension

    @cached_property
    def mean(self) -> np.ndarray:
        """Return the mean (D,), float64."""
        found: np.ndarray = self.values.mean(axis=0, dtype=np.float64)
        return found

    @cached_property
    def gaussian(self) -> Gaussian:
        """Return mean and covariance."""
        return Moments(self.dimension).add(self.values).gaussian()

    def centred(self) -> Tensor:
        """Return the values less their mean, float64 (N, D)."""
        return torch.from_numpy(self.values - self.mean)

    def trace(self) -> float:
        """Return the total variance, without the covariance."""
        squares = sum(float(np.square(rows - self.mean).sum()) for rows in self._parts())
        return squares / (len(self) - 1)

    def root(self) -> Tensor:
        """Return F, float64 of shape (rank, D), with F^T F = covariance.

        For few pictures these are the centred pictures themselves after a Householder reflection that takes the
        direction which centring has emptied to the first row, which is dropped.
        """
        if not self.is_deficient:
            return self.gaussian.root()
        centred = self.centred()
        return (centred[1:] - centred[:1] / (len(self) ** 0.5 + 1)) / (len(self) - 1) ** 0.5

    def _parts(self) -> list[np.ndarray]:
        return [self.values[start : start + ROWS] for start in range(0, len(self.values), ROWS)]


def root(covariance: Tensor) -> Tensor:
    """Return F, float64 of shape (rank, D), with F^T F = covariance: Cholesky's factor, with pivots if singular.

    Raises:
        InputError: the matrix is far from positive semi-definite, so it is no covariance.
    """
    factor, info = torch.linalg.cholesky_ex(covariance)
    if not info:
        return factor.T
    pivoted, pivots, rank, _ = dpstrf(covariance.numpy())
    # rounding tips the null space of a covariance a little below zero; what is far below is no covariance
    upper = torch.from_numpy(np.triu(pivoted)[:rank])
    found = torch.empty_like(upper)
    found[:, torch.from_numpy(pivots.astype(np.int64) - 1)] = upper
    if (found.T @ found - covariance).abs().max() > 1e-6 * covariance.abs().max():
        raise InputError("sigma is no covariance: it is not positive semi-definite; compute the statistics again")
    return found
