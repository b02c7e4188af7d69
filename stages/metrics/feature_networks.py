"""The networks in whose features pictures are compared, each with the names of its scores and its recipe."""

import io
from dataclasses import dataclass
from typing import Any

import torch
import torch_fidelity
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.utils import create_feature_extractor

from stages.errors import InputError
from stages.metrics import efficientnet_lite0
from stages.metrics.inception_weights import InceptionWeights

INCEPTION = "inception-v3-compat"  # torch-fidelity's name for the network of the original FID


@dataclass(frozen=True)
class FeatureNetwork:
    """A feature extractor on a device; `recipe` says all that its features depend on, `distance` names its FD."""

    label: str
    distance: str
    extractor: FeatureExtractorBase
    dimension: int
    device: torch.device
    recipe: dict[str, Any]

    def names(self) -> dict[str, str]:
        """Return the published name of each score of these features."""
        others = {kind: f"{kind}_{self.label}" for kind in ("kid", "kid_std", "precision", "recall")}
        return {"fd": self.distance, **others}

    @torch.inference_mode()
    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map uint8 pictures (N, 1 or 3, H, W) to float32 features (N, dimension) in host memory; grey is repeated."""
        if pictures.shape[1] == 1:
            pictures = pictures.expand(-1, 3, -1, -1)
        # TF32 would change the third digit of a feature, and benchmark mode may choose another kernel on the next run
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            found: torch.Tensor = self.extractor(pictures.to(self.device))[0]
        return found.float().cpu()


def open_efficientnet_lite0(device: torch.device) -> FeatureNetwork:
    """Return EfficientNet-Lite0 with its ImageNet weights (Tan and Le 2019; without squeeze and excitation).

    Raises:
        FetchError: its package is not in the cache and could not be fetched.
    """
    module = efficientnet_lite0
    recipe = describe("efficientnet-lite0", module.WEIGHTS_SHA256, module.FEATURES, module.SIZE, "(x - 127) / 128")
    label = "efficientnet_lite0"
    extractor = create(module.NAME, module.FEATURES, device)
    return FeatureNetwork(label, f"fd_{label}", extractor, int(module.FEATURES), device, recipe)


def open_inception(weights: InceptionWeights, device: torch.device) -> FeatureNetwork:
    """Return torch-fidelity's Inception-v3; only the standard weights give `fid` (Heusel et al. 2017).

    Raises:
        InputError: the file is not a plain dictionary of this network's tensors.
    """
    label = "inception" if weights.standard else f"inception_{weights.sha256[:8]}"
    try:
        extractor = create(INCEPTION, "2048", device, feature_extractor_weights_path=_trusted_copy(weights))
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{weights.path} does not fit {INCEPTION}: {_first_line(error)}") from error
    recipe = describe(INCEPTION, weights.sha256, "2048", 299, "(x - 128) / 128")
    distance = "fid" if weights.standard else f"fd_{label}"
    return FeatureNetwork(label, distance, extractor, 2048, device, recipe)


def create(name: str, layer: str, device: torch.device, **options: Any) -> FeatureExtractorBase:
    """Build an extractor from torch-fidelity's registry, channels_last (a quarter faster on a CPU)."""
    extractor = create_feature_extractor(name, [layer], cuda=False, verbose=False, **options)
    return extractor.to(device=device, memory_format=torch.channels_last)


def describe(features: str, weights: str, layer: str, size: int, normalisation: str) -> dict[str, Any]:
    """Return what the features of a picture depend on, without the library versions that only change rounding."""
    return {
        "features": features,
        "layer": layer,
        "weights_sha256": weights,
        "resize": "tf",
        "size": size,
        "normalisation": normalisation,
        "dtype": "float32",
        "engine": f"torch-fidelity {torch_fidelity.__version__}",
    }


def _trusted_copy(weights: InceptionWeights) -> io.BytesIO:
    """Read a weights file without running what a pickle may hold; torch-fidelity itself would unpickle anything."""
    import pickle

    try:
        state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{weights.path} is no file of plain PyTorch tensors: {_first_line(error)}") from error
    copy = io.BytesIO()
    torch.save(state, copy)
    copy.seek(0)
    return copy


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
