"""Starts a training from the weights of another: what was taken, what was left, what is fresh, each by name."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.errors import InputError
from stages.settings.gans import GanSettings
from stages.storage import read_json, sha256_file
from stages.trainer.adversarial.adversaries import Adversaries

FILES = {"generator": "generator.safetensors", "discriminator": "discriminator.safetensors"}
NORMED = ".parametrizations.weight.original"  # where torch keeps a spectrally normalised layer's weight
PLAIN = ".weight"
NORM_STEPS = 15  # as torch takes for fresh weights
BLOCK = re.compile(r"blocks\.(\d+)\.")


def take_over(where: str, settings: GanSettings, game: Adversaries) -> dict[str, Any]:
    """Load what fits of the weights that `transfer` names into both networks and the average; returns what was done.

    Tensors are matched by name; one of another shape is left, so that the sizes and classes of pictures may differ.
    Empty where nothing is to be taken over.

    Raises:
        InputError: the weights are absent, not those named, of another family, or nothing in them fits.
    """
    if not settings.transfer.weights:
        return {}
    folder = Path(settings.transfer.weights)
    config = _config_of(where, settings, folder)
    report: dict[str, Any] = {"weights": str(folder), "sha256": config["identity"]["weights"]}
    for name, file in FILES.items():
        tensors, network = _read(where, folder / file), getattr(game, name)
        if name == "discriminator":
            tensors = renumber_blocks(tensors, network)
        report[name] = copy_matching(tensors, network)
        if not any(network.state_dict()[taken].dim() > 1 for taken in report[name]["taken"]):
            raise InputError(
                f"{where}.transfer.weights: no weight of {folder / file} has a name and shape of the {name} here; it "
                f"was trained with {_otherwise(config, settings)}"
            )
    game.average.load_state_dict(game.generator.state_dict())
    return report


def summarise(report: dict[str, Any]) -> list[str]:
    """Return a line for each network with how many of its tensors were taken, skipped and initialised."""
    counts = {name: ", ".join(f"{len(names)} {kind}" for kind, names in report[name].items()) for name in FILES}
    return [f"{name} from {report['weights']}: {told}" for name, told in counts.items()]


def _config_of(where: str, settings: GanSettings, folder: Path) -> dict[str, Any]:
    """Return the config of the weights folder, once it is known to be the one that is meant."""
    absent = [name for name in ("config.json", *FILES.values()) if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"{where}.transfer.weights is {folder}, which lacks {', '.join(absent)}; expected such as "
            "models/NAME/training/weights"
        )
    config: dict[str, Any] = read_json(folder / "config.json")
    found = config["identity"]["weights"]
    if config["family"] != settings.family:
        raise InputError(
            f"{where}.transfer.weights is of family {config['family']}; {settings.family} can start from weights of "
            f"family {settings.family} only"
        )
    if settings.transfer.sha256 != found:
        raise InputError(
            f"{where}.transfer.sha256 is {settings.transfer.sha256}, but {folder} holds {found}; set it to that if "
            "these weights are meant"
        )
    if sha256_file(folder / FILES["generator"]) != found:
        raise InputError(f"{where}.transfer.weights: {folder / FILES['generator']} has another sha256 than its config")
    return config


def _otherwise(config: dict[str, Any], settings: GanSettings) -> str:
    """Return what of the architecture is set otherwise here than in the config of weights."""
    own = {name: getattr(settings, name) for name in settings.ARCHITECTURE}
    found = [f"{name} {config[name]}, here {value}" for name, value in own.items() if config.get(name, value) != value]
    return "; ".join(found) or f"the same {', '.join(own)}, but at {config.get('resolution')} px"


def _read(where: str, path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{where}.transfer.weights: {path} cannot be read: {error}") from error


def renumber_blocks(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return a discriminator's tensors with its `blocks`, which count from the pictures, numbered as the network's are.

    Blocks of the same size then have the same number, counted from the last one, where the pictures' sizes differ.
    """
    shift = block_count(network.state_dict()) - block_count(tensors)
    found = {}
    for name, tensor in tensors.items():
        match = BLOCK.match(name)
        number = int(match[1]) + shift if match else 0
        new = f"blocks.{number}.{name[match.end() :]}" if match else name
        found[new if number >= 0 else f"{name} (of larger pictures)"] = tensor
    return found


def block_count(names: Iterable[str]) -> int:
    """Return how many numbered blocks have tensors of these names."""
    return len({match[1] for name in names if (match := BLOCK.match(name))})


@torch.no_grad()
def copy_matching(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, list[str]]:
    """Copy tensors into a network's parameters and buffers of the same name and shape; returns names.

    `taken`: copied. `skipped`: not in this network, or of another shape there. `initialised`: left as they were.
    """
    own = network.state_dict()
    aliases = {name.replace(NORMED, PLAIN): name for name in own if NORMED in name}
    incoming = {aliases.get(name, name) if name not in own else name: tensor for name, tensor in tensors.items()}
    taken = [name for name, tensor in incoming.items() if name in own and own[name].shape == tensor.shape]
    for name in taken:
        own[name].copy_(incoming[name])
    find_norms(network)
    skipped = [_why(name, tensor, own) for name, tensor in incoming.items() if name not in taken]
    return {"taken": taken, "skipped": skipped, "initialised": [name for name in own if name not in taken]}


def find_norms(network: nn.Module) -> None:
    """Let spectral norm find the singular vectors of new weights: plain ones come without, and one step is too few."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            found: Any = module.parametrizations["weight"]  # type: ignore[index]
            found[0]._power_method(found[0]._reshape_weight_to_matrix(found.original), NORM_STEPS)


def _why(name: str, tensor: Tensor, own: dict[str, Tensor]) -> str:
    """Return a skipped tensor's name, and the shapes where these differ."""
    return f"{name} {list(tensor.shape)} for {list(own[name].shape)}" if name in own else name
