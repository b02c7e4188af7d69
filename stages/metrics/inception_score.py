"""The Inception Score, by torch-fidelity."""

import numpy as np
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from stages.errors import InputError

SPLITS = 10


def inception_score(logits: np.ndarray, *, splits: int = SPLITS, seed: int) -> tuple[float, float]:
    """Return exp E KL(p(y|x) || p(y)) of a classifier's logits (N, K): mean and deviation over splits, in [1, K].

    Salimans et al. 2016, "Improved techniques for training GANs". The pictures are shuffled by the seed; the splits
    are disjoint, so the mean's standard error is std / sqrt(splits - 1). The score grows with N / splits: compare at
    equal numbers only. Only with the logits of the standard Inception is it the published score.

    Raises:
        InputError: there are fewer pictures than splits, fewer than two classes, or logits that are NaN or infinity.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(f"logits are of shape {logits.shape}, expected (N, K) with at least 2 classes")
    if not 1 <= splits <= len(logits):
        raise InputError(f"{len(logits)} pictures cannot be cut into {splits} splits; give more pictures")
    if not np.isfinite(logits).all():
        raise InputError("logits hold NaN or infinity; look at the pictures or the weights of the feature network")
    found = isc_features_to_metric(torch.from_numpy(np.asarray(logits)), splits, shuffle=True, rng_seed=seed)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]
