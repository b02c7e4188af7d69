"""A trained GAN as a generator, whatever its architecture: what the network takes is what can be asked."""

import importlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.generators.interface import Capabilities, Request, TorchGenerator
from stages.generators.noise import latents
from stages.networks.contract import GeneratorNetwork, MappedGenerator
from stages.networks.layers.spectral import bake_norms


class AdversarialGenerator(TorchGenerator):
    """The EMA generator of a weights folder, in evaluation mode, float32, on one device; layer noise is constant."""

    network: "PlainInputs"

    def __init__(self, network: GeneratorNetwork, config: dict[str, Any]) -> None:
        truncated = network.no_truncation is not None
        self.network = PlainInputs(network, bool(config["class_names"]), truncated).eval().requires_grad_(False)
        self.identity = dict(config.get("identity", {}))
        self.capabilities = Capabilities(
            config["family"],
            (config["latent"],),
            config["resolution"],
            config["channels"],
            tuple(config["class_names"]),
            truncation=truncated,
            default_truncation=network.no_truncation or 1.0,
        )

    @torch.inference_mode()
    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1].

        Raises:
            InputError: a picture's class is not told.
        """
        return self._numpy(self.network(*self._placed(self._inputs(request))))

    def _inputs(self, request: Request) -> dict[str, np.ndarray]:
        takes, found = self.capabilities, {"latent": request.latent}
        if takes.class_names:
            found["label"] = request.classes(takes)
        if takes.truncation:
            found["truncation"] = request.truncations(takes)
        return found

    def _placed(self, inputs: dict[str, np.ndarray]) -> list[Tensor]:
        device = next(self.network.parameters()).device
        return [torch.from_numpy(value).to(device) for value in inputs.values()]

    def _numpy(self, pictures: Tensor) -> np.ndarray:
        drawn: np.ndarray = pictures.float().cpu().numpy()
        return drawn

    @property
    def layers(self) -> int:
        """Styles of a picture, 0 of a network without a mapping."""
        inner = self.network.inner
        return inner.layers if isinstance(inner, MappedGenerator) else 0

    @torch.inference_mode()
    def mix(self, coarse: np.ndarray, fine: np.ndarray, crossover: int, label: np.ndarray | None = None) -> np.ndarray:
        """Draw pictures with styles of the latents `coarse` up to a layer and of `fine` from it on (Karras 2019, 3.1).

        Both are float32 (N, latent), `label` int64 (N,) where there are classes; pictures are as `generate` gives them.
        """
        inner = cast(MappedGenerator, self.network.inner)
        placed = self._placed({"coarse": coarse, "fine": fine} | ({} if label is None else {"label": label}))
        first, second = (inner.mapping(latent, *placed[2:])[:, None] for latent in placed[:2])
        below = torch.arange(self.layers, device=first.device)[None, :, None] < crossover
        return self._numpy(inner.synthesis(torch.where(below, first, second)).clamp(-1, 1))

    def export_inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Return latents of the seeds 0 to batch - 1, classes in turn, and truncations on both sides of the default."""
        takes = self.capabilities
        found = {"latent": latents(range(batch), takes.latent_shape)}
        if takes.class_names:
            found["label"] = np.arange(batch, dtype=np.int64) % len(takes.class_names)
        if takes.truncation:
            found["truncation"] = (takes.default_truncation * np.linspace(0.3, 1, batch)[::-1]).astype(np.float32)
        return found


class PlainInputs(nn.Module):
    """A generator network that takes exactly what it has, in the order latent, label, truncation."""

    def __init__(self, inner: GeneratorNetwork, labelled: bool, truncated: bool) -> None:
        super().__init__()
        self.inner, self.labelled, self.truncated = inner, labelled, truncated

    def forward(self, latent: Tensor, *others: Tensor) -> Tensor:
        """Draw pictures in [-1, 1]."""
        label = others[0] if self.labelled else None
        truncation = others[-1] if self.truncated else None
        drawn: Tensor = self.inner(latent, label, truncation)
        return drawn.clamp(-1, 1)  # only some networks end in a tanh


def build(config: dict[str, Any]) -> GeneratorNetwork:
    """Return the untrained network of a config, with plain weights."""
    family = importlib.import_module(f"stages.networks.{config['family']}")
    network: GeneratorNetwork = family.build_generator({"class_names": [], **config})
    bake_norms(network)
    return network


def load(weights: Path, config: dict[str, Any]) -> AdversarialGenerator:
    """Open generator.safetensors with its config."""
    network = build(config)
    network.load_state_dict(load_file(weights / "generator.safetensors"))
    return AdversarialGenerator(network, config)


def untrained(config: dict[str, Any], seed: int, weights: Path) -> AdversarialGenerator:
    """Return the same architecture with fresh weights, the baseline that training must beat."""
    torch.manual_seed(seed)
    return AdversarialGenerator(build(config), config)
