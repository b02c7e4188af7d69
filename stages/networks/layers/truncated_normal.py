"""Normal noise made truncated normal noise, by operations that autograd and ONNX express as they are."""

import math

import torch
from torch import Tensor

CENTRE = (  # of a polynomial in w - 2.5 for w = -log(1 - x^2) below 5, highest power first (Giles 2012, float32)
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
TAIL = (  # of a polynomial in sqrt(w) - 3 for the others
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)
BOUNDARY = 5.0
COMPLEMENT = (  # of exp(x^2) erfc(x) / t as a polynomial in t = 1 / (1 + x / 2): own minimax fit for x in [0, 7.3]
    -0.056913384,
    0.273886862,
    -0.464649979,
    0.251695893,
    -0.007981454,
    0.194551127,
    0.24523731,
    0.282068734,
    0.282104856,
)
SMALLEST = 2.0**-40  # of a normal value 7 deviations out, where both fits end; it keeps logarithms finite


def truncate(latent: Tensor, threshold: Tensor, never: float) -> Tensor:
    """Map normal values (N, D) to truncated normal ones in [-threshold, threshold], threshold (N,), order kept.

    z' = sqrt(2) erfinv(erf(z / sqrt(2)) erf(t / sqrt(2))): the quantile within [-t, t] that z has among all. It has
    the distribution of Brock 2019's resampling (section 3.1) without further random numbers. From the threshold `never`
    on values stay as they are.
    """
    limit = threshold[:, None]
    x, bound = latent / math.sqrt(2), limit / math.sqrt(2)
    # the distance of the product from 1 comes from small numbers, since float32 has no finer steps near 1
    beyond, cut = complement(x.abs()), complement(bound)
    found = math.sqrt(2) * inverse_erf(torch.erf(x) * torch.erf(bound), beyond + cut * (1 - beyond))
    inside = torch.minimum(torch.maximum(found, -limit), limit)  # rounding may pass them
    return torch.where(limit >= never, latent, inside)


def complement(x: Tensor) -> Tensor:
    """Return erfc(x) = 1 - erf(x) for x >= 0 with a relative error of about 1e-6 (ONNX has no such operation)."""
    t = 1 / (1 + x / 2)
    return t * polynomial(COMPLEMENT, t) * torch.exp(-x * x)


def inverse_erf(x: Tensor, distance: Tensor) -> Tensor:
    """Return the inverse of the error function, always finite, at x in [-1, 1]; `distance` is 1 - |x| (Giles 2012)."""
    distance = distance.clamp(min=SMALLEST)
    w = -torch.log(distance * (2 - distance))
    centre = polynomial(CENTRE, w - 2.5)
    tail = polynomial(TAIL, w.clamp(min=BOUNDARY).sqrt() - 3)  # clamped: the root's gradient at 0 is infinite
    return torch.where(w < BOUNDARY, centre, tail) * x


def polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Evaluate a polynomial by Horner's rule, its highest power first."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
