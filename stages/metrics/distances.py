"""Distances between two sets of features, all by torch-fidelity, in float64."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

LARGE = 10_000  # pictures from which on the matrix of all distances is computed in parts


@dataclass(frozen=True)
class Options:
    """Size, number and seed of KID's subsets, and the k of precision and recall."""

    kid_subset: int
    kid_subsets: int
    neighbours: int
    seed: int


class Features:
    """A set's features as float64, shape (N, D), with their mean and covariance computed once."""

    def __init__(self, features: np.ndarray) -> None:
        self.values = torch.from_numpy(np.asarray(features, np.float64))
        self.statistics: Mapping[str, np.ndarray] = fid_features_to_statistics(self.values)

    def __len__(self) -> int:
        return len(self.values)


def frechet_distance(first: Features, second: Features) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the two sets' Gaussians (Heusel et al. 2017)."""
    return float(fid_statistics_to_metric(first.statistics, second.statistics, verbose=False)[KEY_METRIC_FID])


def kernel_distance(first: Features, second: Features, options: Options) -> tuple[float, float]:
    """Return KID: mean and deviation over subsets of the unbiased MMD^2 with kernel (x.y / D + 1)^3.

    Binkowski et al. 2018, "Demystifying MMD GANs"; slightly negative values are those of equal distributions.
    """
    found = kid_features_to_metric(
        first.values,
        second.values,
        kid_subsets=options.kid_subsets,
        kid_subset_size=options.kid_subset,
        rng_seed=options.seed,
        verbose=False,
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def precision_recall(generated: Features, real: Features, neighbours: int) -> tuple[float, float]:
    """Return the shares of each set that lie in the other's k-nearest-neighbour balls, each in [0, 1].

    Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative models".
    """
    found = prc_features_to_metric(
        generated.values,
        real.values,
        prc_neighborhood=neighbours,
        save_cpu_ram=max(len(generated), len(real)) > LARGE,
        verbose=False,
    )
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def compare(generated: Features, real: Features, options: Options) -> dict[str, float]:
    """Return all scores of a set against real pictures: fd, kid, kid_std, precision, recall."""
    kid, kid_std = kernel_distance(generated, real, options)
    precision, recall = precision_recall(generated, real, options.neighbours)
    distance = frechet_distance(generated, real)
    return {"fd": distance, "kid": kid, "kid_std": kid_std, "precision": precision, "recall": recall}
