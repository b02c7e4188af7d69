"""Seeds to noise by numpy's Philox, so that torch and ONNX draw the same picture for a seed on any machine."""

from collections.abc import Iterable

import numpy as np

RECIPE = "numpy.random.Generator(numpy.random.Philox(key=seed)).standard_normal(latent_shape, dtype=float32)"


def latents(seeds: Iterable[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return standard normal noise, float32, shape (N, *shape); row i depends on seed i alone (recipe: RECIPE).

    Philox: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    rows = [np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape, dtype=np.float32) for seed in seeds]
    return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)
