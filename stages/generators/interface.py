"""What every trained model and every ONNX file can be asked, whatever its family."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.generators.noise import latents

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Capabilities:
    """What a generator takes and gives; export writes it into the ONNX file, so that both answer alike."""

    family: str
    latent_shape: tuple[int, ...]  # of one picture, without the batch
    resolution: int
    channels: int
    class_names: tuple[str, ...] = ()  # empty: not conditional
    prompt: bool = False
    image: bool = False
    mask: bool = False
    truncation: bool = False
    guidance: bool = False
    steps: int | None = None  # sampling steps; None: one pass

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"latent_shape": list(self.latent_shape), "class_names": list(self.class_names)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Capabilities":
        """Read what `to_json` returned."""
        return cls(**value | {"latent_shape": tuple(value["latent_shape"]), "class_names": tuple(value["class_names"])})


@dataclass(frozen=True)
class Request:
    """Pictures that are asked for: noise of shape (N, *latent_shape), float32, always passed in."""

    latent: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict)


class Generator(ABC):
    """A source of pictures: a trained model or an ONNX file."""

    capabilities: Capabilities
    identity: dict[str, str]  # sha256 of weights, data, settings: what the pictures come from

    @abstractmethod
    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1], one for each latent."""

    def draw(self, seeds: range, batch: int = 64) -> Iterator[np.ndarray]:
        """Draw the pictures of these seeds in batches; a seed gives the same picture in any batch."""
        for start in range(0, len(seeds), batch):
            part = seeds[start : start + batch]
            yield self.generate(Request(latents(part, self.capabilities.latent_shape)))


class TorchGenerator(Generator):
    """A trained model: a generator that also lends its network to export and to the benchmark's comparison."""

    network: "nn.Module"

    @abstractmethod
    def export_inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Return example inputs of the network by name, in the order of its `forward`, for tracing."""
