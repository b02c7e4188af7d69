"""How different two pictures look to a frozen network: a loss whose gradient reaches the pictures."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from stages.metrics.efficientnet_lite0 import EfficientNetLite0

SMALLEST_SIDE = 64  # pixels: smaller pictures are enlarged, or the deeper maps would be of a single pixel
TINY = 1e-8  # of a squared norm


class PerceptualDistance(nn.Module):
    """The distance of Zhang 2018 (LPIPS) with weight 1 for every channel, over any network's intermediate maps.

    d(x, y) = sum over maps of the mean over positions of |u(x) - u(y)|^2, u being the unit vector over channels of a
    map at a position. `features` maps pictures (N, 3, S, S) in [-1, 1] to maps (N, C, H, W).
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features.eval().requires_grad_(False)

    def forward(self, pictures: Tensor, targets: Tensor) -> Tensor:
        """Return the mean distance of pictures to targets, both (N, 1 or 3, S, S); only pictures take a gradient."""
        with torch.no_grad():
            wanted = self._directions(targets)
        found = self._directions(pictures)
        distances = [(a - b).square().sum(1).mean() for a, b in zip(found, wanted, strict=True)]
        return torch.stack(distances).sum()

    def _directions(self, pictures: Tensor) -> list[Tensor]:
        colours = pictures.expand(-1, 3, -1, -1)
        side = colours.shape[-1]
        if side < SMALLEST_SIDE:
            size = (SMALLEST_SIDE, SMALLEST_SIDE)
            colours = F.interpolate(colours, size, mode="bilinear", align_corners=False)
        maps: list[Tensor] = self.features(colours)
        return [unit_vectors(values.float()) for values in maps]


def unit_vectors(maps: Tensor) -> Tensor:
    """Divide maps (N, C, H, W) by their norm over channels at each position; the gradient is finite at zero, too."""
    return maps * (maps.square().sum(1, keepdim=True) + TINY).rsqrt()


class EfficientNetMaps(nn.Module):
    """The maps of EfficientNet-Lite0 after its first stages, halved 1 to 4 times: 16, 24, 40 and 80 channels."""

    LAST_BLOCKS = (0, 2, 4, 7)

    def __init__(self, network: "EfficientNetLite0", centre: float, scale: float) -> None:
        super().__init__()
        self.stem, self.blocks = network.conv_stem, network.blocks[: self.LAST_BLOCKS[-1] + 1]
        self.factor, self.offset = 127.5 / scale, (127.5 - centre) / scale  # from [-1, 1] to the network's own values

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Map pictures (N, 3, S, S) in [-1, 1], S a multiple of 16, to four maps."""
        values, maps = F.relu6(self.stem(pictures * self.factor + self.offset)), []
        for number, block in enumerate(self.blocks):
            values = block(values)
            if number in self.LAST_BLOCKS:
                maps.append(values)
        return maps


def _open_efficientnet_lite0() -> nn.Module:
    from stages.metrics.efficientnet_lite0 import CENTRE, SCALE, build

    return EfficientNetMaps(build(), CENTRE, SCALE)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"efficientnet_lite0": _open_efficientnet_lite0}


def open_perceptual(name: str, device: torch.device) -> PerceptualDistance:
    """Return the distance in a network's features, by the network's name.

    Raises:
        FetchError: its weights are not in the cache and could not be fetched.
    """
    return PerceptualDistance(NETWORKS[name]()).to(device)
