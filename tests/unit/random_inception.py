"""Random Inception weights, made once per test session, since the standard ones are in no package.

He initialisation and batch norm statistics of one pass over synthetic pictures keep all features alive; torch's default
initialisation gives dead ones. They prove loading, naming, resize, features and distances, not that a FID with the real
weights equals a published one.
"""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from stages.metrics.inception_weights import InceptionWeights
from stages.storage import sha256_file


def blobs(seed: int, count: int = 12, size: int = 32) -> np.ndarray:
    """Return pictures with structure at several scales; white noise would excite few features."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand((count, 3, side, side), generator=generator) for side in (2, 4, 8, 16)]
    resized = [nn.functional.interpolate(layer, (size, size), mode="bilinear") for layer in layers]
    return (torch.stack(resized).mean(dim=0) * 255).byte().numpy()


def write_random_weights(path: Path) -> InceptionWeights:
    """Write a file of random weights that keep all features alive."""
    with mock.patch.object(nn.Module, "load_state_dict"), mock.patch("torch.load", return_value={}):
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], "none")
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(blobs(9, 8)))
    torch.save(network.state_dict(), path)
    return InceptionWeights(path, sha256_file(path))


@functools.cache
def random_weights() -> InceptionWeights:
    """Return a file of random weights that lasts as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="inception-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_random_weights(folder / "random.pth")
