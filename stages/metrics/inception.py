"""The Inception-v3 of the original FID: torch-fidelity's layers, given pictures that are already resized and scaled."""

import io

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d
from torch_fidelity.utils import create_feature_extractor

from stages.metrics.backbone import Backbone, WeightsFile, refuse_weights
from stages.metrics.inception_weights import STANDARD_SHA256

NAME = "inception-v3-compat"  # torch-fidelity's name for it
DIMENSION, CLASSES, SIZE = 2048, 1008, 299
# Between convolutions and pooling nothing else happens; the last pooling is the features.
LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)
CENTRES = {"tf": 128.0, "clean": 128.0, "pytorch": 127.5}  # x is mapped to (x - c) / c; each tool has its own


class Inception(nn.Module):
    """Pooled features and the logits that the Inception Score is made of, which are those without the bias."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(getattr(extractor, name) for name in LAYERS))
        self.head: nn.Linear = extractor.fc  # type: ignore[assignment]

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, 3, 299, 299) in about [-1, 1] to features (N, 2048) and logits (N, 1008)."""
        features = torch.flatten(self.layers(pictures), 1)
        return features, features.mm(self.head.weight.T)


def load_inception(weights: WeightsFile, family: str) -> Backbone:
    """Return Inception with these weights; only with the standard ones its distance is `fid` (Heusel et al. 2017).

    Raises:
        InputError: they are not this network's tensors.
    """
    standard = weights.sha256 == STANDARD_SHA256
    label = "inception" if standard else f"inception_{weights.short}"
    centre = CENTRES[family]
    return Backbone(
        features=NAME,
        label=label,
        distance="fid" if standard else f"fd_{label}",
        layer="2048",
        weights_sha256=weights.sha256,
        network=build(weights),
        dimension=DIMENSION,
        classes=CLASSES,
        size=SIZE,
        mean=(centre, centre, centre),
        std=(centre, centre, centre),
    )


def build(weights: WeightsFile) -> Inception:
    """Return the network in evaluation mode, strictly loaded.

    Raises:
        InputError: the weights are not this network's tensors.
    """
    copy = io.BytesIO()  # torch-fidelity would unpickle whatever a file holds: it is given tensors that were checked
    torch.save(weights.tensors, copy)
    copy.seek(0)
    options = {"cuda": False, "verbose": False, "feature_extractor_weights_path": copy}
    try:
        return Inception(create_feature_extractor(NAME, ["2048"], **options)).eval().requires_grad_(False)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise refuse_weights(weights, NAME, error) from error


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm of Inception into its convolution: equal to rounding (2e-6 of a FID), and faster."""
    for module in network.modules():
        if isinstance(module, BasicConv2d) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
