"""Losses of discriminator and generator on logits, where higher means more real."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus


@dataclass(frozen=True)
class Objective:
    """A pair of losses; each returns a scalar. `paired`: the generator's needs logits of real pictures, too."""

    discriminator: Callable[[Tensor, Tensor, float], Tensor]  # real logits, fake logits, one-sided label smoothing
    generator: Callable[..., Tensor]  # fake logits, and real logits where they are paired
    paired: bool = False


def cross_entropy_discriminator(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    """Return -E[(1 - s) log D(x) + s log(1 - D(x))] - E[log(1 - D(G(z)))].

    Goodfellow 2014, equation 1; one-sided label smoothing s: Salimans 2016, section 3.4.
    """
    on_real = (1 - smoothing) * softplus(-real) + smoothing * softplus(real)
    return on_real.mean() + softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """Return -E[log D(G(z))] (Goodfellow 2014, section 3)."""
    return softplus(-fake).mean()


def saturating_generator(fake: Tensor) -> Tensor:
    """Return E[log(1 - D(G(z)))] (Goodfellow 2014, equation 1)."""
    return -softplus(fake).mean()


def least_squares_discriminator(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    """Return E[(D(x) - (1 - s))^2] / 2 + E[D(G(z))^2] / 2 (Mao 2017, equation 9)."""
    return ((real - (1 - smoothing)).square().mean() + fake.square().mean()) / 2


def least_squares_generator(fake: Tensor) -> Tensor:
    """Return E[(D(G(z)) - 1)^2] / 2 (Mao 2017, equation 9)."""
    return (fake - 1).square().mean() / 2


def hinge_discriminator(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    """Return E[max(0, 1 - s - D(x))] + E[max(0, 1 + D(G(z)))] (Lim, Ye 2017; Miyato 2018, equation 16)."""
    return relu(1 - smoothing - real).mean() + relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Return -E[D(G(z))] (Miyato 2018, equation 17)."""
    return -fake.mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    """Return E[D(G(z))] - E[D(x)] (Arjovsky 2017, equation 3); `smoothing` has no meaning for a critic."""
    return fake.mean() - real.mean()


def relativistic_discriminator(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    """Return E[softplus(-(D(x) - D(G(z))))] of pairs (Jolicoeur-Martineau 2019; Huang 2024, equation 2)."""
    return softplus(fake - real).mean()


def relativistic_generator(fake: Tensor, real: Tensor) -> Tensor:
    """Return E[softplus(-(D(G(z)) - D(x)))] of the same pairs."""
    return softplus(real - fake).mean()


OBJECTIVES = {
    "non_saturating": Objective(cross_entropy_discriminator, non_saturating_generator),
    "saturating": Objective(cross_entropy_discriminator, saturating_generator),
    "least_squares": Objective(least_squares_discriminator, least_squares_generator),
    "hinge": Objective(hinge_discriminator, hinge_generator),
    "wasserstein": Objective(wasserstein_discriminator, hinge_generator),
    "relativistic": Objective(relativistic_discriminator, relativistic_generator, paired=True),
}
