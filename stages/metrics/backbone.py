"""What a feature network is before an engine runs it, and how its weights are read without running a file's code."""

import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from stages.errors import InputError
from stages.storage import sha256_bytes

RGB = tuple[float, float, float]
SHORT = 8  # digits of a sha256 in a score's name


@dataclass(frozen=True)
class Backbone:
    """A network and what its scores are called.

    `network` maps a prepared batch (N, 3, size, size) to a pair: features (N, dimension), logits (N, classes) or None.
    `mean` and `std` are those of each channel on values in [0, 255].
    """

    features: str
    label: str
    distance: str
    layer: str
    weights_sha256: str
    network: nn.Module
    dimension: int
    classes: int | None
    size: int
    mean: RGB
    std: RGB


@dataclass(frozen=True)
class WeightsFile:
    """A file's tensors by name, and the sha256 of the bytes from which they were read."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]

    @property
    def short(self) -> str:
        """The first digits of the sha256, for names."""
        return self.sha256[:SHORT]


def read_weights(path: Path, expected: str | None = None) -> WeightsFile:
    """Read a safetensors file or a PyTorch file of plain tensors, and nothing that would have to be executed.

    Raises:
        InputError: it cannot be read, has another sha256 than expected, or holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give the path of a file of weights") from error
    found = sha256_bytes(data)
    if expected not in (None, found):
        raise InputError(f"{path} has sha256 {found}, expected {expected}; give the file that was meant")
    try:
        tensors = load_safetensors(data) if path.suffix == ".safetensors" else _load_plain(data)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{path} (sha256 {found}) is no file of plain PyTorch tensors: {first_line(error)}") from error
    return WeightsFile(path, found, tensors)


def _load_plain(data: bytes) -> dict[str, Tensor]:
    with warnings.catch_warnings(action="ignore"):  # of TorchScript archives, which are refused
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("expected a dictionary of tensors, a state_dict")
    return dict(state)


def refuse_weights(weights: WeightsFile, network: str, error: Exception) -> InputError:
    """Return the error for weights that do not fit a network; it names the file's sha256."""
    return InputError(
        f"{weights.path} (sha256 {weights.sha256}) does not fit {network}: {first_line(error)}; "
        f"give the weights of {network}"
    )


def first_line(error: Exception) -> str:
    """Return an error's message as one short line."""
    return " ".join(str(error).split())[:200]
