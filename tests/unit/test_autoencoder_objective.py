"""The parts of an autoencoder's loss against their formulas, and that their gradients go where they should."""

import math

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from stages.trainer.reconstruction.objective import Reconstruction, adaptive_weight, divergence, psnr
from stages.trainer.reconstruction.perceptual import PerceptualDistance, open_perceptual, unit_vectors

CPU = torch.device("cpu")


class TwoMaps(nn.Module):
    """A network of one convolution whose maps are its output, whole and halved."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        maps = self.layer(pictures)
        return [maps, maps[:, :, ::2, ::2]]


def pictures(count: int = 2, size: int = 64, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.rand((count, channels, size, size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def looking() -> PerceptualDistance:
    """The distance in EfficientNet-Lite0's features."""
    return open_perceptual("efficientnet_lite0", CPU)


def test_the_perceptual_gradient_reaches_the_pictures_and_nothing_else():
    distance = PerceptualDistance(TwoMaps())
    drawn, wanted = pictures().requires_grad_(), pictures(seed=1).requires_grad_()
    distance(drawn, wanted).backward()
    assert drawn.grad is not None
    assert float(drawn.grad.abs().min(dim=1).values.max()) > 0
    assert wanted.grad is None
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_the_perceptual_distance_is_that_of_unit_vectors_at_each_position():
    """By numpy: of each map the mean over positions of the squared distance of directions, summed over maps."""
    features = TwoMaps()
    first, second = pictures(), pictures(seed=1)
    expected = 0.0
    with torch.no_grad():
        for ours, theirs in zip(features(first), features(second), strict=True):
            a, b = ours.double().numpy(), theirs.double().numpy()
            a, b = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (a, b))
            expected += ((a - b) ** 2).sum(axis=1).mean()
    assert float(PerceptualDistance(features)(first, second)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("size", "channels"), [(8, 3), (32, 3), (32, 1), (64, 3), (128, 3)])
def test_efficientnet_tells_pictures_apart_at_any_size_and_moves_them_closer(looking, size, channels):
    wanted, drawn = pictures(2, size, channels), pictures(2, size, channels, seed=1).requires_grad_()
    assert float(looking(wanted, wanted)) == pytest.approx(0, abs=1e-6)
    far = looking(drawn, wanted)
    (gradient,) = torch.autograd.grad(far, drawn)
    assert gradient.shape == drawn.shape
    moved = drawn.detach() - 0.5 * gradient / gradient.abs().max()
    assert float(looking(moved, wanted)) < float(far.detach())


def test_a_blurred_picture_is_farther_than_a_slightly_brighter_one_of_the_same_absolute_error(looking):
    """What the absolute error cannot see: the structure is gone."""
    sharp = torch.nn.functional.interpolate(pictures(4, 8), scale_factor=4, mode="nearest") * 0.8
    blurred = torch.nn.functional.avg_pool2d(sharp, 5, 1, 2, count_include_pad=False)
    brighter = sharp + (blurred - sharp).abs().mean()
    assert float(looking(blurred, sharp)) > 3 * float(looking(brighter, sharp))


def test_unit_vectors_have_length_1_and_a_finite_gradient_where_a_map_is_zero():
    maps = torch.randn((1, 4, 2, 2), generator=torch.Generator().manual_seed(0))
    maps[:, :, 0, 0] = 0
    maps.requires_grad_()
    directions = unit_vectors(maps)
    lengths = directions.detach().norm(dim=1)[0]
    assert lengths[0, 0] == 0
    assert lengths.flatten()[1:] == pytest.approx(torch.ones(3), abs=1e-5)
    directions.sum().backward()
    assert maps.grad is not None
    assert bool(torch.isfinite(maps.grad).all())


def test_the_reconstruction_loss_is_the_weighted_sum_of_its_parts():
    first, second = pictures(), pictures(seed=1)
    distance = PerceptualDistance(TwoMaps())
    loss, parts = Reconstruction(2.0, 0.5, distance)(first, second)
    absolute = float((first - second).abs().mean())
    assert float(parts["l1"]) == pytest.approx(absolute)
    assert float(parts["perceptual"]) == pytest.approx(float(distance(first, second)))
    assert float(loss) == pytest.approx(2 * absolute + 0.5 * float(parts["perceptual"]))
    alone, _ = Reconstruction(1.0, 0.0, None)(first, second)
    assert float(alone) == pytest.approx(absolute)


def test_the_divergence_is_torchs_summed_over_the_latent():
    random = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn((3, 4, 2, 2), generator=random) for _ in range(2))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum((1, 2, 3)).mean()
    found = divergence(DiagonalGaussianDistribution(torch.cat([mean, log_variance], 1)))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert float(divergence(DiagonalGaussianDistribution(torch.zeros(3, 8, 2, 2)))) == 0


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_norms_within_bounds():
    reconstruction = torch.tensor([3.0, 4.0], requires_grad=True)
    adversarial = torch.tensor([0.0, 0.5])
    weight = adaptive_weight(reconstruction, adversarial)
    assert float(weight) == pytest.approx(5 / (0.5 + 1e-6), rel=1e-6)
    assert not weight.requires_grad
    assert float(adaptive_weight(reconstruction, torch.zeros(2))) == 1e4
    assert float(adaptive_weight(torch.zeros(2), adversarial)) == 0


def test_the_peak_signal_to_noise_ratio_is_each_pictures_own():
    """Errors of 0.2 and 0.02 everywhere, in a range of 2: 20 and 40 dB; equal pictures have the most that is told."""
    wanted = torch.zeros((3, 1, 4, 4))
    drawn = wanted + torch.tensor([0.2, 0.02, 0.0])[:, None, None, None]
    assert psnr(drawn, wanted).tolist() == pytest.approx([20, 40, 100], rel=1e-4)
    assert float(psnr(torch.full((1, 1, 2, 2), 3.0), torch.ones((1, 1, 2, 2)))) == pytest.approx(100)
    half = torch.tensor([[[[1.0, -1.0]]]])
    assert float(psnr(half, -half)) == pytest.approx(10 * math.log10(4 / 4))
