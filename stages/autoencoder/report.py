"""How well an autoencoder keeps hold-out pictures, beside a bicubic reduction by the same factor."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import interpolate

from stages.dataset import ImageDataset, to_uint8
from stages.errors import InputError
from stages.metrics.feature_networks import open_network
from stages.metrics.frechet import frechet_distance
from stages.metrics.gaussians import Features
from stages.sheet import sheet
from stages.trainer.reconstruction.objective import psnr

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

BATCH = 64
NETWORK = "efficientnet_lite0"
SIGMA, TRUNCATE = 1.5, 3.5  # of the window of 11 x 11 (Wang 2004, section III.C)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def measure(
    autoencoder: "AutoencoderKL", holdout: ImageDataset, factor: int, shown: int
) -> tuple[dict[str, Any], bytes]:
    """Return the figures of both, and a sheet as PNG: rows of originals, reconstructions, bicubic reductions.

    Raises:
        InputError: nothing is held out.
    """
    if not len(holdout):
        raise InputError("no picture is held out (normalize.holdout): nothing tells how well the autoencoder works")
    originals = torch.from_numpy(holdout.pictures(slice(None)))
    drawn, nats = reconstruct(autoencoder, originals)
    reduced = bicubic(originals, factor)
    compared = [compare(originals, others) for others in (drawn, reduced)]
    figures = compared[0] | {"kl_nats": nats}
    figures |= {f"bicubic_{name}": value for name, value in compared[1].items()}
    names = ("reconstruction_fd_", "bicubic_reconstruction_fd_")
    figures |= {
        f"{name}{NETWORK}": value for name, value in zip(names, distances([originals, drawn, reduced]), strict=True)
    }
    chosen = np.linspace(0, len(originals) - 1, shown).astype(int)
    return figures, as_png([originals[chosen], drawn[chosen], reduced[chosen]])


@torch.no_grad()
def reconstruct(autoencoder: "AutoencoderKL", pictures: Tensor) -> tuple[Tensor, float]:
    """Return reconstructions at the posterior's mean, in [-1, 1], and the mean divergence from N(0, 1) in nats."""
    drawn, nats = [], []
    for part in pictures.split(BATCH):
        posterior = autoencoder.encode(part.to(autoencoder.device), return_dict=False)[0]
        nats.append(posterior.kl().float().cpu())
        drawn.append(autoencoder.decode(posterior.mean, return_dict=False)[0].clamp(-1, 1).float().cpu())
    return torch.cat(drawn), float(torch.cat(nats).mean())


def bicubic(pictures: Tensor, factor: int) -> Tensor:
    """Return pictures reduced by a factor, antialiased, and enlarged again, in [-1, 1]."""
    size = pictures.shape[-1]
    small = interpolate(pictures, size=(size // factor, size // factor), mode="bicubic", antialias=True)
    return interpolate(small, size=(size, size), mode="bicubic").clamp(-1, 1)


def compare(originals: Tensor, others: Tensor) -> dict[str, float]:
    """Return mean PSNR in dB and mean SSIM."""
    pixels = [to_uint8(values.numpy()) for values in (originals, others)]
    return {
        "psnr": float(psnr(others, originals).mean()),
        "ssim": float(np.mean([ssim(*pair) for pair in zip(*pixels, strict=True)])),
    }


def distances(sets: list[Tensor]) -> list[float]:
    """Return the Fréchet distances of the later sets to the first, in EfficientNet-Lite0's features."""
    network = open_network(NETWORK, device=torch.device("cpu"))
    features = []
    for pictures in sets:
        pixels = to_uint8(pictures.numpy())
        found = [network.classify(pixels[n : n + BATCH])[0] for n in range(0, len(pixels), BATCH)]
        features.append(Features(np.concatenate(found), "pictures"))
    return [frechet_distance(other, features[0]) for other in features[1:]]


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Return the structural similarity of two uint8 pictures (C, H, W), the mean over channels and positions.

    Gaussian window of standard deviation 1.5 (Wang 2004, equation 13).
    """
    x, y = first.astype(np.float64), second.astype(np.float64)

    def smooth(values: np.ndarray) -> np.ndarray:
        smoothed: np.ndarray = gaussian_filter(values, (0, SIGMA, SIGMA), truncate=TRUNCATE)
        return smoothed

    mx, my = smooth(x), smooth(y)
    vx, vy, covariance = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    similar = (2 * mx * my + C1) * (2 * covariance + C2) / ((mx**2 + my**2 + C1) * (vx + vy + C2))
    return float(similar.mean())


def as_png(rows: list[Tensor]) -> bytes:
    """Return rows of pictures (N, C, H, W) in [-1, 1] as one sheet."""
    pictures = to_uint8(torch.cat(rows).numpy()).transpose(0, 2, 3, 1)
    buffer = io.BytesIO()
    sheet(pictures, columns=len(rows[0]), zoom=max(1, 64 // pictures.shape[1]), gap=2).save(buffer, "PNG")
    return buffer.getvalue()


def show(name: str, figures: dict[str, Any]) -> str:
    """Return one line with what a reader wants to know first."""
    return (
        f"{name}: hold-out PSNR {figures['psnr']:.2f} dB (bicubic {figures['bicubic_psnr']:.2f}), SSIM "
        f"{figures['ssim']:.3f} ({figures['bicubic_ssim']:.3f}), latents of standard deviation "
        f"{figures['latent_std']:.3f}"
    )
