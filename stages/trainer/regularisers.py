"""Penalties on the discriminator's gradient."""

import torch
from torch import Tensor


def r1_penalty(real: Tensor, logits: Tensor) -> Tensor:
    """Return E[|grad D(x)|^2] at real pictures x, which must require gradients (Mescheder 2018, equation 9)."""
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
