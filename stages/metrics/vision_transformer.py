"""DINOv2's vision transformer (Oquab et al. 2023), by the names of the tensors that its authors publish."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_WIDTH = 64  # channels of an attention head in all published sizes
NORM_EPS = 1e-6
OFFSET = 0.1  # the authors add it to the grid before they interpolate positions, which shifts the samples


@dataclass(frozen=True)
class Shape:
    """Width, number of blocks, pixels of a patch, side of the grid of learnt positions, width of the inner layers."""

    width: int
    depth: int
    patch: int
    grid: int
    inner: int

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Shape":
        """Read the shape off published tensors.

        Raises:
            KeyError: a tensor is missing.
            ValueError: it is a variant with register tokens or another inner layer, or no square grid.
        """
        if "register_tokens" in tensors or "blocks.0.mlp.w12.weight" in tensors:
            raise ValueError("it has register tokens or SwiGLU layers; the plain sizes s, b and l are known here")
        width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
        grid = round((tensors["pos_embed"].shape[1] - 1) ** 0.5)
        if grid**2 + 1 != tensors["pos_embed"].shape[1] or width % HEAD_WIDTH:
            raise ValueError(f"its positions are no square grid, or its width {width} is no multiple of {HEAD_WIDTH}")
        blocks = {found[1] for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))}
        return cls(width, len(blocks), patch, grid, tensors["blocks.0.mlp.fc1.weight"].shape[0])


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = width // HEAD_WIDTH

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        mixed: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return mixed


class Scale(nn.Module):
    """A learnt factor for each channel (LayerScale, Touvron et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale the channels of (N, tokens, width)."""
        return tokens * self.gamma


class Block(nn.Module):
    """Attention and inner layers, each normalised before, scaled and added."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, NORM_EPS), Attention(width), Scale(width)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width, NORM_EPS), Mlp(width, shape.inner), Scale(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        mixed: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return mixed


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel: one token for each patch."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, patches, width)."""
        tokens: Tensor = self.proj(pictures).flatten(2).transpose(1, 2)
        return tokens


class VisionTransformer(nn.Module):
    """Normalised pictures of one size to the class token after the last norm, which is DINOv2's picture feature."""

    def __init__(self, shape: Shape, size: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(shape.width, shape.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2 + 1, shape.width))
        self.mask_token = nn.Parameter(torch.zeros(1, shape.width))  # of its training; published with the others
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, NORM_EPS)
        self.side = size // shape.patch

    def fit_positions(self) -> None:
        """Interpolate the learnt positions to this size's grid once, as the authors do for every batch."""
        learnt = self.pos_embed[:, 1:]
        grid = round(learnt.shape[1] ** 0.5)
        if grid == self.side:
            return
        planes = learnt.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        factor = (self.side + OFFSET) / grid
        fitted = F.interpolate(planes, scale_factor=(factor, factor), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
        self.pos_embed = nn.Parameter(torch.cat([self.pos_embed[:, :1], fitted], dim=1), requires_grad=False)

    def forward(self, pictures: Tensor) -> tuple[Tensor, None]:
        """Map (N, 3, size, size) to features (N, width); there are no logits."""
        tokens = self.patch_embed(pictures)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0], None
