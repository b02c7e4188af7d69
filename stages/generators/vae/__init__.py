"""A variational autoencoder as a generator: standard normal latents, decoded (Kingma 2014)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.generators.interface import Capabilities, Request, TorchGenerator
from stages.generators.noise import latents
from stages.networks.vae import PictureDecoder, build_autoencoder


class VaeGenerator(TorchGenerator):
    """The decoder of a weights folder, in evaluation mode, float32, on one device."""

    def __init__(self, network: PictureDecoder, config: dict[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.identity = dict(config.get("identity", {}))
        self.capabilities = Capabilities("vae", tuple(config["latent_shape"]), config["resolution"], config["channels"])

    @torch.inference_mode()
    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1]."""
        device = next(self.network.parameters()).device
        drawn: np.ndarray = self.network(torch.from_numpy(request.latent).to(device)).float().cpu().numpy()
        return drawn

    def export_inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Return latents of the seeds 0 to batch - 1."""
        return {"latent": latents(range(batch), self.capabilities.latent_shape)}


def load(weights: Path, config: dict[str, Any]) -> VaeGenerator:
    """Open the folder `vae` of a weights folder."""
    from diffusers.models import AutoencoderKL

    opened = AutoencoderKL.from_pretrained(weights / "vae", local_files_only=True)
    return VaeGenerator(PictureDecoder(opened), config)


def untrained(config: dict[str, Any], seed: int, weights: Path) -> VaeGenerator:
    """Return the same architecture with fresh weights, the baseline that training must beat."""
    torch.manual_seed(seed)
    return VaeGenerator(PictureDecoder(build_autoencoder(config)), config)
