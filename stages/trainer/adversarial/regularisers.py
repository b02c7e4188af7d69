"""Penalties on gradients and weights that keep the two networks' game stable."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def gradient_norms(pictures: Tensor, logits: Tensor) -> Tensor:
    """Return |grad D(x)|^2 for each picture, shape (N,); pictures must require gradients."""
    (gradient,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def zero_centred_penalty(pictures: Tensor, logits: Tensor) -> Tensor:
    """Return E[|grad D(x)|^2]: R1 at real pictures, R2 at generated ones (Mescheder 2018, equation 9)."""
    return gradient_norms(pictures, logits).mean()


def lipschitz_penalty(pictures: Tensor, logits: Tensor) -> Tensor:
    """Return E[(|grad D(x)| - 1)^2] (Gulrajani 2017, equation 3), at pictures between real and generated ones."""
    return (gradient_norms(pictures, logits).add(1e-12).sqrt() - 1).square().mean()


def interpolated(real: Tensor, fake: Tensor, shares: Tensor) -> Tensor:
    """Return pictures on the straight lines between pairs, one random share (N,) each, that require gradients."""
    return torch.lerp(fake, real, shares.to(real)[:, None, None, None]).detach().requires_grad_()


def path_lengths(pictures: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
    """Return |J^T y| for each picture, shape (N,), with y normal noise over the square root of the pixels.

    `styles`, (N, layers, style), made the pictures; the square is the mean over layers (Karras 2020, equation 4).
    """
    weights = noise / (pictures.shape[2] * pictures.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((pictures * weights).sum(), styles, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def orthogonality(network: nn.Module) -> Tensor:
    """Return the sum of |W W^T o (1 - I)|^2 over weights of two dimensions and more (Brock 2019, equation 3).

    Rows are the outputs'. Embeddings are left out, as in the paper's code.
    """
    total = torch.zeros((), device=next(network.parameters()).device)
    for weight in _matrices(network):
        products = weight @ weight.t()
        total = total + (products - products.diag().diag()).square().sum()
    return total


def _matrices(network: nn.Module) -> Iterable[Tensor]:
    for name, weight in network.named_parameters():
        if weight.dim() > 1 and "embed" not in name:
            yield weight.flatten(1)


@torch.no_grad()
def clip_weights(network: nn.Module, bound: float) -> None:
    """Bring every weight that is trained into [-bound, bound] (Arjovsky 2017, algorithm 1)."""
    weights: list[Tensor] = [weight for weight in network.parameters() if weight.requires_grad]
    torch._foreach_clamp_max_(weights, bound)
    torch._foreach_clamp_min_(weights, -bound)
