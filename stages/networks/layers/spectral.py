"""Spectral normalisation of a whole network (Miyato 2018), by torch's own parametrisation."""

from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

NORMALISED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)


def normalise_spectrally(network: nn.Module, eps: float = 1e-12) -> None:
    """Divide each layer's weight by its largest singular value, found by one power iteration per pass in training."""
    for module in list(network.modules()):
        if isinstance(module, NORMALISED) and not parametrize.is_parametrized(module):
            parametrizations.spectral_norm(module, eps=eps)


def bake_norms(network: nn.Module) -> nn.Module:
    """Replace, in place, normalised weights by their values, which plain layers then hold; returns the network.

    Not by torch's `remove_parametrizations`, which takes the weight from the class that copies of a layer share.
    """
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            weight = cast(Tensor, module.weight).detach().clone()
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.weight = nn.Parameter(weight)
    return network
