"""What is told of an autoencoder: figures against other implementations, the bicubic beside them, the sheet."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from stages.autoencoder.encode import statistics
from stages.autoencoder.report import bicubic, compare, measure, reconstruct, ssim
from stages.dataset import ImageDataset, to_float
from stages.errors import InputError
from tests.unit.autoencoders import write_images
from tests.unit.denoising import random_pictures

KEPT = ("psnr", "ssim", "reconstruction_fd_efficientnet_lite0")


class Grey(nn.Module):
    """An autoencoder that keeps nothing but mid grey, and one that keeps all where it is told to."""

    device = torch.device("cpu")

    def __init__(self, perfect: bool) -> None:
        super().__init__()
        self.perfect = perfect

    def encode(self, pictures: Tensor, return_dict: bool) -> tuple[Any]:
        return (SimpleNamespace(mean=pictures, std=torch.ones(()), kl=lambda: pictures.flatten(1).sum(1)),)

    def decode(self, latent: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (latent if self.perfect else torch.zeros_like(latent),)


def pair(size: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy picture and its smoother version, uint8 (3, size, size)."""
    random = np.random.default_rng(seed)
    first = random.integers(0, 256, (3, size, size), dtype=np.uint8)
    second = (0.6 * first + 0.4 * random.integers(0, 256, first.shape)).astype(np.uint8)
    return first, second


def ssim_by_windows(first: np.ndarray, second: np.ndarray) -> float:
    """Return Wang 2004's index by explicit windows of 11 x 11 at each pixel, edges reflected."""
    steps = np.arange(-5, 6)
    line = np.exp(-(steps**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    found = []
    for x, y in zip(first.astype(float), second.astype(float), strict=True):
        x, y = (np.pad(plane, 5, mode="symmetric") for plane in (x, y))
        for row, column in np.ndindex(first.shape[1:]):
            a, b = (plane[row : row + 11, column : column + 11] for plane in (x, y))
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            shared = (window * (a - ma) * (b - mb)).sum()
            light = (2 * ma * mb + 2.55**2) / (ma**2 + mb**2 + 2.55**2)
            found.append(light * (2 * shared + 7.65**2) / (va + vb + 7.65**2))
    return float(np.mean(found))


def test_structural_similarity_equals_explicit_windows():
    first, second = pair()
    assert ssim(first, second) == pytest.approx(ssim_by_windows(first, second), abs=1e-6)
    assert 0.5 < ssim(first, second) < 0.95


def test_structural_similarity_is_1_of_equal_pictures_symmetric_and_known_of_flat_ones():
    """Flat pictures a and b: (2ab + C1) / (a^2 + b^2 + C1)."""
    first, second = pair(seed=1)
    assert ssim(first, first) == pytest.approx(1)
    assert ssim(first, second) == pytest.approx(ssim(second, first))
    dark, light = (np.full((1, 16, 16), value, np.uint8) for value in (50, 200))
    expected = (2 * 50 * 200 + 2.55**2) / (50**2 + 200**2 + 2.55**2)
    assert ssim(dark, light) == pytest.approx(expected)


def test_figures_are_means_over_pictures():
    """Two pictures whose errors are 0.2 and 0.02 everywhere have 20 and 40 dB."""
    originals = torch.zeros((2, 3, 16, 16))
    others = originals + torch.tensor([0.2, 0.02])[:, None, None, None]
    assert compare(originals, others)["psnr"] == pytest.approx(30, rel=1e-4)
    assert compare(originals, originals) == pytest.approx({"psnr": 100, "ssim": 1})


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_bicubic_reduction_keeps_what_the_factor_leaves(factor):
    """A ramp stays within a pixel of where it was, unshifted; the finest stripes lose everything but their mean."""
    ramp = torch.linspace(-0.9, 0.9, 32).expand(1, 3, 32, 32)
    reduced = bicubic(ramp, factor)
    assert reduced.shape == ramp.shape
    inside = (reduced - ramp)[..., factor:-factor]
    assert float(inside.abs().max()) < 1.8 / 31
    assert float(inside.mean()) == pytest.approx(0, abs=1e-5)
    stripes = torch.tensor([0.5, -0.5]).repeat(16).expand(1, 3, 32, 32)
    assert float(bicubic(stripes, factor)[..., factor:-factor, factor:-factor].abs().max()) < 0.1


def test_an_autoencoder_is_measured_beside_the_bicubic_reduction(tmp_path):
    pixels = random_pictures(12, 16)
    images = write_images(tmp_path / "images", pixels, ["holdout"] * 12)
    holdout = ImageDataset(images, "holdout")
    perfect, sheet = measure(Grey(perfect=True), holdout, 4, shown=3)  # type: ignore[arg-type]
    nothing, _ = measure(Grey(perfect=False), holdout, 4, shown=3)  # type: ignore[arg-type]
    assert perfect["psnr"] == pytest.approx(100)
    assert perfect["ssim"] == pytest.approx(1)
    assert perfect["reconstruction_fd_efficientnet_lite0"] == pytest.approx(0, abs=1e-3)
    expected = 10 * np.log10(4 / (to_float(holdout.pixels) ** 2).mean(axis=(1, 2, 3))).mean()
    assert nothing["psnr"] == pytest.approx(expected, rel=1e-4)
    for name in KEPT:
        between = perfect[f"bicubic_{name}"]
        assert between == nothing[f"bicubic_{name}"]
        assert min(perfect[name], nothing[name]) < between < max(perfect[name], nothing[name])
    rows = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
    side = (rows.shape[0] - 4 * 2 * 4) // 3
    assert rows.shape == (3 * side + 4 * 2 * 4, 3 * side + 4 * 2 * 4, 3)
    original, drawn = rows[8 : 8 + side], rows[16 + side : 16 + 2 * side]
    assert np.array_equal(original, drawn)
    assert not np.array_equal(original, rows[24 + 2 * side : 24 + 3 * side])


def test_the_divergence_is_the_mean_over_all_pictures():
    pictures = torch.rand((70, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    _, nats = reconstruct(Grey(perfect=True), pictures)  # type: ignore[arg-type]
    assert nats == pytest.approx(float(pictures.flatten(1).sum(1).mean()), rel=1e-5)


def test_nothing_held_out_is_refused_by_the_settings_name(tmp_path):
    images = write_images(tmp_path / "images", random_pictures(4, 16), ["train"] * 4)
    with pytest.raises(InputError, match=r"normalize\.holdout"):
        measure(Grey(perfect=True), ImageDataset(images, "holdout"), 4, shown=2)  # type: ignore[arg-type]


def test_latent_statistics_find_spread_tails_and_dead_channels():
    """Channel 0 has means of std 2, channel 1 none to speak of beside its noise, channel 2 heavy tails."""
    random = np.random.default_rng(0)
    means = np.stack(
        [
            random.normal(1, 2, (4000, 4, 4)),
            random.normal(0, 0.05, (4000, 4, 4)),
            random.laplace(0, 1, (4000, 4, 4)),
        ],
        axis=1,
    )
    stds = np.full_like(means, 0.5)
    stds[:, 1] = 1.0
    found = statistics(np.stack([means, stds], axis=1).astype(np.float32))
    drawn = means + stds * random.normal(size=means.shape)
    assert found["latent_mean"] == pytest.approx(drawn.mean(), abs=0.01)
    assert found["latent_std"] == pytest.approx(drawn.std(), rel=0.01)
    assert found["latent_kurtosis"] == pytest.approx(3, abs=0.5)
    assert found["latent_dead_channels"] == pytest.approx(1 / 3)
