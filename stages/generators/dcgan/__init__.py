"""A trained DCGAN as a generator."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from stages.generators.interface import Capabilities, Request, TorchGenerator
from stages.generators.noise import latents
from stages.networks.dcgan import build_generator


class DcganGenerator(TorchGenerator):
    """The EMA generator of a weights folder, in evaluation mode, float32, on one device."""

    def __init__(self, network: torch.nn.Module, config: dict[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.identity = dict(config.get("identity", {}))
        self.capabilities = Capabilities("dcgan", (config["latent"],), config["resolution"], config["channels"])

    @torch.inference_mode()
    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1]."""
        device = next(self.network.parameters()).device
        drawn: np.ndarray = self.network(torch.from_numpy(request.latent).to(device)).float().cpu().numpy()
        return drawn

    def export_inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Return latents of the seeds 0 to batch - 1."""
        return {"latent": latents(range(batch), self.capabilities.latent_shape)}


def load(weights: Path, config: dict[str, Any]) -> DcganGenerator:
    """Open generator.safetensors with its config."""
    network = build_generator(config)
    network.load_state_dict(load_file(weights / "generator.safetensors"))
    return DcganGenerator(network, config)


def untrained(config: dict[str, Any], seed: int, weights: Path) -> DcganGenerator:
    """Return the same architecture with fresh weights, the baseline that training must beat."""
    torch.manual_seed(seed)
    return DcganGenerator(build_generator(config), config)
