"""What adversarial training, drawing and export ask of a GAN's two networks, whatever the architecture."""

from abc import abstractmethod

from torch import Tensor, nn


class GeneratorNetwork(nn.Module):
    """Latent (N, latent) to pictures (N, channels, resolution, resolution), made to lie in [-1, 1].

    Inputs beyond the latent are taken by those that have them: `label`, int64 (N,), where the generator was built
    with classes; `truncation`, a float32 tensor (N,), where it has a truncation trick (None: without it).
    """

    latent: int
    blocks: nn.ModuleList  # parts whose activations may be computed twice instead of kept
    noise_shapes: tuple[tuple[int, ...], ...] = ()  # of one picture, for each layer that adds noise
    no_truncation: float | None = None  # the truncation at which pictures are as without; None: it has none

    @abstractmethod
    def forward(
        self,
        latent: Tensor,
        label: Tensor | None = None,
        truncation: Tensor | None = None,
        noise: list[Tensor] | None = None,
    ) -> Tensor:
        """Draw pictures; `noise` has one tensor (N, *shape) for each of noise_shapes, None: the constant noise."""

    def grow(self, seen: int) -> None:
        """Take the form that belongs to `seen` training pictures, for networks that grow; others stay as they are."""


class MappedGenerator(GeneratorNetwork):
    """A generator whose latents pass a mapping network first: one style for each layer of the synthesis."""

    layers: int  # styles of one picture

    @abstractmethod
    def mapping(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        """Return styles, shape (N, style), not truncated, and in training mode let their running mean follow."""

    @abstractmethod
    def synthesis(self, styles: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Draw pictures of styles, shape (N, layers, style)."""


class DiscriminatorNetwork(nn.Module):
    """Pictures (N, channels, resolution, resolution) in [-1, 1] to logits (N,); higher is more real."""

    blocks: nn.ModuleList

    @abstractmethod
    def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit per picture; `label` is int64 (N,) where the discriminator was built with classes."""

    def grow(self, seen: int) -> None:
        """Take the form that belongs to `seen` training pictures, for networks that grow; others stay as they are."""
