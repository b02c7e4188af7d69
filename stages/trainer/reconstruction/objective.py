"""What an autoencoder is trained for: reconstruction, a latent close to N(0, 1), pictures that pass for real ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

LARGEST_WEIGHT = 1e4
SMALLEST_NORM = 1e-6
SMALLEST_ERROR = 4e-10  # of a mean square: 100 dB at the most


@dataclass(frozen=True)
class Reconstruction:
    """The reconstruction's loss: l1 mean|x - x'| + perceptual P(x', x); `distance` is P where its weight is not 0."""

    l1: float
    perceptual: float
    distance: Callable[[Tensor, Tensor], Tensor] | None

    def __call__(self, drawn: Tensor, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, unweighted and detached; both arguments (N, C, S, S), in [-1, 1]."""
        absolute = (drawn - pictures).abs().mean()
        unlike = self.distance(drawn, pictures) if self.distance else torch.zeros_like(absolute)
        loss = self.l1 * absolute + self.perceptual * unlike
        return loss, {"l1": absolute.detach(), "perceptual": unlike.detach()}


def divergence(posterior: "DiagonalGaussianDistribution") -> Tensor:
    """Return the mean over pictures of KL(posterior, N(0, 1)) in nats, summed over the latent (Kingma 2014)."""
    nats: Tensor = posterior.kl()
    return nats.mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """Return |g_rec| / (|g_adv| + 1e-6), at most 1e4, detached, of both losses' gradients at the last layer's weight.

    Esser 2021, equation 7; the clamp as in the code of latent-diffusion (Rombach 2022).
    """
    ratio = reconstruction.norm() / (adversarial.norm() + SMALLEST_NORM)
    return ratio.clamp(0, LARGEST_WEIGHT).detach()


def psnr(drawn: Tensor, pictures: Tensor) -> Tensor:
    """Return each picture's peak signal-to-noise ratio in dB, shape (N,): 10 log10(2^2 / mean square), 100 at most.

    Both are (N, C, S, S) in [-1, 1], whose range is 2; what is drawn outside is clipped.
    """
    squares = (drawn.float().clamp(-1, 1) - pictures.float()).square().flatten(1).mean(1)
    return 10 * (4 / squares.clamp(min=SMALLEST_ERROR)).log10()
