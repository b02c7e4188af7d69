"""`dinov2` and `clip`: networks whose weights no package carries, so that the user brings a file of them.

Here they were tested with random weights: loading, naming, shapes and arithmetic (DINOv2 against its authors' code,
CLIP against torch-fidelity's), not that a score with the published weights equals a published score.
"""

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import build_model

from stages.errors import InputError
from stages.metrics.backbone import RGB, Backbone, WeightsFile, refuse_weights
from stages.metrics.vision_transformer import Shape, VisionTransformer

DINOV2_SIZE = 224
IMAGENET_MEAN: RGB = (255 * 0.485, 255 * 0.456, 255 * 0.406)
IMAGENET_STD: RGB = (255 * 0.229, 255 * 0.224, 255 * 0.225)
CLIP_MEAN: RGB = (255 * 0.48145466, 255 * 0.4578275, 255 * 0.40821073)
CLIP_STD: RGB = (255 * 0.26862954, 255 * 0.26130258, 255 * 0.27577711)


def load_dinov2(weights: WeightsFile) -> Backbone:
    """Return DINOv2 (Oquab et al. 2023) of the published file's size: s, b or l, at 224 pixels.

    Raises:
        InputError: they are not DINOv2's tensors.
    """
    try:
        shape = Shape.of(weights.tensors)
        network = VisionTransformer(shape, DINOV2_SIZE)
        network.load_state_dict(weights.tensors, strict=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise refuse_weights(weights, "dinov2", error) from error
    if DINOV2_SIZE % shape.patch:
        raise InputError(f"{weights.path}: its patches of {shape.patch} pixels do not divide {DINOV2_SIZE}; use DINOv2")
    network.eval().requires_grad_(False).fit_positions()
    name = f"dinov2-{shape.width}x{shape.depth}"
    return _backbone(weights, "dinov2", name, network, shape.width, DINOV2_SIZE, (IMAGENET_MEAN, IMAGENET_STD))


class ClipPictures(nn.Module):
    """The half of CLIP that looks at pictures."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pictures: Tensor) -> tuple[Tensor, None]:
        """Map (N, 3, size, size) to embeddings (N, width), not normalised; there are no logits."""
        return self.visual(pictures), None


def load_clip(weights: WeightsFile) -> Backbone:
    """Return the picture half of CLIP (Radford et al. 2021), a ViT or a ResNet, from a state_dict of the whole.

    OpenAI's files are TorchScript archives, which run code when they are opened: save their `state_dict()` first.

    Raises:
        InputError: they are not CLIP's tensors.
    """
    try:
        tensors = dict(weights.tensors)
        embedding = _embedding(tensors)
        tensors.setdefault("text_projection", torch.empty(0, embedding))  # only its width is looked at
        model = build_model(tensors, torch.float32)
    except (KeyError, ValueError, RuntimeError, ZeroDivisionError, TypeError) as error:
        raise refuse_weights(weights, "clip", error) from error
    visual = model.visual
    size = int(visual.input_resolution)
    return _backbone(weights, "clip", "clip", ClipPictures(visual), embedding, size, (CLIP_MEAN, CLIP_STD))


def _embedding(tensors: dict[str, Tensor]) -> int:
    """Return the width of the embeddings."""
    if "visual.proj" in tensors:
        return int(tensors["visual.proj"].shape[1])
    return int(tensors["visual.attnpool.c_proj.weight"].shape[0])


def _backbone(
    weights: WeightsFile,
    kind: str,
    features: str,
    network: nn.Module,
    dimension: int,
    size: int,
    constants: tuple[RGB, RGB],
) -> Backbone:
    label = f"{kind}_{weights.short}"
    mean, std = constants
    return Backbone(
        features=features,
        label=label,
        distance=f"fd_{label}",
        layer="class token" if kind == "dinov2" else "embedding",
        weights_sha256=weights.sha256,
        network=network.eval(),
        dimension=dimension,
        classes=None,
        size=size,
        mean=mean,
        std=std,
    )
