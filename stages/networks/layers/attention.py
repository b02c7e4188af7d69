"""Self-attention over the places of a feature map (Zhang 2019, section 3)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d


class SelfAttention(nn.Module):
    """(N, C, H, W) to the same shape: x + gamma o(sum over places of softmax(theta(x)^T phi(x)) g(x)), gamma 0 first.

    theta, phi (C / 8 channels) and g (C / 2) are 1x1 convolutions; phi and g are max pooled to a quarter of the places.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        self.theta = nn.Conv2d(channels, narrow, 1, bias=False)
        self.phi = nn.Conv2d(channels, narrow, 1, bias=False)
        self.g = nn.Conv2d(channels, half, 1, bias=False)
        self.o = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        """Add to each place what it attends to."""
        queries = self.theta(values).flatten(2)
        keys = max_pool2d(self.phi(values), 2).flatten(2)
        contents = max_pool2d(self.g(values), 2).flatten(2)
        weights = (queries.transpose(1, 2) @ keys).softmax(-1)  # torch's fused attention has no second derivative
        attended = (contents @ weights.transpose(1, 2)).unflatten(2, values.shape[2:])
        return values + self.gamma * self.o(attended)


class Attended(nn.Module):
    """A block, then self-attention over the map that it returns."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block, self.attention = block, SelfAttention(channels)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Pass the block's inputs to it, and its map to the attention."""
        attended: Tensor = self.attention(self.block(*inputs))
        return attended
